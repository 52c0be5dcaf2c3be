// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

// authority issues certificates.
type authority struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
	pem []byte
}

// newAuthority makes one that lives for some time from now on.
func newAuthority(life time.Duration) authority {
	return (*authority)(nil).issue(life, &x509.Certificate{
		Subject: pkix.Name{CommonName: "a CA"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
}

// issue issues a certificate; without an authority, by itself.
func (a *authority) issue(life time.Duration, c *x509.Certificate) authority {
	key := newECDSA()
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(1), time.Now().Add(-time.Hour), time.Now().Add(life)
	by, signer := c, key
	if a != nil {
		by, signer = a.Certificate, a.key
	}
	der := must(x509.CreateCertificate(rand.Reader, c, by, key.Public(), signer))
	return authority{must(x509.ParseCertificate(der)), key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// An accepted verdict lasts no longer than what it rests on.
func TestExpires(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for title, row := range map[string]struct {
		// sign makes a key, and signs with it.
		sign func(digest string) (keys, signature []byte)
		want time.Duration // from now on; 0 for never
	}{
		"never": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 0)
			return g.public(), g.sign(digest, name)
		}, 0},
		"key": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 3*hour)
			return g.public(), g.sign(digest, name)
		}, 2 * hour},
		"signature": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 3*hour)
			g.config.SigLifetimeSecs = 7200
			return g.public(), g.sign(digest, name)
		}, hour},
		"subkey": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 9*hour)
			config := g.config
			config.KeyLifetimeSecs = 7200
			must(0, g.AddSigningSubkey(&config))
			return g.public(), g.sign(digest, name)
		}, hour},
		"another key": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 9*hour)
			return append(g.public(), newGPG(asEd25519, hour, 2*hour).public()...), g.sign(digest, name)
		}, hour},
		"another key, ended before": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 9*hour)
			return append(g.public(), newGPG(asEd25519, 3*hour, 2*hour).public()...), g.sign(digest, name)
		}, 8 * hour},
		"revocation to come": {func(digest string) ([]byte, []byte) {
			g := newGPG(asEd25519, hour, 0)
			config := g.config
			config.Time = func() time.Time { return time.Now().Add(hour) }
			signed := g.sign(digest, name)
			must(0, g.RevokeKey(packet.KeySuperseded, "", &config))
			return g.public(), signed
		}, hour},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := newShelf()
			digest := s.image(1)
			keys, signature := row.sign(digest)
			s.sign(digest, newGPG(asEd25519, hour, 2*hour).sign(digest, name), signature) // the first counts for nothing
			ends(t, verifier(t, s, byGPG(keys)).Verify(t.Context(), byTag(digest)), row.want)

			index := s.put(indexText(part(digest, "linux", "amd64")))
			ends(t, verifier(t, s, byGPG(keys)).Verify(t.Context(), byTag(index)), row.want)
		})
	}
}

func ends(t *testing.T, v policy.Verdict, want time.Duration) {
	t.Helper()
	expect(t, v, policy.Accepted, policy.ReasonVerified, "")
	if want == 0 {
		if !v.Expires.IsZero() {
			t.Errorf("expires %s, want never", v.Expires)
		}
		return
	}
	if off := time.Until(v.Expires) - want; off > time.Minute || off < -time.Minute {
		t.Errorf("expires %s, which is %s off", v.Expires, off)
	}
}

// Certificates of a pki are judged at the present time: when one ends the verdict
// does.
func TestExpiresByCertificate(t *testing.T) {
	t.Parallel()
	const hour = time.Hour
	for title, row := range map[string]struct {
		root, between, leaf, want time.Duration
	}{
		"leaf":    {9 * hour, 8 * hour, 2 * hour, 2 * hour},
		"between": {9 * hour, 3 * hour, 8 * hour, 3 * hour},
		"root":    {4 * hour, 8 * hour, 9 * hour, 4 * hour},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			root := newAuthority(row.root)
			between := root.issue(row.between, &x509.Certificate{
				Subject: pkix.Name{CommonName: "between"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
			})
			leaf := between.issue(row.leaf, &x509.Certificate{
				EmailAddresses: []string{"release@example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
			})
			s := newShelf()
			digest := s.image(1)
			signed := attach(leaf.key, digest, name)
			signed.UntrustedAnnotations[certificateAnnotation] = string(leaf.pem)
			signed.UntrustedAnnotations[chainAnnotation] = string(between.pem) + string(root.pem)
			s.attached[digest] = []registry.Signature{signed}
			v := verifier(t, s, object{"type": kindSigstore, "pki": object{"caRootsData": root.pem, "subjectEmail": "release@example.com"}})
			ends(t, v.Verify(t.Context(), byTag(digest)), row.want)
		})
	}
}
