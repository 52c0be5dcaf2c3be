// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/reference"
)

// Set is all the rules in force, indexed by prefix. It is immutable: a request
// takes one Set and keeps it to its end.
type Set struct {
	rules []*Rule
	// kinds are sorted by name.
	kinds []*kind
	// globs holds the rules with globs, scopes those with a scope.
	globs  []*Rule
	scopes scopes
	// injecting holds the rules that give Pods a pull secret.
	injecting []*Rule
	// hosts holds the hosts that prefixes name: metrics may have them as labels.
	hosts map[string]struct{}
	// asWritten says that rules look at references as they are written, too.
	asWritten bool
}

// NewSet indexes rules.
func NewSet(rules []*Rule) *Set {
	s := &Set{hosts: map[string]struct{}{}}
	s.rules = slices.SortedFunc(slices.Values(rules), compareRules)
	for _, rule := range s.rules {
		if rule.Globs != nil {
			s.addGlobs(rule)
			continue
		}
		if rule.Scope != nil {
			s.addScope(rule)
			continue
		}
		if rule.Authentication != nil && rule.Authentication.Inject != nil {
			s.injecting = append(s.injecting, rule)
		}
		for _, prefix := range rule.Prefixes {
			s.hosts[prefix.Host()] = struct{}{}
		}
		last := len(s.kinds) - 1
		if last < 0 || s.kinds[last].name != rule.Kind {
			s.kinds = append(s.kinds, newKind(rule.Kind))
			last++
		}
		s.kinds[last].add(rule)
		s.asWritten = s.asWritten || s.kinds[last].asWritten
	}
	return s
}

// addScope adds a rule with a scope.
func (s *Set) addScope(rule *Rule) {
	s.scopes.add(rule)
	if host, _, _ := strings.Cut(rule.Scope.Name, "/"); host != "" && !strings.HasPrefix(host, reference.AnySubdomain) {
		s.hosts[host] = struct{}{}
	}
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
	// Second is what the next kind chose where one before it chose as well: its
	// credentials come after, and it rewrites what the first does not.
	Second struct{ Authentication, Rewrite *Rule }
	// Verification holds the rules that must all accept. Of one kind more than one
	// stands under the longest prefix only if several rules have that prefix.
	Verification []*Rule
	// Tagged holds rules whose prefix reaches into the tag. They come on top of
	// Verification, if the tag counts.
	Tagged []*Rule
	// Digested holds, for a reference without a digest, the rules that name one
	// in its repository: whether they apply, in the place of all others, is
	// known only once the digest is.
	Digested []*Rule
	// ByTag and ByDigest hold, for a reference with both, rules of which only one
	// list applies: ByTag if the tag counts, ByDigest if it does not.
	ByTag, ByDigest []*Rule
}

// Covers reports whether any verification rule may apply.
func (s Selection) Covers() bool {
	return len(s.Verification) > 0 || len(s.Tagged) > 0 || len(s.Digested) > 0 || len(s.ByTag) > 0 || len(s.ByDigest) > 0
}

// Select chooses the rules for a reference in a namespace. Its cost depends on
// the reference's length, not on the number of rules.
func (s *Set) Select(ref reference.Reference, ns Namespace) Selection {
	var selection Selection
	for i, k := range s.kinds {
		if i == 0 {
			selection = k.selects(ref, ns)
		} else {
			selection.add(k.selects(ref, ns))
		}
	}
	s.scopes.selects(&selection, ref)
	return selection
}

// add adds what another kind has chosen. Kinds never shadow one another: all of
// them must accept.
func (s *Selection) add(other Selection) {
	s.Verification = both(s.Verification, other.Verification)
	s.Tagged = both(s.Tagged, other.Tagged)
	s.Digested = both(s.Digested, other.Digested)
	s.Transport = cmp.Or(s.Transport, other.Transport)
	if s.Authentication == nil {
		s.Authentication = other.Authentication
	} else {
		s.Second.Authentication = cmp.Or(s.Second.Authentication, other.Authentication)
	}
	if s.Rewrite == nil {
		s.Rewrite = other.Rewrite
	} else {
		s.Second.Rewrite = cmp.Or(s.Second.Rewrite, other.Rewrite)
	}
}

// both returns the rules of two kinds without changing either. It copies only
// when it has to.
func both(a, b []*Rule) []*Rule {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	return slices.Concat(a, b)
}
