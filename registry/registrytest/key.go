// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	signatureoptions "github.com/sigstore/sigstore/pkg/signature/options"
)

// Kind is a kind of key.
type Kind string

// The kinds of keys that an authority may name.
const (
	ECDSAP256 Kind = "ecdsa-p256"
	ECDSAP384 Kind = "ecdsa-p384"
	ECDSAP521 Kind = "ecdsa-p521"
	RSA2048   Kind = "rsa-2048"
	RSA4096   Kind = "rsa-4096"
	Ed25519   Kind = "ed25519"
)

// Key is a key pair with the algorithm it signs by.
type Key struct {
	private  crypto.Signer
	public   []byte // PKIX DER
	pem      [2]string
	hash     crypto.Hash
	asCosign bool
}

// NewKey generates a key that signs over SHA-256: ECDSA, RSA with PKCS #1 v1.5, or pure Ed25519.
func NewKey(tb TB, kind Kind) *Key {
	tb.Helper()
	private, err := generate(kind)
	if err != nil {
		tb.Fatalf("generating a key: %v", err)
	}
	key := &Key{private: private, hash: crypto.SHA256}
	if key.public, err = x509.MarshalPKIXPublicKey(private.Public()); err != nil {
		tb.Fatalf("encoding a public key: %v", err)
	}
	publicPEM, err := cryptoutils.MarshalPublicKeyToPEM(private.Public())
	if err != nil {
		tb.Fatalf("encoding a public key: %v", err)
	}
	privatePEM, err := cryptoutils.MarshalPrivateKeyToPEM(private)
	if err != nil {
		tb.Fatalf("encoding a private key: %v", err)
	}
	key.pem = [2]string{string(publicPEM), string(privatePEM)}
	return key
}

func generate(kind Kind) (crypto.Signer, error) {
	switch kind {
	case ECDSAP256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case ECDSAP384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case ECDSAP521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case RSA4096:
		return rsa.GenerateKey(rand.Reader, 4096)
	case Ed25519:
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

// WithHash returns the same key, signing over SHA-256, SHA-384 or SHA-512. Pure Ed25519 has no choice of hash.
func (k *Key) WithHash(hash crypto.Hash) *Key {
	other := *k
	other.hash, other.asCosign = hash, false
	return &other
}

// AsCosign returns the same key, signing as `cosign sign --key` of cosign 2.6 and 3 does: P-384 over SHA-384,
// P-521 over SHA-512, Ed25519 prehashed (Ed25519ph, RFC 8032), everything else over SHA-256.
func (k *Key) AsCosign() *Key {
	other := *k
	other.asCosign = true
	return &other
}

// PublicPEM returns the public key as an authority's key.data has it.
func (k *Key) PublicPEM() string { return k.pem[0] }

// PrivatePEM returns the private key in PKCS #8, as `cosign import-key-pair` reads it.
func (k *Key) PrivatePEM() string { return k.pem[1] }

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.private.Public() }

// Hint returns what bundles carry to tell keys apart: base64 of the SHA-256 of the public key in PKIX DER.
func (k *Key) Hint() string {
	sum := sha256.Sum256(k.public)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func (k *Key) signer(tb TB) signature.SignerVerifier {
	tb.Helper()
	load := func() (signature.SignerVerifier, error) { return signature.LoadSignerVerifier(k.private, k.hash) }
	if k.asCosign {
		load = func() (signature.SignerVerifier, error) {
			return signature.LoadDefaultSignerVerifier(k.private, signatureoptions.WithED25519ph())
		}
	}
	signer, err := load()
	if err != nil {
		tb.Fatalf("loading a signing key: %v", err)
	}
	return signer
}

// keypair is a Key as sigstore-go signs bundles with it.
type keypair struct {
	key    *Key
	signer signature.SignerVerifier
}

var _ sign.Keypair = keypair{}

// GetHashAlgorithm implements sign.Keypair. Only bundles of bare messages carry it; those here hold DSSE.
func (keypair) GetHashAlgorithm() protocommon.HashAlgorithm {
	return protocommon.HashAlgorithm_HASH_ALGORITHM_UNSPECIFIED
}

// GetSigningAlgorithm implements sign.Keypair. Only transparency logs are told; none is used here.
func (keypair) GetSigningAlgorithm() protocommon.PublicKeyDetails {
	return protocommon.PublicKeyDetails_PUBLIC_KEY_DETAILS_UNSPECIFIED
}

// GetHint implements sign.Keypair.
func (k keypair) GetHint() []byte { return []byte(k.key.Hint()) }

// GetKeyAlgorithm implements sign.Keypair. Only Fulcio is told; it is not used here.
func (keypair) GetKeyAlgorithm() string { return "" }

// GetPublicKey implements sign.Keypair.
func (k keypair) GetPublicKey() crypto.PublicKey { return k.key.Public() }

// GetPublicKeyPem implements sign.Keypair.
func (k keypair) GetPublicKeyPem() (string, error) { return k.key.PublicPEM(), nil }

// SignData implements sign.Keypair. The digest it should return too is for bundles of bare messages only.
func (k keypair) SignData(ctx context.Context, data []byte) (sig, digest []byte, err error) {
	sig, err = k.signer.SignMessage(bytes.NewReader(data), signatureoptions.WithContext(ctx))
	return sig, nil, err
}
