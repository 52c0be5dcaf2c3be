// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"slices"
	"time"
)

// authority signs leaves, if it has its key.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey // nil: it is trusted, and signs no more
}

// leaf is what is served.
type leaf struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes an authority that can sign leaves and nothing below them.
func newAuthority(now time.Time, lasting time.Duration) (authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return authority{}, fmt.Errorf("making the key of an authority: %w", err)
	}
	template := &x509.Certificate{
		// Two authorities are told apart by their keys; the date is for people.
		Subject:   pkix.Name{CommonName: "pratique webhook CA of " + now.UTC().Format(time.DateOnly)},
		NotBefore: now.Add(-backdate), NotAfter: now.Add(lasting),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
	certificate, err := sign(template, template, key, key)
	if err != nil {
		return authority{}, fmt.Errorf("making an authority: %w", err)
	}
	return authority{certificate, key}, nil
}

// issue makes a leaf for the names, which ends with its authority at the latest.
func (a authority) issue(now time.Time, lasting time.Duration, names []string) (*leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making the key of the certificate: %w", err)
	}
	dns, addresses := hosts(names)
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "pratique webhook"},
		NotBefore: now.Add(-backdate), NotAfter: a.until(now, lasting),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    dns, IPAddresses: addresses,
	}
	certificate, err := sign(template, a.certificate, key, a.key)
	if err != nil {
		return nil, fmt.Errorf("making the certificate: %w", err)
	}
	return &leaf{certificate, key}, nil
}

// until is when a leaf that is issued now ends.
func (a authority) until(now time.Time, lasting time.Duration) time.Time {
	end := now.Add(lasting)
	if a.certificate.NotAfter.Before(end) {
		end = a.certificate.NotAfter
	}
	return end.Truncate(time.Second) // as certificates have it
}

// sign leaves the serial number to x509, which draws a random one.
func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// made is when a certificate of ours was made.
func made(c *x509.Certificate) time.Time { return c.NotBefore.Add(backdate) }

// ended reports whether a certificate is over. That one has not begun is no
// concern here: API servers go by their own clocks, and a replica whose clock is
// behind must not replace what is good.
func ended(c *x509.Certificate, now time.Time) bool { return !now.Before(c.NotAfter) }

// signed reports whether an API server that trusts this authority alone would
// believe the leaf now, if its clock is right.
func (a authority) signed(l *leaf, now time.Time) bool {
	for _, c := range []*x509.Certificate{a.certificate, l.certificate} {
		if now.Before(c.NotBefore) {
			now = c.NotBefore
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.certificate)
	_, err := l.certificate.Verify(x509.VerifyOptions{
		Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	// x509 takes the last second as part of it.
	return err == nil && !ended(l.certificate, now) && !ended(a.certificate, now)
}

// covers reports whether a leaf is for all of the names.
func (l *leaf) covers(names []string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return l.certificate.VerifyHostname(name) != nil })
}
