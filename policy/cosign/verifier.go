// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

// Engine names this engine in messages and metrics.
const Engine = "Cosign"

// Source finds the signatures beside an image. What it yields is untrusted. An
// error means that one could not be read, or that it is unknown whether there
// are more.
type Source interface {
	// Signatures lists the layers under the .sig tag.
	Signatures(ctx context.Context, image policy.Image) iter.Seq2[registry.Signature, error]
	// Bundles lists the sigstore bundles that refer to the image, as JSON.
	Bundles(ctx context.Context, image policy.Image) iter.Seq2[[]byte, error]
	// Recheck is asked before an image is refused for lack of a signature: it
	// lists bundles that were not looked for yet, or says why the image itself
	// cannot be examined.
	Recheck(ctx context.Context, image policy.Image) iter.Seq2[[]byte, error]
}

var _ Source = (*registry.Client)(nil)

// Verifier judges images by a list of authorities, any one of which is enough.
type Verifier struct {
	source      Source
	authorities []*authority
}

// New compiles authorities. Its error says which one cannot be used, and why.
func New(source Source, authorities []Authority) (*Verifier, error) {
	if len(authorities) == 0 {
		return nil, errors.New("no authorities: nobody could sign an image that is accepted")
	}
	v := &Verifier{source: source}
	for i, a := range authorities {
		// One without a name is called by its place in the list.
		a.Name = cmp.Or(a.Name, strconv.Itoa(i))
		compiled, err := compile(a)
		if err != nil {
			return nil, fmt.Errorf("authority %q: %w", a.Name, err)
		}
		v.authorities = append(v.authorities, compiled)
	}
	return v, nil
}

// Fixed is the verdict if it does not depend on the image: any authority that
// always passes, or all that always fail. Otherwise it is nil.
func (v *Verifier) Fixed() *policy.Verdict {
	fail := 0
	for _, a := range v.authorities {
		switch a.Static {
		case StaticPass:
			return &policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonStatic, Signer: a.Name,
				Message: fmt.Sprintf("authority %q: accepts every image", a.Name)}
		case StaticFail:
			fail++
		}
	}
	if fail < len(v.authorities) {
		return nil
	}
	verdict := policy.Refused(policy.ReasonStatic, "authority %q: refuses every image", v.authorities[0].Name)
	return &verdict
}

// Verify implements [policy.Verifier]. It asks for both forms of signature at
// once and accepts by the first that holds.
func (v *Verifier) Verify(ctx context.Context, image policy.Image) policy.Verdict {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	found := make(chan *tally, 2)
	go func() { found <- v.tallySignatures(ctx, image) }()
	go func() { found <- v.tallyBundles(ctx, image, v.source.Bundles) }()
	total := newTally(len(v.authorities))
	for range cap(found) {
		total.add(<-found)
		if total.signer != "" {
			return total.accepted()
		}
	}
	if total.err != nil {
		return policy.VerdictOf(total.err)
	}
	total.add(v.tallyBundles(ctx, image, v.source.Recheck))
	switch {
	case total.signer != "":
		return total.accepted()
	case total.err != nil:
		return policy.VerdictOf(total.err)
	default:
		return v.refuse(total)
	}
}

// refuse says of every authority why nothing satisfied it.
func (v *Verifier) refuse(total *tally) policy.Verdict {
	if total.signatures == 0 {
		found := ""
		if total.others > 0 {
			found = fmt.Sprintf(" (%d attestations or unreadable bundles are no signatures)", total.others)
		}
		return policy.Refused(policy.ReasonNoSignature, "no signature%s", found)
	}
	var lines []string
	for i, a := range v.authorities {
		switch {
		case a.Static != "":
			lines = append(lines, fmt.Sprintf("authority %q: refuses every image", a.Name))
		case total.failures[i] != nil:
			lines = append(lines, fmt.Sprintf("authority %q: %s", a.Name, total.failures[i]))
		default:
			lines = append(lines, fmt.Sprintf("authority %q: no signature matches its key (%d found)", a.Name, total.signatures))
		}
	}
	return policy.Refused(policy.ReasonNoMatch, "%s", strings.Join(lines, "; "))
}

// tally counts what was found of an image's signatures.
type tally struct {
	signer     string // the authority that is satisfied
	signatures int    // that say they are one
	others     int    // attestations, and what cannot be read
	// failures tells for an authority what was wrong with a signature that its
	// key did make.
	failures []error
	// err is why there may be more than was seen.
	err error
}

func newTally(authorities int) *tally { return &tally{failures: make([]error, authorities)} }

func (t *tally) add(other *tally) {
	t.signatures += other.signatures
	t.others += other.others
	for i, failure := range other.failures {
		if failure != nil {
			t.failures[i] = failure
		}
	}
	if t.signer == "" {
		t.signer = other.signer
	}
	t.failed(other.err)
}

// failed notes the first error: it names the cause, what comes after it often
// only that the time was over.
func (t *tally) failed(err error) {
	if t.err == nil {
		t.err = err
	}
}

func (t *tally) accepted() policy.Verdict {
	return policy.Verdict{
		Outcome: policy.Accepted, Reason: policy.ReasonVerified, Signer: t.signer,
		Message: fmt.Sprintf("authority %q: signature verified", t.signer),
	}
}

// note records what one authority says of one signature, and reports whether
// it is satisfied.
func (t *tally) note(i int, a *authority, err error) bool {
	if err == nil {
		t.signer = a.Name
		return true
	}
	if claim, ok := errors.AsType[*claimError](err); ok {
		t.failures[i] = claim
	}
	return false
}

// recovered makes a panic of a parser an error: bytes from a registry must not
// end the process. It must be deferred directly.
func (t *tally) recovered() {
	if p := recover(); p != nil {
		t.signer = ""
		t.err = policy.Panicked(p).Err()
	}
}
