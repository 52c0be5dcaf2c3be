// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
)

// examination is one image on its way to a decision.
type examination struct {
	decider   *Decider
	question  *Question
	selection Selection
	image     Image
	decision  Decision
	// as is the name that the image was rewritten to, if it was, and by the rule
	// that did.
	as string
	by *Rule

	// unresolved is set when the digest, or what the tag names, could not be
	// found: the verdict of every rule that would have needed it.
	unresolved *Verdict
	// unpinned says that the image should have had a digest.
	unpinned bool
	// unchanged says that the object had the image before.
	unchanged bool
	// unsettled are the rules that, for want of one, may or may not apply.
	unsettled []*Rule
}

// resolve finds the digest of a reference without one, and the rules that
// apply to it.
func (e *examination) resolve(ctx context.Context) {
	needs := func(r *Rule) bool { return r.Verification.NeedsDigest() }
	if len(e.selection.Digested) == 0 && !slices.ContainsFunc(e.rules(), needs) {
		return
	}
	resolution, err := e.decider.Resolver.Resolve(ctx, e.image)
	if err != nil {
		v := VerdictOf(err)
		e.unresolved = &v
		// Rules for one digest may or may not apply.
		for _, rule := range e.selection.Digested {
			e.add(rule, e.decider.modeOf(rule), v)
		}
		return
	}
	e.warnStale(resolution)
	e.image.Digest = resolution.Digest
	e.decision.Digest = resolution.Digest
	e.unpinned = e.question.Pinned && !e.unchanged
	if len(e.selection.Digested) > 0 {
		e.settle()
	}
}

// settle selects again, by the digest that was found. Of an image that should
// have had one by now, though, that digest need not be what runs: until it is
// pinned, every rule may still turn out to be the one that applies.
func (e *examination) settle() {
	before := e.selection
	pinned := e.image.Reference.Pin(e.image.Digest)
	e.selection = e.selects(pinned).counting()
	again := e.question.image(placed{reference: pinned, Selection: e.selection})
	e.image.Authentication, e.image.Second, e.image.Transport = again.Authentication, again.Second, again.Transport
	if !e.unpinned {
		return
	}
	e.unsettled = before.Digested
	for _, rule := range slices.Concat(before.Verification, before.Tagged, before.Digested) {
		if e.decider.modeOf(rule) == Enforce && !slices.Contains(e.rules(), rule) {
			e.selection.Verification = append(slices.Clip(e.selection.Verification), rule)
		}
	}
}

// confirmTag asks whether the tag beside a digest points there now. If it does
// not, the image is judged by its digest alone (spec section 2).
func (e *examination) confirmTag(ctx context.Context) {
	resolution, err := e.decider.Resolver.Resolve(ctx, e.image)
	if err == nil && resolution.Digest == e.image.Digest {
		e.warnStale(resolution)
		e.selection = e.selection.counting()
		return
	}
	e.image.Reference = e.image.Reference.WithoutTag()
	if err == nil {
		e.selection = e.selection.discounting()
		return
	}
	// With and without it the judgement could differ.
	v := VerdictOf(err)
	v.Message = "whether its tag names this digest cannot be known: " + v.Message
	var depending []*Rule
	e.selection, depending = e.selection.undecided()
	for _, rule := range depending {
		e.add(rule, e.decider.modeOf(rule), v)
	}
}

// staleTag warns that a tag may name something else by now.
const staleTag = "registry unreachable: the tag was resolved from the cache, past its time"

func (e *examination) warnStale(r Resolution) {
	if r.Stale {
		e.decision.Warnings = append(e.decision.Warnings, staleTag)
	}
}

func (e *examination) rules() []*Rule {
	if len(e.selection.Tagged) == 0 {
		return e.selection.Verification
	}
	return slices.Concat(e.selection.Verification, e.selection.Tagged)
}

func (e *examination) add(rule *Rule, mode Mode, v Verdict) {
	if e.as != "" {
		v.Message = strings.TrimSuffix("as "+e.as+": "+v.Message, ": ")
	}
	for _, a := range []*Authentication{e.image.Authentication, e.image.Second} {
		if a.mayExplain(v) {
			v.Message += "; " + a.Problem
		}
	}
	e.decision.Findings = append(e.decision.Findings, Finding{Rule: rule, Mode: mode, Verdict: v})
}

// verify asks every rule that applies, all at the same time.
func (e *examination) verify(ctx context.Context) {
	if e.image.Digest != "" {
		e.decision.Digest = e.image.Digest
	}
	rules := e.rules()
	verdicts := make([]Verdict, len(rules))
	if len(rules) == 1 {
		verdicts[0] = e.verdict(ctx, rules[0])
	} else {
		var group errgroup.Group
		group.SetLimit(parallel)
		for i, rule := range rules {
			group.Go(func() error {
				verdicts[i] = e.verdict(ctx, rule)
				return nil
			})
		}
		_ = group.Wait() // verdict returns no error
	}
	for i, rule := range rules {
		e.add(rule, e.decider.modeOf(rule), verdicts[i])
	}
	if e.image.Credentials != nil {
		e.decision.Warnings = append(e.decision.Warnings, e.image.Credentials.Warnings()...)
	}
}

func (e *examination) verdict(ctx context.Context, rule *Rule) (v Verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = Panicked(p)
		}
	}()
	v = e.examine(ctx, rule)
	if v.Outcome == Accepted && rule.Verification.Object != nil {
		v = e.judge(ctx, rule.Verification.Object, v)
	}
	return v
}

func (e *examination) examine(ctx context.Context, rule *Rule) Verdict {
	switch {
	case rule.uncertain(e.question.Namespace):
		return e.unreadable()
	case e.decider.modeOf(rule) == Enforce && slices.Contains(e.unsettled, rule):
		return e.notPinned()
	case !rule.Verification.NeedsDigest():
		return *rule.Verification.Fixed
	case e.unresolved != nil:
		return *e.unresolved
	case e.unpinned && e.decider.modeOf(rule) == Enforce:
		return e.notPinned()
	case len(rule.Verification.Places) > 0:
		image := e.image
		image.Elsewhere = e.question.elsewhere(e.image, rule.Verification.Places)
		return image.hinted(e.decider.Engine.Verify(ctx, rule, image))
	default:
		return e.decider.Engine.Verify(ctx, rule, e.image)
	}
}

// hinted adds to a verdict what is wrong with the credentials for the image's
// further places, where that may be why.
func (i Image) hinted(v Verdict) Verdict {
	for _, there := range i.Elsewhere {
		if there.Authentication != i.Authentication && there.Authentication.mayExplain(v) {
			v.Message += "; " + there.Authentication.Problem
		}
	}
	return v
}

// mayExplain reports whether a problem with credentials may be why a verdict is
// what it is.
func (a *Authentication) mayExplain(v Verdict) bool {
	return a != nil && a.Problem != "" && (v.Reason == ReasonUnauthorized || v.Reason == ReasonNotFound)
}

func (e *examination) unreadable() Verdict {
	return Undecided(ReasonNamespace, "%s", unreadableLabels(e.question.Namespace))
}

func unreadableLabels(ns Namespace) string {
	return fmt.Sprintf("the labels of namespace %q could not be read, so whether the rule applies is unknown", ns.Name)
}

func (e *examination) notPinned() Verdict {
	if e.decider.Server.Pin == PinNever {
		return Refused(ReasonNotPinned, "not pinned: it has no digest, and pinning is left to another webhook (--pin=Never)")
	}
	return Refused(ReasonNotPinned, "not pinned: the mutating webhook did not run or found no digest, or another one came after it")
}
