// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"slices"

	"github.com/pratique-dev/pratique/reference"
)

// identity tells the images of one request apart: those that have it in common
// are judged alike. Some rules look at references as they are written, too.
func (s *Set) identity(asked Asked) string {
	identity := asked.Reference.Canonical()
	if s.asWritten || len(s.globs) > 0 {
		identity = asked.Reference.Written()
	}
	if asked.Unchanged {
		// The same image may be new in another place, and is judged in full there.
		return "unchanged " + identity
	}
	return identity
}

// addGlobs adds a rule with globs.
func (s *Set) addGlobs(rule *Rule) {
	s.globs = append(s.globs, rule)
	for _, pattern := range rule.Globs.Patterns {
		if pattern.host != "" {
			s.hosts[pattern.host] = struct{}{}
		}
	}
}

// readingObjects leaves the rules that look at the object.
func (s Selection) readingObjects() Selection {
	only := func(rules []*Rule) []*Rule {
		return slices.DeleteFunc(slices.Clone(rules), func(r *Rule) bool { return !r.readsObject() })
	}
	s.Verification, s.Tagged, s.Digested = only(s.Verification), only(s.Tagged), only(s.Digested)
	s.ByTag, s.ByDigest = only(s.ByTag), only(s.ByDigest)
	return s
}

// selects chooses the rules for the image once more, whose digest is known now.
func (e *examination) selects(pinned reference.Reference) Selection {
	s := e.question.selects(pinned)
	if e.by != nil {
		s = s.joined(e.question.selects(e.decision.Reference.Pin(e.image.Digest)), e.by.Kind)
	}
	if e.unchanged {
		return s.readingObjects()
	}
	return s
}

// again examines an image that the object had before, by the rules that look at
// the object. It was rewritten and pinned then, or came before there were rules
// for that; what it is now is all that counts here.
func (e *examination) again(ctx context.Context, p placed) Decision {
	e.unchanged = true
	e.selection = p.readingObjects()
	if p.by != nil {
		e.as = p.reference.Written()
	}
	if !e.selection.Covers() {
		return e.decision
	}
	if p.reference.Digest() == "" {
		e.resolve(ctx)
	} else {
		e.image.Reference = p.reference.WithoutTag()
	}
	e.verify(ctx)
	return e.decision
}

// judge asks whether the object may have what was accepted.
func (e *examination) judge(ctx context.Context, by ObjectPolicy, accepted Verdict) Verdict {
	if e.question.Object == nil {
		return Undecided(ReasonNoObject, "its policy looks at the object that the image is in, and there is none")
	}
	judged := by.Judge(ctx, accepted.Evidence, e.question.Object)
	switch judged.Outcome {
	case Accepted:
		accepted.Evidence = "" // nobody else needs it
		return accepted
	case Skipped: // it was asked, and has not said yes
		return Undecided(ReasonInternal, "its policy has decided nothing")
	default:
		return judged
	}
}
