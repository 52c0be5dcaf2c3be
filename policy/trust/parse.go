// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
)

const (
	// maxRoot is how long a trusted root may be: what a ConfigMap or a Secret can
	// hold. That of the public Sigstore has 7 KB.
	maxRoot = 1 << 20
	// minRSABits is the least that NIST SP 800-131A revision 2 allows for
	// verifying signatures made now.
	minRSABits = 2048
	// maxDetail is how much of a library's error is repeated, in bytes.
	maxDetail = 200
)

// Parse reads a trusted_root.json, a text of the media type
// application/vnd.dev.sigstore.trustedroot+json.
//
// It refuses, besides what the library refuses, a root that can vouch for
// nothing, or parts of which cannot, and keys that are too weak: whoever wrote
// it meant something else. Its errors are one short line, and repeat nothing of
// a text that is not a trusted root: it may be a secret that was named by
// mistake.
func Parse(raw []byte) (*Root, error) {
	if len(raw) > maxRoot {
		return nil, fmt.Errorf("not a trusted root: it has more than %d bytes", maxRoot)
	}
	if err := checkMediaType(raw); err != nil {
		return nil, err
	}
	// Decodes strictly: names that are unknown, or are there twice, and data
	// after the end are errors.
	message, err := root.NewTrustedRootProtobuf(raw)
	if err != nil {
		return nil, fmt.Errorf("reading the trusted root: %s", detail(err))
	}
	if err := checkParts(message); err != nil {
		return nil, err
	}
	material, err := root.NewTrustedRootFromProtobuf(message)
	if err != nil {
		return nil, fmt.Errorf("reading the trusted root: %s", detail(err))
	}
	return &Root{Material: material, Hash: sha256.Sum256(raw)}, nil
}

// checkMediaType reports why a text is no trusted root, without repeating it.
func checkMediaType(raw []byte) error {
	var text struct {
		MediaType *string `json:"mediaType"`
	}
	// Only what it says of itself is of interest here: errors after that are told
	// by who decodes the rest.
	err := json.Unmarshal(raw, &text)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("not a trusted root: it is not JSON, which is seen at byte %d", syntax.Offset)
	case text.MediaType != nil && *text.MediaType == root.TrustedRootMediaType01:
		return nil
	case text.MediaType == nil:
		return fmt.Errorf("not a trusted root: it has no mediaType, which must be %q", root.TrustedRootMediaType01)
	default:
		return fmt.Errorf("not a trusted root: its mediaType must be %q", root.TrustedRootMediaType01)
	}
}

// checkParts reports what is wrong with a part, naming it. It looks for what the
// library accepts and cannot use, or should not.
func checkParts(message *prototrustroot.TrustedRoot) error {
	authorities, timestamps := message.GetCertificateAuthorities(), message.GetTimestampAuthorities()
	if len(authorities)+len(timestamps)+len(message.GetTlogs()) == 0 {
		return errors.New("the trusted root is of no use: it names no certificate authority, no transparency log and no timestamp authority")
	}
	for i, authority := range authorities {
		if err := checkAuthority(authority); err != nil {
			return fmt.Errorf("certificateAuthorities[%d]: %s", i, detail(err))
		}
	}
	for i, authority := range timestamps {
		if err := checkTimestamps(authority); err != nil {
			return fmt.Errorf("timestampAuthorities[%d]: %s", i, detail(err))
		}
	}
	if err := checkLogs("tlogs", message.GetTlogs()); err != nil {
		return err
	}
	return checkLogs("ctlogs", message.GetCtlogs())
}

// checkAuthority refuses a chain with a certificate that may not issue others.
// The last would be believed itself, if it signed something.
func checkAuthority(message *prototrustroot.CertificateAuthority) error {
	authority, err := root.ParseCertificateAuthority(message)
	if err != nil {
		return err
	}
	for _, certificate := range append(authority.Intermediates, authority.Root) {
		if !certificate.IsCA {
			return errors.New("its chain has a certificate that may not issue others")
		}
	}
	return checkChain(message)
}

// checkTimestamps refuses a chain without a root: no timestamp could be verified
// by it.
func checkTimestamps(message *prototrustroot.CertificateAuthority) error {
	parsed, err := root.ParseTimestampingAuthority(message)
	if err != nil {
		return err
	}
	authority, ok := parsed.(*root.SigstoreTimestampingAuthority)
	if !ok || authority.Root == nil || !authority.Root.IsCA {
		return errors.New("its chain does not end in a certificate that may issue others")
	}
	return checkChain(message)
}

func checkChain(message *prototrustroot.CertificateAuthority) error {
	for _, raw := range message.GetCertChain().GetCertificates() {
		certificate, err := x509.ParseCertificate(raw.GetRawBytes())
		if err != nil {
			return err
		}
		if err := checkKey(certificate.PublicKey); err != nil {
			return err
		}
	}
	return nil
}

// checkLogs refuses a log that is named twice: the library keeps the last, in
// silence.
func checkLogs(name string, logs []*prototrustroot.TransparencyLogInstance) error {
	named := map[string]bool{}
	for i, message := range logs {
		parsed, err := root.ParseTransparencyLogs([]*prototrustroot.TransparencyLogInstance{message})
		if err != nil {
			return fmt.Errorf("%s[%d]: %s", name, i, detail(err))
		}
		id := logID(message.GetLogId())
		if named[id] {
			return fmt.Errorf("%s[%d]: the same logId as another's", name, i)
		}
		named[id] = true
		for _, log := range parsed {
			if err := checkKey(log.PublicKey); err != nil {
				return fmt.Errorf("%s[%d]: %w", name, i, err)
			}
		}
	}
	return nil
}

func logID(id *protocommon.LogId) string { return hex.EncodeToString(id.GetKeyId()) }

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *rsa.PublicKey:
		if key.N.BitLen() < minRSABits {
			return fmt.Errorf("an RSA key of %d bits: at least %d are needed", key.N.BitLen(), minRSABits)
		}
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return fmt.Errorf("an ECDSA key on the curve %s: use P-256, P-384 or P-521", key.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return fmt.Errorf("a public key of the type %T: use ECDSA, RSA or Ed25519", key)
	}
	return nil
}

// detail is a library's error on one short line. Some have several, and parts of
// what was read.
func detail(err error) string { return brief(err.Error()) }

func brief(untrustedText string) string {
	text := strings.Join(strings.Fields(untrustedText), " ")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxDetail {
		text = strings.ToValidUTF8(text[:maxDetail], "") + "…"
	}
	return text
}
