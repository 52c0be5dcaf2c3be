// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// since is when all that tests trust began to be.
var since = time.Date(1999, time.January, 1, 0, 0, 0, 0, time.UTC)

// certificate makes a certificate; one that is its own issuer, or that of the
// parent that is given.
type certificate struct {
	*x509.Certificate

	key crypto.Signer
}

func newCertificate(t *testing.T, name string, parent *certificate, key crypto.Signer) *certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: since, NotAfter: since.AddDate(100, 0, 0),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: name != "leaf",
	}
	issuer := &certificate{Certificate: template, key: key}
	if parent != nil {
		issuer = parent
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, issuer.Certificate, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return &certificate{Certificate: parsed, key: key}
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t *testing.T, bits int) *rsa.PrivateKey {
	t.Helper()
	t.Setenv("GODEBUG", "rsa1024min=0") // weak keys are made on purpose
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// authority is a chain, from the issuer of leaves to the root.
func authority(chain ...*certificate) *prototrustroot.CertificateAuthority {
	certificates := &protocommon.X509CertificateChain{}
	for _, c := range chain {
		certificates.Certificates = append(certificates.Certificates, &protocommon.X509Certificate{RawBytes: c.Raw})
	}
	return &prototrustroot.CertificateAuthority{
		Uri: "https://ca.example.com", CertChain: certificates,
		ValidFor: &protocommon.TimeRange{Start: timestamppb.New(since)},
	}
}

func newLog(t *testing.T, key crypto.Signer, details protocommon.PublicKeyDetails) *prototrustroot.TransparencyLogInstance {
	t.Helper()
	raw, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	id := sha256.Sum256(raw)
	return &prototrustroot.TransparencyLogInstance{
		BaseUrl: "https://log.example.com", HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
		PublicKey: &protocommon.PublicKey{
			RawBytes: raw, KeyDetails: details, ValidFor: &protocommon.TimeRange{Start: timestamppb.New(since)},
		},
		LogId: &protocommon.LogId{KeyId: id[:]},
	}
}

func p256Log(t *testing.T) *prototrustroot.TransparencyLogInstance {
	t.Helper()
	return newLog(t, ecdsaKey(t, elliptic.P256()), protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
}

// goodRoot has one of each part.
func goodRoot(t *testing.T) *prototrustroot.TrustedRoot {
	t.Helper()
	ca := newCertificate(t, "root", nil, ecdsaKey(t, elliptic.P384()))
	issuer := newCertificate(t, "issuer", ca, ecdsaKey(t, elliptic.P256()))
	stamper := newCertificate(t, "leaf", ca, ecdsaKey(t, elliptic.P256()))
	return &prototrustroot.TrustedRoot{
		MediaType:              root.TrustedRootMediaType01,
		CertificateAuthorities: []*prototrustroot.CertificateAuthority{authority(issuer, ca)},
		TimestampAuthorities:   []*prototrustroot.CertificateAuthority{authority(stamper, ca)},
		Tlogs:                  []*prototrustroot.TransparencyLogInstance{p256Log(t)},
		Ctlogs:                 []*prototrustroot.TransparencyLogInstance{p256Log(t)},
	}
}

func text(t *testing.T, message *prototrustroot.TrustedRoot) []byte {
	t.Helper()
	raw, err := protojson.Marshal(message)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// goodText is a root unlike any other.
func goodText(t *testing.T) []byte {
	t.Helper()
	return text(t, goodRoot(t))
}
