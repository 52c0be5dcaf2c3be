// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/cosign/v3/pkg/cosign"
	"github.com/sigstore/cosign/v3/pkg/oci"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
	"github.com/pratique-dev/pratique/e2e/sigstore"
)

const (
	signaturePredicate = "https://sigstore.dev/cosign/sign/v1"
	customPredicate    = "https://cosign.sigstore.dev/attestation/v1"
	email              = "robot@example.com"
)

// A combination is one of the ways to sign.
type combination struct {
	keyless, timestamp bool
	log                signer.Log
	form               string // one of forms
	attest             bool
}

// forms are what writes: cosign 2, cosign 3, and cosign 3 as if it were 2.
var forms = []string{".sig", "bundle", ".sig by cosign 3"}

func (c combination) String() string {
	parts := []string{"key", c.form, c.log.String(), "signature"}
	if c.keyless {
		parts[0] = "keyless"
	}
	if c.timestamp {
		parts[0] += " with timestamp"
	}
	if c.attest {
		parts[3] = "attestation"
	}
	return strings.Join(parts, "/")
}

func (c combination) bundle() bool { return c.form == "bundle" }

// possible says whether a cosign signs in this way and one verifies that.
func (c combination) possible() bool {
	switch {
	case c.log == signer.RekorV2 && !c.bundle():
		return false // the older form has no place for its proof
	case c.keyless && !c.timestamp:
		return c.log == signer.RekorV1 // the others do not say when
	case !c.keyless && c.timestamp:
		return false // a key has no need of it
	case c.timestamp && c.form == forms[2] && c.attest:
		return false // cosign 3 stamps the signature, and looks for a stamp of the whole envelope
	}
	return true
}

// combinations are all that are possible.
func combinations() []combination {
	var all []combination
	for _, keyless := range []bool{false, true} {
		for _, timestamp := range []bool{false, true} {
			for _, log := range []signer.Log{signer.NoLog, signer.RekorV1, signer.RekorV2} {
				for _, form := range forms {
					for _, attest := range []bool{false, true} {
						c := combination{keyless, timestamp, log, form, attest}
						if c.possible() {
							all = append(all, c)
						}
					}
				}
			}
		}
	}
	return all
}

// sign signs the image in this way.
func (c combination) sign(t *testing.T, image name.Digest, o signer.Options) {
	t.Helper()
	o.Log, o.Timestamp, o.Legacy = c.log, c.timestamp, c.form == forms[2]
	if c.keyless {
		o.Key = nil
	} else {
		o.IdentityToken = ""
	}
	sign := map[bool]map[bool]signer.OptionsFunc{
		false: {false: cosign3.SignWith, true: cosign3.Attest},
		true:  {false: cosign2.SignWith, true: cosign2.Attest},
	}[c.form == forms[0]][c.attest]
	if c.attest {
		o.Attestation = signer.Attestation{Type: "custom", Predicate: []byte(`{"tests": "passed"}`)}
	}
	if err := sign(t.Context(), image.String(), o); err != nil {
		t.Fatalf("signing: %v", err)
	}
}

// An expectation is what the signature is verified by.
type expectation struct {
	root     sigstore.Root
	key      string // PEM
	identity cosign.Identity
	log      bool // there must be an entry
	stamped  bool // the timestamp is what says when
}

// expect is what the signature is good for.
func (c combination) expect(s *sigstore.Sigstore, key signer.Key) expectation {
	e := expectation{root: s.Root, log: c.log != signer.NoLog, stamped: c.timestamp}
	if c.keyless {
		e.identity = cosign.Identity{Issuer: sigstore.GoogleIssuer, Subject: email}
	} else {
		e.key = key.PublicPEM
	}
	return e
}

// spoilt are the expectations that differ in one thing, which must not be
// fulfilled.
func (c combination) spoilt(t *testing.T, good expectation) map[string]expectation {
	t.Helper()
	other, err := sigstore.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]expectation{}
	add := func(name string, change func(*expectation)) {
		e := good
		change(&e)
		all[name] = e
	}
	if c.keyless {
		add("another subject", func(e *expectation) { e.identity.Subject = "robot@example.co" })
		add("another issuer", func(e *expectation) { e.identity.Issuer = sigstore.SigstoreIssuer })
		add("another authority", func(e *expectation) { e.root.Fulcio = other.Fulcio })
		add("another certificate log", func(e *expectation) { e.root.CTLog = other.CTLog })
	} else {
		add("another key", func(e *expectation) { e.key = newKey(t).PublicPEM })
	}
	switch c.log {
	case signer.NoLog:
		add("a log", func(e *expectation) { e.log = true })
	case signer.RekorV1:
		add("another log", func(e *expectation) { e.root.Rekor1 = other.Rekor1 })
		add("only the other version", func(e *expectation) { e.root.Rekor1 = nil })
	case signer.RekorV2:
		add("another log", func(e *expectation) { e.root.Rekor2 = other.Rekor2 })
		add("only the other version", func(e *expectation) { e.root.Rekor2 = nil })
	}
	if c.timestamp {
		add("another timestamp authority", func(e *expectation) { e.root.Timestamp = other.Timestamp })
	}
	return all
}

// verify is cosign's verification, by its library.
func (c combination) verify(t *testing.T, image name.Digest, e expectation) error {
	t.Helper()
	options := &cosign.CheckOpts{
		TrustedMaterial:     material(t, e.root),
		IgnoreTlog:          !e.log,
		UseSignedTimestamps: e.stamped,
		Offline:             true,
		NewBundleFormat:     c.bundle(),
		ClaimVerifier:       cosign.IntotoSubjectClaimVerifier,
	}
	if e.key == "" {
		options.Identities = []cosign.Identity{e.identity}
	} else {
		options.SigVerifier = verifier(t, e.key)
	}
	if !c.bundle() && !c.attest {
		options.ClaimVerifier = cosign.SimpleClaimVerifier
		_, _, err := cosign.VerifyImageSignatures(t.Context(), image, options)
		return err
	}
	found, _, err := cosign.VerifyImageAttestations(t.Context(), image, options)
	if err != nil {
		return err
	}
	want := signaturePredicate
	if c.attest {
		want = customPredicate
	}
	if len(found) != 1 || predicateType(t, found[0]) != want {
		return fmt.Errorf("%d statements, want one of %s", len(found), want)
	}
	return nil
}

// Every way to sign makes what cosign verifies, and no more than that.
func TestCombinations(t *testing.T) {
	t.Parallel()
	s := start(t)
	host := startRegistry(t)
	key := newKey(t)
	token, err := s.EmailToken(sigstore.GoogleIssuer, email)
	if err != nil {
		t.Fatal(err)
	}
	options := signer.Options{Key: &key, IdentityToken: token, Services: s.Services}
	for _, c := range combinations() {
		t.Run(c.String(), func(t *testing.T) {
			t.Parallel()
			image := push(t, host)
			c.sign(t, image, options)
			good := c.expect(s, key)
			if err := c.verify(t, image, good); err != nil {
				t.Errorf("not verified: %v", err)
			}
			for name, spoilt := range c.spoilt(t, good) {
				if err := c.verify(t, image, spoilt); err == nil {
					t.Errorf("%s: verified", name)
				}
			}
		})
	}
}

// The certificate of a workflow says what GitHub's say.
func TestWorkflow(t *testing.T) {
	t.Parallel()
	s := start(t)
	image := push(t, startRegistry(t))
	workflow := sigstore.Workflow{Repository: "acme-co/shop", Trigger: "release"}
	token, err := s.ActionsToken(workflow)
	if err != nil {
		t.Fatal(err)
	}
	c := combination{keyless: true, timestamp: true, log: signer.RekorV2, form: "bundle"}
	c.sign(t, image, signer.Options{IdentityToken: token, Services: s.Services})
	check := func(change func(*cosign.CheckOpts)) error {
		options := &cosign.CheckOpts{
			TrustedMaterial: material(t, s.Root), NewBundleFormat: true, Offline: true,
			Identities: []cosign.Identity{{
				Issuer:  "https://token.actions.githubusercontent.com",
				Subject: "https://github.com/acme-co/shop/.github/workflows/release.yml@refs/heads/main",
			}},
			CertGithubWorkflowRepository: "acme-co/shop",
			CertGithubWorkflowTrigger:    "release",
			CertGithubWorkflowRef:        "refs/heads/main",
			CertGithubWorkflowName:       "Release",
		}
		change(options)
		_, _, err := cosign.VerifyImageAttestations(t.Context(), image, options)
		return err
	}
	if err := check(func(*cosign.CheckOpts) {}); err != nil {
		t.Error(err)
	}
	if err := check(func(o *cosign.CheckOpts) { o.CertGithubWorkflowTrigger = "push" }); err == nil {
		t.Error("verified with another trigger")
	}
	if err := check(func(o *cosign.CheckOpts) { o.Identities[0].Subject = workflow.Subject() + "2" }); err == nil {
		t.Error("verified with another subject")
	}
}

// Fulcio believes no one but the issuers' key.
func TestTokenOfAnother(t *testing.T) {
	t.Parallel()
	s, other := start(t), start(t)
	token, err := other.EmailToken(sigstore.GoogleIssuer, email)
	if err != nil {
		t.Fatal(err)
	}
	image := push(t, startRegistry(t))
	for name, sign := range map[string]signer.OptionsFunc{"cosign 2": cosign2.SignWith, "cosign 3": cosign3.SignWith} {
		err := sign(t.Context(), image.String(), signer.Options{IdentityToken: token, Services: s.Services, Log: signer.RekorV1})
		if err == nil || !strings.Contains(err.Error(), "error processing the identity token") {
			t.Errorf("%s: %v, want Fulcio to refuse the token", name, err)
		}
	}
}

// Where the signature lies is what the options say, for both versions.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	host := startRegistry(t)
	key := newKey(t)
	sigs := host + "/elsewhere/sigs"
	for _, test := range []struct {
		name    string
		form    string
		options signer.Options
		want    func(image name.Digest) string // what the signature's manifest is called
		media   string
	}{
		{"prefix", ".sig", signer.Options{TagPrefix: "dev-"}, func(image name.Digest) string {
			return image.Context().String() + ":dev-" + tag(image) + ".sig"
		}, string(types.OCIManifestSchema1)},
		{"repository", ".sig", signer.Options{Repository: sigs}, func(image name.Digest) string {
			return sigs + ":" + tag(image) + ".sig"
		}, string(types.OCIManifestSchema1)},
		{"repository and Docker's media types", ".sig", signer.Options{Repository: sigs, DockerMediaTypes: true}, func(image name.Digest) string {
			return sigs + ":" + tag(image) + ".sig"
		}, string(types.DockerManifestSchema2)},
		{"repository, by cosign 3", ".sig by cosign 3", signer.Options{Repository: sigs}, func(image name.Digest) string {
			return sigs + ":" + tag(image) + ".sig"
		}, string(types.OCIManifestSchema1)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			image := push(t, host)
			test.options.Key = &key
			combination{form: test.form}.sign(t, image, test.options)
			ref, err := name.ParseReference(test.want(image))
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := remote.Head(ref)
			if err != nil {
				t.Fatal(err)
			}
			if string(manifest.MediaType) != test.media {
				t.Errorf("media type %s, want %s", manifest.MediaType, test.media)
			}
		})
	}
	t.Run("bundle", func(t *testing.T) {
		t.Parallel()
		image := push(t, host)
		combination{form: "bundle"}.sign(t, image, signer.Options{Key: &key, Repository: sigs})
		for repository, want := range map[string]int{sigs: 1, image.Context().String(): 0} {
			ref, err := name.NewDigest(repository + "@" + image.DigestStr())
			if err != nil {
				t.Fatal(err)
			}
			index, err := remote.Referrers(ref)
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			if len(manifest.Manifests) != want {
				t.Errorf("%d bundles in %s, want %d", len(manifest.Manifests), repository, want)
			}
		}
	})
}

func tag(image name.Digest) string { return strings.Replace(image.DigestStr(), ":", "-", 1) }

func newKey(t *testing.T) signer.Key {
	t.Helper()
	key, err := signer.GenerateKeyPair(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func verifier(t *testing.T, public string) signature.Verifier {
	t.Helper()
	key, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(public))
	if err != nil {
		t.Fatal(err)
	}
	v, err := signature.LoadDefaultVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func material(t *testing.T, r sigstore.Root) root.TrustedMaterial {
	t.Helper()
	content, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	trusted, err := root.NewTrustedRootFromJSON(content)
	if err != nil {
		t.Fatal(err)
	}
	return trusted
}

func startRegistry(t *testing.T) string {
	t.Helper()
	r, err := registry.Memory(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r.Host
}

// push puts a new image into the registry.
func push(t *testing.T, host string) name.Digest {
	t.Helper()
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, host+"/acme/app", mutate.MediaType(image, types.OCIManifestSchema1))
}

func write(t *testing.T, repository string, image v1.Image) name.Digest {
	t.Helper()
	hash, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(repository + "@" + hash.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image); err != nil {
		t.Fatal(err)
	}
	return ref
}

// predicateType reads the statement, not what is written beside it.
func predicateType(t *testing.T, statement oci.Signature) string {
	t.Helper()
	envelope, err := statement.Payload()
	if err != nil {
		t.Fatal(err)
	}
	var outer struct{ Payload string }
	if err := json.Unmarshal(envelope, &outer); err != nil {
		t.Fatal(err)
	}
	content, err := base64.StdEncoding.DecodeString(outer.Payload)
	if err != nil {
		t.Fatal(err)
	}
	var inner struct{ PredicateType string }
	if err := json.Unmarshal(content, &inner); err != nil {
		t.Fatal(err)
	}
	return inner.PredicateType
}
