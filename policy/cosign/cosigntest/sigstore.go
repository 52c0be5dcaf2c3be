// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosigntest is a Sigstore for tests and measurements: a certificate
// authority with its log, a transparency log (Rekor 1, and entries of Rekor 2)
// and a timestamp authority, all in the process that calls it. It signs images
// of registrytest in each of cosign's forms, keyless or by key, and lets its
// caller choose each time and spoil each part.
//
// It serves tests of what a verifier makes of such signatures. What cosign itself
// writes is the matter of e2e, which runs the real servers.
//
// Everything fails through the [TB] that the Sigstore was made with.
package cosigntest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"maps"
	"math/big"
	"net/url"
	"slices"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// TB is what is needed of a test, or of what stands in for one.
type TB = registrytest.TB

// Who signs if nothing else is said, in the real strings.
const (
	Issuer  = "https://token.actions.githubusercontent.com"
	Subject = "https://github.com/acme-co/shop/.github/workflows/release.yml@refs/heads/main"
)

// Sigstore is a whole trust root with the private keys to it: Rekor and the
// timestamp authority are sigstore-go's own for tests, the certificate authority
// and its log are made here, so that certificates are in a log and times can be
// chosen.
type Sigstore struct {
	*ca.VirtualSigstore

	// Root and Intermediate are the certificates of the authority.
	Root, Intermediate *x509.Certificate
	// CTLog is the key of the certificate log.
	CTLog *ecdsa.PrivateKey
	// Until is when the authority ends in the trust root.
	Until time.Time

	tb  TB
	key *ecdsa.PrivateKey // of Intermediate
}

// Span is a time in which something is valid.
type Span struct{ From, Until time.Time }

// Around is from some time ago until some time from now; either may be negative.
func Around(before, after time.Duration) Span {
	return Span{time.Now().Add(-before), time.Now().Add(after)}
}

// New makes a Sigstore that is valid for hours. What is signed with the
// timestamp authority is so for minutes.
func New(tb TB) *Sigstore {
	tb.Helper()
	return NewWith(tb, Around(5*time.Hour, 5*time.Hour))
}

// NewWith makes one whose intermediate certificate has a validity of its own.
func NewWith(tb TB, intermediate Span) *Sigstore {
	tb.Helper()
	virtual, err := ca.NewVirtualSigstore()
	must(tb, err)
	s := &Sigstore{VirtualSigstore: virtual, tb: tb, CTLog: NewKey(tb), Until: time.Now().Add(5 * time.Hour)}
	rootKey := NewKey(tb)
	authority := func(name string, valid Span) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: valid.From, NotAfter: valid.Until,
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}
	}
	template := authority("root", Around(10*time.Hour, 10*time.Hour))
	s.Root = issue(tb, template, template, keyPair{rootKey.Public(), rootKey})
	s.key = NewKey(tb)
	s.Intermediate = issue(tb, authority("intermediate", intermediate), s.Root, keyPair{s.key.Public(), rootKey})
	return s
}

func must(tb TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%v", err)
	}
}

// NewKey makes a key of the sort that keyless signatures are made with.
func NewKey(tb TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(tb, err)
	return key
}

// keyPair is whom a certificate is for, and who signs it.
type keyPair struct {
	public crypto.PublicKey
	by     crypto.Signer
}

func issue(tb TB, template, parent *x509.Certificate, keys keyPair) *x509.Certificate {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, keys.public, keys.by)
	must(tb, err)
	made, err := x509.ParseCertificate(der)
	must(tb, err)
	return made
}

// FulcioCertificateAuthorities implements [root.TrustedMaterial].
func (s *Sigstore) FulcioCertificateAuthorities() []root.CertificateAuthority {
	return append(s.VirtualSigstore.FulcioCertificateAuthorities(), &root.FulcioCertificateAuthority{
		Root: s.Root, Intermediates: []*x509.Certificate{s.Intermediate},
		ValidityPeriodStart: time.Now().Add(-10 * time.Hour), ValidityPeriodEnd: s.Until,
	})
}

// CTLogs implements [root.TrustedMaterial].
func (s *Sigstore) CTLogs() map[string]*root.TransparencyLog {
	id := keyID(s.tb, s.CTLog.Public())
	return map[string]*root.TransparencyLog{hex.EncodeToString(id[:]): {
		// The library takes an address apart that no one asks.
		BaseURL: "https://ctlog.localhost",
		ID:      id[:], PublicKey: s.CTLog.Public(), HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
		ValidityPeriodStart: time.Now().Add(-10 * time.Hour),
	}}
}

func keyID(tb TB, public crypto.PublicKey) [sha256.Size]byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	must(tb, err)
	return sha256.Sum256(der)
}

// TrustedRoot is the content of a trusted_root.json: the same trust root for
// another process.
func (s *Sigstore) TrustedRoot() []byte {
	s.tb.Helper()
	logs := maps.Clone(s.RekorLogs())
	for name, log := range logs {
		// Here the library's own has the digits of the id, where the file has
		// what they are of, and log entries too.
		id, err := hex.DecodeString(name)
		must(s.tb, err)
		with := *log
		with.ID = id
		logs[name] = &with
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		s.FulcioCertificateAuthorities(), s.CTLogs(), s.TimestampingAuthorities(), logs)
	must(s.tb, err)
	text, err := made.MarshalJSON()
	must(s.tb, err)
	return text
}

// Leaf is a certificate and its key; without a certificate it is a key alone.
type Leaf struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
}

// Issued is what a certificate says, as workflows have it if nothing else is
// said.
type Issued struct {
	Issuer, Subject, Email string
	Valid                  Span
	Unlogged               bool // it is in no certificate log
	Nameless               bool // it says nothing of its issuer
}

// Leaf issues a certificate, whose validity is that of now.
func (s *Sigstore) Leaf(says Issued) *Leaf {
	s.tb.Helper()
	if says.Issuer == "" {
		says.Issuer = Issuer
	}
	if says.Subject == "" && says.Email == "" {
		says.Subject = Subject
	}
	if says.Valid.From.IsZero() {
		says.Valid = Around(time.Minute, 9*time.Minute)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: says.Valid.From, NotAfter: says.Valid.Until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if says.Email != "" {
		template.EmailAddresses = []string{says.Email}
	}
	if says.Subject != "" {
		uri, err := url.Parse(says.Subject)
		must(s.tb, err)
		template.URIs = []*url.URL{uri}
	}
	if !says.Nameless {
		der, err := asn1.Marshal(says.Issuer)
		must(s.tb, err)
		template.ExtraExtensions = []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(says.Issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: der},
		}
	}
	made := &Leaf{Key: NewKey(s.tb)}
	if !says.Unlogged {
		s.log(template, made.Key.Public())
	}
	made.Certificate = issue(s.tb, template, s.Intermediate, keyPair{made.Key.Public(), s.key})
	return made
}

// log adds the promise of the certificate log: it is over the certificate
// without it.
func (s *Sigstore) log(template *x509.Certificate, public crypto.PublicKey) {
	s.tb.Helper()
	id := keyID(s.tb, s.CTLog.Public())
	sct := ct.SignedCertificateTimestamp{
		SCTVersion: ct.V1, LogID: ct.LogID{KeyID: id}, Timestamp: uint64(template.NotBefore.UnixMilli()),
	}
	extension := func() pkix.Extension {
		list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
		must(s.tb, err)
		raw, err := tls.Marshal(*list)
		must(s.tb, err)
		der, err := asn1.Marshal(raw)
		must(s.tb, err)
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: der}
	}
	draft := *template
	sct.Signature.Algorithm = tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}
	draft.ExtraExtensions = append(slices.Clip(draft.ExtraExtensions), extension())
	var chain []*ctx509.Certificate
	for _, der := range [][]byte{issue(s.tb, &draft, s.Intermediate, keyPair{public, s.key}).Raw, s.Intermediate.Raw} {
		parsed, err := ctx509.ParseCertificates(der)
		must(s.tb, err)
		chain = append(chain, parsed...)
	}
	entry, err := ct.MerkleTreeLeafForEmbeddedSCT(chain, sct.Timestamp)
	must(s.tb, err)
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: *entry})
	must(s.tb, err)
	sct.Signature.Signature = Sign(s.tb, s.CTLog, input)
	template.ExtraExtensions = append(template.ExtraExtensions, extension())
}

// Sign signs the SHA-256 of a message.
func Sign(tb TB, key crypto.Signer, message []byte) []byte {
	tb.Helper()
	digest := sha256.Sum256(message)
	signed, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	must(tb, err)
	return signed
}

// PEM is the certificate or, without one, the public key.
func (l *Leaf) PEM(tb TB) []byte {
	tb.Helper()
	if l.Certificate != nil {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Certificate.Raw})
	}
	der, err := x509.MarshalPKIXPublicKey(l.Key.Public())
	must(tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
