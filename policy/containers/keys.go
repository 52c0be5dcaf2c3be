// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"go.podman.io/image/v5/signature"
)

// exportHint says how a file comes about that can be read here.
const exportHint = "write what `gpg --export KEY…` prints"

// armored finds where an armored block begins (RFC 9580, section 6.2).
var armored = regexp.MustCompile(`(?m)^[ \t]*-----BEGIN PGP ([A-Z0-9 ,/]+)-----[ \t]*\r?$`)

// readKeyring reads GPG keys in either form, and returns them in the binary one.
// Of several armored blocks in one text the library would read the first alone.
func readKeyring(content []byte) ([]byte, openpgp.EntityList, *mistake) {
	blocks, m := dearmor(content)
	if m != nil {
		return nil, nil, m
	}
	var all []byte
	var keyring openpgp.EntityList
	for i, block := range blocks {
		entities, m := readKeys(block)
		if m != nil {
			if len(blocks) > 1 {
				m.message = fmt.Sprintf("of its %d keys in text form, number %d: %s", len(blocks), i+1, m.message)
			}
			return nil, nil, m
		}
		all, keyring = append(all, block...), append(keyring, entities...)
	}
	// The library has to find the same.
	mechanism, identities, err := signature.NewEphemeralGPGSigningMechanism(all)
	if err != nil {
		return nil, nil, &mistake{message: "it holds no GPG key that can be read", hint: exportHint, cause: err}
	}
	if err := mechanism.Close(); err != nil {
		return nil, nil, &mistake{message: "its GPG keys cannot be read", cause: err}
	}
	if len(identities) != len(keyring) {
		return nil, nil, &mistake{message: fmt.Sprintf("it holds %d GPG keys, of which %d can be read", len(keyring), len(identities)), hint: exportHint}
	}
	return all, keyring, nil
}

// readKeys reads keys in binary form.
func readKeys(block []byte) (openpgp.EntityList, *mistake) {
	entities, err := openpgp.ReadKeyRing(bytes.NewReader(block))
	if err != nil || len(entities) == 0 {
		return nil, &mistake{message: "it holds no GPG key that can be read", hint: exportHint, cause: err}
	}
	for _, e := range entities {
		private := e.PrivateKey != nil
		for _, sub := range e.Subkeys {
			private = private || sub.PrivateKey != nil
		}
		if private {
			return nil, privateKey("gpg --export KEY")
		}
		if own, _ := e.PrimarySelfSignature(); own == nil {
			return nil, &mistake{message: fmt.Sprintf("its GPG key %X has no name that it signed itself", e.PrimaryKey.Fingerprint), hint: exportHint}
		}
	}
	return entities, nil
}

func privateKey(command string) *mistake {
	return &mistake{
		message: "it holds a private key",
		hint:    "keep that from here, and write the public one (" + command + ")",
	}
}

// dearmor divides what is in text form into the keys that it holds; what is in
// binary form already is one.
func dearmor(content []byte) ([][]byte, *mistake) {
	begins := armored.FindAllSubmatchIndex(content, -1)
	switch {
	case len(begins) == 0 && isBinary(content):
		return [][]byte{content}, nil
	case len(begins) == 0:
		return nil, noKey(content)
	}
	var blocks [][]byte
	remarks := bytes.Clone(content[:begins[0][0]])
	for i, begin := range begins {
		until := len(content)
		if i+1 < len(begins) {
			until = begins[i+1][0]
		}
		block, rest, m := dearmorOne(content[begin[0]:until], string(content[begin[2]:begin[3]]))
		if m != nil {
			return nil, m
		}
		blocks, remarks = append(blocks, block), append(remarks, rest...)
	}
	if !isText(remarks) {
		return nil, &mistake{
			message: "it holds GPG keys in text and in binary form, of which only some would be read",
			hint:    "write all of them in one form: " + exportHint[len("write "):],
		}
	}
	return blocks, nil
}

// isBinary reports whether a content begins as every packet does, with a byte that
// no text begins with (RFC 9580, section 4.2).
func isBinary(content []byte) bool { return len(content) > 0 && content[0] >= 0x80 }

// noKey says what is wrong with a content that is neither text nor binary.
func noKey(content []byte) *mistake {
	switch {
	case len(bytes.TrimSpace(content)) == 0:
		return &mistake{message: "it is empty", hint: exportHint}
	case bytes.Contains(content, []byte("-----BEGIN ")):
		return &mistake{message: "it holds no GPG key, but something else in PEM form", hint: `keys in PEM form are for "sigstoreSigned"; here, ` + exportHint}
	default:
		return &mistake{message: "it holds no GPG key", hint: exportHint}
	}
}

// dearmorOne reads the armored block that a text begins with, and returns what
// comes after it. Without its last line some of it may be missing.
func dearmorOne(text []byte, kind string) (block, rest []byte, _ *mistake) {
	switch {
	case "PGP "+kind == openpgp.PrivateKeyType:
		return nil, nil, privateKey("gpg --armor --export KEY")
	case "PGP "+kind != openpgp.PublicKeyType:
		return nil, nil, &mistake{message: fmt.Sprintf("it holds a PGP %s, which is no public key", kind), hint: exportHint}
	}
	end := []byte("-----END PGP " + kind + "-----")
	before, rest, found := bytes.Cut(text, end)
	if !found {
		return nil, nil, &mistake{message: "a GPG key in text form is cut off: it has no line -----END", hint: exportHint}
	}
	decoded, err := armor.Decode(bytes.NewReader(text[:len(before)+len(end)]))
	if err == nil {
		block, err = io.ReadAll(decoded.Body)
	}
	if err != nil {
		return nil, nil, &mistake{message: "a GPG key in text form cannot be read", hint: exportHint, cause: err}
	}
	return block, rest, nil
}

// isText reports whether bytes beside armored keys can be a remark, and are no
// keys in binary form.
func isText(b []byte) bool {
	return utf8.Valid(b) && !bytes.ContainsFunc(b, func(r rune) bool { return unicode.IsControl(r) && !unicode.IsSpace(r) })
}

// endsOf lists when keys end, or what binds them; past times too.
func endsOf(keyring openpgp.EntityList) []time.Time {
	var ends []time.Time
	for _, e := range keyring {
		ends = append(ends, endsOfKey(e.PrimaryKey, e.SelfSignature, e.Revocations)...)
		for _, identity := range e.Identities {
			ends = append(ends, endsOfKey(e.PrimaryKey, identity.SelfSignature, identity.Revocations)...)
		}
		for _, sub := range e.Subkeys {
			ends = append(ends, endsOfKey(sub.PublicKey, sub.Sig, sub.Revocations)...)
		}
	}
	return ends
}

func endsOfKey(key *packet.PublicKey, bound *packet.Signature, revocations []*packet.Signature) (ends []time.Time) {
	for _, r := range revocations {
		// It counts from its own time on, which may be to come.
		ends = append(ends, r.CreationTime)
	}
	if bound == nil {
		return ends
	}
	ends = append(ends, after(key.CreationTime, bound.KeyLifetimeSecs), endOf(bound))
	if crossed := bound.EmbeddedSignature; crossed != nil {
		ends = append(ends, endOf(crossed))
	}
	return ends
}

func endOf(s *packet.Signature) time.Time { return after(s.CreationTime, s.SigLifetimeSecs) }

// after is when a life ends; the zero time if it does not (RFC 9580, section
// 5.2.3.13).
func after(start time.Time, seconds *uint32) time.Time {
	if seconds == nil || *seconds == 0 {
		return time.Time{}
	}
	return start.Add(time.Duration(*seconds) * time.Second)
}

// readPublicKey reads the one key in PEM form that the library reads of a text.
func readPublicKey(content []byte) (crypto.PublicKey, *mistake) {
	const hint = "write a public key in PEM form (cosign public-key)"
	block, rest := pem.Decode(content)
	switch {
	case len(bytes.TrimSpace(content)) == 0:
		return nil, &mistake{message: "it is empty", hint: hint}
	case block == nil:
		if armored.Match(content) || isBinary(content) {
			return nil, &mistake{message: "it holds no key in PEM form", hint: `GPG keys are for "signedBy"; here, ` + hint}
		}
		return nil, &mistake{message: "it holds no key in PEM form", hint: hint}
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, privateKey("cosign public-key --key KEY")
	case strings.HasPrefix(block.Type, "PGP "):
		return nil, &mistake{message: "it holds no key in PEM form", hint: `GPG keys are for "signedBy"; here, ` + hint}
	case block.Type == "CERTIFICATE":
		return nil, &mistake{message: "it holds a certificate and no key", hint: "write the key of it (openssl x509 -pubkey -noout), or pki"}
	case bytes.Contains(rest, []byte("-----BEGIN ")):
		return nil, &mistake{message: "it holds several keys, of which the library reads the first alone", hint: "write one file for each, in keyPaths or keyDatas"}
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(content)
	if err == nil {
		// As the library does: SHA-256 whatever the key.
		_, err = sigstore.LoadVerifier(key, crypto.SHA256)
	}
	if err != nil {
		return nil, &mistake{message: "its key cannot be read: " + oneLine(err.Error(), maxReason), hint: hint, cause: err}
	}
	return key, nil
}

// readLogKey is readPublicKey for the key of a transparency log.
func readLogKey(content []byte) *mistake {
	key, m := readPublicKey(content)
	if m != nil {
		return m
	}
	if _, ok := key.(*ecdsa.PublicKey); !ok {
		return &mistake{message: "its key is not an ECDSA key, as those of Rekor are that the library reads", hint: "write the key of the log (GET /api/v1/log/publicKey)"}
	}
	return nil
}

// readCertificates reads certificates in PEM form, all of which must be good: the
// library passes over what it cannot read.
func readCertificates(content []byte) ([]*x509.Certificate, *mistake) {
	const hint = "write certificates in PEM form"
	var found []*x509.Certificate
	for rest := content; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil && bytes.Contains(rest, []byte("-----BEGIN ")):
			return nil, &mistake{message: "it holds something that is no PEM", hint: hint}
		case block == nil && len(found) == 0:
			return nil, &mistake{message: "it holds no certificate", hint: hint}
		case block == nil:
			return found, nil
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, &mistake{message: "it holds a private key", hint: "keep that from here, and " + hint}
		case block.Type != "CERTIFICATE" || len(block.Headers) > 0:
			return nil, &mistake{message: fmt.Sprintf("it holds a %s", oneLine(block.Type, maxReason)), hint: hint}
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, &mistake{message: "it holds a certificate that cannot be read: " + oneLine(err.Error(), maxReason), hint: hint, cause: err}
		}
		found = append(found, certificate)
	}
}
