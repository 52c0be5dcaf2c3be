// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Each case changes one thing of an image that its key signed in one form.
func TestOneThingWrong(t *testing.T) {
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	vulnerable := registrytest.Attestation{PredicateType: "https://cosign.sigstore.dev/attestation/vuln/v1", Predicate: map[string]any{}}
	lying := vulnerable
	lying.Annotated = registrytest.SignPredicateType
	otherImage := want{policy.Rejected, policy.ReasonNoMatch, "its key signed something else than this image"}
	for name, test := range map[string]struct {
		do   func(t *testing.T, r *registrytest.Registry, image registrytest.Image)
		want want
	}{
		"nothing signed": {func(*testing.T, *registrytest.Registry, registrytest.Image) {}, unsigned},
		".sig by another key": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, other)
		}, noMatch},
		"bundle by another key": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignBundle(t, i, other)
		}, noMatch},
		".sig tampered with": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, key)
			r.TamperLegacy(t, i)
		}, noMatch},
		"bundle tampered with": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignBundle(t, i, key)
			r.TamperBundles(t, i)
		}, noMatch},
		".sig of another image": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			good := r.PushImage(t, "acme/app:good")
			r.SignLegacy(t, good, key)
			r.CopyLegacy(t, good, i)
		}, otherImage},
		".sig of another repository's image": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			good := r.PushImage(t, "other/app:good")
			r.SignLegacy(t, good, key)
			r.CopyLegacy(t, good, i)
		}, otherImage},
		"bundle of another image": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			good := r.PushImage(t, "acme/app:good")
			r.SignBundle(t, good, key)
			r.CopyBundles(t, good, i)
		}, noMatch},
		"bundle of another repository's image": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			good := r.PushImage(t, "other/app:good")
			r.SignBundle(t, good, key)
			r.CopyBundles(t, good, i)
		}, noMatch},
		"an attestation by the key": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.AttestBundle(t, i, key, vulnerable)
		}, want{policy.Rejected, policy.ReasonNoSignature, "1 attestations"}},
		"an attestation by the key that is called a signature": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.AttestBundle(t, i, key, lying)
		}, want{policy.Rejected, policy.ReasonNoSignature, "1 attestations"}},
		"an attestation by the key, a signature by another": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.AttestBundle(t, i, key, lying)
			r.SignBundle(t, i, other)
		}, noMatch},
		"predicate type in another case": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.AttestBundle(t, i, key, registrytest.Attestation{PredicateType: "https://sigstore.dev/cosign/Sign/v1", Predicate: map[string]any{}})
		}, unsigned},
		"predicate type longer": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.AttestBundle(t, i, key, registrytest.Attestation{PredicateType: registrytest.SignPredicateType + "/", Predicate: map[string]any{}})
		}, unsigned},
		"predicate type missing": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.AttestBundle(t, i, key, registrytest.Attestation{Predicate: map[string]any{}, Annotated: registrytest.SignPredicateType})
		}, unsigned},
		".sig without a layer": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.EmptyLegacy(t, i)
		}, unsigned},
		".sig of garbage": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.GarbageLegacy(t, i)
		}, noMatch},
		"bundle broken": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.BrokenBundle(t, i)
		}, unsigned},
	} {
		for mode, options := range modes {
			t.Run(name+", "+mode, func(t *testing.T) {
				r := registrytest.New(t, options...)
				image := r.PushImage(t, "acme/app:v1")
				test.do(t, r, image)
				test.want.check(t, verdict(t, r, image, by("release", key)))
				// The same, with what was wrong mended in either form.
				for form, sign := range forms {
					mended := registrytest.New(t, options...)
					image := mended.PushImage(t, "acme/app:v1")
					test.do(t, mended, image)
					sign(t, mended, image, key)
					got := verdict(t, mended, image, by("release", key))
					if got.Outcome != policy.Accepted {
						t.Errorf("with a good %s beside it: %+v, want Accepted", form, got)
					}
				}
			})
		}
	}
}

// Tags do not carry signatures along: a signed tag that moves is unsigned.
func TestMovedTag(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for form, sign := range forms {
		t.Run(form, func(t *testing.T) {
			r := registrytest.New(t)
			signed := r.PushImage(t, "acme/app:v1")
			sign(t, r, signed, key)
			moved := r.PushImage(t, "acme/app:v1")
			accepted("").check(t, verdict(t, r, signed, by("", key)))
			unsigned.check(t, verdict(t, r, moved, by("", key)))
		})
	}
}

// A signature beside the index does not sign its images, nor the other way.
func TestPlatformImageSigned(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for form, sign := range forms {
		t.Run(form, func(t *testing.T) {
			r := registrytest.New(t)
			index := r.PushIndex(t, "acme/app:v1")
			for _, image := range index.Manifests {
				sign(t, r, image, key)
			}
			unsigned.check(t, verdict(t, r, index.Image, by("", key)))
			for _, image := range index.Manifests {
				accepted("").check(t, verdict(t, r, image, by("", key)))
			}
		})
	}
}
