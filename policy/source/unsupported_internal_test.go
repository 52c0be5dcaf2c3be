// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"encoding/json"
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
      - name: none
        static: {action: fail}
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
}

// TestEveryField: each field of the API either makes a difference to what is
// compiled, or is refused as not supported. Never is one ignored.
func TestEveryField(t *testing.T) {
	t.Parallel()
	authority := string(registrytest.NewAuthority(t).PEM())
	before := fingerprint(t, fmt.Sprintf(supported, keyOne), authority)
	if !strings.HasPrefix(before, "true ") {
		t.Fatalf("the example is not ready: %s", before)
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
			document := fmt.Sprintf(supported, keyOne)
			changed := strings.Replace(document, edit[0], edit[1], 1)
			if changed == document {
				t.Errorf("%s: the edit changes nothing", l.path)
			} else if fingerprint(t, changed, authority) == before {
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

// fingerprint is everything that compiling brings.
func fingerprint(t *testing.T, document, authority string) string {
	t.Helper()
	raw, err := yaml.YAMLToJSONStrict([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	var one, two string
	if err := json.Unmarshal([]byte(`"`+keyOne+`"`), &one); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`"`+keyTwo+`"`), &two); err != nil {
		t.Fatal(err)
	}
	keys := &corev1.Secret{Data: map[string][]byte{"cosign.pub": []byte(one), "other.pub": []byte(two)}}
	secrets := map[string]*corev1.Secret{
		"keys": keys, "other-keys": {Data: map[string][]byte{"cosign.pub": []byte(two)}},
		"pull": {
			Type: corev1.SecretTypeDockerConfigJson,
			Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{"registry1.com":{"username":"u","password":"p"}}}`)},
		},
		"tls": {Data: map[string][]byte{"ca.crt": []byte(authority)}}, "other-tls": {Data: map[string][]byte{"caFile": []byte(authority + authority)}},
	}
	compiled, err := Compiler{InjectInto: []string{AllNamespaces}}.Compile(raw, func(name string) (*corev1.Secret, error) { return secrets[name], nil })
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
	identity := map[string]any{"issuer": "https://a.io", "subject": "x"}
	root := map[string]any{"kind": "ConfigMap", "name": "roots", "key": "root.json"}
	authority := func(more map[string]any) map[string]any {
		a := map[string]any{"name": "a", "key": map[string]any{"secretRef": map[string]any{"name": "keys", "key": "cosign.pub"}}}
		for name, value := range more {
			if value == nil {
				delete(a, name)
			} else {
				a[name] = value
			}
		}
		return map[string]any{"verification": map[string]any{"provider": "Cosign", "cosign": map[string]any{"authorities": []any{a}}}}
	}
	for path, section := range map[string]map[string]any{
		"spec.verification.provider: ContainersPolicy":             {"verification": map[string]any{"provider": "ContainersPolicy", "containersPolicy": map[string]any{"requirements": []any{map[string]any{"type": "reject"}}}}},
		"spec.verification.bundle.nested: Verify":                  {"verification": map[string]any{"provider": "Cosign", "bundle": map[string]any{"nested": "Verify"}, "cosign": map[string]any{"authorities": []any{map[string]any{"name": "a", "static": map[string]any{"action": "pass"}}}}}},
		"spec.verification.cosign.authorities[0].keyless":          authority(map[string]any{"key": nil, "keyless": map[string]any{"identities": []any{identity}}}),
		"spec.verification.cosign.authorities[0].key.kms":          authority(map[string]any{"key": map[string]any{"kms": "awskms:///alias/x"}}),
		"spec.verification.cosign.authorities[0].ctlog":            authority(map[string]any{"ctlog": map[string]any{}}),
		"spec.verification.cosign.authorities[0].rfc3161timestamp": authority(map[string]any{"rfc3161timestamp": map[string]any{"trustRootRef": root}}),
		"spec.verification.cosign.authorities[0].attestations":     authority(map[string]any{"attestations": []any{map[string]any{"name": "sbom", "predicateType": "spdx"}}}),
		"spec.verification.cosign.authorities[0].source":           authority(map[string]any{"source": []any{map[string]any{"oci": "sigs.io/x"}}}),
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
			compiled, err := Compiler{}.Compile(raw, func(string) (*corev1.Secret, error) {
				return nil, nil //nolint:nilnil // there are none
			})
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
