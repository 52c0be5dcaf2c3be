// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosigntest_test

import (
	"net/netip"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func parse(t *testing.T, text []byte) *trust.Root {
	t.Helper()
	parsed, err := trust.Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return parsed
}

// The written trust root says what the one in the process does: whatever is
// signed is accepted by it, and by no other.
func TestTrustedRoot(t *testing.T) {
	t.Parallel()
	s := cosigntest.New(t)
	written, foreign := parse(t, s.TrustedRoot()), parse(t, cosigntest.New(t).TrustedRoot())
	for name, form := range map[string]struct {
		sign    func(cosigntest.Target, *cosigntest.Leaf, cosigntest.Vouching)
		attests bool
	}{
		".sig":               {s.SignLegacy, false},
		"bundle":             {s.SignBundle, false},
		".att":               {s.AttestLegacy, true},
		"attestation bundle": {s.AttestBundle, true},
	} {
		for voucher, v := range map[string]cosigntest.Vouching{
			"log": {Log: true}, "timestamp": {Stamp: true}, "both": {Log: true, Stamp: true},
		} {
			t.Run(name+", "+voucher, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				form.sign(cosigntest.Target{Registry: r, Image: image}, s.Leaf(cosigntest.Issued{}), v)
				a := cosign.Authority{
					Name: "release", Trust: written, Log: v.Log, Timestamp: v.Stamp,
					Keyless: &cosign.Keyless{Identities: []cosign.Identity{{Issuer: cosigntest.Issuer, Subject: cosigntest.Subject}}},
				}
				if form.attests {
					a.Attestations = []cosign.Attestation{{Name: "sbom", PredicateType: cosigntest.SBOM}}
				}
				if got := verdict(t, r, image, a); got.Outcome != policy.Accepted {
					t.Errorf("verdict = %+v, want Accepted", got)
				}
				a.Trust = foreign
				if got := verdict(t, r, image, a); got.Outcome != policy.Rejected {
					t.Errorf("verdict by another root = %+v, want Rejected", got)
				}
			})
		}
	}
}

func verdict(t *testing.T, r *registrytest.Registry, image registrytest.Image, a cosign.Authority) policy.Verdict {
	t.Helper()
	client, err := registry.New(registry.Options{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{r.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	v, err := cosign.New(cosign.Options{Source: client}, []cosign.Authority{a})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := reference.Parse(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	return v.Verify(t.Context(), policy.Image{Reference: ref, Digest: image.Digest, Credentials: credential.None()})
}
