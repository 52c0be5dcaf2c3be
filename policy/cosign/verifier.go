// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/registry"
)

// Engine names this engine in messages and metrics.
const Engine = "Cosign"

// Evaluator evaluates the policies of attestations. Its errors say that it could
// not be known whether the document complies; they may implement
// [policy.Judged].
type Evaluator interface {
	Evaluate(ctx context.Context, p language.Policy, document []byte) (language.Result, error)
}

// Options are what verifiers work with.
type Options struct {
	Source    Source
	Evaluator Evaluator // may be nil where no attestation has a policy
	// Collect says that all authorities are satisfied that can be, and that
	// Accepted comes with the evidence of all that was verified. What could not be
	// read makes it Inconclusive then: it may be what somebody asks for.
	Collect bool
}

// Source finds what is said of an image in one place. What it yields is
// untrusted. An error means that one could not be read, or that it is unknown
// whether there are more.
type Source interface {
	LayerSource
	BundleSource
}

// LayerSource finds what is under the tags of an image.
type LayerSource interface {
	// Signatures lists the layers under the .sig tag.
	Signatures(ctx context.Context, image policy.Image) iter.Seq2[registry.Signature, error]
	// Attestations lists the layers under the .att tag: DSSE envelopes.
	Attestations(ctx context.Context, image policy.Image) iter.Seq2[registry.Signature, error]
}

// BundleSource finds what refers to an image.
type BundleSource interface {
	// Bundles lists the sigstore bundles that refer to the image, as JSON.
	// attestations says that they are looked for too, which may be larger.
	Bundles(ctx context.Context, image policy.Image, attestations bool) iter.Seq2[[]byte, error]
	// Recheck is asked before an image is refused for lack of a signature: it
	// lists bundles that were not looked for yet, or says why the image itself
	// cannot be examined.
	Recheck(ctx context.Context, image policy.Image, attestations bool) iter.Seq2[[]byte, error]
}

var _ Source = (*registry.Client)(nil)

// Verifier judges images by a list of authorities, any one of which is enough.
type Verifier struct {
	source      Source
	evaluator   Evaluator
	authorities []*authority
	keys        []*key // of all authorities, each once
	places      []place
	collects    bool
}

// New compiles authorities. Its error says which one cannot be used, and why.
func New(o Options, authorities []Authority) (*Verifier, error) {
	if len(authorities) == 0 {
		return nil, errors.New("no authorities: nobody could sign an image that is accepted")
	}
	v := &Verifier{source: o.Source, evaluator: o.Evaluator, collects: o.Collect}
	c := &compiler{keys: map[keyID]*key{}, terms: map[termsID]*terms{}, places: []policy.Place{{}}}
	for i, a := range authorities {
		// One without a name is called by its place in the list.
		a.Name = cmp.Or(a.Name, strconv.Itoa(i))
		compiled, err := c.compile(a)
		if err == nil && o.Evaluator == nil && slices.ContainsFunc(a.Attestations, func(t Attestation) bool { return t.Policy != nil }) {
			err = errors.New("it has a policy, and nothing to evaluate it with")
		}
		if err != nil {
			return nil, fmt.Errorf("authority %q: %w", a.Name, err)
		}
		v.authorities = append(v.authorities, compiled)
		for _, key := range compiled.keys {
			if !slices.Contains(v.keys, key) {
				v.keys = append(v.keys, key)
			}
		}
	}
	v.places = survey(c.places, v.authorities)
	return v, nil
}

// Fixed is the verdict if it does not depend on the image: any authority that
// always passes, or all that always fail. Otherwise it is nil.
func (v *Verifier) Fixed() *policy.Verdict {
	if v.collects {
		return v.decreed()
	}
	fail := 0
	for _, a := range v.authorities {
		switch a.Static {
		case StaticPass:
			passes := a.passes()
			return &passes
		case StaticFail:
			fail++
		}
	}
	if fail < len(v.authorities) {
		return nil
	}
	verdict := policy.Refused(policy.ReasonStatic, "authority %q: %s", v.authorities[0].Name, v.authorities[0].refusal())
	return &verdict
}

// Verify implements [policy.Verifier]. It asks in all places for all forms at
// once and accepts by the first authority that is satisfied.
func (v *Verifier) Verify(ctx context.Context, image policy.Image) policy.Verdict {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e, err := v.examine(image)
	if err != nil {
		return policy.VerdictOf(err)
	}
	for _, looks := range [][]look{e.looks(), e.rechecks()} {
		e.run(ctx, looks)
		if verdict := e.verdict(); verdict != nil {
			return *verdict
		}
	}
	if verdict := e.collected(); verdict != nil {
		return *verdict
	}
	return e.refuse(v.authorities)
}
