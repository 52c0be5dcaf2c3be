// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosign3 signs images as the command line of cosign 3 does:
//
//	cosign sign --key cosign.key --signing-config none.json --annotations k=v IMAGE
//
// where none.json names no service.
//
// The signature is a Sigstore bundle in the same repository whose subject is
// the image. It is found by the referrers API, or, in a registry without it, by
// the index under the tag sha256-<hex>. SignWith signs by an identity too, into
// a log, with a timestamp, or elsewhere, and Attest writes attestations.
package cosign3

import (
	"context"

	"github.com/pratique-dev/pratique/e2e/signer"
)

var _ signer.Func = Sign

// Sign signs the image with the key; see signer.Func. Where it pushes to is
// printed on standard error, as the command line does. Each call adds a bundle.
func Sign(ctx context.Context, key signer.Key, image string, annotations map[string]string) error {
	return SignWith(ctx, image, signer.Options{Key: &key, Annotations: annotations})
}
