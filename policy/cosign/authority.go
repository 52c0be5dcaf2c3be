// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto"
	"errors"
	"fmt"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/trust"
)

// Authority is one party whose signature, or whose attestations, are enough.
// Exactly one of Static, Keys and Keyless is set.
type Authority struct {
	Name string
	// Static decides without looking: StaticPass or StaticFail. Message is what
	// a refusal says besides.
	Static  Static
	Message string
	// Keys are public keys in PEM form, any one of which may have signed; Hash
	// is what signatures by them are made over, 0 for SHA-256.
	Keys [][]byte
	Hash crypto.Hash
	// Keyless asks for a certificate of one of several identities.
	Keyless *Keyless
	// Trust is by whom certificates, log entries and timestamps must be vouched
	// for. It may be nil only if none of them is asked for.
	Trust *trust.Root
	// Log asks for an entry in a transparency log, Timestamp for a signed
	// timestamp. Without either, a certificate's time may be of both.
	Log, Timestamp bool
	// Attestations are statements that must be there in the place of a
	// signature: all of them or, with AnyAttestation, one.
	Attestations   []Attestation
	AnyAttestation bool
	// Written are what the predicate types of attestations are called in evidence,
	// by the attestation's name, if not by their URI.
	Written map[string]string
	// Annotations must all be in one and the same signature.
	Annotations map[string]string
	// Places is where to look; none means beside the image.
	Places []policy.Place
}

// Keyless asks for a short-lived certificate of an identity.
type Keyless struct {
	// Identities are those that may have signed, any one of them.
	Identities []Identity
	// Unanchored says that expressions need only match a part.
	Unanchored bool
	// IgnoreSCT accepts certificates that are in no certificate log.
	IgnoreSCT bool
}

// Identity is who a certificate was issued to, and by whom that was vouched for:
// of each pair, exactly or by an expression (RE2). If both are set the
// expression counts.
type Identity struct {
	Issuer, IssuerRegExp   string
	Subject, SubjectRegExp string
}

// Attestation is a statement that is asked for.
type Attestation struct {
	Name string
	// PredicateType is a URI.
	PredicateType string
	// Policy is what the statement must fulfil, nil for nothing.
	Policy *language.Policy
}

// Static is the verdict of an authority that looks at no image.
type Static string

// The static verdicts.
const (
	StaticPass Static = "pass"
	StaticFail Static = "fail"
)

// authority is an Authority made ready: nothing is parsed for a request.
type authority struct {
	Authority

	// keys are those of which one may have signed; identities those of which the
	// certificate may be. One of both is empty, and both are if it is static.
	keys       []*key
	identities []identity
	// terms is what it asks for besides the signature.
	terms *terms
	// in tells for each of the verifier's places whether it looks there.
	in []bool
}

// attests reports whether it asks for attestations, in the place of signatures.
func (a *authority) attests() bool { return len(a.Attestations) > 0 }

// compiler makes authorities ready. What several of them ask for is made once,
// and so are the answers to it.
type compiler struct {
	keys  map[keyID]*key
	terms map[termsID]*terms
	// places are those of all authorities; the first is the image's own.
	places []policy.Place
}

func (c *compiler) compile(a Authority) (*authority, error) {
	if a.Static != "" {
		return c.static(a)
	}
	if (len(a.Keys) > 0) == (a.Keyless != nil) {
		if a.Keyless == nil {
			return nil, errors.New("it has neither key nor static, and is not keyless")
		}
		return nil, errors.New("key and keyless exclude each other")
	}
	compiled := &authority{Authority: a}
	for i, pem := range a.Keys {
		key, err := c.key(pem, a.Hash)
		if err != nil && len(a.Keys) > 1 {
			err = fmt.Errorf("key %d: %w", i, err)
		}
		if err != nil {
			return nil, err
		}
		compiled.keys = append(compiled.keys, key)
	}
	if err := compiled.compileIdentities(); err != nil {
		return nil, err
	}
	for i, attestation := range a.Attestations {
		if attestation.PredicateType == "" {
			return nil, fmt.Errorf("attestation %d (%q) has no predicateType", i, attestation.Name)
		}
	}
	compiled.in = c.locate(a.Places)
	var err error
	compiled.terms, err = c.agree(a)
	return compiled, err
}

func (c *compiler) static(a Authority) (*authority, error) {
	switch {
	case len(a.Keys) > 0:
		return nil, errors.New("static and key exclude each other")
	case a.Keyless != nil:
		return nil, errors.New("static and keyless exclude each other")
	case a.Static != StaticPass && a.Static != StaticFail:
		return nil, errors.New("it has neither key nor static, and is not keyless")
	}
	return &authority{Authority: a}, nil
}
