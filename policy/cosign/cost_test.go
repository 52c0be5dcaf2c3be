// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"testing"

	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// The rows of spec section 12 with the engine's own order of questions: what a
// tag and then its verdict cost, of an image that was never asked about. The
// signer is not a matter of the registry, nor is how many could have been.
func TestCost(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	signer := &leaf{Key: newECDSA(t)}
	keyed := cosign.Authority{Name: "release", Keys: [][]byte{signer.PEM(t)}}
	judged := cosign.Attestation{Name: "sbom", PredicateType: sbom, Policy: text(`"a"`)}
	attesting := s.keyless()
	attesting.Attestations = []cosign.Attestation{judged}
	type signed func(r *registrytest.Registry, image registrytest.Image)
	by := func(form string, by *leaf) signed {
		return func(r *registrytest.Registry, image registrytest.Image) {
			sigstoreForms[form].push(s, r, image, by, vouching{Log: true})
		}
	}
	// The good signature is the last, so that all are read.
	third := func(form string) signed {
		return func(r *registrytest.Registry, image registrytest.Image) {
			for _, each := range []*leaf{{Key: newECDSA(t)}, {Key: newECDSA(t)}, signer} {
				sigstoreForms[form].push(s, r, image, each, vouching{})
			}
		}
	}
	var fifteen []cosign.Authority
	for range 14 {
		fifteen = append(fifteen, cosign.Authority{Name: "other", Keys: [][]byte{(&leaf{Key: newECDSA(t)}).PEM(t)}})
	}
	fifteen = append(fifteen, keyed)
	for name, test := range map[string]struct {
		signed      signed
		authorities []cosign.Authority
		most        int
	}{
		// The tag; referrers and, beside it, the .sig manifest; the payload.
		".sig":         {by(".sig", signer), []cosign.Authority{keyed}, 4},
		"keyless .sig": {by(".sig", s.Leaf(issued{})), []cosign.Authority{s.keyless()}, 4},
		// The tag; referrers and no .sig manifest; the manifest; the bundle.
		"bundle":         {by("bundle", signer), []cosign.Authority{keyed}, 5},
		"keyless bundle": {by("bundle", s.Leaf(issued{})), []cosign.Authority{s.keyless()}, 5},
		// Two payloads more, and two manifests with their bundles.
		"15 keys, 3 .sig":    {third(".sig"), fifteen, 6},
		"15 keys, 3 bundles": {third("bundle"), fifteen, 9},
		// The .att manifest instead of the .sig, whatever is asked of what it says.
		"keyless .att with a policy":               {by(".att", s.Leaf(issued{})), []cosign.Authority{attesting}, 4},
		"keyless attestation bundle with a policy": {by("attestation bundle", s.Leaf(issued{})), []cosign.Authority{attesting}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			test.signed(r, image)
			client, it := newClient(t, r), asked(t, image)
			tagged := it
			var err error
			tagged.Reference, err = reference.Parse(image.ByTag())
			must(t, err)
			tagged.Digest = ""
			resolution, err := client.Resolve(t.Context(), tagged)
			if err != nil || resolution.Digest != image.Digest {
				t.Fatalf("Resolve = %+v, %v", resolution, err)
			}
			v, err := cosign.New(cosign.Options{Source: client, Evaluator: holding()}, test.authorities)
			must(t, err)
			accepted("").check(t, v.Verify(t.Context(), it))
			// What was asked beside the signature that is good may come too late.
			if n := len(r.Counted()); n > test.most {
				t.Errorf("%d requests, want at most %d: %v", n, test.most, r.Counted())
			}
		})
	}
}
