// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// The short names of what these tests are made of.
type (
	leaf     = cosigntest.Leaf
	issued   = cosigntest.Issued
	vouching = cosigntest.Vouching
	entry    = cosigntest.Entry
	record   = cosigntest.Record
)

const (
	actions  = cosigntest.Issuer
	workflow = cosigntest.Subject
	sbom     = cosigntest.SBOM
)

var (
	preAuthentication = cosigntest.PreAuthentication
	dsse              = cosigntest.Envelope
	payloadOf         = cosigntest.Payload
	statement         = cosigntest.Statement
	around            = cosigntest.Around
	newECDSA          = cosigntest.NewKey
	sign              = cosigntest.Sign
)

// sigstore is what authorities trust, or do not.
type sigstore struct{ *cosigntest.Sigstore }

func newSigstore(t testing.TB) *sigstore {
	t.Helper()
	return &sigstore{cosigntest.New(t)}
}

// trust is the trust root as authorities have it.
func (s *sigstore) trust() *trust.Root {
	return &trust.Root{Material: s, Hash: sha256.Sum256(s.Root.Raw)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hash(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return raw
}

// form is a way in which something is said of an image; attests says that it is
// an attestation.
type form struct {
	attests bool
	push    func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching)
}

// sigstoreForms are all of them.
var sigstoreForms = map[string]form{
	".sig":               {false, signing((*cosigntest.Sigstore).SignLegacy)},
	"bundle":             {false, signing((*cosigntest.Sigstore).SignBundle)},
	".att":               {true, signing((*cosigntest.Sigstore).AttestLegacy)},
	"attestation bundle": {true, signing((*cosigntest.Sigstore).AttestBundle)},
}

func signing(f func(*cosigntest.Sigstore, cosigntest.Target, *leaf, vouching)) func(*sigstore, *registrytest.Registry, registrytest.Image, *leaf, vouching) {
	return func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching) {
		f(s.Sigstore, cosigntest.Target{Registry: r, Image: image}, by, v)
	}
}

// asks is an authority for the form.
func (f form) asks(a cosign.Authority) cosign.Authority {
	if f.attests {
		a.Attestations = []cosign.Attestation{{Name: "sbom", PredicateType: sbom}}
	}
	return a
}

// keyless is an authority of the workflow.
func (s *sigstore) keyless() cosign.Authority {
	return cosign.Authority{
		Name: "release", Trust: s.trust(),
		Keyless: &cosign.Keyless{Identities: []cosign.Identity{{Issuer: actions, Subject: workflow}}},
	}
}
