// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

// What one verification costs beside fetching. The floor is one that reads the
// manifest and finds nothing to judge: it says what the folder costs.
func BenchmarkVerify(b *testing.B) {
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	rsa := newGPG(asRSA, time.Hour, 0)
	s := newShelf()
	digest, empty := s.image(1), s.image(2)
	s.sign(digest, g.sign(digest, name), rsa.sign(digest, name))
	s.attached[digest] = []registry.Signature{attach(key, digest, name)}
	for _, row := range []struct {
		title, digest string
		requirement   object
		outcome       policy.Outcome
	}{
		{"floor", empty, byGPG(g.public()), policy.Rejected},
		{"signedBy Ed25519", digest, byGPG(g.public()), policy.Accepted},
		{"signedBy RSA", digest, byGPG(rsa.public()), policy.Accepted},
		{"sigstoreSigned", digest, bySigstore(publicPEM(key.Public())), policy.Accepted},
	} {
		b.Run(row.title, func(b *testing.B) {
			v := verifier(b, s, row.requirement)
			image := byTag(row.digest)
			b.ReportAllocs()
			for b.Loop() {
				s.asked = s.asked[:0]
				if got := v.Verify(b.Context(), image); got.Outcome != row.outcome {
					b.Fatal(got)
				}
			}
		})
	}
}
