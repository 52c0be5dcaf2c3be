// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosign judges images by signatures made with Sigstore's cosign.
//
// Both forms of signature are looked for at the same time: the layers under the
// .sig tag, and sigstore bundles that refer to the image. An image is good if
// any signature of either form satisfies any authority, so that whoever may
// only add signatures cannot spoil those that are there.
//
// The cryptography, and the reading of what is signed, is that of the libraries
// github.com/sigstore/cosign and github.com/sigstore/sigstore-go.
package cosign
