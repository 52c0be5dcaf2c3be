// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosign2 signs images as the command line of cosign 2 does:
//
//	cosign sign --key cosign.key --tlog-upload=false --annotations k=v IMAGE
//
// The signature goes into the same repository under the tag sha256-<hex>.sig.
// SignWith signs by an identity too, into a log, with a timestamp, or elsewhere,
// and Attest writes attestations.
package cosign2

import (
	"context"

	"github.com/pratique-dev/pratique/e2e/signer"
)

var _ signer.Func = Sign

// Sign signs the image with the key; see signer.Func. Where it pushes to is
// printed on standard error, as the command line does. A second signature of an
// image joins the first under the same tag; signing twice at the same time may
// lose one, for the tag is read and then written.
//
// The deadline of ctx holds. A later cancellation is not noticed: cosign 2
// takes no context.
func Sign(ctx context.Context, key signer.Key, image string, annotations map[string]string) error {
	return SignWith(ctx, image, signer.Options{Key: &key, Annotations: annotations})
}
