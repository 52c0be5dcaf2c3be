// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"

	"github.com/pratique-dev/pratique/reference"
)

// Set is all the rules in force, indexed by prefix. It is immutable: a request
// takes one Set and keeps it to its end.
type Set struct {
	rules []*Rule
	// Prefixes that reach into the tag are kept apart, because they count only
	// if the tag does.
	repositories, tags index
	digests            map[exact][]*Rule
	// digested holds the same rules by repository alone.
	digested map[string][]*Rule
	// everywhere holds the rules that are selected for every reference.
	everywhere []*Rule
	// injecting holds the rules that give Pods a pull secret.
	injecting []*Rule
	// hosts holds the hosts that prefixes name: metrics may have them as labels.
	hosts map[string]struct{}
}

type exact struct{ repository, digest string }

// NewSet indexes rules.
func NewSet(rules []*Rule) *Set {
	s := &Set{digests: map[exact][]*Rule{}, digested: map[string][]*Rule{}, hosts: map[string]struct{}{}}
	s.rules = slices.SortedFunc(slices.Values(rules), compareRules)
	for _, rule := range s.rules {
		if rule.Everywhere {
			s.everywhere = append(s.everywhere, rule)
		}
		if rule.Authentication != nil && rule.Authentication.Inject != nil {
			s.injecting = append(s.injecting, rule)
		}
		for _, prefix := range rule.Prefixes {
			s.insert(prefix, rule)
		}
	}
	return s
}

func (s *Set) insert(prefix reference.Prefix, rule *Rule) {
	s.hosts[prefix.Host()] = struct{}{}
	switch prefix.Reach {
	case reference.ReachRepository:
		s.repositories.insert(prefix.Text, rule)
	case reference.ReachTag:
		s.tags.insert(prefix.Text, rule)
	case reference.ReachDigest:
		repository, digest := prefix.Cut()
		key := exact{repository, digest}
		s.digests[key] = with(s.digests[key], rule)
		s.digested[repository] = with(s.digested[repository], rule)
	}
}

// with adds a rule once. Rules come sorted, and stay so.
func with(rules []*Rule, rule *Rule) []*Rule {
	if slices.Contains(rules, rule) {
		return rules
	}
	return append(rules, rule)
}

// Rules lists all rules, by kind and name.
func (s *Set) Rules() []*Rule { return s.rules }

// Injecting lists the rules that give Pods a pull secret, by kind and name.
func (s *Set) Injecting() []*Rule { return s.injecting }

// KnowsHost reports whether a prefix names the canonical host.
func (s *Set) KnowsHost(host string) bool {
	_, ok := s.hosts[host]
	return ok
}

// Selection is the rules that apply to one reference, chosen once per purpose
// (spec section 3). It must not be changed.
type Selection struct {
	// Authentication, Transport and Rewrite are the rules that have these
	// sections, nil where none does. Rewrite may also be a rule that is not ready.
	Authentication, Transport, Rewrite *Rule
	// Verification holds the rules that must all accept. More than one stands
	// under the longest prefix only if several rules have that prefix.
	Verification []*Rule
	// Tagged holds rules whose prefix reaches into the tag. They come on top of
	// Verification, if the tag counts.
	Tagged []*Rule
	// Digested holds, for a reference without a digest, the rules that name one
	// in its repository: whether they apply, in the place of all others, is
	// known only once the digest is.
	Digested []*Rule
}

// Covers reports whether any verification rule may apply.
func (s Selection) Covers() bool {
	return len(s.Verification) > 0 || len(s.Tagged) > 0 || len(s.Digested) > 0
}

// depth is how many nested prefixes are followed without allocating.
const depth = 16

// Select chooses the rules for a reference in a namespace. Its cost depends on
// the reference's length, not on the number of rules.
func (s *Set) Select(ref reference.Reference, ns Namespace) Selection {
	selection := s.selectByPrefix(ref, ns)
	if len(s.everywhere) > 0 {
		selection.Verification = union(eligible(s.everywhere, ns), selection.Verification)
	}
	return selection
}

// union returns the rules of both lists, each once and sorted, without changing
// either.
func union(a, b []*Rule) []*Rule {
	all := slices.Concat(a, b)
	slices.SortFunc(all, compareRules)
	return slices.Compact(all)
}

func (s *Set) selectByPrefix(ref reference.Reference, ns Namespace) Selection {
	var selection Selection
	var room [depth][]*Rule
	path := s.repositories.appendMatches(room[:0], ref.Repository())
	selection.Verification = longest(path, ns)
	selection.chooseOne(path, ns)
	selection.Rewrite = longestRewrite(path, ns)

	if tagged := ref.Tagged(); tagged != "" {
		path = s.tags.appendMatches(room[:0], tagged)
		selection.Tagged = longest(path, ns)
		// Beside a digest a tag is only a claim, and what is shown to a registry
		// must not hang on it: the registry has not confirmed it yet.
		if ref.Digest() == "" {
			selection.chooseOne(path, ns)
		}
	}
	if ref.Digest() == "" {
		selection.Digested = eligible(s.digested[ref.Repository()], ns)
		return selection
	}
	whole := [1][]*Rule{s.digests[exact{ref.Repository(), ref.Digest()}]}
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
