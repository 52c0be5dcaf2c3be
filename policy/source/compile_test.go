// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"iter"
	"maps"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
)

// nothing has no signatures.
type nothing struct{}

func (nothing) Signatures(context.Context, policy.Image) iter.Seq2[registry.Signature, error] {
	return func(func(registry.Signature, error) bool) {}
}

func (nothing) Attestations(context.Context, policy.Image) iter.Seq2[registry.Signature, error] {
	return func(func(registry.Signature, error) bool) {}
}

func (nothing) Bundles(context.Context, policy.Image, bool) iter.Seq2[[]byte, error] {
	return func(func([]byte, error) bool) {}
}

func (nothing) Recheck(context.Context, policy.Image, bool) iter.Seq2[[]byte, error] {
	return func(func([]byte, error) bool) {}
}

var _ cosign.Source = nothing{}

var compiler = source.Compiler{Cosign: cosign.Options{Source: nothing{}}}

func publicPEM(tb testing.TB, key any) string {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func newKey(tb testing.TB, curve elliptic.Curve) string {
	tb.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return publicPEM(tb, key.Public())
}

const good = `
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme, generation: 3}
spec:
  matchImages: [{prefix: registry1.com/acme-co/}]
  registry: {authentication: {pullSecretRef: {name: acme-pull}}}
  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: release
        key: {secretRef: {name: keys, key: cosign.pub}}
        annotations: {env: prod}
`

// object is a config that can be changed in one place.
type object map[string]any

func newObject(tb testing.TB) object {
	tb.Helper()
	o := object{}
	if err := yaml.Unmarshal([]byte(good), &o); err != nil {
		tb.Fatal(err)
	}
	return o
}

// set puts a value at a path such as spec.matchImages.0.prefix; nil removes.
func (o object) set(tb testing.TB, path string, value any) object {
	tb.Helper()
	var at any = map[string]any(o)
	parts := strings.Split(path, ".")
	for i, part := range parts {
		last := i == len(parts)-1
		switch node := at.(type) {
		case map[string]any:
			switch {
			case last && value == nil:
				delete(node, part)
			case last:
				node[part] = value
			case node[part] == nil:
				node[part] = map[string]any{}
			}
			at = node[part]
		case []any:
			n, err := strconv.Atoi(part)
			if err != nil || n >= len(node) {
				tb.Fatalf("%s: no item %s", path, part)
			}
			if last {
				node[n] = value
			}
			at = node[n]
		default:
			tb.Fatalf("%s: %T at %s", path, at, part)
		}
	}
	return o
}

func (o object) raw(tb testing.TB) []byte {
	tb.Helper()
	raw, err := json.Marshal(o)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

const pullSecretJSON = `{"auths":{"registry1.com":{"username":"u","password":"p"}}}`

// ownSecrets are those of Pratique's namespace.
func ownSecrets(tb testing.TB) map[string]*corev1.Secret {
	tb.Helper()
	secret := func(kind corev1.SecretType, key, value string) *corev1.Secret {
		return &corev1.Secret{Type: kind, Data: map[string][]byte{key: []byte(value)}}
	}
	return map[string]*corev1.Secret{
		"keys":      secret(corev1.SecretTypeOpaque, "cosign.pub", newKey(tb, elliptic.P256())),
		"broken":    secret(corev1.SecretTypeOpaque, "cosign.pub", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"),
		"acme-pull": secret(corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, pullSecretJSON),
		"opaque":    secret(corev1.SecretTypeOpaque, corev1.DockerConfigJsonKey, pullSecretJSON),
		"old":       secret(corev1.SecretTypeDockercfg, corev1.DockerConfigKey, `{"registry1.com":{"username":"u","password":"p"}}`),
		"old-bad":   secret(corev1.SecretTypeDockercfg, corev1.DockerConfigKey, `{"registry1.com":{"password":"hunter2"`),
		"old-key":   secret(corev1.SecretTypeDockercfg, corev1.DockerConfigJsonKey, "{}"),
		"no-host":   secret(corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, `{"auths":{"":{"password":"hunter2"}}}`),
		"tls":       secret(corev1.SecretTypeTLS, corev1.DockerConfigJsonKey, pullSecretJSON),
		"no-key":    secret(corev1.SecretTypeDockerConfigJson, "x", pullSecretJSON),
		"malformed": secret(corev1.SecretTypeDockerConfigJson, corev1.DockerConfigJsonKey, `{"auths":{"registry1.com":{"auth":"hunter2"`),
	}
}

// lookup finds Secrets wherever they are, and no ConfigMap.
func lookup(secrets map[string]*corev1.Secret) source.Objects {
	return source.Objects{
		Secret: func(_, name string) (*corev1.Secret, error) {
			if name == "unreadable" {
				return nil, errors.New("the API server is away")
			}
			return secrets[name], nil
		},
		ConfigMap: func(string, string) (*corev1.ConfigMap, error) {
			return nil, nil //nolint:nilnil // there are none
		},
	}
}

func compile(tb testing.TB, o object, secrets map[string]*corev1.Secret) source.Compiled {
	tb.Helper()
	compiled, err := compiler.Compile(o.raw(tb), lookup(secrets))
	if err != nil {
		tb.Fatal(err)
	}
	return compiled
}

func selected(tb testing.TB, rule *policy.Rule, image string) policy.Selection {
	tb.Helper()
	ref, err := reference.Parse(image)
	if err != nil {
		tb.Fatal(err)
	}
	return policy.NewSet([]*policy.Rule{rule}).Select(ref, policy.Namespace{Name: "n", Labels: labels.Set{"env": "prod"}})
}

func TestCompileGood(t *testing.T) {
	t.Parallel()
	secrets := ownSecrets(t)
	compiled := compile(t, newObject(t), secrets)
	if !compiled.Ready || compiled.Reason != v1alpha1.ReasonCompiled || compiled.Generation != 3 {
		t.Fatalf("compiled %+v", compiled)
	}
	r := compiled.Rule
	if r.Kind != "ImageConfig" || r.Name != "acme" || r.Mode != policy.Enforce || r.Namespaces != nil || r.Authentication == nil {
		t.Errorf("rule %+v", r)
	}
	if v := r.Verification; v == nil || v.Fixed != nil || v.Verifier == nil || v.Engine != "Cosign" || v.Hash == [32]byte{} {
		t.Errorf("verification %+v", v)
	}
	if s := selected(t, r, "registry1.com/acme-co/app:v1"); len(s.Verification) != 1 || s.Authentication != r {
		t.Errorf("selected %+v", s)
	}

	for name, c := range map[string]struct {
		path  string
		value any
		holds func(*policy.Rule) bool
	}{
		"Audit":              {"spec.mode", "Audit", func(r *policy.Rule) bool { return r.Mode == policy.Audit }},
		"no verification":    {"spec.verification", nil, func(r *policy.Rule) bool { return r.Verification == nil && r.Authentication != nil }},
		"no pull secret":     {"spec.registry", nil, func(r *policy.Rule) bool { return r.Authentication == nil }},
		"empty selector":     {"spec.namespaceSelector", map[string]any{}, func(r *policy.Rule) bool { return r.Namespaces == nil }},
		"selector":           {"spec.namespaceSelector", map[string]any{"matchLabels": map[string]any{"env": "prod"}}, func(r *policy.Rule) bool { return r.Namespaces.String() == "env=prod" }},
		"plain HTTP, false":  {"spec.registry.insecurePlainHTTP", false, func(r *policy.Rule) bool { return r.Verification.Fixed == nil }},
		"nested, ignore":     {"spec.verification.bundle", map[string]any{"nested": "Ignore"}, func(r *policy.Rule) bool { return r.Verification.Fixed == nil }},
		"provider, generic":  {"spec.registry.authentication.provider", "Generic", func(r *policy.Rule) bool { return r.Authentication != nil }},
		"status is not read": {"status", map[string]any{"unknown": 1}, func(r *policy.Rule) bool { return r.Verification.Fixed == nil }},
		"static pass": {
			"spec.verification.cosign.authorities.0", map[string]any{"name": "any", "static": map[string]any{"action": "pass"}},
			func(r *policy.Rule) bool {
				return r.Verification.Fixed.Outcome == policy.Accepted && r.Verification.Verifier == nil
			},
		},
		"static fail": {
			"spec.verification.cosign.authorities.0", map[string]any{"name": "none", "static": map[string]any{"action": "fail"}},
			func(r *policy.Rule) bool { return r.Verification.Fixed.Outcome == policy.Rejected },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := compile(t, newObject(t).set(t, c.path, c.value), secrets)
			if !compiled.Ready || !c.holds(compiled.Rule) {
				t.Errorf("compiled %+v, rule %+v", compiled, compiled.Rule)
			}
		})
	}
}

// TestCompileMistakes: whatever the mistake, the rule is not ready and holds
// back the images that it names.
func TestCompileMistakes(t *testing.T) {
	t.Parallel()
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Skip(err)
	}
	secrets := ownSecrets(t)
	const authority = "spec.verification.cosign.authorities.0"
	withKey := func(key map[string]any) map[string]any { return map[string]any{"name": "release", "key": key} }
	for name, c := range map[string]struct {
		path    string
		value   any
		reason  string
		message string
	}{
		"misspelt section":         {"spec.verificaton", map[string]any{}, v1alpha1.ReasonInvalid, "spec.verificaton"},
		"misspelt field":           {authority + ".annotatons", map[string]any{"env": "prod"}, v1alpha1.ReasonInvalid, "annotatons"},
		"another case":             {"spec.verification.Provider", "Cosign", v1alpha1.ReasonInvalid, "Provider"},
		"null":                     {authority + ".annotations", []any(nil), v1alpha1.ReasonInvalid, "annotations"},
		"wrong type":               {authority + ".annotations", "env=prod", v1alpha1.ReasonInvalid, "annotations"},
		"unknown mode":             {"spec.mode", "Warn", v1alpha1.ReasonInvalid, "spec.mode"},
		"no authorities":           {"spec.verification.cosign.authorities", []any{}, v1alpha1.ReasonInvalid, "authorities"},
		"no cosign":                {"spec.verification.cosign", nil, v1alpha1.ReasonInvalid, "cosign"},
		"empty verification":       {"spec.verification", map[string]any{}, v1alpha1.ReasonInvalid, "provider"},
		"unknown provider":         {"spec.verification.provider", "Notary", v1alpha1.ReasonInvalid, "provider"},
		"authority without a key":  {authority, map[string]any{"name": "release"}, v1alpha1.ReasonInvalid, "exactly one of"},
		"keyless, nobody":          {authority, map[string]any{"name": "release", "keyless": map[string]any{"identities": []any{}}}, v1alpha1.ReasonInvalid, "identities"},
		"identity without issuer":  {authority, map[string]any{"name": "release", "keyless": map[string]any{"identities": []any{map[string]any{"subject": "x"}}}}, v1alpha1.ReasonInvalid, "issuer"},
		"bad regular expression":   {authority, map[string]any{"name": "release", "keyless": map[string]any{"identities": []any{map[string]any{"issuer": "x", "subjectRegExp": "("}}}}, v1alpha1.ReasonInvalid, "subjectRegExp"},
		"static and key":           {authority + ".static", map[string]any{"action": "pass"}, v1alpha1.ReasonInvalid, "exactly one of"},
		"empty key":                {authority, withKey(map[string]any{}), v1alpha1.ReasonInvalid, "exactly one of"},
		"garbage":                  {authority, withKey(map[string]any{"data": "garbage"}), v1alpha1.ReasonInvalid, "key.data"},
		"PEM of garbage":           {authority, withKey(map[string]any{"data": string(secrets["broken"].Data["cosign.pub"])}), v1alpha1.ReasonInvalid, "authorities[0].key.data"},
		"private key":              {authority, withKey(map[string]any{"data": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"}), v1alpha1.ReasonInvalid, "private key"},
		"weak key":                 {authority, withKey(map[string]any{"data": publicPEM(t, weak.Public())}), v1alpha1.ReasonInvalid, "1024 bits"},
		"curve too small":          {authority, withKey(map[string]any{"data": newKey(t, elliptic.P224())}), v1alpha1.ReasonInvalid, "P-224"},
		"unknown hash":             {authority + ".key.hashAlgorithm", "md5", v1alpha1.ReasonInvalid, "hashAlgorithm"},
		"missing secret":           {authority + ".key.secretRef.name", "absent", v1alpha1.ReasonSecretNotFound, `secret "absent" does not exist`},
		"missing key":              {authority + ".key.secretRef.key", "absent.pub", v1alpha1.ReasonSecretInvalid, `secret "keys" has no key "absent.pub"`},
		"unreadable secret":        {authority + ".key.secretRef.name", "unreadable", v1alpha1.ReasonReadFailed, "the API server is away"},
		"secret of garbage":        {authority + ".key.secretRef.name", "broken", v1alpha1.ReasonSecretInvalid, `secret "broken", key "cosign.pub"`},
		"two of a name":            {"spec.verification.cosign.authorities", []any{map[string]any{"name": "a", "static": map[string]any{"action": "fail"}}, map[string]any{"name": "a", "static": map[string]any{"action": "pass"}}}, v1alpha1.ReasonInvalid, "Duplicate"},
		"selector, unknown verb":   {"spec.namespaceSelector", map[string]any{"matchExpressions": []any{map[string]any{"key": "env", "operator": "Like", "values": []any{"x"}}}}, v1alpha1.ReasonInvalid, "namespaceSelector"},
		"selector, misspelt":       {"spec.namespaceSelector", map[string]any{"matchlabels": map[string]any{"env": "prod"}}, v1alpha1.ReasonInvalid, "matchlabels"},
		"selector, no label value": {"spec.namespaceSelector", map[string]any{"matchLabels": map[string]any{"env": "no value!"}}, v1alpha1.ReasonInvalid, "namespaceSelector"},
		"one bad prefix of two":    {"spec.matchImages", []any{map[string]any{"prefix": "https://registry1.com/"}, map[string]any{"prefix": "registry1.com/acme-co/"}}, v1alpha1.ReasonInvalid, "matchImages[0]"},
		"prefix of no host":        {"spec.matchImages", []any{map[string]any{"prefix": "nginx"}, map[string]any{"prefix": "registry1.com/acme-co/"}}, v1alpha1.ReasonInvalid, "matchImages[0]"},
		"regular expression":       {"spec.matchImages.0.type", "Regex", v1alpha1.ReasonInvalid, "type"},
		"unknown name at the top":  {"sepc", map[string]any{}, v1alpha1.ReasonInvalid, "sepc"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := compile(t, newObject(t).set(t, c.path, c.value), secrets)
			checkHeld(t, compiled, c.reason, c.message)
		})
	}
}

// checkHeld: not ready, and what it names is Inconclusive in Enforce.
func checkHeld(t *testing.T, compiled source.Compiled, reason, message string) {
	t.Helper()
	if compiled.Ready || compiled.Reason != reason || !strings.Contains(compiled.Message, message) {
		t.Errorf("ready %t, reason %q, message %q; want false, %q, %q", compiled.Ready, compiled.Reason, compiled.Message, reason, message)
	}
	if strings.Contains(compiled.Message, "c2VjcmV0") {
		t.Errorf("the message repeats a secret: %q", compiled.Message)
	}
	s := selected(t, compiled.Rule, "registry1.com/acme-co/app:v1")
	if len(s.Verification) != 1 || s.Verification[0].Mode != policy.Enforce {
		t.Fatalf("selected %+v", s)
	}
	v := s.Verification[0].Verification
	if v.Fixed == nil || v.Fixed.Outcome != policy.Inconclusive || v.Fixed.Reason != policy.ReasonNotReady || v.Verifier != nil {
		t.Fatalf("verification %+v", v)
	}
	if v.Hash != [32]byte{} {
		t.Error("a fixed verdict has a hash to be cached under")
	}
	if !strings.Contains(v.Fixed.Message, "it is not ready: ") || strings.ContainsAny(v.Fixed.Message, "\n") ||
		strings.Contains(v.Fixed.Message, "kubectl") || strings.Contains(v.Fixed.Message, `Invalid value: ""`) {
		t.Errorf("message %q", v.Fixed.Message)
	}
}

// TestCompileEverywhere: if it cannot be read which images are meant, it may be
// any. Where it can, a mistake elsewhere concerns those images only.
func TestCompileEverywhere(t *testing.T) {
	t.Parallel()
	list := func(items ...any) map[string]any { return map[string]any{"matchImages": append([]any{}, items...)} }
	item := func(name, value string) map[string]any { return map[string]any{name: value} }
	fine := item("prefix", "registry1.com/acme-co/")
	for name, c := range map[string]struct {
		spec       map[string]any // in the place of matchImages
		everywhere bool
		message    string
	}{
		"name misspelt in an item":    {list(item("prefx", "a.io/")), true, `"spec.matchImages[0].prefx"`},
		"name in another case":        {list(item("Prefix", "a.io/")), true, `"spec.matchImages[0].Prefix"`},
		"scheme":                      {list(item("prefix", "https://a.io/")), true, "spec.matchImages[0].prefix: Invalid value: \"https://a.io/\": a prefix has no scheme"},
		"empty":                       {list(item("prefix", "")), true, "spec.matchImages[0].prefix: Required value"},
		"asterisk":                    {list(item("prefix", "*")), true, "spec.matchImages[0].prefix"},
		"no host":                     {list(item("prefix", "nginx")), true, "a prefix without a slash is a whole host"},
		"capitals":                    {list(item("prefix", "a.io/Acme/x")), true, `"A" cannot be in a repository's name`},
		"one of two":                  {list(fine, item("prefix", "nginx")), true, "spec.matchImages[1].prefix"},
		"not text":                    {list(map[string]any{"prefix": 1}), true, "spec.matchImages"},
		"item is text":                {list("a.io/"), true, "spec.matchImages"},
		"item is null":                {list(fine, nil), true, "spec.matchImages[1]: null"},
		"of another type":             {list(map[string]any{"prefix": "a.io/", "type": "Regex"}), true, `spec.matchImages[0].type: Unsupported value: "Regex"`},
		"no items":                    {list(), true, "spec.matchImages: Invalid value: 0: should have at least 1 items"},
		"nothing":                     {nil, true, "spec.matchImages: Required value"},
		"null":                        {map[string]any{"matchImages": nil}, true, "spec.matchImages: null"},
		"no list":                     {map[string]any{"matchImages": fine}, true, "spec.matchImages: object where array is expected"},
		"misspelt":                    {map[string]any{"matchImage": []any{fine}}, true, `unknown field "spec.matchImage"`},
		"misspelt, beside readable":   {map[string]any{"matchImages": []any{fine}, "matchImage": []any{item("prefix", "a.io/")}}, true, `unknown field "spec.matchImage"`},
		"in two cases":                {map[string]any{"matchImages": []any{fine}, "matchimages": []any{item("prefix", "a.io/")}}, true, `unknown field "spec.matchimages"`},
		"a name more in an item":      {list(map[string]any{"prefix": "registry1.com/acme-co/", "typ": "Prefix"}), false, `unknown field "spec.matchImages[0].typ"`},
		"mistake elsewhere":           {map[string]any{"matchImages": []any{fine}, "verificaton": map[string]any{}}, false, `unknown field "spec.verificaton"`},
		"too long, but readable":      {list(fine, item("prefix", "a.io/"+strings.Repeat("x", 512))), false, "spec.matchImages[1].prefix: Too long"},
		"two mistakes, both are told": {map[string]any{"matchImages": []any{item("prefix", "nginx")}, "mode": "Warn"}, true, "spec.mode"},
		"two mistakes, in two steps":  {map[string]any{"matchImages": []any{item("prefix", "nginx")}, "verificaton": map[string]any{}}, true, "spec.matchImages[0].prefix: no host"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newObject(t).set(t, "spec.matchImages", nil)
			maps.Copy(o["spec"].(map[string]any), c.spec)
			compiled := compile(t, o, ownSecrets(t))
			checkHeld(t, compiled, v1alpha1.ReasonInvalid, c.message)
			if compiled.Rule.Everywhere != c.everywhere || strings.Contains(compiled.Message, "all are held back") != c.everywhere {
				t.Errorf("everywhere: %t, want %t; message %q", compiled.Rule.Everywhere, c.everywhere, compiled.Message)
			}
			if strings.Contains(compiled.Message, "more)") {
				t.Errorf("a mistake is told twice, or not: %q", compiled.Message)
			}
			for _, image := range []string{"a.io/x", "nginx", "registry1.com/acme-co-evil/app@sha256:" + strings.Repeat("a", 64)} {
				if got := selected(t, compiled.Rule, image); len(got.Verification) == 1 != c.everywhere {
					t.Errorf("%s: selected %+v", image, got)
				}
			}
		})
	}
}

// Whatever an ImageConfig that cannot be read says of namespaces, it governs all.
func TestCompileInvalidGovernsAll(t *testing.T) {
	t.Parallel()
	mistakes := map[string]func(o object) object{
		"in the selector": func(o object) object { return o.set(t, "spec.namespaceSelector.matchlabels", map[string]any{}) },
		// Of two values of the wrong type only the first is told.
		"two types": func(o object) object {
			return o.set(t, "spec.mode", 1).set(t, "spec.namespaceSelector", map[string]any{"matchLabels": map[string]any{"env": 1}})
		},
		"elsewhere":     func(o object) object { return o.set(t, "spec.mode", "Warn") },
		"in one prefix": func(o object) object { return o.set(t, "spec.matchImages.0.prefix", "registry1.com/ACME") },
		"in its name": func(o object) object {
			return o.set(t, "spec.namespaceSelector", nil).set(t, "spec.NamespaceSelector", map[string]any{"matchLabels": map[string]any{"env": "test"}})
		},
	}
	for name, mistake := range mistakes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newObject(t).set(t, "spec.namespaceSelector", map[string]any{"matchLabels": map[string]any{"env": "test"}})
			checkHeld(t, compile(t, mistake(o), ownSecrets(t)), v1alpha1.ReasonInvalid, "")
		})
	}
	o := newObject(t).set(t, "spec.namespaceSelector", map[string]any{"matchLabels": map[string]any{"env": "test"}})
	o.set(t, "spec.verification.cosign.authorities.0.key.secretRef.name", "absent")
	if r := compile(t, o, ownSecrets(t)).Rule; r.Namespaces == nil || r.Verification.Fixed == nil {
		t.Errorf("a missing Secret is not in the way of reading the selector: %+v", r)
	}
}

// What is no ImageConfig is an error, not a rule.
func TestCompileNothing(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		``, `null`, `[]`, `{}`, `{"apiVersion":"pratique.dev/v1alpha1","kind":"Other"}`, `{"apiVersion":"pratique.dev/v2","kind":"ImageConfig"}`,
		`{"apiVersion":"pkg.crossplane.io/v1beta1","kind":"ImageConfig"}`, `{"apiVersion":`,
	} {
		if compiled, err := compiler.Compile([]byte(raw), lookup(nil)); err == nil {
			t.Errorf("%s: compiled %+v", raw, compiled)
		}
	}
	compiled, err := compiler.Compile([]byte(`{"apiVersion":"pratique.dev/v1alpha1","kind":"ImageConfig","metadata":{"name":"x"}}`), lookup(nil))
	if err != nil || compiled.Ready || compiled.Rule.Verification.Fixed == nil || !compiled.Rule.Everywhere {
		t.Errorf("without a spec: %+v, %v", compiled, err)
	}
}

// A pull secret that cannot be read leaves the verification as it is, and no
// other pull secret steps in.
func TestCompilePullSecret(t *testing.T) {
	t.Parallel()
	secrets := ownSecrets(t)
	fine := compile(t, newObject(t), secrets)
	for name, c := range map[string]struct{ secret, reason, message string }{
		"missing":            {"absent", v1alpha1.ReasonSecretNotFound, `secret "absent" does not exist`},
		"unreadable":         {"unreadable", v1alpha1.ReasonReadFailed, "the API server is away"},
		"wrong type":         {"opaque", v1alpha1.ReasonSecretInvalid, `its type is "Opaque", not kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg`},
		"another wrong type": {"tls", v1alpha1.ReasonSecretInvalid, `its type is "kubernetes.io/tls"`},
		"old, another's key": {"old-key", v1alpha1.ReasonSecretInvalid, `it has no key ".dockercfg"`},
		"old, malformed":     {"old-bad", v1alpha1.ReasonSecretInvalid, "malformed JSON"},
		"without a host":     {"no-host", v1alpha1.ReasonSecretInvalid, "a credential has no host"},
		"without its key":    {"no-key", v1alpha1.ReasonSecretInvalid, `it has no key ".dockerconfigjson"`},
		"malformed contents": {"malformed", v1alpha1.ReasonSecretInvalid, "malformed JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := compile(t, newObject(t).set(t, "spec.registry.authentication.pullSecretRef.name", c.secret), secrets)
			if compiled.Ready || compiled.Reason != c.reason || !strings.Contains(compiled.Message, c.message) {
				t.Errorf("ready %t, reason %q, message %q", compiled.Ready, compiled.Reason, compiled.Message)
			}
			// It names the field and the Secret, so that it can be mended.
			if want := fmt.Sprintf("spec.registry.authentication.pullSecretRef: secret %q", c.secret); !strings.Contains(strings.Replace(compiled.Message, ": reading", ":", 1), want) {
				t.Errorf("message %q lacks %q", compiled.Message, want)
			}
			if strings.Contains(compiled.Message, "hunter2") {
				t.Errorf("the message repeats the secret: %q", compiled.Message)
			}
			v := compiled.Rule.Verification
			if v == nil || v.Fixed != nil || v.Verifier == nil || v.Hash != fine.Rule.Verification.Hash {
				t.Errorf("verification %+v", v)
			}
			if a := compiled.Rule.Authentication; a == nil || !strings.Contains(a.Problem, c.message) {
				t.Errorf("the rule would not be selected for its pull secret, or not say why it brings none: %+v", a)
			}
		})
	}
	old := compile(t, newObject(t).set(t, "spec.registry.authentication.pullSecretRef.name", "old"), secrets)
	if got := credential.NewRing(old.Rule.Authentication.Credentials).For(t.Context(), "registry1.com/acme-co/app"); !old.Ready || len(got) != 1 || got[0].Username != "u" {
		t.Errorf("the old type: ready %t, %q, %d credentials", old.Ready, old.Message, len(got))
	}
	both := newObject(t).set(t, "spec.registry.authentication.pullSecretRef.name", "absent").set(t, "spec.mode", "Warn")
	compiled := compile(t, both, secrets)
	checkHeld(t, compiled, v1alpha1.ReasonInvalid, "(and 1 more)")
}

// Everything that a verdict rests on is in the hash, and nothing else.
func TestCompileHash(t *testing.T) {
	t.Parallel()
	secrets := ownSecrets(t)
	hash := func(o object) string { return fmt.Sprintf("%x", compile(t, o, secrets).Rule.Verification.Hash) }
	before := hash(newObject(t))
	const authority = "spec.verification.cosign.authorities.0"
	same := map[string]object{
		"again":     newObject(t),
		"mode":      newObject(t).set(t, "spec.mode", "Audit"),
		"prefix":    newObject(t).set(t, "spec.matchImages.0.prefix", "registry1.com/"),
		"pull":      newObject(t).set(t, "spec.registry", nil),
		"key where": newObject(t).set(t, authority+".key", map[string]any{"data": string(secrets["keys"].Data["cosign.pub"])}),
	}
	for name, o := range same {
		if got := hash(o); got != before {
			t.Errorf("%s: another hash", name)
		}
	}
	different := map[string]object{
		"name":        newObject(t).set(t, authority+".name", "other"),
		"annotation":  newObject(t).set(t, authority+".annotations", map[string]any{"env": "test"}),
		"annotations": newObject(t).set(t, authority+".annotations", nil),
		"hash":        newObject(t).set(t, authority+".key.hashAlgorithm", "sha512"),
		"static":      newObject(t).set(t, authority, map[string]any{"name": "release", "static": map[string]any{"action": "fail"}}),
		"key":         newObject(t).set(t, authority+".key", map[string]any{"data": newKey(t, elliptic.P256())}),
	}
	for name, o := range different {
		if got := hash(o); got == before {
			t.Errorf("%s: the same hash", name)
		}
	}
	secrets["keys"].Data["cosign.pub"] = []byte(newKey(t, elliptic.P256()))
	if got := hash(newObject(t)); got == before {
		t.Error("the secret was changed, the hash was not")
	}
}
