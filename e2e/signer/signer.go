// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package signer makes the keys with which images are signed in tests.
//
// What signs is in two packages of the same shape, so that callers choose:
//
//	signer/cosign2  cosign sign of version 2: a signature under the tag sha256-<hex>.sig
//	signer/cosign3  cosign sign of version 3: a bundle that refers to the image
//
// Both call the function that the command line calls, with the defaults of its
// flags; with a key alone neither needs a network beyond the registry. Options
// say what else there is to sign with, and need the services of a Sigstore; see
// package sigstore.
package signer

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/sigstore/cosign/v2/pkg/cosign"
)

// A Key is a key pair as cosign generate-key-pair leaves it on disk.
type Key struct {
	// PrivateFile is the path of the private key, encrypted with Password.
	PrivateFile string
	// PublicFile is the path of the public key; its content is PublicPEM.
	PublicFile string
	// PublicPEM is the public key in PKIX form, PEM encoded: what an
	// ImageConfig takes as key.data.
	PublicPEM string
	// Password decrypts the private key.
	Password string
}

// A Func signs the image, written "host:port/repository@sha256:…" or with a
// tag, of which cosign disapproves on standard error. An index is signed as the
// index. The annotations are part of what is signed; nil means none, a name must
// not have a "=", and with cosign 2 neither may a value. cosign2.Sign and
// cosign3.Sign are such functions.
//
// The registry must be on a loopback address, "localhost" or "*.local" if it
// speaks plain HTTP. Credentials come from the Docker configuration file.
type Func func(ctx context.Context, key Key, image string, annotations map[string]string) error

// GenerateKeyPair makes an ECDSA P-256 key pair, as cosign does by default, and
// writes cosign.key and cosign.pub into the folder dir, which it makes if need
// be. It takes about 0.1 s: the password is stretched on purpose.
func GenerateKeyPair(dir, password string) (Key, error) {
	return GenerateKeyPairWith(dir, password, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
}

// GenerateKeyPairWith is GenerateKeyPair with another algorithm. Useful are
// PKIX_ECDSA_P256_SHA_256, PKIX_ECDSA_P384_SHA_384, PKIX_ECDSA_P521_SHA_512,
// PKIX_RSA_PKCS1V15_2048_SHA256 (and 3072, 4096) and PKIX_ED25519_PH: with an
// Ed25519 key both versions of cosign sign the hash (Ed25519ph, RFC 8032), and
// a verifier must be told so.
func GenerateKeyPairWith(dir, password string, algorithm protocommon.PublicKeyDetails) (Key, error) {
	details, err := signature.GetAlgorithmDetails(algorithm)
	if err != nil {
		return Key{}, fmt.Errorf("looking up algorithm %s: %w", algorithm, err)
	}
	pair, err := cosign.GenerateKeyPairWithAlgorithm(&details, func(bool) ([]byte, error) { return []byte(password), nil })
	if err != nil {
		return Key{}, fmt.Errorf("generating a %s key: %w", algorithm, err)
	}

	key := Key{
		PrivateFile: filepath.Join(dir, "cosign.key"),
		PublicFile:  filepath.Join(dir, "cosign.pub"),
		PublicPEM:   string(pair.PublicBytes),
		Password:    password,
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Key{}, fmt.Errorf("making the key's folder: %w", err)
	}
	if err := os.WriteFile(key.PrivateFile, pair.PrivateBytes, 0o600); err != nil {
		return Key{}, fmt.Errorf("writing the private key: %w", err)
	}
	if err := os.WriteFile(key.PublicFile, pair.PublicBytes, 0o644); err != nil {
		return Key{}, fmt.Errorf("writing the public key: %w", err)
	}
	return key, nil
}

// Pairs writes annotations as name=value, sorted: the form in which both
// versions of cosign hold what --annotations gave them. They must not be given
// to that flag itself, whose parser splits values at commas.
func Pairs(annotations map[string]string) []string {
	list := make([]string, 0, len(annotations))
	for name, value := range annotations {
		list = append(list, name+"="+value)
	}
	slices.Sort(list)
	return list
}
