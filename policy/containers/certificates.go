// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"crypto/rsa"
	"crypto/x509"
	"slices"

	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"github.com/pratique-dev/pratique/policy"
)

// Bounds of the certificates that come with a sigstore attachment. The library
// verifies by their keys before anybody has vouched for them, and an RSA key may
// be made so large that one signature takes a minute.
const (
	maxCertificates = 5       // a chain has 2 or 3
	maxPEM          = 1 << 16 // of all of them, in bytes
	maxRSABits      = 4096    // the largest that authorities use (CA/Browser Forum, "Baseline Requirements", 6.1.5)
)

// screenCertificates refuses certificates that are dear to verify. It judges
// nothing: what cannot be read is left to the library, which does not get as far
// as their keys.
func screenCertificates(untrusted map[string]string) error {
	total, certificates := 0, 0
	for _, name := range []string{certificateAnnotation, chainAnnotation} {
		if total += len(untrusted[name]); total > maxPEM {
			return policy.Undecided(policy.ReasonLimit, "the certificates of one of its signatures are larger than %d bytes", maxPEM).Err()
		}
		found, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(untrusted[name]))
		if err != nil {
			continue
		}
		if certificates += len(found); certificates > maxCertificates {
			return policy.Undecided(policy.ReasonLimit, "one of its signatures comes with more than %d certificates", maxCertificates).Err()
		}
		if slices.ContainsFunc(found, dear) {
			return policy.Undecided(policy.ReasonLimit, "a certificate of one of its signatures has a key of more than %d bits", maxRSABits).Err()
		}
	}
	return nil
}

// dear reports whether verifying something by the certificate's key takes long.
func dear(certificate *x509.Certificate) bool {
	key, ok := certificate.PublicKey.(*rsa.PublicKey)
	return ok && key.N.BitLen() > maxRSABits
}
