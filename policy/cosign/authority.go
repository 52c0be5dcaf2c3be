// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Authority is one party whose signature is enough. Exactly one of Static and
// Key is set.
type Authority struct {
	Name string
	// Static decides without looking: StaticPass or StaticFail.
	Static Static
	// Key is a public key in PEM form; Hash is what its signatures are made
	// over, 0 for SHA-256.
	Key  []byte
	Hash crypto.Hash
	// Annotations must all be in one and the same signature.
	Annotations map[string]string
}

// Static is the verdict of an authority that looks at no image.
type Static string

// The static verdicts.
const (
	StaticPass Static = "pass"
	StaticFail Static = "fail"
)

// authority is an Authority made ready: nothing is parsed for a request.
type authority struct {
	Authority

	legacy *cosign.CheckOpts
	bundle *verify.Verifier
}

func compile(a Authority) (*authority, error) {
	compiled := &authority{Authority: a}
	switch {
	case a.Static != "" && len(a.Key) > 0:
		return nil, errors.New("static and key exclude each other")
	case a.Static == StaticPass, a.Static == StaticFail:
		return compiled, nil
	case len(a.Key) == 0:
		return nil, errors.New("it has neither key nor static")
	}
	verifier, err := loadKey(a.Key, a.Hash)
	if err != nil {
		return nil, err
	}
	compiled.legacy = &cosign.CheckOpts{
		SigVerifier:   verifier,
		ClaimVerifier: verifyClaims,
		Annotations:   map[string]any{},
		// A log entry is asked for only by authorities with ctlog.
		IgnoreTlog: true,
		Offline:    true,
	}
	for name, value := range a.Annotations {
		compiled.legacy.Annotations[name] = value
	}
	// The zero times mean that the key has no period of validity. The hint in a
	// bundle is not trusted to choose: this authority has this key.
	material := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) {
		return root.NewExpiringKey(verifier, time.Time{}, time.Time{}), nil
	})
	compiled.bundle, err = verify.NewVerifier(material, verify.WithNoObserverTimestamps())
	if err != nil {
		return nil, fmt.Errorf("preparing the verifier of bundles: %w", err)
	}
	return compiled, nil
}

// loadKey reads a public key and returns a verifier of all the ways in which
// cosign's versions sign with it.
func loadKey(pem []byte, hash crypto.Hash) (signature.Verifier, error) {
	key, err := cryptoutils.UnmarshalPEMToPublicKey(pem)
	if err != nil {
		return nil, errors.New("not a public key in PEM form (BEGIN PUBLIC KEY)")
	}
	if hash == 0 {
		hash = crypto.SHA256
	}
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
	rawSignature, err := io.ReadAll(sig)
	if err != nil {
		return fmt.Errorf("reading the signature: %w", err)
	}
	rawMessage, err := io.ReadAll(message)
	if err != nil {
		return fmt.Errorf("reading what is signed: %w", err)
	}
	var failure error
	for _, verifier := range v {
		failure = verifier.VerifySignature(bytes.NewReader(rawSignature), bytes.NewReader(rawMessage), opts...)
		if failure == nil {
			return nil
		}
	}
	return failure
}
