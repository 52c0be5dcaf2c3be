// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

const goodCrossplane = `
apiVersion: pkg.crossplane.io/v1beta1
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
`

func crossplaneObject(tb testing.TB) object {
	tb.Helper()
	o := object{}
	if err := yaml.Unmarshal([]byte(goodCrossplane), &o); err != nil {
		tb.Fatal(err)
	}
	return o
}

const crossplaneNamespace = "crossplane-system"

// crossplaneObjects are the Secrets of Crossplane's namespace.
func crossplaneObjects(tb testing.TB) source.Objects {
	tb.Helper()
	key := newKey(tb, elliptic.P256())
	secrets := map[string]*corev1.Secret{
		"keys":   {Data: map[string][]byte{"cosign.pub": []byte(key), "bad": []byte("no key")}},
		"opaque": {Type: "Opaque"},
		"acme-pull": {Type: credential.TypeDockerConfigJSON, Data: map[string][]byte{
			credential.KeyDockerConfigJSON: []byte(`{"auths":{"registry1.com":{"username":"u","password":"p"}}}`),
		}},
	}
	return source.Objects{Secret: func(namespace, name string) (*corev1.Secret, error) {
		switch {
		case namespace != crossplaneNamespace:
			return nil, errors.New("not Crossplane's namespace")
		case name == "away":
			return nil, errors.New("away")
		}
		return secrets[name], nil
	}}
}

// someRoot is a trust root without the named parts.
func someRoot(tb testing.TB, without ...string) *trust.Root {
	tb.Helper()
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		tb.Fatal(err)
	}
	return &trust.Root{Material: &partial{sigstore, strings.Join(without, " ")}, Hash: [32]byte{1}}
}

type partial struct {
	root.TrustedMaterial

	without string
}

func (p *partial) FulcioCertificateAuthorities() []root.CertificateAuthority {
	if strings.Contains(p.without, "authority") {
		return nil
	}
	return p.TrustedMaterial.FulcioCertificateAuthorities()
}

func (p *partial) CTLogs() map[string]*root.TransparencyLog {
	if strings.Contains(p.without, "certificates") {
		return nil
	}
	return p.TrustedMaterial.CTLogs()
}

func (p *partial) RekorLogs() map[string]*root.TransparencyLog {
	if strings.Contains(p.without, "entries") {
		return nil
	}
	return p.TrustedMaterial.RekorLogs()
}

func crossplaneCompiler(r *trust.Root) source.Compiler {
	c := compiler
	c.CrossplaneNamespace = crossplaneNamespace
	if r != nil {
		c.Trust = func() (*trust.Root, error) { return r, nil }
	}
	return c
}

func compileCrossplane(tb testing.TB, o object) source.Compiled {
	tb.Helper()
	compiled, err := crossplaneCompiler(someRoot(tb)).CompileCrossplane(o.raw(tb), crossplaneObjects(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return compiled
}

func TestCompileCrossplane(t *testing.T) {
	t.Parallel()
	compiled := compileCrossplane(t, crossplaneObject(t).set(t, "spec.rewriteImage", map[string]any{"prefix": "mirror.corp/"}))
	rule := compiled.Rule
	if !compiled.Ready || rule.Kind != "ImageConfig.pkg.crossplane.io" || rule.Name != "acme" || rule.Mode != policy.Enforce ||
		rule.Everywhere || rule.Verification == nil || rule.Verification.Fixed != nil || rule.Namespaces != nil || rule.Transport != nil {
		t.Errorf("%+v %+v", compiled, rule)
	}
	if rule.Authentication == nil || rule.Authentication.Inject != nil || rule.Authentication.Problem != "" {
		t.Errorf("authentication %+v", rule.Authentication)
	}
	prefixes := []reference.Prefix{{Text: "registry1.com/acme-co/"}}
	if diff := gocmp.Diff([]string{"registry1.com/acme-co/"}, rule.Written) + gocmp.Diff(prefixes, rule.Prefixes); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff(&policy.Rewrite{Lookup: true, Written: "mirror.corp/"}, rule.Rewrite); diff != "" {
		t.Error(diff)
	}
	// What it asks it asks of the names that it rewrites to as well.
	if r := compiled.Rewritten; r == nil || !r.Adds || r.Kind != rule.Kind || r.Verification != rule.Verification ||
		gocmp.Diff([]string{"mirror.corp/"}, r.Written) != "" || gocmp.Diff([]reference.Prefix{{Text: "mirror.corp/"}}, r.Prefixes) != "" {
		t.Errorf("for what is rewritten: %+v", r)
	}
}

// TestCompileCrossplaneBad breaks one thing at a time. What images an ImageConfig
// selects for verification is then Inconclusive.
func TestCompileCrossplaneBad(t *testing.T) {
	t.Parallel()
	const authorities = "spec.verification.cosign.authorities"
	type list = []any
	type fields = map[string]any
	keyless := func(identities any) fields {
		return fields{"name": "k", "keyless": fields{"identities": identities}}
	}
	for name, test := range map[string]struct {
		path       string
		value      any
		want       string // part of the message
		everywhere bool
	}{
		// The four corners in which Crossplane lets in what nobody in particular signed.
		"no authorities":          {authorities, list{}, "authorities: there are none", false},
		"neither key nor keyless": {authorities + ".0.key", nil, "authorities[0]: it has neither key nor keyless", false},
		"no identities":           {authorities + ".0", keyless(list{}), "keyless.identities: there are none", false},
		"an empty identity":       {authorities + ".0", keyless(list{fields{}}), "identities[0]: it has neither issuer", false},
		"no issuer":               {authorities + ".0", keyless(list{fields{"subject": "s"}}), "identities[0]: it has neither issuer nor issuerRegExp", false},
		"no subject":              {authorities + ".0", keyless(list{fields{"issuerRegExp": "s"}}), "identities[0]: it has neither subject nor subjectRegExp", false},
		"one identity of two":     {authorities + ".0", keyless(list{fields{"issuer": "i", "subject": "s"}, fields{"issuer": "i"}}), "identities[1]", false},

		"bad expression":       {authorities + ".0", keyless(list{fields{"issuer": "i", "subjectRegExp": "("}}), "identities[0].subjectRegExp: error parsing", false},
		"no cosign":            {"spec.verification.cosign", nil, "spec.verification.cosign: it is missing", false},
		"another provider":     {"spec.verification.provider", "Notation", `spec.verification.provider: "Notation" is unknown`, false},
		"no predicate type":    {authorities + ".0.attestations", list{fields{"name": "a", "predicateType": ""}}, "attestations[0].predicateType: it is empty", false},
		"hash":                 {authorities + ".0.key.hashAlgorithm", "md5", `hashAlgorithm: "md5" is unknown`, false},
		"missing secret":       {authorities + ".0.key.secretRef.name", "absent", `"crossplane-system/absent" does not exist`, false},
		"unreadable secret":    {authorities + ".0.key.secretRef.name", "away", `secretRef: reading secret "crossplane-system/away": away`, false},
		"missing key":          {authorities + ".0.key.secretRef.key", "absent", `has no key "absent"`, false},
		"no key":               {authorities + ".0.key.secretRef.key", "bad", `key "bad": not a public key`, false},
		"unknown section":      {"spec.restrict", fields{}, `unknown field "spec.restrict"`, false},
		"unknown field":        {"spec.registry.tls", fields{}, `unknown field "spec.registry.tls"`, false},
		"another match":        {"spec.matchImages.0.type", "Regex", `matchImages[0].type: "Regex" is unknown; which images it is for cannot be read`, true},
		"no match":             {"spec.matchImages", list{}, "it should have at least one element", true},
		"match by other names": {"spec.matchNames", list{}, `unknown field "spec.matchNames"; which images`, true},
		"rewrites to nothing":  {"spec.rewriteImage", fields{"prefix": ""}, "spec.rewriteImage.prefix: it is empty", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			compiled := compileCrossplane(t, crossplaneObject(t).set(t, test.path, test.value))
			if compiled.Ready || !strings.Contains(compiled.Message, test.want) || compiled.Rule.Everywhere != test.everywhere {
				t.Errorf("%+v, everywhere %t; want %q in it", compiled, compiled.Rule.Everywhere, test.want)
			}
			fixed := compiled.Rule.Verification.Fixed
			if fixed == nil || fixed.Outcome != policy.Inconclusive || fixed.Reason != policy.ReasonNotReady ||
				!strings.HasPrefix(fixed.Message, "it is not ready: ") || strings.Contains(fixed.Message, "kubectl") {
				t.Errorf("verdict %+v", fixed)
			}
			if compiled.Rule.Rewrite != nil {
				t.Error("it rewrites")
			}
			if len(compiled.Rule.Prefixes) == 0 && !test.everywhere {
				t.Error("it selects nothing")
			}
		})
	}
}

// What is only about pull secrets holds nothing back.
func TestCompileCrossplanePullSecret(t *testing.T) {
	t.Parallel()
	const secret = "spec.registry.authentication.pullSecretRef.name"
	for name, test := range map[string]struct {
		path    string
		value   any
		problem string
		brings  bool // is the one that is selected
	}{
		"there":     {"spec.runtime", map[string]any{"new": true}, "", true},
		"missing":   {secret, "absent", `secret "crossplane-system/absent" does not exist`, true},
		"wrong":     {secret, "opaque", `its type is "Opaque"`, true},
		"no name":   {secret, "", "", false},
		"no match":  {"spec.matchImages.0.type", "Regex", `"Regex" is unknown`, true},
		"no images": {"spec.matchImages", []any{}, "at least one element", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := crossplaneObject(t).set(t, "spec.verification", nil)
			compiled := compileCrossplane(t, o.set(t, test.path, test.value))
			rule := compiled.Rule
			if compiled.Ready != (test.problem == "") || !strings.Contains(compiled.Message, test.problem) || rule.Verification != nil || rule.Everywhere {
				t.Errorf("%+v %+v", compiled, rule)
			}
			if (rule.Authentication != nil) != test.brings {
				t.Errorf("authentication %+v", rule.Authentication)
			}
		})
	}
}

// Whatever cannot be read might have asked for a signature.
func TestCompileCrossplaneUnread(t *testing.T) {
	t.Parallel()
	o := crossplaneObject(t).set(t, "spec.verification", nil).set(t, "spec.restrict", true)
	compiled := compileCrossplane(t, o)
	if v := compiled.Rule.Verification; compiled.Ready || v == nil || v.Fixed == nil || !compiled.Rule.Unread {
		t.Errorf("%+v", compiled.Rule)
	}
	if _, err := crossplaneCompiler(nil).CompileCrossplane([]byte(`{"kind":"Provider"}`), source.Objects{}); err == nil {
		t.Error("no error for what is none at all")
	}
}

// TestCrossplanePrefixes: each prefix is compared as it is written, and its
// canonical form besides.
func TestCrossplanePrefixes(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]struct {
		canonical []reference.Prefix
		note      bool
	}{
		"registry1.com/acme-co/":  {[]reference.Prefix{{Text: "registry1.com/acme-co/"}}, false},
		"REGISTRY1.com:443/a":     {[]reference.Prefix{{Text: "registry1.com/a"}}, false},
		"registry1.com/a:":        {[]reference.Prefix{{Text: "registry1.com/a:", Reach: reference.ReachTag}}, false},
		"registry1.com":           {[]reference.Prefix{{Text: "registry1.com/"}, {Text: "docker.io/registry1.com"}, {Text: "docker.io/library/registry1.com"}}, false},
		"nginx":                   {[]reference.Prefix{{Text: "docker.io/nginx"}, {Text: "docker.io/library/nginx"}}, false},
		"nginx:1":                 {[]reference.Prefix{{Text: "nginx:1/"}, {Text: "docker.io/library/nginx:1", Reach: reference.ReachTag}}, false},
		"":                        {nil, true},
		"https://registry1.com/":  {nil, true},
		"registry1.com/a@sha256:": {nil, true},
	} {
		o := crossplaneObject(t).set(t, "spec.matchImages.0.prefix", written)
		compiled := compileCrossplane(t, o)
		diff := gocmp.Diff([]string{written}, compiled.Rule.Written) + gocmp.Diff(want.canonical, compiled.Rule.Prefixes)
		if diff != "" || !compiled.Ready || compiled.Rule.Everywhere {
			t.Errorf("%q: %+v\n%s", written, compiled, diff)
		}
		if noted := strings.Contains(compiled.Message, "only as they are written"); noted != want.note {
			t.Errorf("%q: %s", written, compiled.Message)
		}
	}
}

// TestCrossplaneDialect is spec section 3, "Two dialects".
func TestCrossplaneDialect(t *testing.T) {
	t.Parallel()
	material := someRoot(t)
	const authority = "spec.verification.cosign.authorities.0"
	type list = []any
	type fields = map[string]any
	var key []byte
	keys := func(hash crypto.Hash) cosign.Authority {
		return cosign.Authority{Name: "release", Keys: [][]byte{key}, Hash: hash, Trust: material, Log: true, AnyAttestation: true}
	}
	objects := crossplaneObjects(t)
	secret, err := objects.Secret(crossplaneNamespace, "keys")
	if err != nil {
		t.Fatal(err)
	}
	key = secret.Data["cosign.pub"]
	identities := list{fields{"issuer": "i", "subject": "s"}, fields{"issuerRegExp": "a", "subjectRegExp": "b", "issuer": "c"}}
	attested := func(a cosign.Authority, types ...string) cosign.Authority {
		for _, kind := range types {
			a.Attestations = append(a.Attestations, cosign.Attestation{Name: "a", PredicateType: kind})
		}
		return a
	}
	for name, test := range map[string]struct {
		path  string
		value any
		want  cosign.Authority
		note  string
	}{
		"a key":               {"metadata.name", "acme", keys(crypto.SHA256), ""},
		"hash":                {authority + ".key.hashAlgorithm", "\t Sha512 ", keys(crypto.SHA512), ""},
		"hash, shorter":       {authority + ".key.hashAlgorithm", "sha224", keys(crypto.SHA224), ""},
		"hash, in the middle": {authority + ".key.hashAlgorithm", "SHA384", keys(crypto.SHA384), ""},
		"key and keyless":     {authority + ".keyless", fields{"identities": list{}}, keys(crypto.SHA256), "both key and keyless: the key alone counts"},
		"keyless": {authority, fields{"name": "release", "keyless": fields{"identities": identities, "insecureIgnoreSCT": true}}, cosign.Authority{
			Name: "release", Trust: material, Log: true, AnyAttestation: true,
			Keyless: &cosign.Keyless{
				Unanchored: true, IgnoreSCT: true,
				Identities: []cosign.Identity{{Issuer: "i", Subject: "s"}, {Issuer: "c", IssuerRegExp: "a", SubjectRegExp: "b"}},
			},
		}, ""},
		"attestations": {
			authority + ".attestations", list{
				fields{"name": "a", "predicateType": "spdxjson"}, fields{"name": "a", "predicateType": "slsaprovenance"},
				fields{"name": "a", "predicateType": "https://example.org/t"},
			},
			attested(keys(crypto.SHA256), "https://spdx.dev/Document", "https://slsa.dev/provenance/v0.2", "https://example.org/t"), "",
		},
		"an unknown short name": {
			authority + ".attestations", list{fields{"name": "a", "predicateType": "spdx-json"}},
			attested(keys(crypto.SHA256), "spdx-json"), `"spdx-json" is neither a short name nor a URI`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw := crossplaneObject(t).set(t, test.path, test.value).raw(t)
			got, notes := source.CrossplaneAuthorities(t, crossplaneCompiler(material), raw, objects)
			sameRoot := gocmp.Comparer(func(a, b *trust.Root) bool { return a == b })
			if diff := gocmp.Diff([]cosign.Authority{test.want}, got, sameRoot, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if !strings.Contains(strings.Join(notes, "; "), test.note) || test.note == "" && len(notes) > 0 {
				t.Errorf("notes %q", notes)
			}
		})
	}
}

// A log entry is always asked for: without the log nothing can be accepted.
func TestCrossplaneTrust(t *testing.T) {
	t.Parallel()
	keyless := map[string]any{"name": "k", "keyless": map[string]any{"identities": []any{map[string]any{"issuer": "i", "subject": "s"}}}}
	for name, test := range map[string]struct {
		compiler  source.Compiler
		authority any // nil for one with a key
		want      string
	}{
		"none":                        {crossplaneCompiler(nil), nil, "no trust root of its own"},
		"no log":                      {crossplaneCompiler(someRoot(t, "entries")), nil, "has no transparency log"},
		"keyless, no log":             {crossplaneCompiler(someRoot(t, "entries")), keyless, "has no transparency log"},
		"keyless, no authority":       {crossplaneCompiler(someRoot(t, "authority")), keyless, "has no certificate authority"},
		"keyless, no certificate log": {crossplaneCompiler(someRoot(t, "certificates")), keyless, "has no certificate transparency log"},
		"not there yet": {
			source.Compiler{Cosign: compiler.Cosign, CrossplaneNamespace: crossplaneNamespace, Trust: func() (*trust.Root, error) { return nil, errors.New("fetching") }},
			nil, "not there yet: fetching",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := crossplaneObject(t)
			if test.authority != nil {
				o.set(t, "spec.verification.cosign.authorities.0", test.authority)
			}
			compiled, err := test.compiler.CompileCrossplane(o.raw(t), crossplaneObjects(t))
			if err != nil || compiled.Ready || !strings.Contains(compiled.Message, test.want) || compiled.Rule.Verification.Fixed == nil {
				t.Errorf("%+v, %v; want %q in it", compiled, err, test.want)
			}
		})
	}
}

// TestCrossplaneDocument reads what Crossplane's documentation prints, as it
// stands there.
func TestCrossplaneDocument(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("testdata/crossplane-document.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(text, []byte("\n---\n"))
	material := someRoot(t)
	verify, err := yaml.YAMLToJSON(documents[1])
	if err != nil {
		t.Fatal(err)
	}
	got, notes := source.CrossplaneAuthorities(t, crossplaneCompiler(material), verify, source.Objects{})
	want := []cosign.Authority{{
		Name: "verify acme packages", Trust: material, Log: true, AnyAttestation: true,
		Keyless: &cosign.Keyless{Unanchored: true, Identities: []cosign.Identity{{
			Issuer:  "https://token.actions.githubusercontent.com",
			Subject: "https://github.com/acme-co/crossplane-packages/.github/workflows/supplychain.yml@refs/heads/main",
		}}},
		Attestations: []cosign.Attestation{{Name: "verify attestations", PredicateType: "https://spdx.dev/Document"}},
	}}
	sameRoot := gocmp.Comparer(func(a, b *trust.Root) bool { return a == b })
	if diff := gocmp.Diff(want, got, sameRoot); diff != "" || len(notes) > 0 {
		t.Errorf("notes %q, -want +got:\n%s", notes, diff)
	}

	dir := t.TempDir()
	write(t, dir+"/document.yaml", string(text))
	write(t, dir+"/secret.yaml", secret(crossplaneNamespace, "acme-registry-credentials", credential.TypeDockerConfigJSON,
		credential.KeyDockerConfigJSON, `{"auths":{"registry1.com":{"username":"u","password":"p"}}}`))
	files, err := source.NewFiles(crossplaneCompiler(material), "pratique-system", filepath.Clean(dir))
	if err != nil {
		t.Fatal(err)
	}
	for image, test := range map[string]struct{ verification, authentication string }{
		"registry1.com/acme-co/configuration-foo:v0.2.0":        {"verify-acme-packages", "acme-packages"},
		"registry1.com/acme-co/configuration-bar@" + someDigest: {"verify-acme-packages", "acme-packages"},
		"registry1.com/acme-co/configuration-foobar:v1":         {"verify-acme-packages", "acme-packages"},
		"Registry1.com:443/acme-co/configuration-foo:v1":        {"verify-acme-packages", "acme-packages"},
		"registry1.com/acme-co/configuration-baz:v1":            {"", "acme-packages"},
		"registry1.com/acme-corp/configuration-foo:v1":          {"", ""},
		"registry1.com.evil.io/acme-co/configuration-foo:v1":    {"", ""},
		"evil.io/registry1.com/acme-co/configuration-foo:v1":    {"", ""},
		"registry1.com:5000/acme-co/configuration-foo:v1":       {"", ""},
	} {
		ref, err := reference.Parse(image)
		if err != nil {
			t.Fatal(err)
		}
		s := files.Set().Select(ref, policy.Namespace{})
		verification, authentication := "", ""
		for _, rule := range s.Verification {
			verification += rule.Name
		}
		if s.Authentication != nil {
			authentication = s.Authentication.Name
			if p := s.Authentication.Authentication.Problem; p != "" {
				t.Error(p)
			}
		}
		if verification != test.verification || authentication != test.authentication {
			t.Errorf("%s: verified by %q, pulled with that of %q", image, verification, authentication)
		}
	}
}

const someDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// Both kinds may have objects of one name, and are told apart.
func TestFilesBothKinds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.yaml", config("acme", "registry1.com/"))
	write(t, dir+"/b.yaml", strings.Replace(goodCrossplane, "release", "b", 1))
	files, err := source.NewFiles(crossplaneCompiler(nil), "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, rule := range files.Set().Rules() {
		kinds = append(kinds, rule.Kind+" "+rule.Name)
	}
	if diff := gocmp.Diff([]string{"ImageConfig acme", "ImageConfig.pkg.crossplane.io acme"}, kinds); diff != "" {
		t.Error(diff)
	}
	for text, want := range map[string]string{
		goodCrossplane: `ImageConfig.pkg.crossplane.io "acme" is there twice`,
		"apiVersion: pkg.crossplane.io/v1\nkind: ImageConfig\nmetadata: {name: x}\n": "no such kind: pkg.crossplane.io/v1 ImageConfig",
	} {
		write(t, dir+"/c.yaml", text)
		if _, err := source.NewFiles(crossplaneCompiler(nil), "pratique-system", dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// What one of ours writes into a Pod, one of Crossplane's must not look for
// elsewhere again.
func TestRewriteBothKinds(t *testing.T) {
	t.Parallel()
	for target, ready := range map[string]bool{"Pod": false, "Lookup": true} {
		dir := t.TempDir()
		write(t, dir+"/a.yaml", "apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: ours}\n"+
			"spec: {matchImages: [{prefix: a.io/}], rewriteImage: {prefix: m.io/, target: "+target+"}}\n")
		write(t, dir+"/b.yaml", "apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata: {name: theirs}\n"+
			"spec: {matchImages: [{prefix: m.io/}], rewriteImage: {prefix: n.io/}}\n")
		write(t, dir+"/c.yaml", "apiVersion: pkg.crossplane.io/v1beta1\nkind: ImageConfig\nmetadata: {name: theirs-2}\n"+
			"spec: {matchImages: [{prefix: n.io/}], rewriteImage: {prefix: o.io/}}\n")
		files, err := source.NewFiles(crossplaneCompiler(nil), "pratique-system", dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range files.Compiled() {
			if want := ready || c.Rule.Name != "ours"; c.Ready != want {
				t.Errorf("%s: %s is ready: %t: %s", target, c.Rule.Name, c.Ready, c.Message)
			}
		}
	}
}
