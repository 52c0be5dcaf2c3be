// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// collect returns the verdict of authorities that collect, and what they did.
func collect(t *testing.T, r *registrytest.Registry, image registrytest.Image, authorities ...cosign.Authority) (policy.Verdict, map[string]cosign.Match) {
	t.Helper()
	v, err := cosign.New(cosign.Options{Source: newClient(t, r), Evaluator: holding(), Collect: true}, authorities)
	if err != nil {
		t.Fatal(err)
	}
	if fixed := v.Fixed(); fixed != nil {
		return *fixed, matches(t, *fixed)
	}
	got := v.Verify(t.Context(), asked(t, image))
	return got, matches(t, got)
}

func matches(t *testing.T, v policy.Verdict) map[string]cosign.Match {
	t.Helper()
	if v.Evidence == "" {
		return nil
	}
	found := map[string]cosign.Match{}
	if err := json.Unmarshal([]byte(v.Evidence), &found); err != nil {
		t.Fatalf("%s: %v", v.Evidence, err)
	}
	return found
}

var anyID = cmpopts.IgnoreFields(cosign.SignatureMatch{}, "ID")

// TestCollect: all that satisfies any authority is told, each once, in whatever
// form it is.
func TestCollect(t *testing.T) {
	t.Parallel()
	one, two, nobody := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	s := newSigstore(t)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, one)
	r.SignLegacy(t, image, one) // the same again
	r.SignBundle(t, image, two)
	r.AttestLegacy(t, image, one, predicate(sbom, "good"))
	r.AttestBundle(t, image, one, predicate(sbom, "good"))
	r.AttestBundle(t, image, one, predicate(sbom, "bad"))
	r.AttestBundle(t, image, two, predicate(sbom, "good"))
	leaf := s.Leaf(issued{})
	sigstoreForms["bundle"].push(s, r, image, leaf, vouching{Log: true})

	attesting := by("sbom", one)
	attesting.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom, Policy: text("good")}}
	attesting.Written = map[string]string{"s": "spdxjson"}
	attestingNot := by("unmet", one)
	attestingNot.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}, {Name: "v", PredicateType: vuln}}
	pass := cosign.Authority{Name: "pass", Static: cosign.StaticPass}
	got, found := collect(t, r, image, by("one", one), by("two", two), by("nobody", nobody), attesting, attestingNot, s.keyless(), pass)
	if got.Outcome != policy.Accepted || got.Signer != "one" {
		t.Errorf("verdict %+v", got)
	}
	want := map[string]cosign.Match{
		"one": {Signatures: []cosign.SignatureMatch{{}}}, "two": {Signatures: []cosign.SignatureMatch{{}}},
		"sbom":    {Attestations: map[string][]cosign.AttestationMatch{"s": {{PredicateType: "spdxjson"}}}},
		"release": {Signatures: []cosign.SignatureMatch{{Issuer: actions, Subject: workflow}}}, "pass": {Static: true},
	}
	digests := cmpopts.IgnoreFields(cosign.AttestationMatch{}, "Digest")
	// What is signed in one form and in another is two things: a signature says
	// of itself what it is.
	if diff := cmp.Diff(want, found, anyID, digests); diff != "" {
		t.Errorf("evidence (-want +got):\n%s", diff)
	}
	if found["one"].Signatures[0].ID == found["two"].Signatures[0].ID || found["one"].Signatures[0].ID == "" {
		t.Errorf("ids %+v", found)
	}
	if d := found["sbom"].Attestations["s"][0].Digest; !strings.HasPrefix(d, "sha256:") {
		t.Errorf("digest %q", d)
	}
	_, again := collect(t, r, image, by("one", one), by("two", two), by("nobody", nobody), attesting, attestingNot, s.keyless(), pass)
	if diff := cmp.Diff(found, again); diff != "" {
		t.Errorf("it is told otherwise the next time:\n%s", diff)
	}
}

// TestCollectUnknown: what could not be read may be what is asked for.
func TestCollectUnknown(t *testing.T) {
	t.Parallel()
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			form(t, r, image, key)
			fault := registrytest.Referrers(image)
			if name == "bundle" {
				fault = registrytest.Signature(image)
			}
			r.Fault(fault, registrytest.Status(http.StatusServiceUnavailable))
			got, _ := collect(t, r, image, by("one", key), by("two", other))
			if got.Outcome != policy.Inconclusive || got.Evidence != "" {
				t.Errorf("verdict %+v", got)
			}
			if plain := verdict(t, r, image, by("one", key), by("two", other)); plain.Outcome != policy.Accepted || plain.Evidence != "" {
				t.Errorf("without collecting: %+v", plain)
			}
		})
	}
}

// TestCollectRefused: without any that is satisfied nothing changes.
func TestCollectRefused(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	fail := cosign.Authority{Name: "no", Static: cosign.StaticFail, Message: "never"}
	if got, _ := collect(t, r, image, by("one", key), fail); got.Outcome != policy.Rejected || got.Reason != policy.ReasonNoSignature {
		t.Errorf("not signed: %+v", got)
	}
	r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	if got, _ := collect(t, r, image, by("one", key), fail); got.Outcome != policy.Rejected || got.Reason != policy.ReasonNoMatch {
		t.Errorf("by another: %+v", got)
	}
	if got, _ := collect(t, r, image, fail); got.Outcome != policy.Rejected || got.Reason != policy.ReasonStatic || !strings.Contains(got.Message, "never") {
		t.Errorf("by decree: %+v", got)
	}
	if got, found := collect(t, r, image, fail, cosign.Authority{Name: "yes", Static: cosign.StaticPass}); got.Outcome != policy.Accepted || len(found) != 1 || !found["yes"].Static {
		t.Errorf("by decree: %+v", got)
	}
}
