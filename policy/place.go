// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/pratique-dev/pratique/reference"
)

// placed is an image under the name by which it is judged, and the rules for
// that name (spec section 3, "Rewrite").
type placed struct {
	Selection

	reference reference.Reference
	// by is the rule that rewrote the reference, nil if none did.
	by *Rule
	// before are the rules for the name as written, if another rewrote it.
	before *Selection
	// invalid is why it could not.
	invalid error
}

// place rewrites a reference, once, and selects the rules for what came of it.
func (d *Decider) place(q *Question, written reference.Reference) placed {
	p := placed{reference: written, Selection: q.Set.Select(written, q.Namespace)}
	rule := p.Rewrite
	if rule == nil || rule.held() || !d.concerns(q, rule) || rule.uncertain(q.Namespace) {
		return p
	}
	rewritten, err := rule.rename(written)
	if err != nil {
		p.invalid = err
		return p
	}
	return placed{reference: rewritten, by: rule, before: &p.Selection, Selection: q.Set.Select(rewritten, q.Namespace)}
}

// concerns reports whether a rule that rewrites is about the images of this
// question. What is only audited is not rewritten; where to look for it is no
// change to it.
func (d *Decider) concerns(q *Question, rule *Rule) bool {
	return rule.Rewrite.Lookup || q.Pods && d.modeOf(rule) == Enforce
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
	case p.Rewrite != nil && p.Rewrite.Rewrite != nil && d.concerns(q, p.Rewrite) && p.Rewrite.uncertain(q.Namespace):
		// Its own mode is about Pods; where to look is a question in any.
		mode := Enforce
		if d.Server.Mode == Audit {
			mode = Audit
		}
		e.add(p.Rewrite, mode, e.unreadable())
	}
	return false
}

// unmatched is the decision for an image that no rule covers, under the name by
// which it is judged. That a rule covers the name as written may be meant to be
// enough, and is not.
func (e *examination) unmatched(asked Asked, p placed) Decision {
	decision := e.decider.unmatched(asked)
	if p.by == nil {
		return decision
	}
	v := &decision.Findings[0].Verdict
	v.Message = fmt.Sprintf("as %s, to which ImageConfig %q rewrites it: %s", e.as, p.by.Name, cmp.Or(v.Message, "no rule covers it"))
	if rules := slices.Concat(p.before.Verification, p.before.Tagged); len(rules) > 0 {
		decision.Warnings = append(decision.Warnings, fmt.Sprintf(
			"ImageConfig %q covers its name as written, which does not count: it is judged as %s", rules[0].Name, e.as))
	}
	return decision
}
