// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/reference"
)

// Scope says which images a rule is for as a containers-policy.json(5) does: of
// all the scopes that an image is in, the most specific one counts, and no
// other. Such rules apply in every namespace.
type Scope struct {
	// Name is what the scope takes in, with the host in canonical form: one image
	// (example.com/a/b:tag or example.com/a/b@sha256:…), a repository, all that is
	// below a path or host, all hosts of a domain (*.example.com); or, if it is
	// empty, all that no other scope takes in.
	Name string
}

// scopes finds the rules with scopes by their names. Each list has one rule.
type scopes struct {
	names map[string][]*Rule
	// domains are those whose names begin with *., without that.
	domains map[string][]*Rule
	// digested holds those that name a digest, by repository.
	digested map[string][]*Rule
}

// add adds a rule. A name that comes twice is a mistake of whoever made the
// rules; then both must accept.
func (s *scopes) add(rule *Rule) {
	if s.names == nil {
		s.names, s.domains, s.digested = map[string][]*Rule{}, map[string][]*Rule{}, map[string][]*Rule{}
	}
	name := rule.Scope.Name
	if domain, ok := strings.CutPrefix(name, reference.AnySubdomain); ok {
		s.domains[domain] = append(s.domains[domain], rule)
		return
	}
	s.names[name] = append(s.names[name], rule)
	if repository, _, ok := strings.Cut(name, "@"); ok {
		s.digested[repository] = append(s.digested[repository], rule)
	}
}

// below finds the rules of the most specific scope that takes in a reference
// whatever its tag or digest.
func (s *scopes) below(ref reference.Reference) []*Rule {
	for name, domain := range ref.Scopes() {
		among := s.names
		if domain {
			among = s.domains
		}
		if rules, ok := among[name]; ok {
			return rules
		}
	}
	return nil
}

// selects adds the rules for a reference to a selection. A scope that names the
// digest must accept besides the one that the tag is in: to write the tag must
// not be a way around it (spec section 10).
func (s *scopes) selects(selection *Selection, ref reference.Reference) {
	if len(s.names)+len(s.domains) == 0 {
		return
	}
	below := s.below(ref)
	byTag := below
	if rules, ok := s.names[ref.Tagged()]; ok && ref.Tagged() != "" {
		byTag = rules
	}
	if ref.Digest() == "" {
		selection.Verification = both(selection.Verification, byTag)
		selection.Digested = both(selection.Digested, s.digested[ref.Repository()])
		return
	}
	byDigest := below
	if rules, ok := s.names[ref.Repository()+"@"+ref.Digest()]; ok {
		byDigest, byTag = rules, both(byTag, rules)
	}
	if ref.Tagged() == "" || slices.Equal(byTag, byDigest) {
		selection.Verification = both(selection.Verification, byDigest)
		return
	}
	selection.ByTag, selection.ByDigest = byTag, byDigest
}

// asksTag reports whether what a tag beside a digest claims must be known: rules
// apply only if it counts, or judge what it says.
func (s *Selection) asksTag() bool {
	return len(s.Tagged) > 0 || len(s.ByTag) > 0 || len(s.ByDigest) > 0 ||
		slices.ContainsFunc(s.Verification, (*Rule).readsTag)
}

// readsTag reports whether a rule judges an image otherwise by its tag than by
// its digest.
func (r *Rule) readsTag() bool { return r.Verification.Fixed == nil && r.Verification.ByReference }

// counting is the selection if the tag beside the digest counts.
func (s Selection) counting() Selection {
	s.Verification = both(s.Verification, s.ByTag)
	s.ByTag, s.ByDigest = nil, nil
	return s
}

// discounting is the selection if it does not.
func (s Selection) discounting() Selection {
	s.Verification = both(s.Verification, s.ByDigest)
	s.Tagged, s.ByTag, s.ByDigest = nil, nil, nil
	return s
}

// undecided divides the selection, if it is not known whether the tag counts,
// into what applies all the same and the rules that depend on it.
func (s Selection) undecided() (certain Selection, depending []*Rule) {
	depending = slices.Clone(s.Tagged)
	counts, not := s.counting().Verification, s.discounting().Verification
	certain = s
	certain.Verification, certain.Tagged, certain.ByTag, certain.ByDigest = nil, nil, nil, nil
	for _, rule := range union(counts, not) {
		if rule.readsTag() || !slices.Contains(counts, rule) || !slices.Contains(not, rule) {
			depending = append(depending, rule)
		} else {
			certain.Verification = append(certain.Verification, rule)
		}
	}
	return certain, depending
}
