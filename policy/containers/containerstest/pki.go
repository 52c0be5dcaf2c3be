// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containerstest

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"time"

	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
)

// PKI is somebody's own authority: a root certificate, and one below it that
// issues.
type PKI struct {
	root, issuer *x509.Certificate
	key          *ecdsa.PrivateKey // of issuer
	tb           TB
}

// pkiHours is for how long certificates are good, before now and after.
const pkiHours = 5 * time.Hour

// NewPKI makes an authority.
func NewPKI(tb TB) *PKI {
	tb.Helper()
	rootKey, key := cosigntest.NewKey(tb), cosigntest.NewKey(tb)
	valid := cosigntest.Around(pkiHours, pkiHours)
	authority := func(name string, serial int64) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: valid.From, NotAfter: valid.Until,
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		}
	}
	p := &PKI{key: key, tb: tb}
	template := authority("Acme root", 1)
	p.root = p.certify(template, template, rootKey, rootKey)
	p.issuer = p.certify(authority("Acme issuer", 2), p.root, key, rootKey)
	return p
}

// Subject is what a certificate says.
type Subject struct {
	Email, Hostname string
	Valid           cosigntest.Span  // as the authority's if zero
	Usage           x509.ExtKeyUsage // code signing if zero
}

// Leaf issues a certificate.
func (p *PKI) Leaf(says Subject) *cosigntest.Leaf {
	p.tb.Helper()
	if says.Valid.From.IsZero() {
		says.Valid = cosigntest.Span{From: p.issuer.NotBefore, Until: p.issuer.NotAfter}
	}
	if says.Usage == x509.ExtKeyUsageAny {
		says.Usage = x509.ExtKeyUsageCodeSigning
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(3), NotBefore: says.Valid.From, NotAfter: says.Valid.Until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{says.Usage},
	}
	if says.Email != "" {
		template.EmailAddresses = []string{says.Email}
	}
	if says.Hostname != "" {
		template.DNSNames = []string{says.Hostname}
	}
	key := cosigntest.NewKey(p.tb)
	return &cosigntest.Leaf{Certificate: p.certify(template, p.issuer, key, p.key), Key: key}
}

// Roots and Intermediates are what pki.caRootsData and caIntermediatesData have.
func (p *PKI) Roots() []byte { return certificatePEM(p.root) }

// Intermediates are the certificates between.
func (p *PKI) Intermediates() []byte { return certificatePEM(p.issuer) }

// Sign signs a claim. The chain to the root comes with it.
func (p *PKI) Sign(by *cosigntest.Leaf, claim Claim) Attachment {
	p.tb.Helper()
	payload := claim.Cosign(p.tb)
	return Attachment{payload, map[string]string{
		SignatureAnnotation:   base64.StdEncoding.EncodeToString(cosigntest.Sign(p.tb, by.Key, payload)),
		CertificateAnnotation: string(by.PEM(p.tb)),
		ChainAnnotation:       string(p.Intermediates()) + string(p.Roots()),
	}}
}

func (p *PKI) certify(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	p.tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, by)
	must(p.tb, err)
	made, err := x509.ParseCertificate(der)
	must(p.tb, err)
	return made
}
