// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"crypto/x509"
	"slices"

	"github.com/sigstore/sigstore/pkg/signature"
)

// evidence is one thing that somebody signed: a layer or a bundle. Nothing of it
// is believed until it was verified.
type evidence interface {
	// signedBy verifies the signature, and nothing else. It knows no
	// certificates.
	signedBy(ctx context.Context, verifier signature.Verifier) error
	// vouched verifies all of it: the signature by the key or, if the terms are
	// keyless, by the certificate that it returns, and whatever else they ask
	// for. Whether the certificate is of the right one is left to the caller.
	vouched(ctx context.Context, t *terms, k *key) (*x509.Certificate, error)
}

// proofs remembers what came of verifying one piece of evidence: however many
// authorities ask for the same, it is verified once.
type proofs struct {
	evidence

	// all are the keys of all authorities. Those that signed are found by trying
	// them at once, so that what is signed is taken apart once for all of them.
	all    []*key
	signed []*key
	tried  bool
	made   map[proofID]proof
}

type proofID struct {
	terms *terms
	key   *key
}

type proof struct {
	signer signer
	err    error
}

func newProofs(e evidence, all []*key) *proofs {
	return &proofs{evidence: e, all: all, made: map[proofID]proof{}}
}

// signer tells who of an authority's keys or identities signed, all its terms
// being fulfilled. It is the only way by which evidence is believed.
func (p *proofs) signer(ctx context.Context, a *authority) (signer, error) {
	if a.terms.keyless {
		who, err := p.prove(ctx, a.terms, nil)
		if err == nil && !who.is(a.identities) {
			err = missed(nearIdentity, "%s, which none of its identities names", who)
		}
		return who, err
	}
	var failure error = errSignature
	for _, k := range a.keys {
		if !slices.Contains(p.keys(ctx), k) {
			continue
		}
		if a.terms.bare() {
			return signer{key: k}, nil
		}
		who, err := p.prove(ctx, a.terms, k)
		if err == nil {
			return who, nil
		}
		failure = nearer(failure, err)
	}
	return signer{}, failure
}

// keys are those that signed. An envelope may have several signatures: after
// each that holds the others are tried again.
func (p *proofs) keys(ctx context.Context) []*key {
	if p.tried {
		return p.signed
	}
	p.tried = true
	left := slices.Clone(p.all)
	for len(left) > 0 {
		tried := &ring{keys: left}
		if err := p.signedBy(ctx, tried); err != nil || tried.held == nil {
			break
		}
		p.signed = append(p.signed, tried.held)
		left = slices.DeleteFunc(left, func(k *key) bool { return k == tried.held })
	}
	return p.signed
}

func (p *proofs) prove(ctx context.Context, t *terms, k *key) (signer, error) {
	id := proofID{t, k}
	made, ok := p.made[id]
	if !ok {
		made.signer, made.err = p.verify(ctx, t, k)
		p.made[id] = made
	}
	return made.signer, made.err
}

func (p *proofs) verify(ctx context.Context, t *terms, k *key) (signer, error) {
	certificate, err := p.vouched(ctx, t, k)
	if err != nil {
		return signer{}, err
	}
	switch {
	case k != nil:
		return signer{key: k}, nil
	case certificate == nil:
		return signer{}, errNoIdentity
	default:
		return signerOf(certificate)
	}
}

// nearer returns the one of two errors that says more.
func nearer(a, b error) error {
	if a == nil || nearnessOf(b) > nearnessOf(a) {
		return b
	}
	return a
}
