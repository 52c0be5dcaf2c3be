// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/sigstore/policy-controller/pkg/apis/glob"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pratique-dev/pratique/policy"
)

func compileGlobs(tb testing.TB, written ...string) *policy.Globs {
	tb.Helper()
	globs := &policy.Globs{Namespaced: true}
	for _, w := range written {
		exact, err := glob.Compile(w)
		if err != nil {
			tb.Fatal(err)
		}
		compiled, err := policy.NewGlob(w, exact)
		if err != nil {
			tb.Fatal(err)
		}
		globs.Patterns = append(globs.Patterns, compiled)
	}
	return globs
}

// globbed makes a rule by globs, which gives every digest that verdict.
func globbed(tb testing.TB, name string, v policy.Verdict, written ...string) *policy.Rule {
	tb.Helper()
	r := says(tb, name, "unused.io", v)
	r.Kind, r.Prefixes, r.Globs = "ClusterImagePolicy", nil, compileGlobs(tb, written...)
	return r
}

// rest makes the rule for what no glob matches.
func rest(tb testing.TB) *policy.Rule {
	tb.Helper()
	r := fixed(tb, "rest", "unused.io", fixedF)
	r.Kind, r.Prefixes, r.Globs = "ConfigMap", nil, &policy.Globs{Rest: true, Namespaced: true}
	return r
}

// askOne decides about one image with a digest in a Pod of the namespace prod.
func askOne(t *testing.T, q policy.Question, image string, rules ...*policy.Rule) policy.Decision {
	t.Helper()
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: policy.Direct{}, Resolver: pointsAt(digestA)}
	q.Set = policy.NewSet(rules)
	if q.Namespace.Name == "" && q.Object == nil {
		q.Namespace = policy.Namespace{Name: "p", Labels: labels.Set{"env": "prod"}}
	}
	q.Images = []policy.Asked{{Reference: parse(t, image)}}
	return d.Decide(t.Context(), q)[0]
}

func pod(t *testing.T, text string) *policy.Object {
	t.Helper()
	return &policy.Object{Kind: schema.GroupVersionKind{Version: "v1", Kind: "Pod"}, JSON: []byte(text)}
}

// TestGlobs compares what globs match with what the images are called in
// policy-controller, which sees all with their digest and without a tag.
func TestGlobs(t *testing.T) {
	t.Parallel()
	const (
		matched = "rule/Enforce Accepted Verified"
		nobody  = "rest/Enforce Rejected Static"
	)
	both := []string{nobody, matched}
	for name, c := range map[string]struct {
		glob, image string
		want        []string
	}{
		"two stars":                           {"**", "a.io/b/c", []string{matched}},
		"one star is Docker Hub's own":        {"*", "nginx", []string{matched}},
		"one star is no other host":           {"*", "a.io/b", []string{nobody}},
		"star, star is Docker Hub":            {"*/*", "acme/app", []string{matched}},
		"star, star is no other host":         {"*/*", "a.io/b", []string{nobody}},
		"Hub by its registry's host":          {"index.docker.io/library/nginx*", "nginx:1.25", []string{matched}},
		"Hub by its registry's host, written": {"index.docker.io/library/nginx*", "docker.io/library/nginx", []string{matched}},
		"Hub by its short host":               {"docker.io/**", "nginx", []string{nobody}},
		"Hub by another name only adds":       {"index.docker.io/**", "registry-1.docker.io/library/nginx", both},
		"capitals only add":                   {"a.io/**", "A.io/b", both},
		"the port of HTTPS only adds":         {"a.io/**", "a.io:443/b", both},
		"as written":                          {"A.io:443/**", "A.io:443/b", []string{matched}},
		"another port":                        {"a.io/**", "a.io:8443/b", []string{nobody}},
		"one component":                       {"a.io/*", "a.io/b", []string{matched}},
		"not two":                             {"a.io/*", "a.io/b/c", []string{nobody}},
		"the name alone":                      {"a.io/b", "a.io/b", []string{nobody}},
		"with a tag":                          {"a.io/b:v1", "a.io/b:v1", []string{nobody}},
		"with a tag and a star":               {"a.io/b:*", "a.io/b:v1", []string{nobody}},
		"the beginning":                       {"a.io/b*", "a.io/bcd", []string{matched}},
		"a dot is a dot":                      {"a.io/**", "axio.io/b", []string{nobody}},
		"anchored":                            {"a.io/**", "evil.io/a.io/b", []string{nobody}},
		"this digest":                         {"a.io/b@" + digestA, "a.io/b", []string{matched}},
		"another digest":                      {"a.io/b@" + digestB, "a.io/b", []string{nobody}},
		"the beginning of the digest":         {"a.io/b@sha256:aa*", "a.io/b", []string{matched}},
		"not its beginning":                   {"a.io/b@sha256:ab*", "a.io/b", []string{nobody}},
		"the end of the digest":               {"**aaa", "a.io/b", []string{matched}},
	} {
		for form, image := range map[string]string{"tag": c.image, "digest": c.image + "@" + digestA} {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				d := askOne(t, policy.Question{Pods: true}, image, globbed(t, "rule", good, c.glob), rest(t))
				if diff := gocmp.Diff(c.want, describe(d)); diff != "" {
					t.Errorf("findings (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// TestGlobsNeedDigests is when the registry has to be asked for one.
func TestGlobsNeedDigests(t *testing.T) {
	t.Parallel()
	static := func(globs ...string) *policy.Rule {
		r := fixed(t, "static", "unused.io", fixedP)
		r.Prefixes, r.Globs = nil, compileGlobs(t, globs...)
		return r
	}
	for name, c := range map[string]struct {
		rule *policy.Rule
		want string
	}{
		"a static one whatever the digest": {static("a.io/**"), "static/Enforce Accepted Static"},
		"it does not match whatever":       {static("b.io/**"), "server/Enforce Skipped NotCovered"},
		"it may match":                     {static("a.io/b@sha256:aa*"), "static/Enforce Inconclusive Unreachable"},
		"what is verified":                 {globbed(t, "rule", good, "a.io/**"), "rule/Enforce Inconclusive Unreachable"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := policy.Decider{
				Server: policy.Server{Mode: policy.Enforce}, Engine: policy.Direct{}, Resolver: fails(judged(down)),
			}
			got := d.Decide(t.Context(), policy.Question{
				Set: policy.NewSet([]*policy.Rule{c.rule}), Namespace: policy.Namespace{Name: "p"},
				Images: []policy.Asked{{Reference: parse(t, "a.io/b:1")}},
			})[0]
			if diff := gocmp.Diff([]string{c.want}, describe(got)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGlobsAndPrefixes is that no kind shadows another.
func TestGlobsAndPrefixes(t *testing.T) {
	t.Parallel()
	exact := says(t, "digest", "a.io/b@"+digestA, good)
	d := askOne(t, policy.Question{}, "a.io/b@"+digestA, exact, says(t, "prefix", "a.io/", good), globbed(t, "one", good, "**"), globbed(t, "two", bad, "a.io/**"))
	want := []string{"digest/Enforce Accepted Verified", "one/Enforce Accepted Verified", "two/Enforce Rejected NoSignature"}
	if diff := gocmp.Diff(want, describe(d)); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
}

// TestGlobsAndPins is that what a Pod's image must have is found before it is
// known which globs match.
func TestGlobsAndPins(t *testing.T) {
	t.Parallel()
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: policy.Direct{}, Resolver: pointsAt(digestA)}
	for glob, pinned := range map[string]bool{"a.io/**": true, "a.io/b@sha256:aa*": true, "a.io/b@sha256:bb*": true, "b.io/**": false} {
		q := policy.Question{
			Set: policy.NewSet([]*policy.Rule{globbed(t, "rule", good, glob)}), Namespace: policy.Namespace{Name: "p"}, Pods: true, Pinned: true,
			Images: []policy.Asked{{Reference: parse(t, "a.io/b:1")}},
		}
		if got := d.Pin(t.Context(), q)[0].Digest != ""; got != pinned {
			t.Errorf("%s: pinned: %v, want %v", glob, got, pinned)
		}
		want := []string{"server/Enforce Skipped NotCovered"}
		if pinned {
			want = []string{"rule/Enforce Rejected NotPinned"}
		}
		if diff := gocmp.Diff(want, describe(d.Decide(t.Context(), q)[0])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", glob, diff)
		}
	}
}

func TestMatches(t *testing.T) {
	t.Parallel()
	selector := labels.SelectorFromSet(labels.Set{"app": "x"})
	for name, c := range map[string]struct {
		matches []policy.Match
		object  string
		want    bool
	}{
		"none":                  {nil, `{}`, true},
		"the resource":          {[]policy.Match{{Version: "v1", Resource: "pods"}}, `{}`, true},
		"any version":           {[]policy.Match{{Version: "*", Resource: "pods"}}, `{}`, true},
		"another version":       {[]policy.Match{{Version: "v2", Resource: "pods"}}, `{}`, false},
		"no version":            {[]policy.Match{{Resource: "pods"}}, `{}`, false},
		"another group":         {[]policy.Match{{Group: "apps", Version: "v1", Resource: "pods"}}, `{}`, false},
		"another resource":      {[]policy.Match{{Version: "v1", Resource: "deployments"}}, `{}`, false},
		"any of them":           {[]policy.Match{{Version: "v1", Resource: "jobs"}, {Version: "v1", Resource: "pods"}}, `{}`, true},
		"labels":                {[]policy.Match{{Version: "v1", Resource: "pods", Selector: selector}}, `{"metadata":{"labels":{"app":"x"}}}`, true},
		"other labels":          {[]policy.Match{{Version: "v1", Resource: "pods", Selector: selector}}, `{"metadata":{"labels":{"app":"y"}}}`, false},
		"no labels":             {[]policy.Match{{Version: "v1", Resource: "pods", Selector: selector}}, `{}`, false},
		"labels of no such map": {[]policy.Match{{Version: "v1", Resource: "pods", Selector: selector}}, `{"metadata":{"labels":7}}`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rule := globbed(t, "rule", good, "**")
			rule.Globs.Matches = c.matches
			q := policy.Question{Object: pod(t, c.object), Namespace: policy.Namespace{Name: "p"}, Pods: true}
			want := []string{"rest/Enforce Rejected Static"}
			if c.want {
				want = []string{"rule/Enforce Accepted Verified"}
			}
			if diff := gocmp.Diff(want, describe(askOne(t, q, "a.io/b@"+digestA, rule, rest(t)))); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

// TestGovernedByGlobs is in which namespaces rules with globs, and the one for
// the rest, count.
func TestGovernedByGlobs(t *testing.T) {
	t.Parallel()
	inProdOnly := func() []*policy.Rule {
		return []*policy.Rule{inProd(globbed(t, "rule", good, "a.io/**")), inProd(rest(t))}
	}
	held := globbed(t, "held", good)
	held.Verification = &policy.Verification{Fixed: &policy.Verdict{Reason: policy.ReasonNotReady}}
	held.Globs.Everything = true
	anywhere := rest(t)
	anywhere.Globs.Namespaced = false
	for name, c := range map[string]struct {
		rules []*policy.Rule
		ns    policy.Namespace
		image string
		pods  bool
		want  string
	}{
		"governed":                        {inProdOnly(), policy.Namespace{Name: "p", Labels: labels.Set{"env": "prod"}}, "a.io/b", true, "rule/Enforce Accepted Verified"},
		"governed, no glob matches":       {inProdOnly(), policy.Namespace{Name: "p", Labels: labels.Set{"env": "prod"}}, "b.io/b", true, "rest/Enforce Rejected Static"},
		"governed, not in Pods":           {inProdOnly(), policy.Namespace{Name: "p", Labels: labels.Set{"env": "prod"}}, "b.io/b", false, "server/Enforce Skipped NotCovered"},
		"not governed":                    {inProdOnly(), policy.Namespace{Name: "p"}, "b.io/b", true, "server/Enforce Skipped NotCovered"},
		"without a namespace":             {inProdOnly(), policy.Namespace{}, "b.io/b", true, "server/Enforce Skipped NotCovered"},
		"without a namespace, but all":    {[]*policy.Rule{anywhere}, policy.Namespace{}, "b.io/b", true, "rest/Enforce Rejected Static"},
		"unreadable":                      {inProdOnly(), policy.Namespace{Name: "p", Unreadable: true}, "a.io/b", true, "rule/Enforce Inconclusive Namespace"},
		"unreadable, no glob matches":     {inProdOnly(), policy.Namespace{Name: "p", Unreadable: true}, "b.io/b", true, "rest/Enforce Inconclusive Namespace"},
		"one that may be about any image": {[]*policy.Rule{held, rest(t)}, policy.Namespace{Name: "p"}, "b.io/b", true, "held/Enforce Inconclusive NotReady"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := policy.Question{Object: pod(t, "{}"), Namespace: c.ns, Pods: c.pods}
			if diff := gocmp.Diff([]string{c.want}, describe(askOne(t, q, c.image, c.rules...))); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

type objectPolicy func(evidence string, o *policy.Object) policy.Verdict

func (p objectPolicy) Judge(_ context.Context, evidence string, o *policy.Object) policy.Verdict {
	return p(evidence, o)
}

// looking makes a rule that looks at the object, and refuses those without the
// label ok.
func looking(tb testing.TB, name string, v policy.Verdict, globs ...string) *policy.Rule {
	tb.Helper()
	v.Evidence = "of " + name
	r := globbed(tb, name, v, globs...)
	r.Verification.Object = objectPolicy(func(evidence string, o *policy.Object) policy.Verdict {
		if evidence != "of "+name {
			return policy.Refused(policy.ReasonInternal, "told %q", evidence)
		}
		set, err := o.Labels()
		if err != nil || !set.Has("ok") {
			return policy.Refused(policy.ReasonPolicy, "it has no label ok")
		}
		return policy.Verdict{Outcome: policy.Accepted}
	})
	return r
}

func TestObjectPolicy(t *testing.T) {
	t.Parallel()
	labelled, bare := `{"metadata":{"labels":{"ok":""}}}`, `{"metadata":{}}`
	static := fixed(t, "rule", "unused.io", policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonStatic, Evidence: "of rule"})
	static.Prefixes, static.Globs = nil, compileGlobs(t, "**")
	static.Verification.Object = looking(t, "rule", good).Verification.Object
	silent := looking(t, "rule", good, "**")
	silent.Verification.Object = objectPolicy(func(string, *policy.Object) policy.Verdict { return policy.Verdict{Outcome: policy.Skipped} })
	panicking := looking(t, "rule", good, "**")
	panicking.Verification.Object = objectPolicy(func(string, *policy.Object) policy.Verdict { panic("no") })
	for name, c := range map[string]struct {
		rule   *policy.Rule
		object string
		want   string
	}{
		"it may":                  {looking(t, "rule", good, "**"), labelled, "rule/Enforce Accepted Verified"},
		"it may not":              {looking(t, "rule", good, "**"), bare, "rule/Enforce Rejected Policy"},
		"not signed":              {looking(t, "rule", bad, "**"), labelled, "rule/Enforce Rejected NoSignature"},
		"undecided":               {looking(t, "rule", down, "**"), labelled, "rule/Enforce Inconclusive Unreachable"},
		"static, and it may":      {static, labelled, "rule/Enforce Accepted Static"},
		"static, and it may not":  {static, bare, "rule/Enforce Rejected Policy"},
		"an object that is none":  {looking(t, "rule", good, "**"), `{`, "rule/Enforce Rejected Policy"},
		"nothing decided":         {silent, labelled, "rule/Enforce Inconclusive Internal"},
		"a panic decides nothing": {panicking, labelled, "rule/Enforce Inconclusive Internal"},
		"no object":               {looking(t, "rule", good, "**"), "", "rule/Enforce Inconclusive NoObject"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			q := policy.Question{Namespace: policy.Namespace{Name: "p"}}
			if c.object != "" {
				q.Object = pod(t, c.object)
			}
			d := askOne(t, q, "a.io/b@"+digestA, c.rule)
			if diff := gocmp.Diff([]string{c.want}, describe(d)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if d.Findings[0].Verdict.Outcome == policy.Accepted && d.Findings[0].Verdict.Evidence != "" {
				t.Error("the evidence is handed on")
			}
		})
	}
}

// TestUnchanged is what is asked of images that an object had before.
func TestUnchanged(t *testing.T) {
	t.Parallel()
	elsewhere := inProd(looking(t, "elsewhere", good, "**"))
	for name, c := range map[string]struct {
		rules  []*policy.Rule
		image  string
		object string
		want   []string
	}{
		"by who looks":        {[]*policy.Rule{looking(t, "rule", good, "**")}, "a.io/b@" + digestA, `{}`, []string{"rule/Enforce Rejected Policy"}},
		"by nobody else":      {[]*policy.Rule{globbed(t, "rule", bad, "**"), says(t, "prefix", "a.io", bad), rest(t)}, "a.io/b@" + digestA, `{}`, nil},
		"nor by who is not":   {[]*policy.Rule{elsewhere}, "a.io/b@" + digestA, `{}`, nil},
		"and not for its pin": {[]*policy.Rule{looking(t, "rule", good, "**")}, "a.io/b:1", `{"metadata":{"labels":{"ok":""}}}`, []string{"rule/Enforce Accepted Verified"}},
		"by its digest":       {[]*policy.Rule{looking(t, "rule", good, "a.io/b@sha256:aa*"), globbed(t, "other", bad, "a.io/b@sha256:aa*")}, "a.io/b:1", `{}`, []string{"rule/Enforce Rejected Policy"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := policy.Decider{
				Server: policy.Server{Mode: policy.Enforce, Unmatched: policy.UnmatchedDeny}, Engine: policy.Direct{}, Resolver: pointsAt(digestA),
			}
			set := policy.NewSet(c.rules)
			got := d.Decide(t.Context(), policy.Question{
				Set: set, Namespace: policy.Namespace{Name: "p", Labels: labels.Set{"env": "test"}}, Pods: true, Pinned: true,
				Object: pod(t, c.object), Images: []policy.Asked{{Reference: parse(t, c.image), Unchanged: true}},
			})[0]
			if diff := gocmp.Diff(c.want, describe(got)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if ns := (policy.Namespace{Name: "p", Labels: labels.Set{"env": "test"}}); set.ReadsObjects(ns) != (c.want != nil) {
				t.Errorf("ReadsObjects: %v", c.want == nil)
			}
		})
	}
}

// TestUnchangedBesideChanged is that an image is not spared for being in the
// object twice.
func TestUnchangedBesideChanged(t *testing.T) {
	t.Parallel()
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: policy.Direct{}, Resolver: pointsAt(digestA)}
	ref := parse(t, "a.io/b@"+digestA)
	for _, first := range []bool{true, false} {
		got := d.Decide(t.Context(), policy.Question{
			Set:       policy.NewSet([]*policy.Rule{globbed(t, "rule", bad, "**"), looking(t, "looks", good, "**")}),
			Namespace: policy.Namespace{Name: "p"}, Object: pod(t, `{"metadata":{"labels":{"ok":""}}}`),
			Images: []policy.Asked{{Reference: ref, Unchanged: first}, {Reference: ref, Unchanged: !first}},
		})
		changed := got[0]
		if first {
			changed = got[1]
		}
		if changed.Outcome() != policy.Rejected {
			t.Errorf("the changed one (first: %v): %v", !first, describe(changed))
		}
	}
}

// TestKnowsHostOfGlobs is that metrics may name the hosts that globs name.
func TestKnowsHostOfGlobs(t *testing.T) {
	t.Parallel()
	set := policy.NewSet([]*policy.Rule{globbed(t, "rule", good, "index.docker.io/**", "*.evil.io/**", "a.io:5000/b*", "**")})
	for host, want := range map[string]bool{"docker.io": true, "a.io:5000": true, "x.evil.io": false, "*.evil.io": false, "": false} {
		if set.KnowsHost(host) != want {
			t.Errorf("%q: %v", host, !want)
		}
	}
	if strings.Contains(strings.Join(names(set.Rules()), " "), "ImageConfig") {
		t.Error("not the kind that it is")
	}
}
