// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/sha256"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// composed keeps what is hashed for a composed root apart from what is hashed
// for one that was read: JSON does not begin so.
const composed = "pratique: composed trust root\n"

// Compose puts a root together from parts of three: certificate authorities and
// certificate logs are those of the first, transparency logs those of the
// second, timestamp authorities those of the third. A nil one gives none.
func Compose(certificates, logs, timestamps *Root) *Root {
	material := &parts{}
	hash := sha256.New()
	hash.Write([]byte(composed))
	for _, part := range []*Root{certificates, logs, timestamps} {
		// Each part has the same length, and no root the hash that stands for
		// none: what is hashed can be read in one way only.
		if part == nil {
			part = &Root{}
		}
		hash.Write(part.Hash[:])
	}
	if certificates != nil {
		material.authorities = certificates.Material.FulcioCertificateAuthorities()
		material.certificateLogs = certificates.Material.CTLogs()
	}
	if logs != nil {
		material.logs = logs.Material.RekorLogs()
	}
	if timestamps != nil {
		material.timestamps = timestamps.Material.TimestampingAuthorities()
	}
	return &Root{Material: material, Hash: [sha256.Size]byte(hash.Sum(nil))}
}

// parts implements [root.TrustedMaterial]. It knows no public keys.
type parts struct {
	root.BaseTrustedMaterial

	authorities     []root.CertificateAuthority
	certificateLogs map[string]*root.TransparencyLog
	logs            map[string]*root.TransparencyLog
	timestamps      []root.TimestampingAuthority
}

func (p *parts) FulcioCertificateAuthorities() []root.CertificateAuthority { return p.authorities }

func (p *parts) CTLogs() map[string]*root.TransparencyLog { return p.certificateLogs }

func (p *parts) RekorLogs() map[string]*root.TransparencyLog { return p.logs }

func (p *parts) TimestampingAuthorities() []root.TimestampingAuthority { return p.timestamps }
