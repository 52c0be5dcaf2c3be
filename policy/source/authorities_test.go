// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/registry/credential"
)

// unasked is an evaluator that nobody asks: nothing is verified here.
type unasked struct{}

func (unasked) Evaluate(context.Context, language.Policy, []byte) (language.Result, error) {
	return language.Result{}, errors.New("nobody compiles by evaluating")
}

// full has all that an authority can ask for.
const full = `
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme, generation: 3}
spec:
  matchImages: [{prefix: registry1.com/acme-co/}]
  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: keyless
        keyless:
          identities: [{issuer: "https://a.io", subject: one@a.io}]
          trustRootRef: {kind: ConfigMap, name: roots, key: all.json}
        ctlog: {trustRootRef: {kind: Secret, name: roots, key: all.json}}
        rfc3161timestamp: {trustRootRef: {kind: ConfigMap, name: roots, key: all.json}}
        attestations:
        - {name: sbom, predicateType: spdx, policy: {type: cue, data: "a: 1"}}
        - {name: scan, predicateType: vuln, policy: {type: cel, configMapRef: {name: policies, key: scan.cel}}}
        source:
        - {oci: sigs.io/one, tagPrefix: p-, signaturePullSecrets: [{name: pull}]}
      - name: service
        key: {kms: "awskms:///alias/one"}
      - name: secret
        key: {kms: "k8s://acme-keys/release"}
`

const (
	keylessAt = "spec.verification.cosign.authorities.0"
	serviceAt = "spec.verification.cosign.authorities.1"
	secretAt  = "spec.verification.cosign.authorities.2"
	// In messages.
	keylessPath = "spec.verification.cosign.authorities[0]"
)

// world is a cluster, and what is fetched.
type world struct {
	secrets    map[string]*corev1.Secret // by namespace/name
	configMaps map[string]*corev1.ConfigMap
	keys       map[string]string
	root       *trust.Root // the server's
	compiler   source.Compiler
	checked    []language.Policy
}

func rootOf(tb testing.TB, without ...string) *trust.Root {
	tb.Helper()
	root, err := trust.Parse([]byte(source.NewTrustRoot(tb, without...)))
	if err != nil {
		tb.Fatal(err)
	}
	return root
}

// trustRoots are made once: they take their time.
var trustRoots struct {
	once  sync.Once
	texts map[string]string
}

func trustRootTexts(tb testing.TB) map[string]string {
	tb.Helper()
	trustRoots.once.Do(func() {
		texts := map[string]string{"garbage.json": "hunter2"}
		for _, part := range []string{"ca", "ctlog", "tlog", "tsa"} {
			texts["no-"+part+".json"] = source.NewTrustRoot(tb, part)
		}
		texts["timeless.json"] = source.NewTrustRoot(tb, "tlog", "tsa")
		texts["all.json"], texts["other.json"] = source.NewTrustRoot(tb), source.NewTrustRoot(tb)
		trustRoots.texts = texts
	})
	return maps.Clone(trustRoots.texts)
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	texts := trustRootTexts(tb)
	roots := map[string][]byte{}
	for name, text := range texts {
		roots[name] = []byte(text)
	}
	pull := func(kind corev1.SecretType, user string) *corev1.Secret {
		return &corev1.Secret{Type: kind, Data: map[string][]byte{
			corev1.DockerConfigJsonKey: []byte(`{"auths":{"sigs.io":{"username":"` + user + `","password":"hunter2"}}}`),
		}}
	}
	w := &world{
		secrets: map[string]*corev1.Secret{
			"/roots": {Data: roots}, "/pull": pull(corev1.SecretTypeDockerConfigJson, "u"), "/opaque": pull(corev1.SecretTypeOpaque, "u"),
			"acme-keys/release": {Data: map[string][]byte{"cosign.pub": []byte(newKey(tb, elliptic.P256()))}},
			"acme-keys/empty":   {Data: map[string][]byte{"cosign.key": []byte("hunter2")}},
			"acme-keys/broken":  {Data: map[string][]byte{"cosign.pub": []byte("hunter2")}},
		},
		configMaps: map[string]*corev1.ConfigMap{
			"/roots": {Data: texts},
			"/policies": {
				Data:       map[string]string{"scan.cel": "true", "blank.cel": " \n", "bad.cel": "bad", "long.cel": "long", "later.cel": "later"},
				BinaryData: map[string][]byte{"binary.cel": []byte("1 == 1"), "invalid.cel": {0xff, 0xfe}},
			},
		},
		keys: map[string]string{
			"awskms:///alias/one": newKey(tb, elliptic.P256()), "awskms:///alias/two": newKey(tb, elliptic.P256()),
			"awskms:///alias/small": newKey(tb, elliptic.P224()),
		},
		root: rootOf(tb),
	}
	w.compiler = source.Compiler{
		Cosign: cosign.Options{Source: nothing{}, Evaluator: unasked{}},
		Trust: func() (*trust.Root, error) {
			if w.root == nil {
				return nil, errors.New("tuf.example.com\ndoes not answer")
			}
			return w.root, nil
		},
		Keys: func(reference string) ([]byte, error) {
			if key, ok := w.keys[reference]; ok {
				return []byte(key), nil
			}
			return nil, errors.New("the service\ndoes not answer")
		},
		Check: w.check,
	}
	return w
}

func (w *world) check(p language.Policy) error {
	w.checked = append(w.checked, p)
	switch p.Text {
	case "bad":
		return policy.Undecided(policy.ReasonNotReady, "line 1, column 3: undeclared reference").Err()
	case "long":
		return policy.Undecided(policy.ReasonLimit, "the policy did not end").Err()
	case "later":
		return errors.New("no process")
	}
	return nil
}

func (w *world) objects() source.Objects {
	return source.Objects{
		Secret: func(namespace, name string) (*corev1.Secret, error) {
			if name == "unreadable" {
				return nil, errors.New("the API server is away")
			}
			return w.secrets[namespace+"/"+name], nil
		},
		ConfigMap: func(namespace, name string) (*corev1.ConfigMap, error) {
			if name == "unreadable" {
				return nil, errors.New("the API server is away")
			}
			return w.configMaps[namespace+"/"+name], nil
		},
	}
}

func fullObject(tb testing.TB) object {
	tb.Helper()
	o := object{}
	if err := yaml.Unmarshal([]byte(full), &o); err != nil {
		tb.Fatal(err)
	}
	return o
}

func (w *world) compile(tb testing.TB, o object) source.Compiled {
	tb.Helper()
	compiled, err := w.compiler.Compile(o.raw(tb), w.objects())
	if err != nil {
		tb.Fatal(err)
	}
	return compiled
}

func TestAuthoritiesGood(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		path  string
		value any
	}{
		"all of it":               {"spec.mode", "Enforce"},
		"the server's root":       {keylessAt + ".keyless.trustRootRef", nil},
		"the server's log":        {keylessAt + ".ctlog", map[string]any{}},
		"no log, no timestamp":    {keylessAt + ".ctlog", nil},
		"one log":                 {keylessAt + ".ctlog.url", source.LogURL},
		"one log, with a slash":   {keylessAt + ".ctlog.url", source.LogURL + "/"},
		"no certificate logs":     {keylessAt + ".keyless", map[string]any{"identities": []any{map[string]any{"issuer": "i", "subject": "s"}}, "insecureIgnoreSCT": true, "trustRootRef": map[string]any{"kind": "Secret", "name": "roots", "key": "no-ctlog.json"}}},
		"no logs in the root":     {keylessAt + ".keyless.trustRootRef.key", "no-tlog.json"},
		"no timestamps in it":     {keylessAt + ".keyless.trustRootRef.key", "no-tsa.json"},
		"time from elsewhere":     {keylessAt + ".keyless.trustRootRef.key", "timeless.json"},
		"predicate, URI":          {keylessAt + ".attestations.0.predicateType", "https://example.com/statement/v1"},
		"predicate, another URI":  {keylessAt + ".attestations.0.predicateType", "urn:example:statement"},
		"binary data":             {keylessAt + ".attestations.1.policy.configMapRef.key", "binary.cel"},
		"statement, no policy":    {keylessAt + ".attestations.0.policy", nil},
		"only a prefix for tags":  {keylessAt + ".source.0.oci", nil},
		"repository with a port":  {keylessAt + ".source.0.oci", "sigs.io:5000/one/two"},
		"repository, Docker Hub":  {keylessAt + ".source.0.oci", "acme/sigs"},
		"with a log, by a key":    {serviceAt + ".ctlog", map[string]any{}},
		"with a time, by a key":   {serviceAt + ".rfc3161timestamp", map[string]any{"trustRootRef": map[string]any{"kind": "Secret", "name": "roots", "key": "all.json"}}},
		"statements, by a key":    {serviceAt + ".attestations", []any{map[string]any{"name": "x", "predicateType": "custom"}}},
		"a key's secret, our own": {secretAt + ".key.kms", "k8s://acme-keys/release"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := newWorld(t).compile(t, fullObject(t).set(t, c.path, c.value))
			if v := compiled.Rule.Verification; !compiled.Ready || compiled.Pending || v.Fixed != nil || v.Verifier == nil {
				t.Errorf("compiled %+v", compiled)
			}
		})
	}
}

// TestAuthoritiesMistakes: what an authority rests on and is not there, or is not
// what it is meant to be, holds the rule back and names the field.
func TestAuthoritiesMistakes(t *testing.T) {
	t.Parallel()
	const root, statement = keylessAt + ".keyless.trustRootRef", keylessAt + ".attestations.0"
	config := map[string]any{"type": "cel", "configMapRef": map[string]any{"name": "policies", "key": "scan.cel"}}
	withKey := func(key string) map[string]any {
		changed := maps.Clone(config)
		changed["configMapRef"] = map[string]any{"name": "policies", "key": key}
		return changed
	}
	for name, c := range map[string]struct {
		path            string
		value           any
		reason, message string
	}{
		"root, no ConfigMap":       {root + ".name", "absent", v1alpha1.ReasonConfigMapNotFound, keylessPath + `.keyless.trustRootRef: ConfigMap "absent" does not exist in Pratique's namespace`},
		"root, no key":             {root + ".key", "absent.json", v1alpha1.ReasonConfigMapInvalid, `ConfigMap "roots" has no key "absent.json"`},
		"root, unreadable":         {root + ".name", "unreadable", v1alpha1.ReasonReadFailed, `reading ConfigMap "unreadable": the API server is away`},
		"root, garbage":            {root + ".key", "garbage.json", v1alpha1.ReasonConfigMapInvalid, `ConfigMap "roots", key "garbage.json"`},
		"root, no Secret":          {keylessAt + ".ctlog.trustRootRef.name", "absent", v1alpha1.ReasonSecretNotFound, keylessPath + `.ctlog.trustRootRef: secret "absent" does not exist`},
		"root, garbage in Secret":  {keylessAt + ".ctlog.trustRootRef.key", "garbage.json", v1alpha1.ReasonSecretInvalid, `secret "roots", key "garbage.json": not a trust root`},
		"root without authority":   {root + ".key", "no-ca.json", v1alpha1.ReasonConfigMapInvalid, "the trust root has no certificate authority"},
		"root without SCT logs":    {root + ".key", "no-ctlog.json", v1alpha1.ReasonConfigMapInvalid, "the trust root has no certificate transparency log"},
		"root without logs":        {keylessAt + ".ctlog.trustRootRef.key", "no-tlog.json", v1alpha1.ReasonSecretInvalid, "the trust root has no transparency log"},
		"root without that log":    {keylessAt + ".ctlog.url", "https://rekor.sigstore.dev", v1alpha1.ReasonSecretInvalid, `no transparency log "https://rekor.sigstore.dev", but ["https://rekor.localhost"]`},
		"root without timestamps":  {keylessAt + ".rfc3161timestamp.trustRootRef.key", "no-tsa.json", v1alpha1.ReasonConfigMapInvalid, "the trust root has no timestamp authority"},
		"timestamps, no ConfigMap": {keylessAt + ".rfc3161timestamp.trustRootRef.name", "absent", v1alpha1.ReasonConfigMapNotFound, keylessPath + `.rfc3161timestamp.trustRootRef`},
		"root, misspelt":           {root + ".kye", "all.json", v1alpha1.ReasonInvalid, "trustRootRef.kye"},
		"ctlog, misspelt":          {keylessAt + ".ctlog.URL", "https://x.io", v1alpha1.ReasonInvalid, "ctlog.URL"},

		"predicate, unknown":     {statement + ".predicateType", "sbom", v1alpha1.ReasonInvalid, `.attestations[0].predicateType: unknown predicate type "sbom": write one of custom, cyclonedx, link, openvex, slsaprovenance, slsaprovenance02, slsaprovenance1, spdx, spdxjson, vuln, or a URI`},
		"predicate, other case":  {statement + ".predicateType", "SPDX", v1alpha1.ReasonInvalid, "unknown predicate type"},
		"predicate, no scheme":   {statement + ".predicateType", "spdx.dev/Document", v1alpha1.ReasonInvalid, "unknown predicate type"},
		"predicate, only scheme": {statement + ".predicateType", "https:", v1alpha1.ReasonInvalid, "unknown predicate type"},
		"policy, does not exist": {statement + ".policy", map[string]any{"type": "cel", "configMapRef": map[string]any{"name": "absent", "key": "k"}}, v1alpha1.ReasonConfigMapNotFound, keylessPath + `.attestations[0].policy.configMapRef: ConfigMap "absent" does not exist`},
		"policy, no key":         {statement + ".policy", withKey("absent.cel"), v1alpha1.ReasonConfigMapInvalid, `ConfigMap "policies" has no key "absent.cel"`},
		"policy, blank":          {statement + ".policy", withKey("blank.cel"), v1alpha1.ReasonConfigMapInvalid, "the policy is empty"},
		"policy, blank inline":   {statement + ".policy.data", " \n\t", v1alpha1.ReasonInvalid, keylessPath + ".attestations[0].policy.data: the policy is empty"},
		"policy, not text":       {statement + ".policy", withKey("invalid.cel"), v1alpha1.ReasonConfigMapInvalid, "not text in UTF-8"},
		"policy, does not parse": {statement + ".policy.data", "bad", v1alpha1.ReasonInvalid, keylessPath + ".attestations[0].policy.data: line 1, column 3: undeclared reference"},
		"policy, in a ConfigMap": {statement + ".policy", withKey("bad.cel"), v1alpha1.ReasonConfigMapInvalid, `.policy.configMapRef: ConfigMap "policies", key "bad.cel": line 1, column 3`},
		"policy, runs away":      {statement + ".policy", withKey("long.cel"), v1alpha1.ReasonPending, "the policy did not end"},
		"policy, not known":      {statement + ".policy.data", "later", v1alpha1.ReasonPending, keylessPath + ".attestations[0].policy: it is not known yet"},
		"policy, language":       {statement + ".policy.type", "javascript", v1alpha1.ReasonInvalid, "policy.type"},
		"policy, misspelt":       {statement + ".polcy", config, v1alpha1.ReasonInvalid, "attestations[0].polcy"},

		"source, a host":      {keylessAt + ".source.0.oci", "sigs.io:5000", v1alpha1.ReasonInvalid, keylessPath + ".source[0].oci: write a repository"},
		"source, a host, too": {keylessAt + ".source.0.oci", "sigs.io", v1alpha1.ReasonInvalid, keylessPath + ".source[0].oci: write a repository"},
		"source, tag":         {keylessAt + ".source.0.oci", "sigs.io/one:v1", v1alpha1.ReasonInvalid, "source[0].oci"},
		"source, no path":     {keylessAt + ".source.0.oci", "sigs.io/..", v1alpha1.ReasonInvalid, keylessPath + ".source[0].oci: invalid image reference"},
		"source, misspelt":    {keylessAt + ".source.0.tagprefix", "x", v1alpha1.ReasonInvalid, "source[0].tagprefix"},

		"service, not yet":       {serviceAt + ".key.kms", "awskms:///alias/absent", v1alpha1.ReasonPending, "authorities[1].key.kms: the key is not there yet: the service does not answer"},
		"service, unusable key":  {serviceAt + ".key.kms", "awskms:///alias/small", v1alpha1.ReasonInvalid, "authorities[1].key.kms: an ECDSA key on the curve P-224"},
		"service, unknown":       {serviceAt + ".key.kms", "ibmkms://x", v1alpha1.ReasonInvalid, "key.kms"},
		"secret, does not exist": {secretAt + ".key.kms", "k8s://acme-keys/absent", v1alpha1.ReasonSecretNotFound, `authorities[2].key.kms: secret "acme-keys/absent" does not exist`},
		"secret, elsewhere":      {secretAt + ".key.kms", "k8s://other/release", v1alpha1.ReasonSecretNotFound, `secret "other/release" does not exist`},
		"secret, no public key":  {secretAt + ".key.kms", "k8s://acme-keys/empty", v1alpha1.ReasonSecretInvalid, `secret "acme-keys/empty" has no key "cosign.pub"`},
		"secret, broken":         {secretAt + ".key.kms", "k8s://acme-keys/broken", v1alpha1.ReasonSecretInvalid, `secret "acme-keys/broken", key "cosign.pub": not a public key in PEM form`},
		"secret, unreadable":     {secretAt + ".key.kms", "k8s://acme-keys/unreadable", v1alpha1.ReasonReadFailed, "the API server is away"},
		"secret, no name":        {secretAt + ".key.kms", "k8s://release", v1alpha1.ReasonInvalid, "k8s://NAMESPACE/NAME"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := newWorld(t).compile(t, fullObject(t).set(t, c.path, c.value))
			checkHeld(t, compiled, c.reason, c.message)
			if compiled.Pending != (c.reason == v1alpha1.ReasonPending) || compiled.Rule.Verification.Places != nil {
				t.Errorf("pending %t, places %v", compiled.Pending, compiled.Rule.Verification.Places)
			}
			if strings.Contains(compiled.Message, "hunter2") && c.value != "garbage.json" {
				t.Errorf("the message repeats a secret: %q", compiled.Message)
			}
		})
	}
	secret := newWorld(t).compile(t, fullObject(t).set(t, keylessAt+".ctlog.trustRootRef.key", "garbage.json"))
	if strings.Contains(secret.Message, "hunter2") {
		t.Errorf("the message repeats a secret: %q", secret.Message)
	}
}

// TestAuthoritiesPending: what is fetched is not waited for, is asked for only
// where it is needed, and what is not asked at all is not supported.
func TestAuthoritiesPending(t *testing.T) {
	t.Parallel()
	byDefault := func(tb testing.TB) object {
		return fullObject(tb).set(tb, keylessAt+".keyless.trustRootRef", nil)
	}
	w := newWorld(t)
	w.root = nil
	checkHeld(t, w.compile(t, byDefault(t)), v1alpha1.ReasonPending, keylessPath+".keyless: the server's trust root is not there yet: tuf.example.com does not answer")
	w.root = rootOf(t, "ca")
	checkHeld(t, w.compile(t, byDefault(t)), v1alpha1.ReasonInvalid, keylessPath+".keyless: the server's trust root has no certificate authority")
	w.root = rootOf(t)
	if compiled := w.compile(t, byDefault(t)); !compiled.Ready {
		t.Errorf("compiled %+v", compiled)
	}
	w.compiler.Trust = func() (*trust.Root, error) { return nil, nil } //nolint:nilnil // what must not be believed
	checkHeld(t, w.compile(t, byDefault(t)), v1alpha1.ReasonPending, "not there yet")
	// The others need none.
	w.compiler.Trust = func() (*trust.Root, error) {
		t.Error("a rule that names its roots has the server's fetched")
		return nil, errors.New("")
	}
	w.compiler.Keys = func(reference string) ([]byte, error) {
		if !strings.HasPrefix(reference, "awskms://") {
			t.Errorf("a key service is asked for %q", reference)
		}
		return []byte(w.keys[reference]), nil
	}
	if compiled := w.compile(t, fullObject(t)); !compiled.Ready {
		t.Errorf("compiled %+v", compiled)
	}
	w.compiler.Trust, w.compiler.Keys = nil, nil
	checkHeld(t, w.compile(t, byDefault(t)), v1alpha1.ReasonNotSupported, keylessPath+".keyless: this server has no trust root of its own")
	checkHeld(t, w.compile(t, fullObject(t)), v1alpha1.ReasonNotSupported, "authorities[1].key.kms: this server asks no key services")
	w.compiler.Check = nil
	checkHeld(t, w.compile(t, fullObject(t)), v1alpha1.ReasonNotSupported, "policies are not evaluated here")
}

// A pull secret for signatures that cannot be read leaves the verification as it
// is: others may have a credential.
func TestAuthoritiesPullSecret(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ secret, reason, message string }{
		"missing":    {"absent", v1alpha1.ReasonSecretNotFound, `source[0].signaturePullSecrets[0]: secret "absent" does not exist`},
		"wrong type": {"opaque", v1alpha1.ReasonSecretInvalid, `source[0].signaturePullSecrets[0]: secret "opaque": its type is "Opaque"`},
		"unreadable": {"unreadable", v1alpha1.ReasonReadFailed, "the API server is away"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := newWorld(t).compile(t, fullObject(t).set(t, keylessAt+".source.0.signaturePullSecrets.0.name", c.secret))
			if compiled.Ready || compiled.Reason != c.reason || !strings.Contains(compiled.Message, c.message) || strings.Contains(compiled.Message, "hunter2") {
				t.Errorf("ready %t, reason %q, message %q", compiled.Ready, compiled.Reason, compiled.Message)
			}
			v := compiled.Rule.Verification
			if v == nil || v.Fixed != nil || len(v.Places) != 1 || len(v.Places[0].Credentials) != 0 {
				t.Errorf("verification %+v", v)
			}
		})
	}
}

func TestAuthoritiesPlaces(t *testing.T) {
	t.Parallel()
	o := fullObject(t).set(t, keylessAt+".source", []any{
		map[string]any{"oci": "Sigs.io:443/one", "tagPrefix": "p-", "signaturePullSecrets": []any{map[string]any{"name": "pull"}}},
		map[string]any{"tagPrefix": "q-"},
	})
	var got []string
	for _, place := range newWorld(t).compile(t, o).Rule.Verification.Places {
		text := place.Repository.Repository() + " " + place.TagPrefix
		for _, auth := range credential.NewRing(place.Credentials...).For(t.Context(), "sigs.io/one") {
			text += " " + auth.Username
		}
		got = append(got, text)
	}
	if diff := cmp.Diff([]string{"sigs.io/one p- u", " q-"}, got); diff != "" {
		t.Errorf("places (-want +got):\n%s", diff)
	}
}

// Everything that a verdict rests on is in the hash.
func TestAuthoritiesHash(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	hash := func(o object) string {
		compiled := w.compile(t, o)
		if !compiled.Ready {
			t.Fatalf("compiled %+v", compiled)
		}
		return fmt.Sprintf("%x", compiled.Rule.Verification.Hash)
	}
	before := hash(fullObject(t))
	if again := hash(fullObject(t)); again != before {
		t.Error("the same again: another hash")
	}
	seen := map[string]string{before: "unchanged"}
	differs := func(name string, o object) {
		t.Helper()
		got := hash(o)
		if other, ok := seen[got]; ok {
			t.Errorf("%s: the hash of %s", name, other)
		}
		seen[got] = name
	}
	for name, edit := range map[string]struct {
		path  string
		value any
	}{
		"issuer":           {keylessAt + ".keyless.identities.0.issuer", "https://b.io"},
		"issuer expr":      {keylessAt + ".keyless.identities.0", map[string]any{"issuerRegExp": "https://a.io", "subject": "one@a.io"}},
		"subject":          {keylessAt + ".keyless.identities.0.subject", "two@a.io"},
		"subject expr":     {keylessAt + ".keyless.identities.0", map[string]any{"issuer": "https://a.io", "subjectRegExp": "one@a.io"}},
		"two identities":   {keylessAt + ".keyless.identities", []any{map[string]any{"issuer": "https://a.io", "subject": "one@a.io"}, map[string]any{"issuer": "x", "subject": "y"}}},
		"no SCT":           {keylessAt + ".keyless.insecureIgnoreSCT", true},
		"root":             {keylessAt + ".keyless.trustRootRef.key", "other.json"},
		"root, default":    {keylessAt + ".keyless.trustRootRef", nil},
		"log":              {keylessAt + ".ctlog.trustRootRef.key", "other.json"},
		"log, default":     {keylessAt + ".ctlog", map[string]any{}},
		"log, one":         {keylessAt + ".ctlog.url", source.LogURL},
		"log, any":         {keylessAt + ".ctlog", nil},
		"time":             {keylessAt + ".rfc3161timestamp.trustRootRef.key", "other.json"},
		"time, any":        {keylessAt + ".rfc3161timestamp", nil},
		"statement, type":  {keylessAt + ".attestations.0.predicateType", "cyclonedx"},
		"statement, none":  {keylessAt + ".attestations.0.policy", nil},
		"statements, none": {keylessAt + ".attestations", nil},
		"policy":           {keylessAt + ".attestations.0.policy.data", "a: 2"},
		"policy, language": {keylessAt + ".attestations.0.policy.type", "rego"},
		"policy, another":  {keylessAt + ".attestations.1.policy.configMapRef.key", "binary.cel"},
		"place":            {keylessAt + ".source.0.oci", "sigs.io/two"},
		"place, own":       {keylessAt + ".source.0.oci", nil},
		"place, prefix":    {keylessAt + ".source.0.tagPrefix", "q-"},
		"place, public":    {keylessAt + ".source.0.signaturePullSecrets", nil},
		"place, none":      {keylessAt + ".source", nil},
		"service":          {serviceAt + ".key.kms", "awskms:///alias/two"},
		"service, log":     {serviceAt + ".ctlog", map[string]any{}},
	} {
		differs(name, fullObject(t).set(t, edit.path, edit.value))
	}
	// What they name changes under them.
	w.configMaps["/policies"].Data["scan.cel"] = "false"
	differs("ConfigMap, policy", fullObject(t))
	w.configMaps["/roots"].Data["all.json"] = source.NewTrustRoot(t)
	differs("ConfigMap, root", fullObject(t))
	w.secrets["/roots"].Data["all.json"] = []byte(source.NewTrustRoot(t))
	differs("Secret, root", fullObject(t))
	w.secrets["/pull"].Data[corev1.DockerConfigJsonKey] = []byte(`{"auths":{"sigs.io":{"username":"u","password":"other"}}}`)
	differs("Secret, pull secret", fullObject(t))
	w.secrets["acme-keys/release"].Data["cosign.pub"] = []byte(newKey(t, elliptic.P256()))
	differs("Secret, key", fullObject(t))
	w.keys["awskms:///alias/one"] = newKey(t, elliptic.P256())
	differs("service, key", fullObject(t))
	w.root = rootOf(t)
	differs("the server's root", fullObject(t).set(t, keylessAt+".keyless.trustRootRef", nil))
	w.root = rootOf(t)
	differs("the server's root again", fullObject(t).set(t, keylessAt+".keyless.trustRootRef", nil))
}
