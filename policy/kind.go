// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/reference"
)

// kind is the rules of one kind. Rules shadow only others of their kind.
type kind struct {
	name string
	// Prefixes that reach into the tag are kept apart, because they count only
	// if the tag does.
	repositories, tags index
	digests            map[exact][]*Rule
	// digested holds the same rules by repository alone.
	digested map[string][]*Rule
	// everywhere holds the rules that are selected for every reference.
	everywhere []*Rule
	// written is the index of references as they are written.
	written   index
	asWritten bool
}

type exact struct{ repository, digest string }

func newKind(name string) *kind {
	return &kind{name: name, digests: map[exact][]*Rule{}, digested: map[string][]*Rule{}}
}

// add adds a rule. Rules come sorted, and stay so.
func (k *kind) add(rule *Rule) {
	if rule.Everywhere {
		k.everywhere = append(k.everywhere, rule)
	}
	for _, prefix := range rule.Prefixes {
		k.insert(prefix, rule)
	}
	for _, prefix := range rule.Written {
		// What is empty matches nothing, not everything.
		if prefix != "" {
			k.written.insert(prefix, rule)
			k.asWritten = true
		}
	}
}

func (k *kind) insert(prefix reference.Prefix, rule *Rule) {
	switch prefix.Reach {
	case reference.ReachRepository:
		k.repositories.insert(prefix.Text, rule)
	case reference.ReachTag:
		k.tags.insert(prefix.Text, rule)
	case reference.ReachDigest:
		repository, digest := prefix.Cut()
		key := exact{repository, digest}
		k.digests[key] = with(k.digests[key], rule)
		k.digested[repository] = with(k.digested[repository], rule)
	}
}

// with adds a rule once.
func with(rules []*Rule, rule *Rule) []*Rule {
	if slices.Contains(rules, rule) {
		return rules
	}
	return append(rules, rule)
}

// depth is how many nested prefixes are followed without allocating.
const depth = 16

// selects chooses among the rules of the kind.
func (k *kind) selects(ref reference.Reference, ns Namespace) Selection {
	selection := k.selectByPrefix(ref, ns)
	if k.asWritten {
		k.selectAsWritten(&selection, ref, ns)
	}
	if len(k.everywhere) > 0 {
		selection.Verification = union(eligible(k.everywhere, ns), selection.Verification)
	}
	return selection
}

// selectAsWritten adds what is chosen by the reference as it is written, and
// nothing else of it: who says otherwise than the canonical form does, says it
// in addition (spec section 3, "Selection"). For the purposes for which one rule
// is enough it comes first.
func (k *kind) selectAsWritten(selection *Selection, ref reference.Reference, ns Namespace) {
	var room [depth][]*Rule
	path := k.written.appendMatches(room[:0], ref.Written())
	found := longest(path, ns)
	if ref.Digest() != "" && ref.Tag() != "" {
		// A tag beside a digest is a claim. What it brings counts on top of what
		// the digest alone would have met, so that no tag can be made up under
		// which less is asked.
		var more [depth][]*Rule
		found = union(found, longest(k.written.appendMatches(more[:0], writtenWithoutTag(ref)), ns))
	}
	// Nor must another spelling of the same name meet less than the canonical one.
	var plain [depth][]*Rule
	found = union(found, longest(k.written.appendMatches(plain[:0], ref.Canonical()), ns))
	if len(found) > 0 {
		selection.Verification = union(selection.Verification, found)
		selection.Tagged = without(selection.Tagged, selection.Verification)
	}
	var first Selection
	first.chooseOne(path, ns)
	selection.Authentication = cmp.Or(first.Authentication, selection.Authentication)
	selection.Transport = cmp.Or(first.Transport, selection.Transport)

	rewrite := selection.Rewrite
	if tagged := ref.Tagged(); tagged != "" {
		var more [depth][]*Rule
		rewrite = cmp.Or(longestRewrite(k.tags.appendMatches(more[:0], tagged), ns), rewrite)
	}
	// One that is not ready is in the way in whichever form it was met.
	if rewrite == nil || !rewrite.held() {
		rewrite = cmp.Or(longestRewrite(path, ns), rewrite)
	}
	selection.Rewrite = rewrite
}

// writtenWithoutTag is the reference, which has a tag and a digest, as it would
// be written without the tag.
func writtenWithoutTag(ref reference.Reference) string {
	name, _, _ := strings.Cut(ref.Written(), "@")
	return strings.TrimSuffix(name, ":"+ref.Tag()) + "@" + ref.Digest()
}

// without returns the rules that others does not have. It copies only when it
// has to leave one out.
func without(rules, others []*Rule) []*Rule {
	known := func(r *Rule) bool { return slices.Contains(others, r) }
	if !slices.ContainsFunc(rules, known) {
		return rules
	}
	return slices.DeleteFunc(slices.Clone(rules), known)
}

// union returns the rules of both lists, each once and sorted, without changing
// either.
func union(a, b []*Rule) []*Rule {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compareRules)
	return slices.Compact(all)
}

func (k *kind) selectByPrefix(ref reference.Reference, ns Namespace) Selection {
	var selection Selection
	var room [depth][]*Rule
	path := k.repositories.appendMatches(room[:0], ref.Repository())
	selection.Verification = longest(path, ns)
	selection.chooseOne(path, ns)
	selection.Rewrite = longestRewrite(path, ns)

	if tagged := ref.Tagged(); tagged != "" {
		path = k.tags.appendMatches(room[:0], tagged)
		selection.Tagged = longest(path, ns)
		// Beside a digest a tag is only a claim, and what is shown to a registry
		// must not hang on it: the registry has not confirmed it yet.
		if ref.Digest() == "" {
			selection.chooseOne(path, ns)
		}
	}
	if ref.Digest() == "" {
		selection.Digested = eligible(k.digested[ref.Repository()], ns)
		return selection
	}
	whole := [1][]*Rule{k.digests[exact{ref.Repository(), ref.Digest()}]}
	if rules := eligible(whole[0], ns); slices.ContainsFunc(rules, func(r *Rule) bool { return r.certain(ns) }) {
		selection.Verification, selection.Tagged = rules, nil
	} else if len(rules) > 0 {
		selection.Verification = union(selection.Verification, rules)
	}
	selection.chooseOne(whole[:], ns)
	return selection
}

// chooseOne chooses the rules of the longest prefixes for the purposes for which
// one is enough; among equals the first by name. What was chosen under shorter
// prefixes stays where these have none.
func (s *Selection) chooseOne(path [][]*Rule, ns Namespace) {
	for _, rules := range path {
		var authentication, transport *Rule
		for _, r := range rules {
			if r.Authentication != nil && authentication == nil && r.governs(ns) {
				authentication = r
			}
			if r.Transport != nil && transport == nil && r.governs(ns) {
				transport = r
			}
		}
		s.Authentication = cmp.Or(authentication, s.Authentication)
		s.Transport = cmp.Or(transport, s.Transport)
	}
}

// longest returns the verification rules of the longest prefix that has any. One
// of which it cannot be known whether it applies, or what it asks, shadows
// nothing: those of the next shorter prefix come on top.
func longest(path [][]*Rule, ns Namespace) []*Rule {
	var chosen []*Rule
	for _, rules := range slices.Backward(path) {
		found := eligible(rules, ns)
		if len(chosen) == 0 {
			chosen = found
		} else {
			chosen = union(found, chosen)
		}
		if slices.ContainsFunc(found, func(r *Rule) bool { return r.certain(ns) }) {
			break
		}
	}
	return chosen
}

// eligible returns the rules that govern the namespace and ask for something.
// It copies only when it has to leave one out.
func eligible(rules []*Rule, ns Namespace) []*Rule {
	asks := func(r *Rule) bool { return r.Verification != nil && r.governs(ns) }
	first := slices.IndexFunc(rules, func(r *Rule) bool { return !asks(r) })
	if first < 0 {
		return rules
	}
	var chosen []*Rule
	for _, r := range rules {
		if asks(r) {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// longestRewrite returns the rule of the longest prefix that rewrites; among
// equals the first by name. One that is not ready might do so too, and is in the
// way of what stands under a shorter prefix: under another name it could not
// hold the image back any more.
func longestRewrite(path [][]*Rule, ns Namespace) *Rule {
	for _, rules := range slices.Backward(path) {
		for _, r := range rules {
			if r.mayRewrite(ns) && r.governs(ns) {
				return r
			}
		}
	}
	return nil
}
