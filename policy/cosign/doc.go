// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosign judges images by signatures and attestations made with
// Sigstore's cosign.
//
// All forms are looked for at the same time, in all places that a rule names:
// the layers under the .sig and .att tags, and sigstore bundles that refer to
// the image. An image is good if what is found satisfies any authority, so that
// whoever may only add signatures cannot spoil those that are there.
//
// What is found is evidence, of which nothing is believed. An authority asks of
// it who signed it, its terms being fulfilled (a certificate that the trust root
// vouches for, a log entry, a timestamp), and then what it says. However many
// authorities ask the same, it is verified once. A certificate is judged at a
// time that a log or a timestamp authority vouches for, and at no other: one
// without a time is never believed, not even while it is valid.
//
// The cryptography, and the reading of what is signed, is that of the libraries
// github.com/sigstore/cosign and github.com/sigstore/sigstore-go. Where they
// panic, verify with keys that they do not trust yet, or fall back to the
// present, their parts are put together here instead.
package cosign
