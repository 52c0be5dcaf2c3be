// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/reference"
)

// Globs is the part of a rule that says which images it is for, where that is
// not told by prefixes. Such rules shadow nothing and are shadowed by nothing:
// all that match must accept.
type Globs struct {
	Patterns []Glob
	// Matches are the objects whose images are meant, any one of them; none means
	// all objects.
	Matches []Match
	// Rest says that the rule is for the images that no other rule with globs is
	// for, and only for those in Pods, or that will be. It has no Patterns.
	Rest bool
	// Everything says that it cannot be read which images are meant: they may be
	// any, in any object.
	Everything bool
	// Namespaced says that only objects in a namespace are meant.
	Namespaced bool
}

// Glob is an expression over repository@sha256:…, in the names of
// go-containerregistry.
type Glob struct {
	exact *regexp.Regexp
	// possible matches, of an unknown digest, what exact may match once the
	// digest is known.
	possible *regexp.Regexp
	host     string
}

// unknownDigest stands for a digest that is not known: each of its 64 digits may
// be any.
var unknownDigest = "@sha256:" + strings.Repeat(unknownDigit, 64)

// unknownDigit is in no reference.
const unknownDigit = "\x00"

var digits = regexp.MustCompile("[0-9a-f]")

// NewGlob takes a glob and what it was compiled to: an expression of literal
// characters, [^/]* and .* between ^ and $.
func NewGlob(written string, exact *regexp.Regexp) (Glob, error) {
	// Where the glob names a digit, the unknown one may be it.
	possible, err := regexp.Compile(digits.ReplaceAllString(exact.String(), "[${0}"+unknownDigit+"]"))
	if err != nil {
		return Glob{}, err
	}
	host, _, _ := strings.Cut(written, "/")
	if strings.Contains(host, "*") {
		host = ""
	}
	return Glob{exact, possible, reference.CanonicalHost(host)}, nil
}

// fits says whether a rule is for an image.
type fits uint8

const (
	never   fits = iota
	perhaps      // only the digest tells
	always
)

// registryNames are those by which the repository is looked for: as the registry client
// names it, and in canonical form if that differs.
func registryNames(ref reference.Reference) []string {
	own, canonical := ref.RegistryName(), ref.CanonicalRegistryName()
	if own == canonical {
		return []string{own}
	}
	return []string{own, canonical}
}

func (g *Globs) fits(name, digest string) fits {
	best := never
	if g.Everything {
		return always
	}
	for _, pattern := range g.Patterns {
		switch {
		case digest != "" && pattern.exact.MatchString(name+"@"+digest):
			return always
		case digest != "":
		// The same stars take in whatever digest there is.
		case pattern.exact.MatchString(name + unknownDigest):
			return always
		case pattern.possible.MatchString(name + unknownDigest):
			best = perhaps
		}
	}
	return best
}

// globbed is the rules with globs that are for one image.
type globbed struct {
	certain []*Rule
	// possible are those of which only the digest tells.
	possible []*Rule
}

// selects chooses the rules for a reference in the question's namespace and
// object. Its Digested rules are those that may be others once the digest is known.
func (q *Question) selects(ref reference.Reference) Selection {
	s := q.Set.Select(ref, q.Namespace)
	if len(q.Set.globs) == 0 {
		return s
	}
	found := q.globbed(ref)
	s.Verification = slices.Concat(s.Verification, found.certain)
	s.Digested = slices.Concat(s.Digested, found.possible)
	return s
}

// globbed chooses among the rules with globs.
func (q *Question) globbed(ref reference.Reference) globbed {
	var found globbed
	all := registryNames(ref)
	rest := always // what is left to the rule for the rest
	for _, rule := range q.Set.globs {
		if rule.Globs.Rest || !rule.means(q) {
			continue
		}
		best := never
		for _, name := range all {
			best = max(best, rule.Globs.fits(name, ref.Digest()))
		}
		found.add(rule, best)
		// Only by the registry client's name an image is somebody's: another
		// spelling of it must not be enough to be asked less.
		rest = min(rest, always-rule.Globs.fits(all[0], ref.Digest()))
	}
	for _, rule := range q.Set.globs {
		if rule.Globs.Rest && q.Pods && rule.means(q) {
			found.add(rule, rest)
		}
	}
	return found
}

func (g *globbed) add(rule *Rule, f fits) {
	switch f {
	case always:
		g.certain = append(g.certain, rule)
	case perhaps:
		g.possible = append(g.possible, rule)
	case never:
	}
}

// means reports whether a rule with globs is about the question's object. What
// cannot be read of it may be what the rule selects it by.
func (r *Rule) means(q *Question) bool {
	if r.Verification == nil || !r.reaches(q.Namespace) {
		return false
	}
	if r.Globs.Everything {
		return true
	}
	matches, err := q.Object.matches(r.Globs.Matches)
	return matches || err != nil
}

// reaches reports whether a rule with globs is about objects of the namespace.
func (r *Rule) reaches(ns Namespace) bool {
	return r.governs(ns) && (ns.Name != "" || !r.Globs.Namespaced)
}

// ReadsObjects reports whether a rule looks at the objects of a namespace, and
// not at their images alone.
func (s *Set) ReadsObjects(ns Namespace) bool {
	for _, rule := range s.globs {
		if rule.readsObject() && rule.reaches(ns) {
			return true
		}
	}
	return false
}

// ReadsObjectsAnywhere reports whether it can be so in any namespace.
func (s *Set) ReadsObjectsAnywhere() bool { return slices.ContainsFunc(s.globs, (*Rule).readsObject) }

func (r *Rule) readsObject() bool { return r.Verification != nil && r.Verification.Object != nil }

// NeedsObject reports whether a rule may want to know what images are in.
func (s *Set) NeedsObject() bool { return len(s.globs) > 0 }
