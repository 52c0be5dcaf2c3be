// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/pratique-dev/pratique/reference"

// placed is an image under the name by which it is judged, and the rules for
// that name (spec section 3, "Rewrite").
type placed struct {
	Selection

	reference reference.Reference
	// by is the rule that rewrote the reference, nil if none did.
	by *Rule
	// invalid is why it could not.
	invalid error
}

// place rewrites a reference, once, and selects the rules for what came of it.
func (d *Decider) place(q *Question, written reference.Reference) placed {
	p := placed{reference: written, Selection: q.Set.Select(written, q.Namespace)}
	rule := p.Rewrite
	if rule == nil || !d.mayRewrite(q, rule) || rule.held() || rule.uncertain(q.Namespace) {
		return p
	}
	rewritten, err := rule.rename(written)
	if err != nil {
		p.invalid = err
		return p
	}
	return placed{reference: rewritten, by: rule, Selection: q.Set.Select(rewritten, q.Namespace)}
}

// mayRewrite reports whether a rule is about the images of this question. What
// is only audited is not rewritten; where to look for it is no change to it.
func (d *Decider) mayRewrite(q *Question, rule *Rule) bool {
	return rule.Rewrite == nil || rule.Rewrite.Lookup || q.Pods && d.modeOf(rule) == Enforce
}

// renamed notes what came of rewriting, and reports whether that decides.
func (e *examination) renamed(p placed) bool {
	d, q := e.decider, e.question
	switch {
	case p.invalid != nil:
		e.add(p.Rewrite, d.modeOf(p.Rewrite), Refused(ReasonInvalidReference, "it cannot be rewritten: %v", p.invalid))
		return true
	case p.by != nil && !p.by.Rewrite.Lookup && q.Pinned:
		e.add(p.by, Enforce, Refused(ReasonNotRewritten, "not rewritten to %s: the mutating webhook did not run", p.reference.Written()))
		return true
	case p.by != nil:
		e.as = p.reference.Written()
	case p.Rewrite != nil && p.Rewrite.Rewrite != nil && d.mayRewrite(q, p.Rewrite) && p.Rewrite.uncertain(q.Namespace):
		e.add(p.Rewrite, d.modeOf(p.Rewrite), e.unreadable())
	}
	return false
}
