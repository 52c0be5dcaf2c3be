// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"time"
)

// Authority is a certificate authority that only the caller's test knows.
type Authority struct {
	tb          TB
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate and its private key, both in PEM form.
type Pair struct{ Certificate, Key []byte }

// NewAuthority makes a certificate authority.
func NewAuthority(tb TB) *Authority {
	tb.Helper()
	a := &Authority{tb: tb}
	made := a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "registrytest authority"}, KeyUsage: x509.KeyUsageCertSign,
		IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour),
	})
	pair := made.TLS(tb)
	a.certificate, a.key = pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey)
	return a
}

// PEM returns the authority's certificate.
func (a *Authority) PEM() []byte { return encode("CERTIFICATE", a.certificate.Raw) }

// Pool returns the authority as the only one that is trusted.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.certificate)
	return pool
}

// Client makes a client's certificate for a name that the record of requests will show.
func (a *Authority) Client(name string) Pair { return a.ClientUntil(name, time.Now().Add(time.Hour)) }

// ClientUntil is Client for a certificate that ends, or has ended, at a time of the caller's choice.
func (a *Authority) ClientUntil(name string, end time.Time) Pair {
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, NotAfter: end,
	})
}

// Server makes a certificate for loopback addresses and names.
func (a *Authority) Server(names ...string) Pair {
	return a.sign(&x509.Certificate{
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, NotAfter: time.Now().Add(time.Hour),
		DNSNames:    append([]string{"localhost"}, names...),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)},
	})
}

// sign signs a new key's certificate by the authority's, or by itself while there is none.
func (a *Authority) sign(template *x509.Certificate) Pair {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.tb.Fatalf("making a key: %v", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62)); err != nil {
		a.tb.Fatalf("making a serial number: %v", err)
	}
	template.NotBefore = time.Now().Add(-24 * time.Hour)
	parent, signer := a.certificate, a.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.tb.Fatalf("making a certificate: %v", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.tb.Fatalf("encoding a key: %v", err)
	}
	return Pair{Certificate: encode("CERTIFICATE", raw), Key: encode("PRIVATE KEY", der)}
}

// TLS returns the pair as a TLS client or server shows it.
func (p Pair) TLS(tb TB) tls.Certificate {
	tb.Helper()
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	if err != nil {
		tb.Fatalf("reading a certificate: %v", err)
	}
	return pair
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// WithTLS makes the registry speak TLS, with a certificate of the authority for loopback addresses and names. It
// asks every client for a certificate, and notes whose it was; who shows none is let in all the same.
func WithTLS(authority *Authority, names ...string) Option {
	return func(o *options) {
		pair := authority.Server(names...).TLS(authority.tb)
		o.secure().Certificates = []tls.Certificate{pair}
	}
}

// WithClientCertificates lets in, over TLS, only who shows a certificate of the authority.
func WithClientCertificates(authority *Authority) Option {
	return func(o *options) {
		o.secure().ClientAuth, o.secure().ClientCAs = tls.RequireAndVerifyClientCert, authority.Pool()
	}
}

func (o *options) secure() *tls.Config {
	if o.tls == nil {
		o.tls = &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}
	}
	return o.tls
}

// shownBy is the common name of the client's certificate, empty for none.
func shownBy(req *http.Request) string {
	if req.TLS == nil || len(req.TLS.PeerCertificates) == 0 {
		return ""
	}
	return req.TLS.PeerCertificates[0].Subject.CommonName
}
