// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// leaf is a field of the spec that has no fields of its own.
type leaf struct {
	path  string // verification.cosign.authorities[].name
	spec  *v1alpha1.ImageConfigSpec
	value reflect.Value // inside spec
}

// leaves makes, for each leaf of the spec, a spec in which only it is set.
func leaves(t *testing.T) []leaf {
	t.Helper()
	var all []leaf
	var walk func(kind reflect.Type, path string, to func(reflect.Value) reflect.Value)
	walk = func(kind reflect.Type, path string, to func(reflect.Value) reflect.Value) {
		switch {
		case kind == reflect.TypeFor[runtime.RawExtension]():
		case kind.Kind() == reflect.Pointer:
			walk(kind.Elem(), path, func(root reflect.Value) reflect.Value {
				at := to(root)
				if at.IsNil() {
					at.Set(reflect.New(kind.Elem()))
				}
				return at.Elem()
			})
			return
		case kind.Kind() == reflect.Slice:
			walk(kind.Elem(), path+"[]", func(root reflect.Value) reflect.Value {
				at := to(root)
				if at.Len() == 0 {
					at.Set(reflect.MakeSlice(kind, 1, 1))
				}
				return at.Index(0)
			})
			return
		case kind.Kind() == reflect.Struct:
			for i := range kind.NumField() {
				name, _, _ := strings.Cut(kind.Field(i).Tag.Get("json"), ",")
				if name == "" || name == "-" {
					t.Fatalf("%s: field %s has no name in JSON", path, kind.Field(i).Name)
				}
				walk(kind.Field(i).Type, strings.TrimPrefix(path+"."+name, "."), func(root reflect.Value) reflect.Value {
					return to(root).Field(i)
				})
			}
			return
		}
		spec := &v1alpha1.ImageConfigSpec{}
		all = append(all, leaf{path, spec, to(reflect.ValueOf(spec).Elem())})
	}
	walk(reflect.TypeFor[v1alpha1.ImageConfigSpec](), "", func(root reflect.Value) reflect.Value { return root })
	return all
}

// fill gives a value that is not the zero value.
func fill(t *testing.T, l leaf) {
	t.Helper()
	switch l.value.Kind() {
	case reflect.String:
		text := "x"
		if l.path == "verification.bundle.nested" {
			text = string(v1alpha1.NestedVerify)
		}
		l.value.SetString(text)
	case reflect.Bool:
		l.value.SetBool(true)
	case reflect.Map:
		l.value.Set(reflect.ValueOf(map[string]string{"x": "x"}))
	case reflect.Struct: // RawExtension
		l.value.Set(reflect.ValueOf(runtime.RawExtension{Raw: []byte(`{"type":"reject"}`)}))
		l.spec.Verification.Provider = v1alpha1.ProviderContainersPolicy
	default:
		t.Fatalf("%s: how is a %s filled?", l.path, l.value.Kind())
	}
}

const supported = `
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{type: Prefix, prefix: registry1.com/acme-co/}]
  namespaceSelector:
    matchLabels: {env: prod}
    matchExpressions: [{key: tier, operator: In, values: [web]}]
  mode: Enforce
  registry:
    authentication:
      pullSecretRef: {name: pull}
      realms: [auth.io]
      inject:
        namespaceSelector:
          matchLabels: {env: shop}
          matchExpressions: [{key: kind, operator: In, values: [outer]}]
    tls: {certSecretRef: {name: tls}}
  rewriteImage: {prefix: mirror.corp/acme/, target: Pod}
  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: release
        key: {secretRef: {name: keys, key: cosign.pub}, hashAlgorithm: sha256}
        annotations: {env: prod}
      - name: written
        key: {data: "%s"}
      - name: service
        key: {kms: "awskms:///alias/one"}
      - name: none
        static: {action: fail}
      - name: keyless
        keyless:
          identities:
          - {issuer: "https://a.io", subject: one@a.io}
          - {issuerRegExp: "https://b[.]io", subjectRegExp: "one@b[.]io"}
          trustRootRef: {kind: ConfigMap, name: roots, key: all.json}
          insecureIgnoreSCT: false
        ctlog: {url: "https://rekor.localhost", trustRootRef: {kind: Secret, name: log-roots, key: log.json}}
        rfc3161timestamp: {trustRootRef: {kind: ConfigMap, name: time-roots, key: time.json}}
        attestations:
        - {name: sbom, predicateType: spdx, policy: {type: cue, data: "a: 1"}}
        - {name: scan, predicateType: vuln, policy: {type: cel, configMapRef: {name: policies, key: scan.cel}}}
        source:
        - {oci: sigs.io/one, tagPrefix: p-, signaturePullSecrets: [{name: pull}]}
`

// supportedRequirements is for the other provider.
const supportedRequirements = `
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{type: Prefix, prefix: registry1.com/acme-co/}]
  verification:
    provider: ContainersPolicy
    containersPolicy:
      requirements: [{type: sigstoreSigned, keyPath: "secret://keys/cosign.pub", signedIdentity: {type: matchRepository}}]
`

const (
	keyOne = `-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDM0LBYjs6emcNUJlnUE84lFjPa/z\nH9PWOFHRimaI8unMzPVBxDr0wbc4nEHpGJlJLRJX+kLlBC2C0ymhYpGXWw==\n-----END PUBLIC KEY-----\n`
	keyTwo = `-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEKqBDvCp8Ip8BU/SOdvTPeOkUDg88\n2445tv0cGt9gHlUv+lJJpoIn1MlEbtSe05AKC+NzyJjyaVokG0j/H5Tfzg==\n-----END PUBLIC KEY-----\n`
)

// used is what the compiler reads, and an edit of supported that only a
// compiler who reads it notices.
var used = map[string][2]string{
	"matchImages[].type":                            {"type: Prefix", "type: Glob"},
	"matchImages[].prefix":                          {"acme-co/", "other/"},
	"namespaceSelector.matchLabels":                 {"{env: prod}\n    match", "{env: test}\n    match"},
	"namespaceSelector.matchExpressions[].key":      {"key: tier", "key: other"},
	"namespaceSelector.matchExpressions[].operator": {"operator: In", "operator: NotIn"},
	"namespaceSelector.matchExpressions[].values[]": {"[web]", "[db]"},
	"mode":                             {"Enforce", "Audit"},
	"registry.authentication.provider": {"pullSecretRef: {name: pull}\n", "provider: AWS\n"},
	"registry.authentication.pullSecretRef.name":                                   {"{name: pull}", "{name: absent}"},
	"registry.authentication.realms[]":                                             {"[auth.io]", "[other.io]"},
	"registry.authentication.inject.namespaceSelector.matchLabels":                 {"{env: shop}", "{env: lab}"},
	"registry.authentication.inject.namespaceSelector.matchExpressions[].key":      {"key: kind", "key: other"},
	"registry.authentication.inject.namespaceSelector.matchExpressions[].operator": {"kind, operator: In", "kind, operator: NotIn"},
	"registry.authentication.inject.namespaceSelector.matchExpressions[].values[]": {"[outer]", "[inner]"},
	"registry.tls.certSecretRef.name":                                              {"{name: tls}", "{name: other-tls}"},
	"registry.insecurePlainHTTP":                                                   {"tls: {certSecretRef: {name: tls}}", "insecurePlainHTTP: true"},
	"rewriteImage.prefix":                                                          {"mirror.corp/acme/", "mirror.corp/other/"},
	"rewriteImage.target":                                                          {"target: Pod", "target: Lookup"},
	"verification.provider":                                                        {"provider: Cosign", "provider: Other"},
	"verification.cosign.authorities[].name":                                       {"name: release", "name: other"},
	"verification.cosign.authorities[].key.data":                                   {keyOne, keyTwo},
	"verification.cosign.authorities[].key.secretRef.name":                         {"name: keys", "name: other-keys"},
	"verification.cosign.authorities[].key.secretRef.key":                          {"cosign.pub", "other.pub"},
	"verification.cosign.authorities[].key.hashAlgorithm":                          {"sha256", "sha512"},
	"verification.cosign.authorities[].static.action":                              {"action: fail", "action: pass"},
	"verification.cosign.authorities[].annotations":                                {"annotations: {env: prod}", "annotations: {env: test}"},

	"verification.containersPolicy.requirements[]": {"secret://keys/cosign.pub", "secret://keys/other.pub"},

	"verification.cosign.authorities[].key.kms":                                 {"alias/one", "alias/two"},
	"verification.cosign.authorities[].keyless.identities[].issuer":             {"https://a.io", "https://c.io"},
	"verification.cosign.authorities[].keyless.identities[].subject":            {"subject: one@", "subject: two@"},
	"verification.cosign.authorities[].keyless.identities[].issuerRegExp":       {"https://b", "https://c"},
	"verification.cosign.authorities[].keyless.identities[].subjectRegExp":      {`"one@b`, `"two@b`},
	"verification.cosign.authorities[].keyless.trustRootRef.kind":               {"{kind: ConfigMap, name: roots", "{kind: Secret, name: roots"},
	"verification.cosign.authorities[].keyless.trustRootRef.name":               {"name: roots", "name: time-roots"},
	"verification.cosign.authorities[].keyless.trustRootRef.key":                {"all.json", "other.json"},
	"verification.cosign.authorities[].keyless.insecureIgnoreSCT":               {"SCT: false", "SCT: true"},
	"verification.cosign.authorities[].ctlog.url":                               {"https://rekor.localhost", "https://rekor.other"},
	"verification.cosign.authorities[].ctlog.trustRootRef.kind":                 {"{kind: Secret, name: log", "{kind: ConfigMap, name: log"},
	"verification.cosign.authorities[].ctlog.trustRootRef.name":                 {"name: log-roots", "name: other-roots"},
	"verification.cosign.authorities[].ctlog.trustRootRef.key":                  {"log.json", "other.json"},
	"verification.cosign.authorities[].rfc3161timestamp.trustRootRef.kind":      {"{kind: ConfigMap, name: time", "{kind: Secret, name: time"},
	"verification.cosign.authorities[].rfc3161timestamp.trustRootRef.name":      {"name: time-roots", "name: roots"},
	"verification.cosign.authorities[].rfc3161timestamp.trustRootRef.key":       {"time.json", "other.json"},
	"verification.cosign.authorities[].attestations[].name":                     {"name: sbom", "name: bill"},
	"verification.cosign.authorities[].attestations[].predicateType":            {"predicateType: spdx", "predicateType: cyclonedx"},
	"verification.cosign.authorities[].attestations[].policy.type":              {"type: cue", "type: rego"},
	"verification.cosign.authorities[].attestations[].policy.data":              {"a: 1", "a: 2"},
	"verification.cosign.authorities[].attestations[].policy.configMapRef.name": {"name: policies", "name: other-policies"},
	"verification.cosign.authorities[].attestations[].policy.configMapRef.key":  {"scan.cel", "other.cel"},
	"verification.cosign.authorities[].source[].oci":                            {"sigs.io/one", "sigs.io/two"},
	"verification.cosign.authorities[].source[].tagPrefix":                      {"p-", "q-"},
	"verification.cosign.authorities[].source[].signaturePullSecrets[].name":    {"[{name: pull}]", "[{name: other-pull}]"},
}

// TestEveryField: each field of the API either makes a difference to what is
// compiled, or is refused as not supported. Never is one ignored.
func TestEveryField(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	examples := map[bool]string{false: fmt.Sprintf(supported, keyOne), true: supportedRequirements}
	for _, example := range examples {
		if before := w.fingerprint(t, example); !strings.HasPrefix(before, "true ") {
			t.Fatalf("the example is not ready: %s", before)
		}
	}
	seen := map[string]bool{}
	for _, l := range leaves(t) {
		seen[l.path] = true
		fill(t, l)
		refused := len(unsupported(l.spec)) > 0
		edit, reads := used[l.path]
		switch {
		case refused && reads:
			t.Errorf("%s: refused as not supported, and read", l.path)
		case !refused && !reads:
			t.Errorf("%s: neither read nor refused as not supported: who writes it relies on it", l.path)
		case reads:
			document := examples[strings.HasPrefix(l.path, "verification.containersPolicy.")]
			changed := strings.Replace(document, edit[0], edit[1], 1)
			if changed == document {
				t.Errorf("%s: the edit changes nothing", l.path)
			} else if w.fingerprint(t, changed) == w.fingerprint(t, document) {
				t.Errorf("%s: another value compiles to the same", l.path)
			}
		}
	}
	for path := range used {
		if !seen[path] {
			t.Errorf("%s: no such field", path)
		}
	}
}

// unquoted is the text of a key as it stands in a document.
func unquoted(t *testing.T, quoted string) (text string) {
	t.Helper()
	if err := json.Unmarshal([]byte(`"`+quoted+`"`), &text); err != nil {
		t.Fatal(err)
	}
	return text
}

// world is all that the example and its edits name.
type world struct {
	secrets, configMaps map[string]map[string]string
	keys                map[string]string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	one, two := unquoted(t, keyOne), unquoted(t, keyTwo)
	authority := string(registrytest.NewAuthority(t).PEM())
	pull := func(user string) map[string]string {
		return map[string]string{corev1.DockerConfigJsonKey: `{"auths":{"registry1.com":{"username":"` + user + `","password":"p"}}}`}
	}
	roots := func(names ...string) map[string]string {
		data := map[string]string{}
		for _, name := range names {
			data[name] = NewTrustRoot(t)
		}
		return data
	}
	return &world{
		secrets: map[string]map[string]string{
			"keys": {"cosign.pub": one, "other.pub": two}, "other-keys": {"cosign.pub": two},
			"pull": pull("u"), "other-pull": pull("other"),
			"tls": {"ca.crt": authority}, "other-tls": {"caFile": authority + authority},
			"roots": roots("all.json"), "log-roots": roots("log.json", "other.json"), "other-roots": roots("log.json"),
			"time-roots": roots("time.json"),
		},
		configMaps: map[string]map[string]string{
			"roots": roots("all.json", "other.json", "time.json"), "time-roots": roots("all.json", "time.json", "other.json"),
			"log-roots": roots("log.json"),
			"policies":  {"scan.cel": "true", "other.cel": "1 == 1"}, "other-policies": {"scan.cel": "2 == 2"},
		},
		keys: map[string]string{"awskms:///alias/one": one, "awskms:///alias/two": two},
	}
}

func (w *world) objects() Objects {
	return Objects{
		Secret: func(_, name string) (*corev1.Secret, error) {
			data, ok := w.secrets[name]
			if !ok {
				return nil, nil //nolint:nilnil // Objects documents nil as absent
			}
			secret := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{}}
			for key, text := range data {
				secret.Data[key] = []byte(text)
			}
			return secret, nil
		},
		ConfigMap: func(_, name string) (*corev1.ConfigMap, error) {
			data, ok := w.configMaps[name]
			if !ok {
				return nil, nil //nolint:nilnil // Objects documents nil as absent
			}
			return &corev1.ConfigMap{Data: data}, nil
		},
	}
}

// unasked is an evaluator that is not needed for compiling.
type unasked struct{}

func (unasked) Evaluate(context.Context, language.Policy, []byte) (language.Result, error) {
	return language.Result{}, errors.New("nobody compiles by evaluating")
}

// fingerprint is everything that compiling brings.
func (w *world) fingerprint(t *testing.T, document string) string {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	compiler := Compiler{
		Cosign:     cosign.Options{Evaluator: unasked{}},
		InjectInto: []string{AllNamespaces},
		// Nobody asks it by compiling.
		ContainersSource: struct{ containers.Source }{},
		Keys:             func(reference string) ([]byte, error) { return []byte(w.keys[reference]), nil },
		Check:            func(language.Policy) error { return nil },
	}
	compiled, err := compiler.Compile(raw, w.objects())
	if err != nil {
		t.Fatal(err)
	}
	r := compiled.Rule
	text := fmt.Sprintf("%t %s %s %v %v %+v", compiled.Ready, compiled.Message, r.Mode, r.Prefixes, r.Namespaces, r.Rewrite)
	if a := r.Authentication; a != nil {
		text += fmt.Sprintf(" %+v %v %+v", a.Credentials, a.Realms, a.Inject)
	}
	if r.Transport != nil {
		text += fmt.Sprintf(" %x", r.Transport.Hash)
	}
	if v := r.Verification; v != nil {
		text += fmt.Sprintf(" %x %+v", v.Hash, v.Fixed)
	}
	return text
}

// Each part of the list, on top of a config that is fine without it.
func TestNotSupported(t *testing.T) {
	t.Parallel()
	for path, section := range map[string]map[string]any{
		"spec.verification.bundle.nested: Verify": {"verification": map[string]any{"provider": "Cosign", "bundle": map[string]any{"nested": "Verify"}, "cosign": map[string]any{"authorities": []any{map[string]any{"name": "a", "static": map[string]any{"action": "pass"}}}}}},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			section["matchImages"] = []any{map[string]any{"prefix": "registry1.com/"}}
			raw, err := json.Marshal(map[string]any{
				"apiVersion": "pratique.dev/v1alpha1", "kind": "ImageConfig", "metadata": map[string]any{"name": "x"}, "spec": section,
			})
			if err != nil {
				t.Fatal(err)
			}
			compiled, err := Compiler{}.Compile(raw, (&world{}).objects())
			if err != nil || compiled.Ready || compiled.Reason != v1alpha1.ReasonNotSupported ||
				!strings.HasPrefix(compiled.Message, path+": not supported by this version") {
				t.Fatalf("compiled %+v, %v", compiled, err)
			}
			if v := compiled.Rule.Verification; v == nil || v.Fixed == nil || v.Fixed.Outcome != policy.Inconclusive {
				t.Errorf("what it selects is not held back: %+v", v)
			}
			if !slices.ContainsFunc(compiled.Rule.Prefixes, func(p reference.Prefix) bool { return p.Text == "registry1.com/" }) {
				t.Errorf("selects %v", compiled.Rule.Prefixes)
			}
		})
	}
}
