// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"github.com/pratique-dev/pratique/reference"
)

// The types of requirements (containers-policy.json(5), "POLICY REQUIREMENTS").
const (
	kindAccept    = "insecureAcceptAnything"
	kindReject    = "reject"
	kindSignedBy  = "signedBy"
	kindBaseLayer = "signedBaseLayer"
	kindSigstore  = "sigstoreSigned"
)

// The types of signedIdentity that compare with the image's own name; the
// default is the second.
const (
	identityExact  = "matchExact"
	identityDigest = "matchRepoDigestOrExact"
	identityRepo   = "matchRepository"
	identityRemap  = "remapIdentity"
)

// mistake is why a requirement cannot be used, and what to write instead.
type mistake struct {
	where   string // the field, or empty
	message string
	hint    string // may be empty
	cause   error  // may be nil
}

func (m *mistake) Error() string {
	if m.hint == "" {
		return m.text()
	}
	return m.text() + "; " + m.hint
}

func (m *mistake) text() string {
	if m.where == "" {
		return m.message
	}
	return m.where + ": " + m.message
}

func (m *mistake) Unwrap() error { return m.cause }

// within says of an error where it is.
func within(where string, err error) error {
	m, ok := errors.AsType[*mistake](err)
	if !ok {
		return fmt.Errorf("%s: %w", where, err)
	}
	inside := *m
	inside.where = strings.TrimSuffix(where+"."+inside.where, ".")
	return &inside
}

// requirement is one of a list, with its keys.
type requirement struct {
	place int
	kind  string
	// rewritten is the requirement with the content of the files in their place.
	rewritten json.RawMessage
	// identity is the type of its signedIdentity.
	identity string
	// pki says that certificates are judged at the present time.
	pki bool
	// keyring holds the keys of a signedBy.
	keyring openpgp.EntityList
	// ends are the times at which some of its keys or certificates end.
	ends []time.Time
}

// String names it for people.
func (r *requirement) String() string { return fmt.Sprintf("%s (requirement %d)", r.kind, r.place) }

// isSigned reports whether it asks for a signature.
func (r *requirement) isSigned() bool { return r.kind == kindSignedBy || r.kind == kindSigstore }

// readsTag reports whether it judges an image otherwise by its tag than by its
// digest.
func (r *requirement) readsTag() bool {
	switch r.identity {
	case identityExact, identityDigest, identityRemap:
		return r.isSigned()
	default:
		return false
	}
}

// readRequirement reads one requirement, and the files that it names.
func readRequirement(raw json.RawMessage, read func(path string) ([]byte, error)) (*requirement, error) {
	if _, err := parse([]json.RawMessage{raw}); err != nil {
		return nil, refusedByLibrary(raw, err)
	}
	// The library has seen that no name comes twice, or in other letters.
	var fields members
	if err := json.Unmarshal(raw, &fields); err != nil {
		return nil, fmt.Errorf("reading it again: %w", err)
	}
	r := &requirement{kind: fields.text("type")}
	i := &inliner{read: read, requirement: r}
	var err error
	switch r.kind {
	case kindAccept, kindReject:
	case kindSignedBy:
		err = i.signedBy(fields)
	case kindSigstore:
		err = i.sigstoreSigned(fields)
	default:
		err = &mistake{
			message: fmt.Sprintf("%q refuses every image: the library does not implement it", r.kind),
			hint:    `write "signedBy" or "sigstoreSigned", or "reject" if that is meant`,
		}
	}
	if err != nil {
		return nil, err
	}
	if r.rewritten, err = json.Marshal(fields); err != nil {
		return nil, fmt.Errorf("writing it with its keys: %w", err)
	}
	return r, nil
}

// members are those of a JSON object that the library accepts.
type members map[string]json.RawMessage

// text is a member that is a string; empty if it is null, or not there.
func (m members) text(name string) string {
	var s string
	if raw, ok := m[name]; ok && json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// object is a member that is an object, and nil if it is not there.
func (m members) object(name string) (members, error) {
	raw, ok := m[name]
	if !ok {
		return nil, nil
	}
	var o members
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, fmt.Errorf("reading %s again: %w", name, err)
	}
	return o, nil
}

// set writes a member.
func (m members) set(name string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	m[name] = raw
	return nil
}

// signedIdentity reads what names signatures have to be for.
func (r *requirement) signedIdentity(fields members) error {
	identity, err := fields.object("signedIdentity")
	if err != nil {
		return err
	}
	if identity == nil {
		r.identity = identityDigest // containers-policy.json(5), "signedBy"
		return nil
	}
	r.identity = identity.text("type")
	if r.identity != identityRemap {
		return nil
	}
	// Names are compared in canonical form. A prefix that is not in it would never
	// be found, and the name be judged as if nothing were written here.
	prefix := identity.text("prefix")
	host, path, _ := strings.Cut(prefix, "/")
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		return &mistake{
			where: "signedIdentity.prefix", message: fmt.Sprintf("%q names no registry", prefix),
			hint: "write it with its host, as docker.io/library/NAME",
		}
	}
	if canonical := reference.CanonicalHost(host); canonical != host {
		return &mistake{
			where: "signedIdentity.prefix", message: fmt.Sprintf("%q never is the beginning of a name here", prefix),
			hint: fmt.Sprintf("write %q", strings.TrimSuffix(canonical+"/"+path, "/")),
		}
	}
	return nil
}

// What each kind of requirement may say, for hints.
var takes = map[string]string{
	kindAccept:   `"insecureAcceptAnything" takes nothing but its type`,
	kindReject:   `"reject" takes nothing but its type`,
	kindSignedBy: `"signedBy" takes keyType, one of keyPath, keyPaths and keyData, and signedIdentity`,
	kindSigstore: `"sigstoreSigned" takes one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki, a rekorPublicKey… and signedIdentity`,
}

// advice says what to write instead of what the library refuses, by what its
// error says. The first that fits counts.
var advice = []struct{ said, hint string }{
	{"Unknown policy requirement type", `write as "type" one of insecureAcceptAnything, reject, signedBy and sigstoreSigned`},
	{"Unknown policy reference match type", `write as "type" of signedIdentity one of matchRepoDigestOrExact, matchExact, matchRepository, exactReference, exactRepository and remapIdentity`},
	{"rekor", `fulcio needs one of rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData and rekorPublicKeyDatas, keys may have one, and pki none`},
	{"keyType", `write "keyType": "GPGKeys"`},
	{"keyPath", "write one of them, and delete the others"},
	{"caPath and caData", "write one of them"},
	{"caRootsPath", "write one of them"},
	{"oidcIssuer not specified", `write "oidcIssuer", the issuer of the signer's certificate`},
	{"subjectEmail", `write "subjectEmail", the address in the signer's certificate`},
	{"contains neither a tag nor digest", "write the tag, or exactRepository for all tags"},
	{"illegal base64", "keys are inlined as base64 (base64 -w0 FILE)"},
	{"Duplicate key", "write each name once: which one counts differs from one reader to the next"},
}

// refusedByLibrary explains why the library does not take a requirement.
func refusedByLibrary(raw json.RawMessage, err error) *mistake {
	said := err.Error()
	m := &mistake{message: oneLine(said, maxReason), cause: err}
	var typed struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(raw, &typed) != nil {
		m.hint = `a requirement is an object, as {"type": "reject"}`
		return m
	}
	if typed.Type == kindBaseLayer {
		m.hint = `"signedBaseLayer" refuses every image: write "signedBy" or "sigstoreSigned"`
		return m
	}
	i := slices.IndexFunc(advice, func(a struct{ said, hint string }) bool { return strings.Contains(said, a.said) })
	switch {
	case strings.Contains(said, "Unknown key"):
		m.hint = takes[typed.Type]
	case i >= 0:
		m.hint = advice[i].hint
	}
	return m
}
