// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"crypto"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// inPlace is how cosign is told of a place.
func inPlace(t *testing.T, r *registrytest.Registry, place registrytest.Place) []ociremote.Option {
	t.Helper()
	opts := []ociremote.Option{ociremote.WithPrefix(place.TagPrefix)}
	if place.Repository != "" {
		repository, err := name.NewRepository(r.Host() + "/" + place.Repository)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, ociremote.WithTargetRepository(repository))
	}
	return opts
}

// found verifies, with cosign and over the network, what lies under the image's ".sig" and ".att" tags in a place.
func found(t *testing.T, r *registrytest.Registry, image registrytest.Image, v signature.Verifier) (signatures, attestations count) {
	t.Helper()
	digest, err := name.NewDigest(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	hash, err := v1.NewHash(image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	entity := ociremote.SignedUnknown(digest, inPlace(t, r, image.Place)...)
	layers, err := entity.Signatures()
	if err != nil {
		t.Fatal(err)
	}
	all, err := layers.Get()
	if err != nil {
		t.Fatal(err)
	}
	opts := &cosign.CheckOpts{SigVerifier: v, IgnoreTlog: true, ClaimVerifier: cosign.SimpleClaimVerifier}
	signatures.Found = len(all)
	for _, layer := range all {
		if _, err := cosign.VerifyImageSignature(t.Context(), layer, hash, opts); err == nil {
			signatures.Good++
		}
	}
	if layers, err = entity.Attestations(); err != nil {
		t.Fatal(err)
	}
	if all, err = layers.Get(); err != nil {
		t.Fatal(err)
	}
	opts = &cosign.CheckOpts{SigVerifier: v, IgnoreTlog: true, ClaimVerifier: cosign.IntotoSubjectClaimVerifier}
	good, _, _ := cosign.VerifyImageAttestation(t.Context(), layers, hash, opts) // whose error says that none is good
	return signatures, count{Found: len(all), Good: len(good)}
}

var tested = registrytest.Attestation{PredicateType: "https://example.com/tested", Predicate: map[string]any{"passed": true}}

// What is put into a place is found by cosign that is told of it, and by no other.
func TestPlaces(t *testing.T) {
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.Ed25519)
	v := verifier(t, key, crypto.SHA256)
	for label, place := range map[string]registrytest.Place{
		"beside it":         {},
		"under a prefix":    {TagPrefix: "team_"},
		"elsewhere":         {Repository: "signatures/all"},
		"elsewhere, prefix": {Repository: "signatures", TagPrefix: "team-"},
		"for Docker":        {Docker: true},
		"all of it":         {Repository: "signatures", TagPrefix: "team-", Docker: true},
	} {
		t.Run(label, func(t *testing.T) {
			modes(t, func(t *testing.T, opts ...registrytest.Option) {
				r := registrytest.New(t, opts...)
				image := r.PushImage(t, "acme/app:v1")
				placed := image.At(place)
				r.SignLegacy(t, placed, other)
				sig := r.SignLegacy(t, placed, key)
				r.AttestLegacy(t, placed, other, tested)
				att := r.AttestLegacy(t, placed, key, tested)
				r.SignBundle(t, placed, key)
				r.AttestBundle(t, placed, key, tested)

				signatures, attestations := found(t, r, placed, v)
				equal(t, "signatures", signatures, count{2, 1})
				equal(t, "attestations", attestations, count{2, 1})
				there := image
				if place.Repository != "" {
					there.Repository = place.Repository
				}
				n, predicates := statements(t, there, v)
				slices.Sort(predicates)
				equal(t, "bundles", n, 2)
				equal(t, "what they say", predicates, []string{tested.PredicateType, registrytest.SignPredicateType})

				mediaType := types.OCIManifestSchema1
				if place.Docker {
					mediaType = types.DockerManifestSchema2
				}
				for _, manifest := range []registrytest.Image{sig, att} {
					got := ask(t, http.MethodGet, manifestURL(manifest, manifest.Digest), 1<<20)
					equal(t, "media type", got.ContentType, string(mediaType))
					equal(t, "repository", manifest.Repository, there.Repository)
				}
				if place.Repository == "" && place.TagPrefix == "" {
					return
				}
				signatures, attestations = found(t, r, image, v)
				equal(t, "signatures beside it", signatures, count{})
				equal(t, "attestations beside it", attestations, count{})
			})
		})
	}
}

// Another registry's methods put things there that name this one's image.
func TestAnotherRegistry(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	v := verifier(t, key, crypto.SHA256)
	modes(t, func(t *testing.T, opts ...registrytest.Option) {
		own, other := registrytest.New(t), registrytest.New(t, opts...)
		image := own.PushImage(t, "acme/app:v1")
		placed := image.At(registrytest.Place{Repository: "signatures"})
		other.SignLegacy(t, placed, key)
		other.AttestLegacy(t, placed, key, tested)
		other.SignBundle(t, placed, key)
		signatures, attestations := found(t, other, placed, v)
		equal(t, "signatures", signatures, count{1, 1})
		equal(t, "attestations", attestations, count{1, 1})
		there := image
		there.Registry, there.Repository = other.Host(), "signatures"
		equal(t, "bundles", bundles(t, there, v), count{1, 1})
	})
}

// What is pushed raw lies there as it is, after what was there before.
func TestRawLayers(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	v := verifier(t, key, crypto.SHA256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.AttestLegacy(t, image, key, tested)
	r.PushAttestationLayer(t, image, []byte("\x00 no envelope"), nil)
	r.PushAttestationLayer(t, image, registrytest.NewEnvelope(t, image, key, tested), map[string]string{"dev.cosignproject.cosign/signature": ""})
	sig := r.PushSignatureLayer(t, image, []byte("no payload"), map[string]string{"dev.sigstore.cosign/certificate": "none"})
	r.PushBundle(t, image, []byte("no bundle"))
	r.PushBundle(t, image, registrytest.NewBundle(t, image, key, tested))
	signatures, attestations := found(t, r, image, v)
	equal(t, "signatures", signatures, count{1, 0})
	equal(t, "attestations", attestations, count{3, 2})
	n, predicates := statements(t, image, v)
	equal(t, "bundles", n, 2)
	equal(t, "what they say", predicates, []string{tested.PredicateType})

	ref, err := name.NewDigest(sig.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := manifest.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "annotations", parsed.Layers[0].Annotations, map[string]string{"dev.sigstore.cosign/certificate": "none"})
}

func TestSpoiledAttestations(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	v := verifier(t, key, crypto.SHA256)
	r := registrytest.New(t)
	image, twin := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "acme/app:v2")
	r.AttestLegacy(t, image, key, tested)
	r.FloodAttestations(t, image, 5)
	_, attestations := found(t, r, image, v)
	equal(t, "flooded", attestations, count{6, 1})
	r.CopyAttestations(t, image, twin)
	_, attestations = found(t, r, twin, v)
	equal(t, "copied", attestations, count{6, 0})
}

func TestMatchInPlaces(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1").At(registrytest.Place{Repository: "signatures", TagPrefix: "team_"})
	tag := "team_" + strings.Replace(image.Digest, ":", "-", 1)
	equal(t, "tags", []string{image.SignatureTag(), image.AttestationTag()}, []string{tag + ".sig", tag + ".att"})
	for path, match := range map[string]registrytest.Match{
		"/v2/signatures/manifests/" + tag + ".sig":         registrytest.Signature(image),
		"/v2/signatures/manifests/" + tag + ".att":         registrytest.Attestations(image),
		"/v2/signatures/referrers/" + image.Digest:         registrytest.Referrers(image),
		"/v2/signatures/manifests/" + image.ReferrersTag(): registrytest.Referrers(image),
	} {
		remove := r.Fault(match, registrytest.Status(418))
		equal(t, path, ask(t, http.MethodGet, "http://"+r.Host()+path, 1<<20).Status, 418)
		equal(t, "without the place", ask(t, http.MethodGet, "http://"+r.Host()+strings.Replace(path, "signatures", "acme/app", 1), 1<<20).Status != 418, true)
		remove()
	}
}
