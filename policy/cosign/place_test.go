// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// at is a place in a registry.
func at(t *testing.T, r *registrytest.Registry, place registrytest.Place) policy.Place {
	t.Helper()
	made := policy.Place{TagPrefix: place.TagPrefix}
	if place.Repository != "" {
		ref, err := reference.Parse(r.Host() + "/" + place.Repository)
		must(t, err)
		made.Repository = ref
	}
	return made
}

// placed is an image with the verifier's places.
func placed(t *testing.T, image registrytest.Image, v *cosign.Verifier) policy.Image {
	t.Helper()
	here := asked(t, image)
	var elsewhere []policy.Image
	for _, place := range v.Places() {
		there := here
		there.TagPrefix, there.First = place.TagPrefix, place.Credentials
		if place.Repository.Repository() != "" {
			there.Reference, there.Apart = place.Repository, true
		}
		elsewhere = append(elsewhere, there)
	}
	here.Elsewhere = elsewhere
	return here
}

func TestPlaces(t *testing.T) {
	t.Parallel()
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	own, sigs, prefixed := registrytest.Place{}, registrytest.Place{Repository: "sigs/all"}, registrytest.Place{Repository: "sigs/all", TagPrefix: "x-"}
	ownPrefixed := registrytest.Place{TagPrefix: "x-"}
	type places []registrytest.Place
	for name, test := range map[string]struct {
		signed registrytest.Place
		looks  places
		good   map[string]bool // by form
	}{
		"beside":                       {own, nil, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"beside, said":                 {own, places{own}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"elsewhere":                    {sigs, places{sigs}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"elsewhere, not looked for":    {sigs, nil, nil},
		"beside, looked for elsewhere": {own, places{sigs}, nil},
		"either, beside":               {own, places{own, sigs}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"either, elsewhere":            {sigs, places{sigs, own}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"prefixed":                     {prefixed, places{prefixed}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"prefixed, not looked for":     {prefixed, places{sigs}, map[string]bool{"bundle": true}}, // has no tag
		"not prefixed, looked for":     {sigs, places{prefixed}, map[string]bool{"bundle": true}},
		"prefixed beside":              {ownPrefixed, places{ownPrefixed}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
		"Docker's media types":         {registrytest.Place{Repository: "sigs/all", Docker: true}, places{sigs}, map[string]bool{".sig": true, ".att": true, "bundle": true}},
	} {
		for _, form := range []string{".sig", ".att", "bundle"} {
			for mode, options := range modes {
				t.Run(strings.Join([]string{name, form, mode}, ", "), func(t *testing.T) {
					t.Parallel()
					r := registrytest.New(t, options...)
					image := r.PushImage(t, "acme/app:v1")
					a := by("release", key)
					for _, place := range test.looks {
						a.Places = append(a.Places, at(t, r, place))
					}
					switch form {
					case ".sig":
						r.SignLegacy(t, image.At(test.signed), key)
					case "bundle":
						r.SignBundle(t, image.At(test.signed), key)
					default:
						a.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}}
						r.AttestLegacy(t, image.At(test.signed), key, predicate(sbom, ""))
					}
					v := newVerifier(t, newClient(t, r), a)
					expected := accepted("")
					if !test.good[form] {
						expected = want{policy.Rejected, policy.ReasonNoSignature, "no "}
					}
					expected.check(t, v.Verify(t.Context(), placed(t, image, v)))
					// Another authority looks beside the image: that says nothing of this one.
					b := by("other", other)
					b.Attestations = a.Attestations
					v = newVerifier(t, newClient(t, r), b, a)
					got := v.Verify(t.Context(), placed(t, image, v))
					if (got.Outcome == policy.Accepted) != test.good[form] {
						t.Errorf("beside another authority: %+v", got)
					}
				})
			}
		}
	}
}

// An authority believes what is in its own places only.
func TestPlacesOfOthers(t *testing.T) {
	t.Parallel()
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	there := registrytest.Place{Repository: "sigs/all"}
	r.SignLegacy(t, image.At(there), key)
	r.SignBundle(t, image.At(there), key)
	r.AttestLegacy(t, image.At(there), key, predicate(sbom, ""))
	r.AttestBundle(t, image.At(there), key, predicate(sbom, ""))
	beside, away := by("beside", key), by("away", other)
	away.Places = []policy.Place{at(t, r, there)}
	for _, attestations := range [][]cosign.Attestation{nil, {{Name: "s", PredicateType: sbom}}} {
		beside.Attestations, away.Attestations = attestations, attestations
		v := newVerifier(t, newClient(t, r), beside, away)
		got := v.Verify(t.Context(), placed(t, image, v))
		if got.Outcome != policy.Rejected || !strings.Contains(got.Message, `"away": `) {
			t.Errorf("verdict = %+v, want Rejected, by both", got)
		}
	}
}

// Each place is asked once for what somebody looks for there, and for nothing
// else, all at the same time.
func TestPlacesAreAskedOnce(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.PushImage(t, "sigs/all:v1") // a repository that is missing looks like a missing API
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	sigs := at(t, r, registrytest.Place{Repository: "sigs/all"})
	var authorities []cosign.Authority
	for i := range 8 {
		a := by(fmt.Sprint(i), key)
		a.Places = []policy.Place{sigs}
		b := by(fmt.Sprint(i, "attests"), key)
		b.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}}
		authorities = append(authorities, a, b)
	}
	v := newVerifier(t, newClient(t, r), authorities...)
	if places := v.Places(); len(places) != 1 || places[0].Repository != sigs.Repository {
		t.Fatalf("places = %+v, want that of the signatures alone", places)
	}
	got := v.Verify(t.Context(), placed(t, image, v))
	want{policy.Rejected, policy.ReasonNoSignature, `no attestation of type`}.check(t, got)
	counts := map[string]int{}
	for _, request := range r.Counted() {
		path := strings.ReplaceAll(request.Path, strings.TrimPrefix(image.Digest, "sha256:"), "HEX")
		counts[path]++
	}
	for path, n := range map[string]int{
		"/v2/acme/app/manifests/sha256-HEX.att": 1, "/v2/acme/app/manifests/sha256-HEX.sig": 0, "/v2/acme/app/referrers/sha256:HEX": 1,
		"/v2/sigs/all/manifests/sha256-HEX.sig": 1, "/v2/sigs/all/manifests/sha256-HEX.att": 0, "/v2/sigs/all/referrers/sha256:HEX": 1,
		"/v2/acme/app/manifests/sha256:HEX": 1, "/v2/sigs/all/manifests/sha256:HEX": 0,
	} {
		if counts[path] != n {
			t.Errorf("%s was asked for %d times, want %d: %v", path, counts[path], n, counts)
		}
	}
}

// A place that cannot be read leaves it undecided, unless another satisfies.
func TestPlaceBroken(t *testing.T) {
	t.Parallel()
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r, away := registrytest.New(t), registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	there := registrytest.Place{Repository: "sigs/all"}
	a := by("release", key)
	a.Places = []policy.Place{{}, at(t, away, there)}
	v := newVerifier(t, newClient(t, r, away), a)
	remove := away.Fault(registrytest.Any(), registrytest.Status(http.StatusInternalServerError))
	want{policy.Inconclusive, policy.ReasonRegistryError, away.Host()}.check(t, v.Verify(t.Context(), placed(t, image, v)))
	remove()
	unsigned.check(t, v.Verify(t.Context(), placed(t, image, v)))
	hang := away.Fault(registrytest.Any(), registrytest.Hang())
	r.SignLegacy(t, image, key)
	defer inTime(t, 5*time.Second)()
	accepted("").check(t, v.Verify(t.Context(), placed(t, image, v)))
	hang()
}

// What the caller forgets is no reason to look in fewer places.
func TestPlacesMissing(t *testing.T) {
	t.Parallel()
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, key)
	a := by("release", key)
	a.Places = []policy.Place{{}, at(t, r, registrytest.Place{Repository: "sigs/all"})}
	v := newVerifier(t, newClient(t, r), a)
	internal := want{policy.Inconclusive, policy.ReasonInternal, "further places"}
	internal.check(t, v.Verify(t.Context(), asked(t, image)))
	tooMany := placed(t, image, v)
	tooMany.Elsewhere = append(tooMany.Elsewhere, tooMany.Elsewhere...)
	internal.check(t, v.Verify(t.Context(), tooMany))
	another := placed(t, image, v)
	another.Elsewhere[0].Digest = r.PushImage(t, "acme/other:v1").Digest
	want{policy.Inconclusive, policy.ReasonInternal, "another digest"}.check(t, v.Verify(t.Context(), another))
	accepted("").check(t, v.Verify(t.Context(), placed(t, image, v)))
}
