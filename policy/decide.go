// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// Bounds of one request (spec section 6).
const (
	// maxImages is how many distinct images of one request are examined.
	maxImages = 256
	// parallel is how many of them are examined at once. Registry access has
	// bounds of its own; this one keeps a single request from taking them all.
	parallel = 32
)

// Engine examines an image by a rule whose verdict is not fixed.
type Engine interface {
	Verify(ctx context.Context, rule *Rule, image Image) Verdict
}

// Direct is the Engine that asks the rule's own verifier, every time.
type Direct struct{}

// Verify implements [Engine].
func (Direct) Verify(ctx context.Context, rule *Rule, image Image) Verdict {
	return rule.Verification.Verifier.Verify(ctx, image)
}

// Resolver finds the digest that the tag of image.Reference names now. Its
// errors have a verdict of their own if they implement [Judged].
type Resolver interface {
	Resolve(ctx context.Context, image Image) (Resolution, error)
}

// Resolution is the answer of a [Resolver].
type Resolution struct {
	Digest string
	// Stale says that the registry could not be reached and an earlier answer
	// serves.
	Stale bool
}

// Judged is an error that knows what it means for the image at hand.
type Judged interface {
	error
	Verdict() Verdict
}

// VerdictOf maps an error to a verdict. What it does not know is Inconclusive.
func VerdictOf(err error) Verdict {
	if judged, ok := errors.AsType[Judged](err); ok {
		v := judged.Verdict()
		if v.Outcome != Rejected {
			v.Outcome = Inconclusive // an error never lets anything in
		}
		return v
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Undecided(ReasonDeadline, "not examined within the request's time")
	default:
		return Undecided(ReasonInternal, "%v", err)
	}
}

// Unmatched says what happens to images that no rule covers.
type Unmatched string

// The treatments of images that no rule covers.
const (
	UnmatchedAllow Unmatched = "Allow"
	UnmatchedWarn  Unmatched = "Warn"
	UnmatchedDeny  Unmatched = "Deny"
)

// Pinning says which images get a digest.
type Pinning string

// The extents of pinning.
const (
	PinMatched Pinning = "Matched" // those that a rule covers
	PinAll     Pinning = "All"
	PinNever   Pinning = "Never" // another tool pins
)

// Server is what holds for all rules.
type Server struct {
	Mode      Mode
	Unmatched Unmatched
	Pin       Pinning
}

// Decider decides about the images of one request at a time. It is safe for
// concurrent use.
type Decider struct {
	Server   Server
	Resolver Resolver
	Engine   Engine
}

// Question is the images of one request. All its answers rest on one Set.
type Question struct {
	Set         *Set
	Namespace   Namespace
	Credentials *credential.Source
	Images      []Asked
	// Pinned says that the images must have a digest by now, where a rule that
	// is enforced looks at what runs, and the name that rules rewrite it to.
	Pinned bool
	// Pods says that the images are those of Pods, or will be: rules that rewrite
	// Pods apply.
	Pods bool
	// Object is what the images are in, nil if that is not known.
	Object *Object
	// Secrets finds pull secrets by name, in the namespace of the object; nil
	// finds none.
	Secrets func(names []string) *credential.Source
}

// Asked is one image of a question: a reference, or the error of reading it.
type Asked struct {
	Reference reference.Reference
	Invalid   error
	// Unchanged says that the object had the image before, and something else of
	// it changes: only rules that look at the object are asked.
	Unchanged bool
}

// Decision is the answer for one image.
type Decision struct {
	Reference reference.Reference
	// Rewritten is the name that takes the place of the reference in a Pod, the
	// zero value if it keeps its own.
	Rewritten reference.Reference
	// Digest is the digest that was examined, empty if none had to be known.
	Digest string
	// Authentication is the rule with whose credentials it is read, nil for none.
	Authentication *Rule
	Findings       []Finding
	// Warnings tell what a user should know although it decides nothing.
	Warnings []string
}

// Finding is what one rule, or the server itself, says of an image.
type Finding struct {
	Rule    *Rule // nil for the server's own
	Mode    Mode
	Verdict Verdict
}

// Outcome is the weightiest verdict, whatever its mode.
func (d Decision) Outcome() Outcome {
	outcome := Skipped
	for _, f := range d.Findings {
		if f.Verdict.Outcome.Outweighs(outcome) {
			outcome = f.Verdict.Outcome
		}
	}
	return outcome
}

// Decide answers for every image, in the order of the question, also after the
// first that fails: the user sees all reasons at once.
func (d *Decider) Decide(ctx context.Context, q Question) []Decision {
	decisions := make([]Decision, len(q.Images))
	d.eachDistinct(q, decisions, func(asked Asked) Decision { return d.decide(ctx, &q, asked) })
	return decisions
}

// Pin finds the names that the images of a Pod are rewritten to and the digests
// that they are pinned to, in the order of the question; images that stay as
// they are have neither, and a finding if that is because they cannot be
// resolved. It decides nothing: that is left to [Decider.Decide].
func (d *Decider) Pin(ctx context.Context, q Question) []Decision {
	decisions := make([]Decision, len(q.Images))
	if d.Server.Mode == Audit {
		return decisions
	}
	d.eachDistinct(q, decisions, func(asked Asked) Decision { return d.pin(ctx, &q, asked) })
	return decisions
}

// eachDistinct fills decisions by calling decide once for each different image.
func (d *Decider) eachDistinct(q Question, decisions []Decision, decide func(Asked) Decision) {
	first := make(map[string]int, len(q.Images))
	var group errgroup.Group
	group.SetLimit(parallel)
	for i, asked := range q.Images {
		if asked.Invalid != nil {
			decisions[i] = d.invalid(asked)
			continue
		}
		identity := q.Set.identity(asked)
		if _, seen := first[identity]; seen {
			continue
		}
		if len(first) == maxImages {
			decisions[i] = d.own(asked, Undecided(ReasonLimit, "more than %d different images in one request", maxImages))
			continue
		}
		first[identity] = i
		run := func() error {
			decisions[i] = d.guarded(asked, decide)
			return nil
		}
		if len(q.Images) == 1 {
			_ = run()
		} else {
			group.Go(run)
		}
	}
	_ = group.Wait() // decide returns decisions, never errors
	for i, asked := range q.Images {
		if j, ok := first[q.Set.identity(asked)]; ok && asked.Invalid == nil && j != i {
			decisions[i] = decisions[j]
			decisions[i].Reference = asked.Reference
		}
	}
}

// guarded turns a panic into a verdict: what a registry sent must never end
// the process, and never let an image in.
func (d *Decider) guarded(asked Asked, decide func(Asked) Decision) (decision Decision) {
	defer func() {
		if p := recover(); p != nil {
			decision = d.own(asked, Panicked(p))
		}
	}()
	return decide(asked)
}

// own is a decision of the server itself.
func (d *Decider) own(asked Asked, v Verdict) Decision {
	return Decision{
		Reference: asked.Reference,
		Findings:  []Finding{{Mode: d.Server.Mode, Verdict: v}},
	}
}

func (d *Decider) invalid(asked Asked) Decision {
	return d.own(asked, Refused(ReasonInvalidReference, "%v", asked.Invalid))
}

func (d *Decider) unmatched(asked Asked) Decision {
	switch d.Server.Unmatched {
	case UnmatchedDeny:
		return d.own(asked, Refused(ReasonUnmatched, "no rule covers it, and the server denies such images (--unmatched=Deny)"))
	case UnmatchedWarn:
		decision := d.own(asked, Verdict{Outcome: Skipped, Reason: ReasonNotCovered})
		decision.Warnings = []string{"no rule covers it"}
		return decision
	default:
		return d.own(asked, Verdict{Outcome: Skipped, Reason: ReasonNotCovered})
	}
}

// modeOf is the mode in which a rule's verdict weighs: Audit wins.
func (d *Decider) modeOf(rule *Rule) Mode {
	if d.Server.Mode == Audit || rule.Mode == Audit {
		return Audit
	}
	return Enforce
}

// demandsDigest reports whether a Pod's image must have a digest: a rule in
// Enforce looks at what its tag names, or applies to some digests only.
func (d *Decider) demandsDigest(s Selection) bool {
	enforced := func(r *Rule) bool {
		return d.modeOf(r) == Enforce && (len(s.Digested) > 0 || r.Verification.NeedsDigest())
	}
	return slices.ContainsFunc(s.Verification, enforced) || slices.ContainsFunc(s.Tagged, enforced) ||
		slices.ContainsFunc(s.Digested, enforced)
}

func (d *Decider) pin(ctx context.Context, q *Question, asked Asked) Decision {
	p := d.place(q, asked.Reference)
	left := Decision{Reference: asked.Reference, Authentication: p.Authentication}
	if p.by != nil && !p.by.Rewrite.Lookup {
		left.Rewritten = p.reference
	}
	if p.reference.Digest() != "" || d.Server.Pin == PinNever || p.invalid != nil {
		return left
	}
	covered := d.demandsDigest(p.Selection)
	if !covered && d.Server.Pin != PinAll {
		return left
	}
	resolution, err := d.Resolver.Resolve(ctx, q.image(p))
	if err != nil {
		v := VerdictOf(err)
		left.Findings = []Finding{{Mode: d.Server.Mode, Verdict: v}}
		if !covered {
			left.Warnings = []string{fmt.Sprintf("not pinned: %s", v.Message)}
		}
		return left
	}
	left.Digest = resolution.Digest
	if resolution.Stale {
		// Once it is pinned nobody looks at the tag again.
		left.Warnings = []string{staleTag}
	}
	return left
}

func (q *Question) image(p placed) Image {
	image := Image{Reference: p.reference, Digest: p.reference.Digest(), Credentials: q.Credentials}
	for _, rule := range []*Rule{p.Authentication, p.Second.Authentication, p.Transport} {
		if rule != nil && rule.uncertain(q.Namespace) {
			// Another namespace's credentials, or its way to a registry.
			image.Transport = &Transport{Unusable: unreadableLabels(q.Namespace) + fmt.Sprintf(", of %s %q", rule.Kind, rule.Name)}
			return image
		}
	}
	if p.Authentication != nil {
		image.Authentication = p.Authentication.Authentication
	}
	if p.Second.Authentication != nil {
		image.Second = p.Second.Authentication.Authentication
	}
	if p.Transport != nil {
		image.Transport = p.Transport.Transport
	}
	return image
}

// elsewhere is an image in further places. How another repository is asked, and
// with which credentials, is said by the rules for that repository alone.
func (q *Question) elsewhere(image Image, places []Place) []Image {
	found := make([]Image, 0, len(places))
	for _, place := range places {
		there := image
		if repository := place.Repository.Repository(); repository != "" && repository != image.Reference.Repository() {
			pinned := place.Repository.Pin(image.Digest).WithoutTag()
			there = q.image(placed{reference: pinned, Selection: q.Set.Select(pinned, q.Namespace)})
			there.Apart = true
		}
		there.Digest, there.TagPrefix, there.First = image.Digest, place.TagPrefix, place.Credentials
		there.Credentials = q.shown(place, there.Credentials)
		found = append(found, there)
	}
	return found
}

// decide answers for one image. A reference that has no digest is resolved
// first, and then judged as of now; what a tag beside a digest claims is asked
// of the registry only if a rule reaches into the tag (spec section 2).
func (d *Decider) decide(ctx context.Context, q *Question, asked Asked) Decision {
	p := d.place(q, asked.Reference)
	e := &examination{decider: d, question: q, selection: p.Selection, image: q.image(p), by: p.by}
	e.decision = Decision{Reference: asked.Reference, Authentication: p.Authentication}
	if asked.Unchanged {
		return e.again(ctx, p)
	}
	if e.renamed(p) {
		return e.decision
	}
	if !p.Covers() && len(e.decision.Findings) == 0 {
		return e.unmatched(asked, p)
	}
	switch {
	case p.reference.Digest() == "":
		e.resolve(ctx)
	case p.reference.Tag() != "" && p.asksTag():
		e.confirmTag(ctx)
	default:
		e.image.Reference = p.reference.WithoutTag()
	}
	e.verify(ctx)
	if len(e.decision.Findings) == 0 {
		return e.unmatched(asked, p)
	}
	return e.decision
}
