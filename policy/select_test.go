// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func parse(tb testing.TB, written string) reference.Reference {
	tb.Helper()
	ref, err := reference.Parse(written)
	if err != nil {
		tb.Fatal(err)
	}
	return ref
}

func prefixes(tb testing.TB, written ...string) []reference.Prefix {
	tb.Helper()
	var all []reference.Prefix
	for _, w := range written {
		parsed, err := reference.ParsePrefix(w)
		if err != nil {
			tb.Fatalf("ParsePrefix(%q): %v", w, err)
		}
		all = append(all, parsed...)
	}
	return all
}

// verifying makes a rule that asks for something.
func verifying(tb testing.TB, name string, written ...string) *policy.Rule {
	tb.Helper()
	return &policy.Rule{
		Kind: "ImageConfig", Name: name, Mode: policy.Enforce, Prefixes: prefixes(tb, written...),
		Verification: &policy.Verification{Engine: "Cosign", Verifier: never{}},
	}
}

// names are what a selection is compared by.
func names(rules []*policy.Rule) []string {
	var out []string
	for _, r := range rules {
		out = append(out, r.Kind+"/"+r.Name)
	}
	return out
}

type summary struct {
	Authentication, Transport, Rewrite  string
	SecondAuthentication, SecondRewrite string
	Verification, Tagged, Digested      []string
}

func summarise(s policy.Selection) summary {
	out := summary{Verification: names(s.Verification), Tagged: names(s.Tagged), Digested: names(s.Digested)}
	one := func(r *policy.Rule) string {
		if r == nil {
			return ""
		}
		return r.Kind + "/" + r.Name
	}
	out.Authentication, out.Transport, out.Rewrite = one(s.Authentication), one(s.Transport), one(s.Rewrite)
	out.SecondAuthentication, out.SecondRewrite = one(s.Second.Authentication), one(s.Second.Rewrite)
	return out
}

// TestSelect is spec section 3, "Matching" and "Selection", in examples.
func TestSelect(t *testing.T) {
	t.Parallel()
	var all []*policy.Rule
	rule := func(name string, written ...string) *policy.Rule {
		r := verifying(t, name, written...)
		all = append(all, r)
		return r
	}
	rule("host", "registry1.com")
	rule("acme", "registry1.com/acme-co/")
	rule("plain", "registry1.com/acme-co/provider-aws")
	rule("tie-2", "registry1.com/tie/")
	rule("tie-1", "REGISTRY1.com:443/tie/")
	rule("secret-only", "registry1.com/acme-co/deep/").Verification = nil
	all[len(all)-1].Authentication = &policy.Authentication{}
	rule("tagged", "registry1.com/acme-co/app:v1.")
	rule("tagged-longer", "registry1.com/acme-co/app:v1.2")
	rule("digest", "registry1.com/acme-co/app@"+digestA)
	rule("port", "registry1.com:5000/x/")
	rule("hub-short", "docker.io/ngin")
	rule("hub-org", "acme/")
	rule("prod", "prod.io").Namespaces = labels.SelectorFromSet(labels.Set{"env": "prod"})
	rule("everywhere", "prod.io/shared/")
	rule("prod-deep", "prod.io/shared/deep/").Namespaces = labels.SelectorFromSet(labels.Set{"env": "prod"})
	set := policy.NewSet(all)

	prod := policy.Namespace{Name: "p", Labels: labels.Set{"env": "prod"}}
	test := policy.Namespace{Name: "t", Labels: labels.Set{"env": "test"}}
	unreadable := policy.Namespace{Name: "u", Unreadable: true}
	for name, c := range map[string]struct {
		image string
		ns    policy.Namespace
		want  string // verification + tagged ? digested $ pull secret
	}{
		"host":                           {"registry1.com/other/app", test, "host"},
		"host in capitals":               {"REGISTRY1.COM/other/app", test, "host"},
		"default port":                   {"registry1.com:443/other/app", test, "host"},
		"default port with zeros":        {"registry1.com:00443/other/app", test, "host"},
		"host is not a beginning":        {"registry1.com.evil.io/acme-co/app", test, ""},
		"host is not an end":             {"evil-registry1.com/acme-co/app", test, ""},
		"host in a path":                 {"evil.io/registry1.com/acme-co/app", test, ""},
		"another port":                   {"registry1.com:5000/acme-co/app", test, ""},
		"its own port":                   {"registry1.com:5000/x/y", test, "port"},
		"its own port with zeros":        {"registry1.com:05000/x/y", test, "port"},
		"no host":                        {"acme-co/app", test, ""},
		"longest":                        {"registry1.com/acme-co/other", test, "acme"},
		"not a component":                {"registry1.com/acme-co-evil/app", test, "host"},
		"plain text":                     {"registry1.com/acme-co/provider-aws-s3", test, "plain"},
		"ties all, by name":              {"registry1.com/tie/x", test, "tie-1 tie-2"},
		"once per purpose":               {"registry1.com/acme-co/deep/x", test, "acme$secret-only"},
		"tag adds":                       {"registry1.com/acme-co/app:v1.1", test, "acme+tagged?digest"},
		"longest tag":                    {"registry1.com/acme-co/app:v1.20", test, "acme+tagged-longer?digest"},
		"other tag":                      {"registry1.com/acme-co/app:v2", test, "acme?digest"},
		"tag of another repository":      {"registry1.com/acme-co/app2:v1.1", test, "acme"},
		"digest replaces":                {"registry1.com/acme-co/app:v1.1@" + digestA, test, "digest"},
		"another digest":                 {"registry1.com/acme-co/app:v1.1@" + digestB, test, "acme+tagged"},
		"digest alone":                   {"registry1.com/acme-co/app@" + digestB, test, "acme"},
		"library":                        {"nginx", test, "hub-short"},
		"library under another name":     {"registry-1.docker.io/library/nginx:1", test, "hub-short"},
		"short prefix is an owner's too": {"docker.io/ngin-project/x", test, "hub-short"},
		"owner":                          {"index.docker.io/acme/app", test, "hub-org"},
		"owner's beginning":              {"docker.io/acme-evil/app", test, ""},
		"selected namespace":             {"prod.io/x/y", prod, "prod"},
		"other namespace":                {"prod.io/x/y", test, ""},
		"no namespace":                   {"prod.io/x/y", policy.Namespace{}, "prod"},
		"unreadable namespace":           {"prod.io/x/y", unreadable, "prod"},
		"selector first, then length":    {"prod.io/shared/deep/x", test, "everywhere"},
		"longest of those selected":      {"prod.io/shared/deep/x", prod, "prod-deep"},
		"unreadable counts as selected":  {"prod.io/shared/deep/x", unreadable, "everywhere prod-deep"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := set.Select(parse(t, c.image), c.ns)
			got := joined(s.Verification)
			if len(s.Tagged) > 0 {
				got += "+" + joined(s.Tagged)
			}
			if len(s.Digested) > 0 {
				got += "?" + joined(s.Digested)
			}
			if s.Authentication != nil {
				got += "$" + s.Authentication.Name
			}
			if got != c.want {
				t.Errorf("%s in %q: selected %q, want %q", c.image, c.ns.Name, got, c.want)
			}
			if covers := c.want != "" && !strings.HasPrefix(c.want, "$"); s.Covers() != covers {
				t.Errorf("Covers() = %t", s.Covers())
			}
		})
	}
}

func joined(rules []*policy.Rule) string {
	var all []string
	for _, r := range rules {
		all = append(all, r.Name)
	}
	return strings.Join(all, " ")
}

// The pull secret of a tag's prefix is not shown for what is only claimed.
func TestSelectAuthentication(t *testing.T) {
	t.Parallel()
	bring := func(name, prefix string) *policy.Rule {
		return &policy.Rule{Kind: "ImageConfig", Name: name, Prefixes: prefixes(t, prefix), Authentication: &policy.Authentication{}}
	}
	selected := bring("d", "a.io/in/")
	selected.Namespaces = labels.SelectorFromSet(labels.Set{"env": "prod"})
	set := policy.NewSet([]*policy.Rule{
		bring("z", "a.io/x"), bring("a", "a.io/x"), bring("tag", "a.io/x:1"), bring("digest", "a.io/x@"+digestA),
		bring("b", "a.io"), selected,
	})
	for image, want := range map[string]string{
		"a.io/x": "a", "a.io/x:1": "tag", "a.io/x:1@" + digestB: "a", "a.io/x:1@" + digestA: "digest", "a.io/y": "b",
		"a.io/in/x": "b", "b.io/x": "",
	} {
		s := set.Select(parse(t, image), policy.Namespace{Name: "t"})
		got := ""
		if s.Authentication != nil {
			got = s.Authentication.Name
		}
		if got != want || s.Covers() {
			t.Errorf("%s: pull secret of %q, want %q; covers %t, want false", image, got, want, s.Covers())
		}
	}
}

func TestSetHosts(t *testing.T) {
	t.Parallel()
	set := policy.NewSet([]*policy.Rule{verifying(t, "r", "A.io:443/x", "acme/")})
	for host, want := range map[string]bool{"a.io": true, "docker.io": true, "b.io": false, "": false, "a.io/": false} {
		if set.KnowsHost(host) != want {
			t.Errorf("KnowsHost(%q) = %t", host, !want)
		}
	}
	if len(set.Rules()) != 1 {
		t.Errorf("Rules() = %v", names(set.Rules()))
	}
}

// oracleOfKind selects among the rules of one kind by going through every rule
// and prefix, in the words of spec section 3.
func oracleOfKind(rules []*policy.Rule, ref reference.Reference, ns policy.Namespace) summary {
	governs := func(r *policy.Rule) bool {
		return r.Namespaces == nil || ns.Name == "" || ns.Unreadable || r.Namespaces.Matches(ns.Labels)
	}
	certain := func(r *policy.Rule) bool {
		held := r.Verification != nil && r.Verification.Fixed != nil && r.Verification.Fixed.Outcome == policy.Inconclusive
		return !held && !r.Adds && (r.Namespaces == nil || ns.Name == "" || !ns.Unreadable)
	}
	verifies := func(r *policy.Rule) bool { return governs(r) && r.Verification != nil }
	brings := func(r *policy.Rule) bool { return governs(r) && r.Authentication != nil }
	reaches := func(r *policy.Rule) bool { return governs(r) && r.Transport != nil }
	rewrites := func(r *policy.Rule) bool {
		held := r.Verification != nil && r.Verification.Fixed != nil && r.Verification.Fixed.Outcome == policy.Inconclusive
		if r.Rewrite == nil {
			return governs(r) && held && r.Mode == policy.Enforce
		}
		uncertain := r.Namespaces != nil && ns.Name != "" && ns.Unreadable
		return governs(r) && (r.Rewrite.Lookup || r.Mode == policy.Enforce || !uncertain)
	}
	longest := func(reach reference.Reach, has func(*policy.Rule) bool, matches func(text string) bool) []string {
		best, found := -1, map[string]bool{}
		for _, r := range rules {
			for _, p := range r.Prefixes {
				if p.Reach != reach || !has(r) || !matches(p.Text) || len(p.Text) < best {
					continue
				}
				if len(p.Text) > best {
					best, found = len(p.Text), map[string]bool{}
				}
				found[r.Kind+"/"+r.Name] = true
			}
		}
		var sorted []string
		for name := range found {
			sorted = append(sorted, name)
		}
		slices.Sort(sorted)
		return sorted
	}
	// The longest certain one decides, and what is longer comes on top.
	verifying := func(reach reference.Reach, matches func(text string) bool) []string {
		decides, found := -1, map[string]bool{}
		for _, r := range rules {
			for _, p := range r.Prefixes {
				if p.Reach == reach && verifies(r) && certain(r) && matches(p.Text) {
					decides = max(decides, len(p.Text))
				}
			}
		}
		for _, r := range rules {
			for _, p := range r.Prefixes {
				if p.Reach == reach && verifies(r) && matches(p.Text) && len(p.Text) >= decides {
					found[r.Kind+"/"+r.Name] = true
				}
			}
		}
		return slices.Sorted(maps.Keys(found))
	}
	everywhere := func(names []string) []string {
		for _, r := range rules {
			if r.Everywhere && verifies(r) {
				names = append(names, r.Kind+"/"+r.Name)
			}
		}
		slices.Sort(names)
		return slices.Compact(names)
	}
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	inRepository := func(text string) bool { return strings.HasPrefix(ref.Repository(), text) }
	inTag := func(text string) bool { return ref.Tagged() != "" && strings.HasPrefix(ref.Tagged(), text) }
	out := summary{
		Verification:   verifying(reference.ReachRepository, inRepository),
		Tagged:         verifying(reference.ReachTag, inTag),
		Authentication: first(longest(reference.ReachRepository, brings, inRepository)),
		Transport:      first(longest(reference.ReachRepository, reaches, inRepository)),
		Rewrite:        first(longest(reference.ReachRepository, rewrites, inRepository)),
	}
	if ref.Digest() == "" {
		out.Digested = longest(reference.ReachDigest, verifies, func(text string) bool {
			return strings.HasPrefix(text, ref.Repository()+"@")
		})
		out.Authentication = cmp.Or(first(longest(reference.ReachTag, brings, inTag)), out.Authentication)
		out.Transport = cmp.Or(first(longest(reference.ReachTag, reaches, inTag)), out.Transport)
		out.Verification = everywhere(out.Verification)
		return out
	}
	whole := func(text string) bool { return text == ref.Repository()+"@"+ref.Digest() }
	exact := verifying(reference.ReachDigest, whole)
	if len(longest(reference.ReachDigest, func(r *policy.Rule) bool { return verifies(r) && certain(r) }, whole)) > 0 {
		out.Verification, out.Tagged = exact, nil
	}
	out.Verification = everywhere(slices.Concat(out.Verification, exact))
	out.Authentication = cmp.Or(first(longest(reference.ReachDigest, brings, whole)), out.Authentication)
	out.Transport = cmp.Or(first(longest(reference.ReachDigest, reaches, whole)), out.Transport)
	return out
}

// dice makes rules and references from few pieces, so that they meet often.
type dice struct{ *rand.Rand }

func (d dice) pick(of ...string) string { return of[d.IntN(len(of))] }

func (d dice) host() string {
	return d.pick("a.io", "A.io", "a.io:443", "a.io:0443", "a.io:5000", "a.io.b", "a.ioa", "docker.io", "index.docker.io", "localhost", "[::1]:5000")
}

func (d dice) path() string {
	path := d.pick("a", "ab", "abc", "b", "library", "a-b", "a.b")
	for range d.IntN(4) {
		path += "/" + d.pick("a", "ab", "abc", "b", "a__b")
	}
	return path
}

func (d dice) prefix() string {
	written := d.host()
	if d.IntN(8) == 0 {
		return written
	}
	path := d.path()
	if d.IntN(5) > 0 {
		written += "/" + path
	} else {
		written = path + "/" // Docker Hub's
	}
	switch d.IntN(6) {
	case 0:
		written += "/"
	case 1:
		written += d.pick(":", ":1", ":1.", ":1.2", ":latest", ":L")
	case 2:
		written += "@" + d.pick(digestA, digestB)
	case 3:
		written = written[:len(written)-1]
	}
	return written
}

func (d dice) image() string {
	written := d.path()
	if d.IntN(5) > 0 {
		written = d.host() + "/" + written
	}
	return written + d.pick("", "", ":1", ":1.2", ":1.20", ":Latest", ":latest") + d.pick("", "", "@"+digestA, "@"+digestB)
}

func (d dice) rules(extra string) []*policy.Rule {
	rules := make([]*policy.Rule, d.IntN(30))
	for i := range rules {
		// Two kinds, and names that do not sort as the rules arrive.
		r := &policy.Rule{Kind: d.pick("ImageConfig", "Other"), Name: fmt.Sprintf("%c%d", 'a'+rune(d.IntN(26)), i), Mode: policy.Enforce}
		for range 1 + d.IntN(3) {
			if parsed, err := reference.ParsePrefix(d.prefix()); err == nil {
				r.Prefixes = append(r.Prefixes, parsed...)
			}
		}
		if parsed, err := reference.ParsePrefix(extra); err == nil && d.IntN(4) == 0 {
			r.Prefixes = append(r.Prefixes, parsed...)
		}
		if d.IntN(4) > 0 {
			r.Verification = &policy.Verification{Engine: "Cosign"}
			if d.IntN(6) == 0 {
				held := policy.Undecided(policy.ReasonNotReady, "held")
				r.Verification.Fixed = &held
				r.Everywhere = d.IntN(4) == 0
			}
		}
		if d.IntN(3) == 0 {
			r.Authentication = &policy.Authentication{}
		}
		if d.IntN(3) == 0 {
			r.Transport = &policy.Transport{}
		}
		if d.IntN(3) == 0 {
			r.Rewrite = &policy.Rewrite{}
		}
		r.Adds = d.IntN(5) == 0
		if d.IntN(5) == 0 {
			r.Mode = policy.Audit
		}
		if d.IntN(3) == 0 {
			r.Namespaces = labels.SelectorFromSet(labels.Set{"env": d.pick("prod", "test")})
		}
		rules[i] = r
	}
	return rules
}

func (d dice) namespace() policy.Namespace {
	ns := policy.Namespace{Name: d.pick("", "n", "n", "n"), Unreadable: d.IntN(6) == 0}
	if d.IntN(2) == 0 {
		ns.Labels = labels.Set{"env": d.pick("prod", "test", "")}
	}
	return ns
}

// FuzzSelect holds the index against the oracle, and against itself with the
// rules in another order.
func FuzzSelect(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed, "a.io/ab", "a.io/abc:1")
	}
	f.Add(uint64(1), "docker.io/a", "a")
	f.Add(uint64(2), "a.io/a:", "a.io/a:1@"+digestA)
	f.Fuzz(func(t *testing.T, seed uint64, prefix, image string) {
		d := dice{rand.New(rand.NewPCG(seed, 1))}
		rules := d.rules(prefix)
		set := policy.NewSet(rules)
		other := slices.Clone(rules)
		d.Shuffle(len(other), func(i, j int) { other[i], other[j] = other[j], other[i] })
		shuffled := policy.NewSet(other)
		for i := range 20 {
			written := d.image()
			if i == 0 {
				written = image
			}
			ref, err := reference.Parse(written)
			if err != nil {
				continue
			}
			ns := d.namespace()
			got := summarise(set.Select(ref, ns))
			if diff := gocmp.Diff(oracle(rules, ref, ns), got); diff != "" {
				t.Fatalf("%s in %+v (-want +got):\n%s", written, ns, diff)
			}
			if diff := gocmp.Diff(got, summarise(shuffled.Select(ref, ns))); diff != "" {
				t.Fatalf("%s: another order of the rules selects otherwise:\n%s", written, diff)
			}
		}
	})
}

// BenchmarkSelect is the row of spec section 12: at most 2 µs, no allocation.
func BenchmarkSelect(b *testing.B) {
	var rules []*policy.Rule
	for i := range 10_000 {
		r := verifying(b, fmt.Sprintf("r%d", i), fmt.Sprintf("registry1.com/team-%d/app-%d", i%100, i))
		r.Authentication, r.Transport, r.Rewrite = &policy.Authentication{}, &policy.Transport{}, &policy.Rewrite{}
		rules = append(rules, r)
	}
	rules = append(rules, verifying(b, "host", "registry1.com"), verifying(b, "team", "registry1.com/team-77/"))
	set := policy.NewSet(rules)
	ref := parse(b, "registry1.com/team-77/app-9977/x:v1@"+digestA)
	ns := policy.Namespace{Name: "n", Labels: labels.Set{"a": "b"}}
	if got := summarise(set.Select(ref, ns)); got.Authentication != "ImageConfig/r9977" || got.Rewrite != got.Authentication || len(got.Verification) != 1 {
		b.Fatalf("selected %+v", got)
	}
	b.ReportAllocs()
	for b.Loop() {
		set.Select(ref, ns)
	}
}

func TestSelectAllocatesNothing(t *testing.T) {
	rules := []*policy.Rule{
		verifying(t, "a", "a.io"), verifying(t, "b", "a.io/x/"), verifying(t, "t", "a.io/x/y:1"), verifying(t, "d", "a.io/x/y@"+digestA),
	}
	set := policy.NewSet(rules)
	for _, image := range []string{"a.io/x/y:1", "a.io/x/y:1@" + digestA, "a.io/x/y:1@" + digestB, "b.io/x"} {
		ref := parse(t, image)
		if n := testing.AllocsPerRun(100, func() { set.Select(ref, policy.Namespace{Name: "n"}) }); n > 0 {
			t.Errorf("Select(%s) allocates %v times", image, n)
		}
	}
}

// More nested prefixes than are followed without allocating.
func TestSelectDeep(t *testing.T) {
	t.Parallel()
	var rules []*policy.Rule
	text := "a.io/x"
	for i := range 60 {
		rules = append(rules, verifying(t, fmt.Sprintf("r%02d", i), text))
		text += "y"
	}
	set := policy.NewSet(rules)
	for i := range 60 {
		image := "a.io/x" + strings.Repeat("y", i)
		if got := joined(set.Select(parse(t, image), policy.Namespace{}).Verification); got != fmt.Sprintf("r%02d", i) {
			t.Errorf("%s: selected %q", image, got)
		}
	}
}
