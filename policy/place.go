// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

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
	p := placed{reference: written, Selection: q.selects(written)}
	rule := d.rewriting(q, &p.Selection)
	if rule == nil || rule.held() || rule.uncertain(q.Namespace) {
		return p
	}
	rewritten, err := rule.rename(written)
	if err != nil {
		p.invalid = err
		return p
	}
	return placed{
		reference: rewritten, by: rule, before: &p.Selection,
		Selection: q.selects(rewritten).joined(p.Selection, rule.Kind),
	}
}

// joined adds the rules for the name as written that are of another kind than
// the one that rewrote it: who may write one kind must not switch another one
// off. The rule for what no other is about is about the new name alone; so are
// those with a scope, of which a single one is about each name.
func (s Selection) joined(written Selection, kind string) Selection {
	others := func(rules []*Rule) []*Rule {
		return slices.DeleteFunc(slices.Clone(rules), func(r *Rule) bool {
			return r.Kind == kind || r.Globs != nil && r.Globs.Rest || r.Scope != nil
		})
	}
	if kept := others(written.Verification); len(kept) > 0 {
		s.Verification = union(s.Verification, kept)
	}
	if kept := others(written.Digested); len(kept) > 0 {
		s.Digested = union(s.Digested, kept)
	}
	if kept := others(written.Tagged); len(kept) > 0 {
		s.Tagged = union(s.Tagged, kept)
	}
	s.Tagged = without(s.Tagged, s.Verification)
	return s
}

// rewriting is the rule that is to rewrite an image of this question, nil for
// none. That of another kind does where the first one's says nothing of such
// images; one that is not ready may say anything.
func (d *Decider) rewriting(q *Question, s *Selection) *Rule {
	for _, rule := range []*Rule{s.Rewrite, s.Second.Rewrite} {
		if rule != nil && (rule.held() || d.concerns(q, rule)) {
			return rule
		}
	}
	return nil
}

// rename returns a reference under the name that the rule rewrites it to. The
// rule rewrites, and was selected for the reference.
func (r *Rule) rename(ref reference.Reference) (reference.Reference, error) {
	if r.Rewrite.Written != "" {
		return r.renameWritten(ref)
	}
	var from reference.Prefix
	for _, prefix := range r.Prefixes {
		if strings.HasPrefix(ref.Repository(), prefix.Text) && len(prefix.Text) > len(from.Text) {
			from = prefix
		}
	}
	return ref.Replace(from, r.Rewrite.To)
}

// renameWritten replaces the longest prefix in the reference as it is written;
// or, if none is there, in its canonical form. What runs is told by the digest:
// it is the only part that no other can take the place of.
func (r *Rule) renameWritten(ref reference.Reference) (reference.Reference, error) {
	written, from := ref.Written(), ""
	for _, prefix := range r.Written {
		if strings.HasPrefix(written, prefix) && len(prefix) > len(from) {
			from = prefix
		}
	}
	if from == "" {
		written = ref.Canonical()
		for _, prefix := range r.Prefixes {
			if strings.HasPrefix(written, prefix.Text) && len(prefix.Text) > len(from) {
				from = prefix.Text
			}
		}
	}
	renamed, err := reference.Parse(r.Rewrite.Written + written[len(from):])
	if err != nil {
		return reference.Reference{}, fmt.Errorf("replacing the prefix of %s: %w", ref.Written(), err)
	}
	if renamed.Digest() != ref.Digest() {
		return reference.Reference{}, fmt.Errorf("replacing the prefix of %s: it would be another digest", ref.Written())
	}
	return renamed, nil
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
	switch rule := d.rewriting(q, &p.Selection); {
	case p.invalid != nil:
		e.add(rule, d.modeOf(rule), Refused(ReasonInvalidReference, "it cannot be rewritten: %v", p.invalid))
		return true
	case p.by != nil && !p.by.Rewrite.Lookup && q.Pinned:
		e.add(p.by, Enforce, Refused(ReasonNotRewritten, "not rewritten to %s: the mutating webhook did not run or found no digest, or another one came after it", p.reference.Written()))
		return true
	case p.by != nil:
		e.as = p.reference.Written()
	case rule != nil && rule.Rewrite != nil && rule.uncertain(q.Namespace):
		// Its own mode is about Pods; where to look is a question in any.
		mode := Enforce
		if d.Server.Mode == Audit {
			mode = Audit
		}
		e.add(rule, mode, e.unreadable())
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
	v.Message = fmt.Sprintf("as %s, to which %s %q rewrites it: %s", e.as, p.by.Kind, p.by.Name, cmp.Or(v.Message, "no rule covers it"))
	if rules := slices.Concat(p.before.Verification, p.before.Tagged); len(rules) > 0 {
		decision.Warnings = append(decision.Warnings, fmt.Sprintf(
			"%s %q covers its name as written, which does not count: it is judged as %s", rules[0].Kind, rules[0].Name, e.as))
	}
	return decision
}
