// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
)

// scoped makes a rule for a scope. Its verdict's message is the tag by which the
// image was judged.
func scoped(name string) *policy.Rule {
	return &policy.Rule{
		Kind: "policy.json", Name: name, Mode: policy.Enforce, Scope: &policy.Scope{Name: name},
		Verification: &policy.Verification{Engine: "ContainersPolicy", Verifier: verifier(func(_ context.Context, i policy.Image) policy.Verdict {
			return policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonVerified, Message: "by tag " + i.Reference.Tag()}
		})},
	}
}

// byTag says that a rule judges tags.
func byTag(r *policy.Rule) *policy.Rule {
	r.Verification.ByReference = true
	return r
}

// TestScope: the most specific scope alone counts; beside the one of a tag that
// counts, the one of the digest (containers-policy.json(5); spec section 10).
func TestScope(t *testing.T) {
	t.Parallel()
	names := []string{
		"", "example.com", "example.com:5000", "*.example.com", "*.com", "docker.io/library", "docker.io/library/nginx",
		"a.io/b/c", "a.io/b/c:v1", "a.io/b/c@" + digestA, "a.io/b/d@" + digestA, "a.io/b", "*.io",
	}
	var rules []*policy.Rule
	for _, name := range names {
		rules = append(rules, scoped(name))
	}
	judgesTags := []*policy.Rule{byTag(scoped("a.io"))}
	for name, c := range map[string]struct {
		rules    []*policy.Rule
		image    string
		resolver resolver // nil: must not be touched
		want     []string // scope: verdict
	}{
		"host":                         {image: "example.com/x@" + digestA, want: []string{"example.com: by tag "}},
		"host in capitals":             {image: "EXAMPLE.com/x@" + digestA, want: []string{"example.com: by tag "}},
		"host with the default port":   {image: "example.com:443/x@" + digestA, want: []string{"example.com: by tag "}},
		"host with a port":             {image: "example.com:5000/x@" + digestA, want: []string{"example.com:5000: by tag "}},
		"host with another port":       {image: "example.com:5001/x@" + digestA, want: []string{"*.com: by tag "}},
		"subdomain":                    {image: "a.b.example.com:1/x@" + digestA, want: []string{"*.example.com: by tag "}},
		"domain":                       {image: "other.com/x@" + digestA, want: []string{"*.com: by tag "}},
		"Docker Hub by another name":   {image: "index.docker.io/nginx@" + digestA, want: []string{"docker.io/library/nginx: by tag "}},
		"Docker Hub in a short name":   {image: "redis@" + digestA, want: []string{"docker.io/library: by tag "}},
		"Docker Hub is in a domain":    {image: "me/x@" + digestA, want: []string{"*.io: by tag "}},
		"path, not a prefix of it":     {image: "a.io/bc/d@" + digestA, want: []string{"*.io: by tag "}},
		"path below":                   {image: "a.io/b/c/d@" + digestA, want: []string{"a.io/b/c: by tag "}},
		"nothing":                      {image: "localhost:5000/x@" + digestA, want: []string{": by tag "}},
		"digest":                       {image: "a.io/b/c@" + digestA, want: []string{"a.io/b/c@" + digestA + ": by tag "}},
		"another digest":               {image: "a.io/b/c@" + digestB, want: []string{"a.io/b/c: by tag "}},
		"tag":                          {image: "a.io/b/c:v1", resolver: pointsAt(digestB), want: []string{"a.io/b/c:v1: by tag v1"}},
		"another tag":                  {image: "a.io/b/c:v2", resolver: pointsAt(digestB), want: []string{"a.io/b/c: by tag v2"}},
		"tag of the digest":            {image: "a.io/b/c:v1", resolver: pointsAt(digestA), want: []string{"a.io/b/c:v1: by tag v1", "a.io/b/c@" + digestA + ": by tag v1"}},
		"tag beside its digest":        {image: "a.io/b/c:v1@" + digestB, resolver: pointsAt(digestB), want: []string{"a.io/b/c:v1: by tag v1"}},
		"tag beside another digest":    {image: "a.io/b/c:v1@" + digestB, resolver: pointsAt(digestA), want: []string{"a.io/b/c: by tag "}},
		"tag beside a digest's own":    {image: "a.io/b/d:v1@" + digestA, resolver: pointsAt(digestA), want: []string{"a.io/b: by tag v1", "a.io/b/d@" + digestA + ": by tag v1"}},
		"tag that is nobody's":         {image: "a.io/b/c:v2@" + digestB, want: []string{"a.io/b/c: by tag "}},
		"tag that cannot be resolved":  {image: "a.io/b/c:v1@" + digestB, resolver: fails(judged(down)), want: []string{"a.io/b/c: unknown", "a.io/b/c:v1: unknown"}},
		"identity of a tag":            {rules: judgesTags, image: "a.io/x:v1@" + digestA, resolver: pointsAt(digestA), want: []string{"a.io: by tag v1"}},
		"identity of a claimed tag":    {rules: judgesTags, image: "a.io/x:v1@" + digestA, resolver: pointsAt(digestB), want: []string{"a.io: by tag "}},
		"identity of an unknown tag":   {rules: judgesTags, image: "a.io/x:v1@" + digestA, resolver: fails(judged(down)), want: []string{"a.io: unknown"}},
		"identity where there is none": {rules: judgesTags, image: "a.io/x@" + digestA, want: []string{"a.io: by tag "}},
		"no scope":                     {rules: judgesTags, image: "b.io/x@" + digestA, want: []string{"server: "}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			set := policy.NewSet(rules)
			if c.rules != nil {
				set = policy.NewSet(c.rules)
			}
			resolve := c.resolver
			if resolve == nil {
				resolve = func(context.Context, policy.Image) (policy.Resolution, error) { panic("must not be asked") }
			}
			d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: resolve, Engine: policy.Direct{}}
			decision := d.Decide(t.Context(), policy.Question{Set: set, Images: ask(c.image)})[0]
			var got []string
			for _, f := range decision.Findings {
				who, says := "server", f.Verdict.Message
				if f.Rule != nil {
					who = f.Rule.Name
				}
				if f.Verdict.Outcome == policy.Inconclusive {
					says = "unknown"
				}
				got = append(got, fmt.Sprintf("%s: %s", who, says))
			}
			if diff := gocmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestScopeOfRewritten: policy.json judges the name that an image is rewritten to,
// and no other (spec section 3, "Rewrite").
func TestScopeOfRewritten(t *testing.T) {
	t.Parallel()
	for _, lookup := range []bool{false, true} {
		rewriting := &policy.Rule{
			Kind: "ImageConfig", Name: "mirror", Mode: policy.Enforce, Prefixes: prefixes(t, "a.io/"),
			Rewrite: &policy.Rewrite{To: prefixes(t, "mirror.io/a/")[0], Lookup: lookup},
		}
		refusing := scoped("a.io")
		refusing.Verification = &policy.Verification{Fixed: &fixedF}
		set := policy.NewSet([]*policy.Rule{rewriting, refusing, scoped("mirror.io/a")})
		d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: pointsAt(digestA), Engine: policy.Direct{}}
		decision := d.Decide(t.Context(), policy.Question{Set: set, Images: ask("a.io/x@" + digestA), Pods: true})[0]
		if diff := gocmp.Diff([]string{"mirror.io/a/Enforce Accepted Verified"}, describe(decision)); diff != "" {
			t.Errorf("Lookup %t: -want +got:\n%s", lookup, diff)
		}
	}
}

// TestScopesBesidePrefixes: kinds never shadow one another, and a tag that is
// unknown leaves those in force that do not hang on it.
func TestScopesBesidePrefixes(t *testing.T) {
	t.Parallel()
	set := policy.NewSet([]*policy.Rule{
		says(t, "image", "a.io/", good), says(t, "tag", "a.io/x:v", good), scoped("a.io/x"), scoped("a.io/x:v1"),
	})
	for image, c := range map[string]struct {
		resolver resolver
		want     []string
	}{
		"a.io/x@" + digestA:    {want: []string{"a.io/x/Enforce Accepted Verified", "image/Enforce Accepted Verified"}},
		"a.io/x:v1@" + digestA: {resolver: pointsAt(digestA), want: []string{"a.io/x:v1/Enforce Accepted Verified", "image/Enforce Accepted Verified", "tag/Enforce Accepted Verified"}},
		"a.io/x:v1@" + digestB: {resolver: pointsAt(digestA), want: []string{"a.io/x/Enforce Accepted Verified", "image/Enforce Accepted Verified"}},
		"a.io/x:v1@sha256:" + strings.Repeat("c", 64): {resolver: fails(judged(down)), want: []string{
			"a.io/x/Enforce Inconclusive Unreachable", "a.io/x:v1/Enforce Inconclusive Unreachable", "image/Enforce Accepted Verified", "tag/Enforce Inconclusive Unreachable",
		}},
	} {
		t.Run(image, func(t *testing.T) {
			t.Parallel()
			d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: c.resolver, Engine: policy.Direct{}}
			decision := d.Decide(t.Context(), policy.Question{Set: set, Images: ask(image)})[0]
			if diff := gocmp.Diff(c.want, describe(decision)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
