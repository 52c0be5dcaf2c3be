// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package trust reads roots of trust: whose certificates, log entries and
// timestamps are believed.
//
// A root comes from a text (Parse), from a file that is read again when it
// changes (File), or from a repository of The Update Framework that is asked in
// the background (TUF). The reading and the cryptography are those of the
// libraries github.com/sigstore/sigstore-go and
// github.com/theupdateframework/go-tuf. Nothing is dialled but through a
// transport that is handed in.
package trust

import (
	"crypto/sha256"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// Root is a root of trust. It does not change.
type Root struct {
	// Material is what sigstore's verifiers take.
	Material root.TrustedMaterial `json:"-"`
	// Hash identifies its whole content.
	Hash [sha256.Size]byte
}

// HasCertificateAuthorities reports whether it names any whose certificates are
// believed. Nil names nothing.
func (r *Root) HasCertificateAuthorities() bool {
	return r != nil && len(r.Material.FulcioCertificateAuthorities()) > 0
}

// HasCertificateLogs reports whether it names any log of certificates.
func (r *Root) HasCertificateLogs() bool { return r != nil && len(r.Material.CTLogs()) > 0 }

// HasTransparencyLogs reports whether it names any log of signatures.
func (r *Root) HasTransparencyLogs() bool { return r != nil && len(r.Material.RekorLogs()) > 0 }

// HasTimestampAuthorities reports whether it names any whose timestamps are
// believed.
func (r *Root) HasTimestampAuthorities() bool {
	return r != nil && len(r.Material.TimestampingAuthorities()) > 0
}
