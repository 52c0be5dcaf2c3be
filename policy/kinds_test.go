// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

const foreign = "ImageConfig.pkg.crossplane.io"

// written makes a rule of a kind that looks at references as they are written,
// too. What has no canonical form has only that reading.
func written(tb testing.TB, name string, raw ...string) *policy.Rule {
	tb.Helper()
	r := verifying(tb, name)
	r.Kind, r.Written = foreign, raw
	for _, prefix := range raw {
		if parsed, err := reference.ParsePrefix(prefix); err == nil {
			r.Prefixes = append(r.Prefixes, parsed...)
		}
	}
	return r
}

// oracle puts together what each kind selects for itself.
func oracle(rules []*policy.Rule, ref reference.Reference, ns policy.Namespace) summary {
	kinds := map[string][]*policy.Rule{}
	for _, r := range rules {
		kinds[r.Kind] = append(kinds[r.Kind], r)
	}
	var out summary
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		one := oracleOfKind(kinds[kind], ref, ns)
		out.Verification = append(out.Verification, one.Verification...)
		out.Tagged = append(out.Tagged, one.Tagged...)
		out.Digested = append(out.Digested, one.Digested...)
		out.Transport = cmp.Or(out.Transport, one.Transport)
		if out.Authentication != "" {
			out.SecondAuthentication = cmp.Or(out.SecondAuthentication, one.Authentication)
		}
		if out.Rewrite != "" {
			out.SecondRewrite = cmp.Or(out.SecondRewrite, one.Rewrite)
		}
		out.Authentication, out.Rewrite = cmp.Or(out.Authentication, one.Authentication), cmp.Or(out.Rewrite, one.Rewrite)
	}
	return out
}

// TestSelectAsWritten is spec section 3, "Selection", of a kind that selects by
// the reference as written and by the canonical one.
func TestSelectAsWritten(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rules []string // each of one prefix, and named after it
		image string
		want  string // verification + tagged
	}{
		"the same in both":                {[]string{"a.io/x/", "a.io/"}, "a.io/x/y:1", "a.io/x/"},
		"no component boundary":           {[]string{"a.io/x"}, "a.io/xyz:1", "a.io/x"},
		"a host is a beginning":           {[]string{"a.io"}, "a.io.evil/x:1", "a.io"},
		"a host's port":                   {[]string{"a.io"}, "a.io:5000/x:1", "a.io"},
		"not without its case":            {[]string{"A.io/x"}, "a.io/x:1", "A.io/x"}, // by its canonical form
		"capitals of an image":            {[]string{"a.io/x"}, "A.IO/x:1", "a.io/x"},
		"the default port of an image":    {[]string{"a.io/x"}, "a.io:443/x:1", "a.io/x"},
		"the default port of a prefix":    {[]string{"a.io:443/x"}, "a.io/x:1", "a.io:443/x"},
		"a short name as written":         {[]string{"nginx"}, "nginx:1", "nginx"},
		"a short name by its whole":       {[]string{"docker.io/library/nginx"}, "nginx:1", "docker.io/library/nginx"},
		"a short name on its other host":  {[]string{"index.docker.io/library/"}, "docker.io/nginx", "index.docker.io/library/"},
		"empty":                           {[]string{""}, "a.io/x:1", ""},
		"a scheme":                        {[]string{"https://a.io/"}, "a.io/x:1", ""},
		"each reading its own":            {[]string{"a.io/", "a.io:443/x/"}, "a.io/x/y:1", "a.io/ a.io:443/x/"},
		"each reading its own, turned":    {[]string{"a.io/x/", "a.io:443/"}, "a.io:443/x/y:1", "a.io/x/ a.io:443/"},
		"the longest of both":             {[]string{"a.io/", "a.io/x/", "a.io:443/", "a.io:443/x/y"}, "a.io/x/y:1", "a.io/x/ a.io:443/x/y"},
		"of equals all":                   {[]string{"a.io/x", "a.io:443/x"}, "A.io/x:1", "a.io/x a.io:443/x"},
		"a tag":                           {[]string{"a.io/x:"}, "a.io/x:1", "a.io/x:"},
		"a tag's repository, canonical":   {[]string{"a.io/x:", "a.io/x"}, "a.io/x:1", "a.io/x a.io/x:"},
		"another spelling":                {[]string{"docker.io/", "acme"}, "acmecorp/x@" + digestA, "acme docker.io/"},
		"a tag beside a digest":           {[]string{"a.io/x:"}, "a.io/x:1@" + digestA, "a.io/x:"},
		"a tag, and the digest alone":     {[]string{"a.io/x:"}, "a.io/x@" + digestA, ""},
		"a tag in capitals' host":         {[]string{"a.io/x:"}, "A.io/x:1@" + digestA, "a.io/x:"},
		"a default tag":                   {[]string{"a.io/x:"}, "a.io/x", "a.io/x:"},
		"what a made-up tag would hide":   {[]string{"x", "x/y:1"}, "x/y:1@" + digestA, "x x/y:1"},
		"a digest as written":             {[]string{"a.io/x@" + digestA, "a.io/x"}, "a.io/x@" + digestA, "a.io/x@" + digestA},
		"a digest behind a tag":           {[]string{"a.io/x@" + digestA, "a.io/x"}, "a.io/x:1@" + digestA, "a.io/x a.io/x@" + digestA},
		"a digest's beginning":            {[]string{"a.io/x@sha256:a"}, "a.io/x@" + digestA, "a.io/x@sha256:a"},
		"a digest's beginning, elsewhere": {[]string{"a.io/x@sha256:a"}, "a.io/x@" + digestB, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var rules []*policy.Rule
			for _, prefix := range c.rules {
				rules = append(rules, written(t, prefix, prefix))
			}
			s := policy.NewSet(rules).Select(parse(t, c.image), policy.Namespace{})
			got := joined(s.Verification)
			if len(s.Tagged) > 0 {
				got += "+" + joined(s.Tagged)
			}
			if got != c.want {
				t.Errorf("%s: selected %q, want %q", c.image, got, c.want)
			}
		})
	}
}

// Kinds never shadow one another.
func TestSelectKinds(t *testing.T) {
	t.Parallel()
	ours := func(name, prefix string) *policy.Rule { return verifying(t, name, prefix) }
	of := func(r *policy.Rule) *policy.Rule { r.Authentication = &policy.Authentication{}; return r }
	looks := func(r *policy.Rule) *policy.Rule {
		r.Rewrite = &policy.Rewrite{Lookup: true, Written: "mirror.corp/"}
		return r
	}
	silent := func(r *policy.Rule) *policy.Rule { r.Verification = nil; return r }
	held := func(r *policy.Rule) *policy.Rule {
		v := policy.Undecided(policy.ReasonNotReady, "held")
		r.Verification.Fixed = &v
		return r
	}
	const us, them = "ImageConfig/", foreign + "/"
	for name, c := range map[string]struct {
		rules []*policy.Rule
		image string
		want  summary
	}{
		"the same prefix": {
			[]*policy.Rule{ours("a", "a.io/x"), written(t, "b", "a.io/x")}, "a.io/x:1",
			summary{Verification: []string{us + "a", them + "b"}},
		},
		"ours is longer": {
			[]*policy.Rule{ours("a", "a.io/x/y"), written(t, "b", "a.io/")}, "a.io/x/y:1",
			summary{Verification: []string{us + "a", them + "b"}},
		},
		"ours is shorter": {
			[]*policy.Rule{ours("a", "a.io"), written(t, "b", "a.io/x/")}, "a.io/x/y:1",
			summary{Verification: []string{us + "a", them + "b"}},
		},
		"ours names the digest": {
			[]*policy.Rule{ours("a", "a.io/x@"+digestA), written(t, "b", "a.io/x")}, "a.io/x@" + digestA,
			summary{Verification: []string{us + "a", them + "b"}},
		},
		"theirs names the digest": {
			[]*policy.Rule{ours("a", "a.io/x"), written(t, "b", "a.io/x@"+digestA)}, "a.io/x@" + digestA,
			summary{Verification: []string{us + "a", them + "b"}},
		},
		"pull secrets of both": {
			[]*policy.Rule{of(ours("a", "a.io")), of(written(t, "b", "a.io/x"))}, "a.io/x:1",
			summary{Verification: []string{us + "a", them + "b"}, Authentication: us + "a", SecondAuthentication: them + "b"},
		},
		"their pull secret alone": {
			[]*policy.Rule{ours("a", "a.io"), of(written(t, "b", "a.io/x"))}, "a.io/x:1",
			summary{Verification: []string{us + "a", them + "b"}, Authentication: them + "b"},
		},
		"their pull secret by a tag that is only claimed": {
			[]*policy.Rule{silent(of(written(t, "b", "a.io/x:"))), silent(of(written(t, "c", "a.io/")))}, "a.io/x:1@" + digestA,
			summary{Authentication: them + "b"},
		},
		"their pull secret by the canonical form": {
			[]*policy.Rule{silent(of(written(t, "b", "a.io/x")))}, "A.io/x:1", summary{Authentication: them + "b"},
		},
		"both rewrite": {
			[]*policy.Rule{silent(looks(ours("a", "a.io"))), silent(looks(written(t, "b", "a.io/x")))}, "a.io/x:1",
			summary{Rewrite: us + "a", SecondRewrite: them + "b"},
		},
		"rewritten as written, although the other form is longer": {
			[]*policy.Rule{silent(looks(written(t, "b", "a.io/"))), silent(looks(written(t, "c", "a.io:443/x")))}, "a.io/x:1",
			summary{Rewrite: them + "b"},
		},
		"rewritten by its canonical form": {
			[]*policy.Rule{silent(looks(written(t, "b", "a.io/x")))}, "A.io/x:1", summary{Rewrite: them + "b"},
		},
		"rewritten by its canonical tag": {
			[]*policy.Rule{silent(looks(written(t, "b", "a.io/x:")))}, "A.io/x:1@" + digestA, summary{Rewrite: them + "b"},
		},
		"not ready, and in the way": {
			[]*policy.Rule{silent(looks(written(t, "b", "a.io/"))), held(written(t, "c", "a.io:443/x"))}, "a.io/x:1",
			summary{Verification: []string{them + "c"}, Rewrite: them + "c"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := summarise(policy.NewSet(c.rules).Select(parse(t, c.image), policy.Namespace{}))
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", c.image, diff)
			}
		})
	}
}

func always(v policy.Verdict) policy.Verifier {
	return verifier(func(context.Context, policy.Image) policy.Verdict { return v })
}

// raws are prefixes as somebody may write them, with and without a canonical
// form.
func (d dice) raws() []string {
	var all []string
	for range 1 + d.IntN(3) {
		all = append(all, d.pick(d.prefix(), d.prefix(), d.path(), d.host(), "", "https://a.io/a", "a.io/a@sha256:", "a.io/a:1@"+digestA))
	}
	return all
}

// foreigners are rules that look at references as they are written.
func (d dice) foreigners(tb testing.TB) []*policy.Rule {
	tb.Helper()
	rules := make([]*policy.Rule, d.IntN(12))
	for i := range rules {
		r := written(tb, fmt.Sprintf("%c%d", 'a'+rune(d.IntN(26)), i), d.raws()...)
		switch d.IntN(5) {
		case 0:
			v := policy.Undecided(policy.ReasonNotReady, "held")
			r.Verification.Fixed = &v
		case 1:
			r.Verification = nil
		}
		if d.IntN(3) == 0 {
			r.Authentication = &policy.Authentication{}
		}
		if d.IntN(3) == 0 {
			r.Rewrite = &policy.Rewrite{Lookup: true, Written: d.prefix()}
		}
		rules[i] = r
	}
	return rules
}

// asCrossplane selects for verification as Crossplane does: by the bytes.
func asCrossplane(rules []*policy.Rule, image string) []*policy.Rule {
	longest, chosen := 0, []*policy.Rule(nil)
	for _, r := range rules {
		for _, prefix := range r.Written {
			if r.Verification == nil || !strings.HasPrefix(image, prefix) || len(prefix) < longest || prefix == "" {
				continue
			}
			if len(prefix) > longest {
				longest, chosen = len(prefix), nil
			}
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// FuzzSelectKinds: whatever rules of another kind there are, each kind selects
// what it would alone; and what Crossplane would go by is always among it.
func FuzzSelectKinds(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed, "a.io/ab:1")
	}
	f.Fuzz(func(t *testing.T, seed uint64, image string) {
		d := dice{rand.New(rand.NewPCG(seed, 2))}
		ours := slices.DeleteFunc(d.rules("a.io/a"), func(r *policy.Rule) bool { return r.Kind != "ImageConfig" })
		theirs := d.foreigners(t)
		alone, besides := policy.NewSet(ours), policy.NewSet(theirs)
		together := policy.NewSet(slices.Concat(theirs, ours))
		for i := range 20 {
			text := d.image()
			if i == 0 {
				text = image
			}
			ref, err := reference.Parse(text)
			if err != nil {
				continue
			}
			ns := d.namespace()
			one, other, all := alone.Select(ref, ns), besides.Select(ref, ns), together.Select(ref, ns)
			for what, lists := range map[string][3][]*policy.Rule{
				"Verification": {one.Verification, other.Verification, all.Verification},
				"Tagged":       {one.Tagged, other.Tagged, all.Tagged},
				"Digested":     {one.Digested, other.Digested, all.Digested},
			} {
				if diff := gocmp.Diff(names(slices.Concat(lists[0], lists[1])), names(lists[2])); diff != "" {
					t.Fatalf("%s: %s (-each +together):\n%s", text, what, diff)
				}
			}
			for _, r := range asCrossplane(theirs, text) {
				if !slices.Contains(all.Verification, r) {
					t.Fatalf("%s: Crossplane goes by %s %q, and here it is %q", text, r.Name, r.Written, names(all.Verification))
				}
			}
			for _, r := range all.Tagged {
				if slices.Contains(all.Verification, r) {
					t.Fatalf("%s: %s is asked twice", text, r.Name)
				}
			}
		}
	})
}

// FuzzKindsDecide: a rule of one kind never lets in what the other refuses, and
// pinning never lets in what was refused before it.
func FuzzKindsDecide(f *testing.F) {
	for seed := range uint64(300) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		d := dice{rand.New(rand.NewPCG(seed, 3))}
		ours := slices.DeleteFunc(d.rules("a.io/a"), func(r *policy.Rule) bool { return r.Kind != "ImageConfig" })
		theirs := d.foreigners(t)
		for _, r := range slices.Concat(ours, theirs) {
			// Rewriting is for TestPlaceKinds: under another name other rules apply.
			r.Rewrite, r.Mode = nil, policy.Enforce
			if r.Verification != nil && r.Verification.Fixed == nil {
				r.Verification.Verifier = always(bad)
				if d.IntN(2) == 0 {
					r.Verification.Verifier = always(good)
				}
			}
		}
		decider := policy.Decider{
			Server: policy.Server{Mode: policy.Enforce, Pin: policy.PinMatched}, Engine: policy.Direct{}, Resolver: &asked{},
		}
		outcome := func(rules []*policy.Rule, ref reference.Reference, pinned bool) policy.Outcome {
			return decider.Decide(t.Context(), policy.Question{
				Set: policy.NewSet(rules), Credentials: credential.None(), Images: []policy.Asked{{Reference: ref}}, Pods: true, Pinned: pinned,
			})[0].Outcome()
		}
		ref, err := reference.Parse(d.image())
		if err != nil {
			return
		}
		one, other, all := outcome(ours, ref, false), outcome(theirs, ref, false), outcome(slices.Concat(ours, theirs), ref, false)
		for _, alone := range []policy.Outcome{one, other} {
			if alone.Outweighs(all) {
				t.Errorf("%s: one kind alone: %s, both: %s", ref, alone, all)
			}
		}
		pinned := ref
		if d := decider.Pin(t.Context(), policy.Question{
			Set: policy.NewSet(slices.Concat(ours, theirs)), Images: []policy.Asked{{Reference: ref}}, Pods: true,
		})[0]; d.Digest != "" {
			pinned = ref.Pin(d.Digest)
		}
		if after := outcome(slices.Concat(ours, theirs), pinned, true); all.Denies(false) && !after.Denies(false) {
			t.Errorf("%s: %s, and pinned: %s", ref, all, after)
		}
	})
}

// The same image in two forms is judged in each.
func TestDecideAsWritten(t *testing.T) {
	t.Parallel()
	refuses := written(t, "r", "nginx")
	refuses.Prefixes, refuses.Verification.Verifier = nil, always(bad)
	decisions := (&policy.Decider{Engine: policy.Direct{}, Resolver: &asked{}}).Decide(t.Context(), policy.Question{
		Set: policy.NewSet([]*policy.Rule{refuses}), Credentials: credential.None(),
		Images: []policy.Asked{{Reference: parse(t, "docker.io/nginx:1")}, {Reference: parse(t, "nginx:1")}},
	})
	if got := []policy.Outcome{decisions[0].Outcome(), decisions[1].Outcome()}; got[0] != policy.Skipped || got[1] != policy.Rejected {
		t.Errorf("outcomes %v", got)
	}
}

// The credentials of both kinds are tried, ours first.
func TestDecideCredentials(t *testing.T) {
	t.Parallel()
	own := func(r *policy.Rule, user string) *policy.Rule {
		config, err := credential.Parse([]byte(`{"auths":{"a.io":{"username":"` + user + `","password":"p"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Authentication = &policy.Authentication{Credentials: config}
		return r
	}
	var users []string
	theirs := own(written(t, "r", "a.io/"), "theirs")
	theirs.Verification.Verifier = verifier(func(ctx context.Context, i policy.Image) policy.Verdict {
		ring, err := i.Ring(ctx)
		if err != nil {
			t.Error(err)
		}
		for _, auth := range ring.For(ctx, "a.io/x") {
			users = append(users, auth.Username)
		}
		return good
	})
	ours := own(verifying(t, "r", "a.io"), "ours")
	ours.Verification = nil
	(&policy.Decider{Engine: policy.Direct{}, Resolver: &asked{}}).Decide(t.Context(), policy.Question{
		Set: policy.NewSet([]*policy.Rule{theirs, ours}), Credentials: credential.None(),
		Images: []policy.Asked{{Reference: parse(t, "a.io/x@"+digestA)}},
	})
	if diff := gocmp.Diff([]string{"ours", "theirs"}, users); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
}

// TestPlaceKinds is spec section 3, "Rewrite", where two kinds have rules.
func TestPlaceKinds(t *testing.T) {
	t.Parallel()
	theirs := func(name, from, to string) *policy.Rule {
		r := written(t, name, from)
		r.Verification, r.Rewrite = nil, &policy.Rewrite{Lookup: true, Written: to}
		return r
	}
	v := func(prefix string) *policy.Rule { return says(t, "v", prefix, good) }
	for name, test := range map[string]struct {
		rules       []*policy.Rule
		image       string
		other       bool // not of a Pod
		resolved    string
		digest      string
		rewrittenTo string
		want        []string
		message     string
	}{
		"theirs alone, only where to look": {
			rules: []*policy.Rule{theirs("r", "a.io/x/", "m.io/"), v("m.io")}, image: "a.io/x/y:1",
			resolved: "m.io/y:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"}, message: "as m.io/y:1: fine",
		},
		"a verifier of the old name, of another kind, counts": {
			rules: []*policy.Rule{theirs("r", "a.io/x/", "m.io/"), v("a.io")}, image: "a.io/x/y:1",
			resolved: "m.io/y:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"}, message: "as m.io/y:1: fine",
		},
		"a verifier of the old name, of the same kind, does not": {
			rules: []*policy.Rule{lookup(rewrites(t, "a.io", "m.io/")), v("a.io")}, image: "a.io/x/y:1",
			want: []string{"server/ Skipped NotCovered"}, message: "as m.io/x/y:1, to which ImageConfig",
		},
		"once": {
			rules: []*policy.Rule{theirs("r", "a.io/", "m.io/a.io/"), theirs("s", "m.io/", "n.io/"), v("m.io")}, image: "a.io/y:1",
			resolved: "m.io/a.io/y:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"the first place only": {
			rules: []*policy.Rule{theirs("r", "a.io/", "m.io/"), v("m.io")}, image: "a.io/a.io/y:1",
			resolved: "m.io/a.io/y:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"inside the tag": {
			rules: []*policy.Rule{theirs("r", "a.io/x:v", "m.io/z:w"), v("m.io")}, image: "a.io/x:v1",
			resolved: "m.io/z:w1", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"in capitals, by its canonical form": {
			rules: []*policy.Rule{theirs("r", "a.io/x/", "m.io/"), v("m.io")}, image: "A.io/x/y",
			resolved: "m.io/y:latest", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"a short name, by its canonical form": {
			rules: []*policy.Rule{theirs("r", "docker.io/library/", "m.io/"), v("m.io")}, image: "nginx",
			resolved: "m.io/nginx:latest", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"a digest is put in": {
			rules: []*policy.Rule{theirs("r", "a.io/x:1", "m.io/x@"+digestB), v("m.io")}, image: "a.io/x:1",
			want: []string{"r/Enforce Rejected InvalidReference"}, message: "another digest",
		},
		"the digest is replaced": {
			rules: []*policy.Rule{theirs("r", "a.io/x@"+digestA, "m.io/x@"+digestB), v("m.io")}, image: "a.io/x@" + digestA,
			want: []string{"r/Enforce Rejected InvalidReference"}, message: "another digest",
		},
		"the digest is taken away": {
			rules: []*policy.Rule{theirs("r", "a.io/x@"+digestA, "m.io/x:1"), v("m.io")}, image: "a.io/x@" + digestA,
			want: []string{"r/Enforce Rejected InvalidReference"}, message: "another digest",
		},
		"no reference": {
			rules: []*policy.Rule{theirs("r", "a.io/x", "m.io/"), v("m.io")}, image: "a.io/x:1",
			want: []string{"r/Enforce Rejected InvalidReference"}, message: "cannot be rewritten",
		},
		"ours comes first": {
			rules: []*policy.Rule{theirs("r", "a.io/x", "m.io/x"), lookup(rewrites(t, "a.io", "n.io/")), v("n.io")}, image: "a.io/x:1",
			resolved: "n.io/x:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"ours is for Pods": {
			rules: []*policy.Rule{theirs("r", "a.io/x", "m.io/x"), rewrites(t, "a.io", "n.io/"), v("m.io")}, image: "a.io/x:1", other: true,
			resolved: "m.io/x:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"ours is audited": {
			rules: []*policy.Rule{theirs("r", "a.io/x", "m.io/x"), audited(rewrites(t, "a.io", "n.io/")), v("m.io")}, image: "a.io/x:1",
			resolved: "m.io/x:1", digest: digestA, want: []string{"v/Enforce Accepted Verified"},
		},
		"ours is not ready": {
			rules: []*policy.Rule{theirs("r", "a.io/x", "m.io/x"), held(t, "h", "a.io"), v("m.io")}, image: "a.io/x@" + digestA,
			want: []string{"h/Enforce Inconclusive NotReady"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := &asked{}
			d := policy.Decider{Resolver: registry, Engine: policy.Direct{}}
			q := policy.Question{
				Set: policy.NewSet(test.rules), Credentials: credential.None(), Images: ask(test.image), Pods: !test.other,
			}
			pinned := d.Pin(t.Context(), q)[0]
			if pinned.Rewritten.Written() != test.rewrittenTo || pinned.Digest != test.digest {
				t.Errorf("rewritten to %q, pinned to %q", pinned.Rewritten.Written(), pinned.Digest)
			}
			if resolved := strings.Join(registry.names, " "); resolved != test.resolved {
				t.Errorf("resolved %q, want %q", resolved, test.resolved)
			}
			got := d.Decide(t.Context(), q)[0]
			if diff := gocmp.Diff(test.want, describe(got)); diff != "" {
				t.Fatalf("findings (-want +got):\n%s", diff)
			}
			if message := got.Findings[0].Verdict.Message; !strings.Contains(message, test.message) {
				t.Errorf("message %q, want %q in it", message, test.message)
			}
		})
	}
}
