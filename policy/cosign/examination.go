// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/registry"
)

// maxAttestations is how many bundles of one place are verified that are
// attestations (spec section 6). How many signatures and layers are, the source
// bounds.
const maxAttestations = 32

// examination is what it takes to judge one image.
type examination struct {
	*Verifier
	*tally
	policies judgements

	images []policy.Image // the image as it is in each place
	digest v1.Hash
	raw    []byte // of the digest
}

// examine begins to judge an image.
func (v *Verifier) examine(image policy.Image) (*examination, error) {
	e := &examination{Verifier: v, tally: newTally(v.authorities), images: []policy.Image{image}}
	e.policies = judgements{evaluator: v.evaluator, made: map[judgementID]func() (language.Result, error){}}
	if len(image.Elsewhere) != len(v.places)-1 {
		return nil, fmt.Errorf("the image comes with %d further places, the rule has %d", len(image.Elsewhere), len(v.places)-1)
	}
	e.images = append(e.images, image.Elsewhere...)
	for _, one := range image.Elsewhere {
		if one.Digest != image.Digest {
			return nil, errors.New("the image has another digest in a further place")
		}
	}
	if v.collects {
		e.collection = newCollection(v.authorities)
	}
	var err error
	if e.digest, err = v1.NewHash(image.Digest); err != nil {
		return nil, fmt.Errorf("reading the digest %q: %w", image.Digest, err)
	}
	if e.digest.Algorithm != sha256Name {
		return nil, fmt.Errorf("the digest %q is not of the algorithm %s", image.Digest, sha256Name)
	}
	if e.raw, err = hex.DecodeString(e.digest.Hex); err != nil {
		return nil, fmt.Errorf("reading the digest %q: %w", image.Digest, err)
	}
	return e, nil
}

// look is one question to the source, and what becomes of the answers.
type look func(context.Context)

// looks are the first questions.
func (e *examination) looks() []look {
	var looks []look
	for i, p := range e.places {
		if p.signatures {
			looks = append(looks, func(ctx context.Context) {
				e.layers(ctx, i, e.source.Signatures(ctx, e.images[i]), false)
			})
		}
		if p.attestations {
			looks = append(looks, func(ctx context.Context) {
				e.layers(ctx, i, e.source.Attestations(ctx, e.images[i]), true)
			})
		}
		if p.asked() {
			looks = append(looks, func(ctx context.Context) {
				e.bundles(ctx, i, e.source.Bundles(ctx, e.images[i], p.attestations))
			})
		}
	}
	return looks
}

// rechecks are the questions before an image is refused. The image itself is
// asked for even if nobody looks beside it.
func (e *examination) rechecks() []look {
	var looks []look
	for i, p := range e.places {
		if i == 0 || p.asked() {
			looks = append(looks, func(ctx context.Context) {
				e.bundles(ctx, i, e.source.Recheck(ctx, e.images[i], p.attestations))
			})
		}
	}
	return looks
}

// run asks all at once, until all is answered, an authority is satisfied, or the
// time is over.
func (e *examination) run(ctx context.Context, looks []look) {
	answered := make(chan struct{}, len(looks))
	for _, look := range looks {
		go func() {
			defer func() { answered <- struct{}{} }()
			defer e.recovered()
			look(ctx)
		}()
	}
	over := ctx.Done()
	var late <-chan time.Time
	for left := len(looks); left > 0; {
		select {
		case <-answered:
			left--
		case <-e.ended:
			return
		case <-over:
			// Those who wait for a registry come back, and say for what.
			over, late = nil, time.After(grace)
		case <-late:
			e.failed(ctx.Err())
			return
		}
	}
}

// grace is how long after the time is over answers are waited for that say why:
// longer than it takes to end a request, and short beside a request's time.
const grace = 200 * time.Millisecond

// layers judges what was found under a tag of a place.
func (e *examination) layers(ctx context.Context, place int, found iter.Seq2[registry.Signature, error], attestations bool) {
	for untrusted, err := range found {
		switch {
		case err != nil:
			e.failed(err)
		case e.interrupted(ctx):
			return
		case attestations:
			e.attestationLayer(ctx, place, untrusted)
		default:
			e.signatureLayer(ctx, place, untrusted)
		}
	}
	e.interrupted(ctx)
}

// interrupted notes if not all was judged because the time is over.
func (e *examination) interrupted(ctx context.Context) bool {
	err := ctx.Err()
	if err != nil {
		e.failed(err)
	}
	return err != nil || e.done()
}

func (e *examination) signatureLayer(ctx context.Context, place int, untrusted registry.Signature) {
	defer e.recovered()
	e.counts(&e.signatures)
	l, err := newLayer(untrusted, false)
	if err != nil {
		e.unreadable(err)
		return
	}
	e.signed(ctx, place, l, newProofs(l, e.keys))
}

// signing is evidence that may be a signature of the image.
type signing interface {
	// claims verifies what it says, once it holds: that it signs the image, with
	// all the annotations of the authority. It returns the hash of that.
	claims(digest v1.Hash, a *authority) ([sha256.Size]byte, error)
}

// signed has the authorities judge a signature that was found in a place.
func (e *examination) signed(ctx context.Context, place int, s signing, p *proofs) {
	for i, a := range e.authorities {
		if a.attests() || !a.looksIn(place) {
			continue
		}
		if e.interrupted(ctx) {
			return
		}
		by, err := p.signer(ctx, a)
		if err == nil {
			by.said, err = s.claims(e.digest, a)
		}
		e.signature(i, a, by, err)
	}
}

func (e *examination) attestationLayer(ctx context.Context, place int, untrusted registry.Signature) {
	defer e.recovered()
	l, err := newLayer(untrusted, true)
	if err != nil {
		e.unreadable(err)
		return
	}
	e.statements(ctx, place, newProofs(l, e.keys), l)
}

// bundles judges the bundles that were found in a place.
func (e *examination) bundles(ctx context.Context, place int, found iter.Seq2[[]byte, error]) {
	attestations := 0
	for untrusted, err := range found {
		switch {
		case err != nil:
			e.failed(err)
		case e.interrupted(ctx): // reading the largest that is allowed takes long
			return
		default:
			e.bundle(ctx, place, untrusted, &attestations)
		}
	}
	e.interrupted(ctx)
}

func (e *examination) bundle(ctx context.Context, place int, untrusted []byte, attestations *int) {
	defer e.recovered()
	s, err := newSealed(untrusted, e.raw)
	if err != nil {
		e.unreadable(err)
		return
	}
	p := newProofs(s, e.keys)
	signs := s.claimed == signaturePredicate && e.places[place].signatures
	if signs {
		e.counts(&e.signatures)
		e.signed(ctx, place, s, p)
	}
	switch {
	case e.asksFor(place, s.claimed):
		if *attestations++; *attestations > maxAttestations {
			e.failed(tooMany())
			return
		}
		e.statements(ctx, place, p, s)
	case !signs:
		e.other(s.claimed)
	}
}

func tooMany() error {
	return policy.Undecided(policy.ReasonLimit, "there are more attestations than the %d that are verified", maxAttestations).Err()
}

// asksFor reports whether an authority that looks in the place asks for
// statements of a type.
func (e *examination) asksFor(place int, predicateType string) bool {
	return slices.ContainsFunc(e.authorities, func(a *authority) bool {
		return a.looksIn(place) && slices.ContainsFunc(a.Attestations, func(t Attestation) bool { return t.PredicateType == predicateType })
	})
}

// claims implements [signing].
func (s *sealed) claims(digest v1.Hash, a *authority) ([sha256.Size]byte, error) {
	said, err := s.statement()
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if said.GetPredicateType() != signaturePredicate {
		return [sha256.Size]byte{}, missed(nearImage, "%s made an attestation, which is not a signature", a.whose())
	}
	return said.hash, said.about(digest.Hex, a)
}
