// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// key is a public key as signatures by it are verified.
type key struct {
	verifier signature.Verifier
	id       keyID
}

// keyID tells keys apart: how they were written does not count.
type keyID struct {
	public [sha256.Size]byte
	hash   crypto.Hash
}

// key reads a public key, or finds the one that was read before.
func (c *compiler) key(pem []byte, hash crypto.Hash) (*key, error) {
	verifier, err := loadKey(pem, hash)
	if err != nil {
		return nil, err
	}
	public, err := verifier.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("reading the public key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("encoding the public key: %w", err)
	}
	id := keyID{sha256.Sum256(der), cmp.Or(hash, crypto.SHA256)}
	if c.keys[id] == nil {
		c.keys[id] = &key{verifier, id}
	}
	return c.keys[id], nil
}

// loadKey reads a public key and returns a verifier of all the ways in which
// cosign's versions sign with it.
func loadKey(pem []byte, hash crypto.Hash) (signature.Verifier, error) {
	key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, errors.New("not a public key in PEM form (BEGIN PUBLIC KEY)")
	}
	hash = cmp.Or(hash, crypto.SHA256)
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		return loadECDSA(key, hash)
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return nil, fmt.Errorf("an RSA key of %d bits: at least %d are needed", key.N.BitLen(), minRSABits)
		}
		return signature.LoadRSAPKCS1v15Verifier(key, hash)
	case ed25519.PublicKey:
		return loadEd25519(key)
	default:
		return nil, fmt.Errorf("a public key of the type %T: use ECDSA, RSA or Ed25519", key)
	}
}

// minRSABits is the least that NIST SP 800-131A revision 2 allows for
// verifying signatures made now.
const minRSABits = 2048

// loadECDSA verifies over the given hash and, where that is the default of
// SHA-256, over the one that fits the curve: cosign signed with SHA-256 on
// every curve before it began to choose by the curve.
func loadECDSA(key *ecdsa.PublicKey, hash crypto.Hash) (signature.Verifier, error) {
	hashes := []crypto.Hash{hash}
	switch key.Curve {
	case elliptic.P256():
	case elliptic.P384():
		if hash == crypto.SHA256 {
			hashes = append(hashes, crypto.SHA384)
		}
	case elliptic.P521():
		if hash == crypto.SHA256 {
			hashes = append(hashes, crypto.SHA512)
		}
	default:
		return nil, fmt.Errorf("an ECDSA key on the curve %s: use P-256, P-384 or P-521", key.Params().Name)
	}
	var verifiers anyOf
	for _, hash := range hashes {
		verifier, err := signature.LoadECDSAVerifier(key, hash)
		if err != nil {
			return nil, fmt.Errorf("loading the ECDSA key: %w", err)
		}
		verifiers = append(verifiers, verifier)
	}
	return verifiers, nil
}

// loadEd25519 verifies signatures over the message and, as newer versions of
// cosign make them, over its hash (RFC 8032, Ed25519ph).
func loadEd25519(key ed25519.PublicKey) (signature.Verifier, error) {
	pure, err := signature.LoadED25519Verifier(key)
	if err != nil {
		return nil, fmt.Errorf("loading the Ed25519 key: %w", err)
	}
	hashed, err := signature.LoadED25519phVerifier(key)
	if err != nil {
		return nil, fmt.Errorf("loading the Ed25519 key: %w", err)
	}
	return anyOf{pure, hashed}, nil
}

// anyOf verifies with one key in several ways; one that holds is enough.
type anyOf []signature.Verifier

// PublicKey implements [signature.PublicKeyProvider].
func (v anyOf) PublicKey(opts ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return v[0].PublicKey(opts...)
}

// VerifySignature implements [signature.Verifier].
func (v anyOf) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	_, err := verifyAny(v, sig, message, opts)
	return err
}

// verifyAny tries verifiers one after the other, and returns the place of the
// first that holds. What is signed is read once.
func verifyAny(verifiers []signature.Verifier, sig, message io.Reader, opts []signature.VerifyOption) (int, error) {
	rawSignature, err := io.ReadAll(sig)
	if err != nil {
		return 0, fmt.Errorf("reading the signature: %w", err)
	}
	rawMessage, err := io.ReadAll(message)
	if err != nil {
		return 0, fmt.Errorf("reading what is signed: %w", err)
	}
	failure := errors.New("no key to verify with")
	for i, verifier := range verifiers {
		failure = verifier.VerifySignature(bytes.NewReader(rawSignature), bytes.NewReader(rawMessage), opts...)
		if failure == nil {
			return i, nil
		}
	}
	return 0, failure
}

// ring verifies with several keys and tells which of them held last.
type ring struct {
	keys []*key
	held *key
}

// PublicKey implements [signature.PublicKeyProvider]. A ring is no key in
// particular: the key's name in an envelope, which nobody signed, is compared
// with none.
func (r *ring) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) { return nil, nil }

// VerifySignature implements [signature.Verifier].
func (r *ring) VerifySignature(sig, message io.Reader, opts ...signature.VerifyOption) error {
	verifiers := make([]signature.Verifier, len(r.keys))
	for i, key := range r.keys {
		verifiers[i] = key.verifier
	}
	i, err := verifyAny(verifiers, sig, message, opts)
	if err != nil {
		return err
	}
	r.held = r.keys[i]
	return nil
}

// byKey are the options by which cosign verifies a signature with a key, and
// nothing else: they are the only ones here that ask for no time, as a key has
// none.
func byKey(verifier signature.Verifier) *cosign.CheckOpts {
	return &cosign.CheckOpts{SigVerifier: verifier, IgnoreTlog: true, Offline: true}
}
