// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// never is a verifier that must not be asked.
type never struct{}

func (never) Verify(context.Context, policy.Image) policy.Verdict { panic("must not be asked") }

type verifier func(context.Context, policy.Image) policy.Verdict

func (v verifier) Verify(ctx context.Context, i policy.Image) policy.Verdict { return v(ctx, i) }

type resolver func(context.Context, policy.Image) (policy.Resolution, error)

func (r resolver) Resolve(ctx context.Context, i policy.Image) (policy.Resolution, error) {
	return r(ctx, i)
}

// judged is an error that knows its verdict, as those of a registry are.
type judged policy.Verdict

func (e judged) Error() string           { return e.Message }
func (e judged) Verdict() policy.Verdict { return policy.Verdict(e) }

var (
	good   = policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonVerified, Message: "fine"}
	bad    = policy.Refused(policy.ReasonNoSignature, "no signature")
	down   = policy.Undecided(policy.ReasonUnreachable, "a.io cannot be reached")
	fixedP = policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonStatic, Message: "accepts every image"}
	fixedF = policy.Refused(policy.ReasonStatic, "refuses every image")
)

// says makes a rule whose verifier accepts one digest and gives all others
// that verdict.
func says(tb testing.TB, name, prefix string, v policy.Verdict) *policy.Rule {
	tb.Helper()
	r := verifying(tb, name, prefix)
	r.Verification.Verifier = verifier(func(_ context.Context, i policy.Image) policy.Verdict {
		if i.Digest == "" {
			panic("asked without a digest")
		}
		return v
	})
	return r
}

func fixed(tb testing.TB, name, prefix string, v policy.Verdict) *policy.Rule {
	tb.Helper()
	r := verifying(tb, name, prefix)
	r.Verification = &policy.Verification{Engine: "Cosign", Fixed: &v}
	return r
}

func held(tb testing.TB, name, prefix string) *policy.Rule {
	tb.Helper()
	return fixed(tb, name, prefix, policy.Undecided(policy.ReasonNotReady, "it is not ready"))
}

func everywhere(r *policy.Rule) *policy.Rule {
	r.Everywhere = true
	return r
}

func audited(r *policy.Rule) *policy.Rule {
	r.Mode = policy.Audit
	return r
}

func inProd(r *policy.Rule) *policy.Rule {
	r.Namespaces = labels.SelectorFromSet(labels.Set{"env": "prod"})
	return r
}

func pointsAt(digest string) resolver {
	return func(context.Context, policy.Image) (policy.Resolution, error) {
		return policy.Resolution{Digest: digest}, nil
	}
}

func fails(err error) resolver {
	return func(context.Context, policy.Image) (policy.Resolution, error) { return policy.Resolution{}, err }
}

// describe writes findings as "rule/Mode Outcome Reason", in their order.
func describe(d policy.Decision) []string {
	var out []string
	for _, f := range d.Findings {
		name := "server"
		if f.Rule != nil {
			name = f.Rule.Name
		}
		out = append(out, fmt.Sprintf("%s/%s %s %s", name, f.Mode, f.Verdict.Outcome, f.Verdict.Reason))
	}
	slices.Sort(out)
	return out
}

type decideCase struct {
	server   policy.Server // Mode Enforce unless given
	rules    []*policy.Rule
	image    string
	ns       policy.Namespace
	pinned   bool     // whether the question says that images must be
	resolver resolver // nil: must not be touched
	want     []string
	digest   string // examined
	warned   string // part of a warning
	message  string // part of some finding's message
}

func decideCases(t *testing.T) map[string]decideCase {
	const skipped = "server/Enforce Skipped NotCovered"
	unreadable := policy.Namespace{Name: "u", Unreadable: true}
	cases := map[string]decideCase{
		"invalid":               {image: "a.io/B:1", want: []string{"server/Enforce Rejected InvalidReference"}, message: "invalid image reference"},
		"invalid, no rules":     {image: "", want: []string{"server/Enforce Rejected InvalidReference"}},
		"invalid, server audit": {server: policy.Server{Mode: policy.Audit}, image: " ", want: []string{"server/Audit Rejected InvalidReference"}},

		"uncovered":       {image: "b.io/x", want: []string{skipped}},
		"uncovered, warn": {server: policy.Server{Unmatched: policy.UnmatchedWarn}, image: "b.io/x", want: []string{skipped}, warned: "no rule covers it"},
		"uncovered, deny": {
			server: policy.Server{Unmatched: policy.UnmatchedDeny}, image: "b.io/x",
			want: []string{"server/Enforce Rejected Unmatched"}, message: "--unmatched=Deny",
		},
		"uncovered, deny, audit": {
			server: policy.Server{Unmatched: policy.UnmatchedDeny, Mode: policy.Audit}, image: "b.io/x",
			want: []string{"server/Audit Rejected Unmatched"},
		},
		"uncovered namespace": {
			rules: []*policy.Rule{inProd(says(t, "r", "a.io", bad))}, image: "a.io/x", ns: policy.Namespace{Name: "t"}, want: []string{skipped},
		},

		"by digest":          {rules: []*policy.Rule{says(t, "r", "a.io", good)}, image: "a.io/x@" + digestA, pinned: true, want: []string{"r/Enforce Accepted Verified"}, digest: digestA},
		"by digest and tag":  {rules: []*policy.Rule{says(t, "r", "a.io", bad)}, image: "a.io/x:1@" + digestA, pinned: true, want: []string{"r/Enforce Rejected NoSignature"}, digest: digestA},
		"audit rule":         {rules: []*policy.Rule{audited(says(t, "r", "a.io", bad))}, image: "a.io/x@" + digestA, want: []string{"r/Audit Rejected NoSignature"}, digest: digestA},
		"audit server":       {server: policy.Server{Mode: policy.Audit}, rules: []*policy.Rule{says(t, "r", "a.io", bad)}, image: "a.io/x@" + digestA, want: []string{"r/Audit Rejected NoSignature"}, digest: digestA},
		"by tag, not pinned": {rules: []*policy.Rule{says(t, "r", "a.io", good)}, image: "a.io/x:1", resolver: pointsAt(digestA), want: []string{"r/Enforce Accepted Verified"}, digest: digestA},
		"ties all": {
			rules: []*policy.Rule{says(t, "r", "a.io", good), audited(says(t, "s", "a.io", bad)), says(t, "t", "a.io", down)}, image: "a.io/x@" + digestA,
			want: []string{"r/Enforce Accepted Verified", "s/Audit Rejected NoSignature", "t/Enforce Inconclusive Unreachable"}, digest: digestA,
		},

		"should be pinned": {
			rules: []*policy.Rule{verifying(t, "r", "a.io")}, image: "a.io/x:1", pinned: true, resolver: pointsAt(digestA),
			want: []string{"r/Enforce Rejected NotPinned"}, digest: digestA, message: "not pinned: the mutating webhook did not run or found no digest, or another one came after it",
		},
		"should be pinned by another": {
			server: policy.Server{Pin: policy.PinNever}, rules: []*policy.Rule{verifying(t, "r", "a.io")}, image: "a.io/x:1", pinned: true,
			resolver: pointsAt(digestA), want: []string{"r/Enforce Rejected NotPinned"}, digest: digestA, message: "--pin=Never",
		},
		"should be pinned, the cause known": {
			rules: []*policy.Rule{verifying(t, "r", "a.io")}, image: "a.io/x:1", pinned: true, resolver: fails(judged(down)),
			want: []string{"r/Enforce Inconclusive Unreachable"}, message: "a.io cannot be reached",
		},
		"should be pinned, but in audit": {
			rules: []*policy.Rule{audited(says(t, "r", "a.io", bad))}, image: "a.io/x:1", pinned: true, resolver: pointsAt(digestA),
			want: []string{"r/Audit Rejected NoSignature"}, digest: digestA,
		},
		"should be pinned, one in audit": {
			rules: []*policy.Rule{audited(says(t, "r", "a.io", good)), verifying(t, "s", "a.io")}, image: "a.io/x:1", pinned: true,
			resolver: pointsAt(digestA), want: []string{"r/Audit Accepted Verified", "s/Enforce Rejected NotPinned"}, digest: digestA,
		},

		"passes without looking": {rules: []*policy.Rule{fixed(t, "r", "a.io", fixedP)}, image: "a.io/x", pinned: true, want: []string{"r/Enforce Accepted Static"}},
		"fails without looking":  {rules: []*policy.Rule{fixed(t, "r", "a.io", fixedF)}, image: "a.io/x", pinned: true, want: []string{"r/Enforce Rejected Static"}},
		"not ready": {
			rules: []*policy.Rule{held(t, "r", "a.io")}, image: "a.io/x",
			pinned: true, want: []string{"r/Enforce Inconclusive NotReady"},
		},

		"unreadable namespace": {
			rules: []*policy.Rule{inProd(verifying(t, "r", "a.io/x"))}, image: "a.io/x@" + digestA, ns: unreadable,
			want: []string{"r/Enforce Inconclusive Namespace"}, digest: digestA,
		},
		"unreadable namespace, static": {
			rules: []*policy.Rule{inProd(fixed(t, "r", "a.io/x", fixedP)), fixed(t, "s", "a.io", fixedP)}, image: "a.io/x", ns: unreadable,
			want: []string{"r/Enforce Inconclusive Namespace", "s/Enforce Accepted Static"},
		},
		"unreadable namespace, no selector": {
			rules: []*policy.Rule{says(t, "r", "a.io/x", good)}, image: "a.io/x@" + digestA, ns: unreadable,
			want: []string{"r/Enforce Accepted Verified"}, digest: digestA,
		},
		"no namespace": {
			rules: []*policy.Rule{inProd(says(t, "r", "a.io/x", good))}, image: "a.io/x@" + digestA, ns: policy.Namespace{Unreadable: true},
			want: []string{"r/Enforce Accepted Verified"}, digest: digestA,
		},
		"a longer rule that is not ready, in Audit, hides nothing": {
			rules: []*policy.Rule{says(t, "base", "a.io", bad), audited(held(t, "typo", "a.io/x"))}, image: "a.io/x@" + digestA,
			want: []string{"base/Enforce Rejected NoSignature", "typo/Audit Inconclusive NotReady"}, digest: digestA,
		},
		"nor does one of which nobody knows whether it applies": {
			rules: []*policy.Rule{says(t, "base", "a.io", bad), audited(inProd(says(t, "prod", "a.io/x", good)))}, image: "a.io/x@" + digestA, ns: unreadable,
			want: []string{"base/Enforce Rejected NoSignature", "prod/Audit Inconclusive Namespace"}, digest: digestA,
		},
		"nor one for the digest": {
			rules: []*policy.Rule{says(t, "base", "a.io", bad), audited(held(t, "typo", "a.io/x@"+digestA))}, image: "a.io/x@" + digestA,
			want: []string{"base/Enforce Rejected NoSignature", "typo/Audit Inconclusive NotReady"}, digest: digestA,
		},
		"a rule that may be meant for any image": {
			rules: []*policy.Rule{says(t, "base", "a.io", good), everywhere(held(t, "typo", "b.io"))}, image: "a.io/x@" + digestA,
			want: []string{"base/Enforce Accepted Verified", "typo/Enforce Inconclusive NotReady"}, digest: digestA,
		},
		"and for one that nothing else covers": {
			rules: []*policy.Rule{everywhere(held(t, "typo", "b.io"))}, image: "a.io/x",
			want: []string{"typo/Enforce Inconclusive NotReady"},
		},
		"panic": {
			rules: []*policy.Rule{verifying(t, "r", "a.io"), says(t, "s", "a.io", good)}, image: "a.io/x@" + digestA,
			want: []string{"r/Enforce Inconclusive Internal", "s/Enforce Accepted Verified"}, digest: digestA, message: "failed unexpectedly",
		},
		"panic in the resolver": {
			rules: []*policy.Rule{verifying(t, "r", "a.io")}, image: "a.io/x",
			resolver: func(context.Context, policy.Image) (policy.Resolution, error) { panic("boom") },
			want:     []string{"server/Enforce Inconclusive Internal"}, message: "failed unexpectedly",
		},
		"stale tag": {
			rules: []*policy.Rule{says(t, "r", "a.io", good)}, image: "a.io/x",
			resolver: func(context.Context, policy.Image) (policy.Resolution, error) {
				return policy.Resolution{Digest: digestA, Stale: true}, nil
			},
			want: []string{"r/Enforce Accepted Verified"}, digest: digestA, warned: "registry unreachable",
		},
	}
	maps.Copy(cases, tagCases(t))
	maps.Copy(cases, digestCases(t))
	return cases
}

// tagCases are about rules that reach into the tag (spec section 2).
func tagCases(t *testing.T) map[string]decideCase {
	rules := []*policy.Rule{says(t, "r", "a.io", good), says(t, "tag", "a.io/x:1", bad)}
	return map[string]decideCase{
		"tag rule adds":       {rules: rules, image: "a.io/x:1", resolver: pointsAt(digestA), want: []string{"r/Enforce Accepted Verified", "tag/Enforce Rejected NoSignature"}, digest: digestA},
		"tag rule, other tag": {rules: rules, image: "a.io/x:2@" + digestA, want: []string{"r/Enforce Accepted Verified"}, digest: digestA},
		"tag rule, no tag":    {rules: rules, image: "a.io/x@" + digestA, want: []string{"r/Enforce Accepted Verified"}, digest: digestA},
		"tag confirmed": {
			rules: rules, image: "a.io/x:1@" + digestA, resolver: pointsAt(digestA),
			want: []string{"r/Enforce Accepted Verified", "tag/Enforce Rejected NoSignature"}, digest: digestA,
		},
		"tag moved": {
			rules: rules, image: "a.io/x:1@" + digestA, resolver: pointsAt(digestB),
			want: []string{"r/Enforce Accepted Verified"}, digest: digestA,
		},
		"tag unknown": {
			rules: rules, image: "a.io/x:1@" + digestA, resolver: fails(judged(down)),
			want: []string{"r/Enforce Accepted Verified", "tag/Enforce Inconclusive Unreachable"}, digest: digestA, message: "whether its tag names this digest",
		},
		"tag unknown, only rule": {
			rules: rules[1:], image: "a.io/x:1@" + digestA, resolver: fails(errors.New("anything")),
			want: []string{"tag/Enforce Inconclusive Internal"}, digest: digestA,
		},
		"tag unknown, audit": {
			rules: []*policy.Rule{audited(says(t, "tag", "a.io/x:1", bad))}, image: "a.io/x:1@" + digestA, resolver: fails(context.DeadlineExceeded),
			want: []string{"tag/Audit Inconclusive Deadline"}, digest: digestA,
		},
		"tag moved, only rule": {
			rules: rules[1:], image: "a.io/x:1@" + digestA, resolver: pointsAt(digestB), want: []string{"server/Enforce Skipped NotCovered"},
		},
		"tag moved, only rule, unmatched denied": {
			server: policy.Server{Unmatched: policy.UnmatchedDeny}, rules: rules[1:], image: "a.io/x:1@" + digestA, resolver: pointsAt(digestB),
			want: []string{"server/Enforce Rejected Unmatched"},
		},
	}
}

// digestCases are about rules that name a digest, asked for an image that has
// none: what runs may be another digest than the tag names now.
func digestCases(t *testing.T) map[string]decideCase {
	block := fixed(t, "block", "a.io/x@"+digestB, fixedF)
	pass := fixed(t, "pass", "a.io", fixedP)
	key := verifying(t, "key", "a.io")
	return map[string]decideCase{
		"blocked digest":           {rules: []*policy.Rule{block, pass}, image: "a.io/x@" + digestB, pinned: true, want: []string{"block/Enforce Rejected Static"}, digest: digestB},
		"another digest":           {rules: []*policy.Rule{block, pass}, image: "a.io/x@" + digestA, pinned: true, want: []string{"pass/Enforce Accepted Static"}, digest: digestA},
		"other repository":         {rules: []*policy.Rule{block, pass}, image: "a.io/y", pinned: true, want: []string{"pass/Enforce Accepted Static"}},
		"tag names the blocked":    {rules: []*policy.Rule{block, pass}, image: "a.io/x", resolver: pointsAt(digestB), want: []string{"block/Enforce Rejected Static"}, digest: digestB},
		"tag names another":        {rules: []*policy.Rule{block, pass}, image: "a.io/x", resolver: pointsAt(digestA), want: []string{"pass/Enforce Accepted Static"}, digest: digestA},
		"tag names another, alone": {rules: []*policy.Rule{block}, image: "a.io/x", resolver: pointsAt(digestA), want: []string{"server/Enforce Skipped NotCovered"}},
		"unpinned, alone": {
			rules: []*policy.Rule{block}, image: "a.io/x", pinned: true, resolver: pointsAt(digestA),
			want: []string{"block/Enforce Rejected NotPinned"}, digest: digestA,
		},
		"unpinned, passed by another": {
			rules: []*policy.Rule{block, pass}, image: "a.io/x", pinned: true, resolver: pointsAt(digestA),
			want: []string{"block/Enforce Rejected NotPinned", "pass/Enforce Accepted Static"}, digest: digestA,
		},
		"unpinned, passed for the digest": {
			rules: []*policy.Rule{fixed(t, "known", "a.io/x@"+digestA, fixedP), key}, image: "a.io/x", pinned: true, resolver: pointsAt(digestA),
			want: []string{"key/Enforce Rejected NotPinned", "known/Enforce Rejected NotPinned"}, digest: digestA,
		},
		"unpinned, the digest's in audit": {
			rules: []*policy.Rule{audited(says(t, "known", "a.io/x@"+digestA, bad)), key}, image: "a.io/x", pinned: true, resolver: pointsAt(digestA),
			want: []string{"key/Enforce Rejected NotPinned", "known/Audit Rejected NoSignature"}, digest: digestA,
		},
		"unpinned, all in audit": {
			rules: []*policy.Rule{audited(fixed(t, "block", "a.io/x@"+digestB, fixedF))}, image: "a.io/x", pinned: true, resolver: pointsAt(digestA),
			want: []string{"server/Enforce Skipped NotCovered"},
		},
		"unpinned, unreadable namespace": {
			rules: []*policy.Rule{inProd(fixed(t, "block", "a.io/x@"+digestB, fixedF))}, image: "a.io/x", pinned: true, resolver: pointsAt(digestA),
			ns: policy.Namespace{Name: "u", Unreadable: true}, want: []string{"block/Enforce Inconclusive Namespace"}, digest: digestA,
		},
		"unresolved, alone": {
			rules: []*policy.Rule{block}, image: "a.io/x", pinned: true, resolver: fails(judged(down)), want: []string{"block/Enforce Inconclusive Unreachable"},
		},
		"unresolved, passed by another": {
			rules: []*policy.Rule{block, pass}, image: "a.io/x", pinned: true, resolver: fails(judged(down)),
			want: []string{"block/Enforce Inconclusive Unreachable", "pass/Enforce Accepted Static"},
		},
		"unresolved, in audit": {
			rules: []*policy.Rule{audited(fixed(t, "block", "a.io/x@"+digestB, fixedF))}, image: "a.io/x", pinned: true, resolver: fails(judged(down)),
			want: []string{"block/Audit Inconclusive Unreachable"},
		},
		"not this namespace's": {
			rules: []*policy.Rule{inProd(fixed(t, "block", "a.io/x@"+digestB, fixedF))}, image: "a.io/x", ns: policy.Namespace{Name: "t"}, pinned: true,
			want: []string{"server/Enforce Skipped NotCovered"},
		},
		"asks nothing": {
			rules: []*policy.Rule{{Kind: "ImageConfig", Name: "r", Prefixes: prefixes(t, "a.io/x@"+digestA), Authentication: &policy.Authentication{}}},
			image: "a.io/x", pinned: true, want: []string{"server/Enforce Skipped NotCovered"},
		},
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	for name, c := range decideCases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.server.Mode = cmp.Or(c.server.Mode, policy.Enforce)
			if c.resolver == nil {
				c.resolver = func(_ context.Context, i policy.Image) (policy.Resolution, error) {
					t.Errorf("the tag of %s was looked up", i.Reference)
					return policy.Resolution{}, errors.New("not to be asked")
				}
			}
			d := policy.Decider{Server: c.server, Resolver: c.resolver, Engine: policy.Direct{}}
			q := policy.Question{Set: policy.NewSet(c.rules), Namespace: c.ns, Credentials: credential.None(), Pinned: c.pinned, Images: ask(c.image)}
			got := d.Decide(t.Context(), q)[0]
			if diff := gocmp.Diff(c.want, describe(got)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if got.Digest != c.digest {
				t.Errorf("digest %q, want %q", got.Digest, c.digest)
			}
			if warned := strings.Join(got.Warnings, "\n"); !strings.Contains(warned, c.warned) || c.warned == "" && warned != "" {
				t.Errorf("warnings %q, want %q", warned, c.warned)
			}
			if !slices.ContainsFunc(got.Findings, func(f policy.Finding) bool { return strings.Contains(f.Verdict.Message, c.message) }) {
				t.Errorf("no message has %q: %+v", c.message, got.Findings)
			}
		})
	}
}

// The rules that a digest selects bring their credentials too, whether the
// digest was written or found.
func TestPullSecretOfADigest(t *testing.T) {
	t.Parallel()
	config := func(host string) *policy.Authentication {
		parsed, err := credential.Parse([]byte(`{"auths":{"` + host + `":{"username":"u","password":"p"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		return &policy.Authentication{Credentials: parsed}
	}
	wide, exact := config("a.io"), config("a.io/x")
	var shown *policy.Authentication
	looks := func(name, prefix string, secret *policy.Authentication) *policy.Rule {
		r := verifying(t, name, prefix)
		r.Authentication = secret
		r.Verification.Verifier = verifier(func(_ context.Context, i policy.Image) policy.Verdict {
			shown = i.Authentication
			return good
		})
		return r
	}
	d := policy.Decider{Resolver: pointsAt(digestA), Engine: policy.Direct{}}
	set := policy.NewSet([]*policy.Rule{looks("wide", "a.io", wide), looks("exact", "a.io/x@"+digestA, exact)})
	for image, want := range map[string]*policy.Authentication{"a.io/x@" + digestA: exact, "a.io/x:1": exact, "a.io/x@" + digestB: wide} {
		shown = nil
		d.Decide(t.Context(), policy.Question{Set: set, Credentials: credential.None(), Images: ask(image)})
		if shown != want {
			t.Errorf("%s: shown the secret %v, want %v", image, shown, want)
		}
	}
}

func ask(images ...string) []policy.Asked {
	asked := make([]policy.Asked, len(images))
	for i, image := range images {
		asked[i].Reference, asked[i].Invalid = reference.Parse(image)
	}
	return asked
}

func TestPin(t *testing.T) {
	t.Parallel()
	key, pass := verifying(t, "key", "a.io"), fixed(t, "pass", "s.io", fixedP)
	block := fixed(t, "block", "d.io/x@"+digestB, fixedF)
	rules := []*policy.Rule{key, pass, block, audited(verifying(t, "audit", "u.io")), verifying(t, "tag", "t.io/x:1"),
		audited(fixed(t, "audit-digest", "v.io/x@"+digestB, fixedF))}
	for name, c := range map[string]struct {
		server policy.Server
		image  string
		fails  bool
		want   string
		warned bool
	}{
		"covered":                {image: "a.io/x", want: "a.io/x:latest@" + digestA},
		"covered by its tag":     {image: "t.io/x:1", want: "t.io/x:1@" + digestA},
		"not by its tag":         {image: "t.io/x:2"},
		"covered by a digest":    {image: "d.io/x:1", want: "d.io/x:1@" + digestA},
		"has a digest":           {image: "a.io/x@" + digestB},
		"has tag and digest":     {image: "a.io/x:1@" + digestB},
		"static does not count":  {image: "s.io/x"},
		"uncovered":              {image: "n.io/x"},
		"audit rule":             {image: "u.io/x"},
		"audit digest rule":      {image: "v.io/x"},
		"invalid":                {image: "a.io/X"},
		"unresolved":             {image: "a.io/x", fails: true},
		"all":                    {server: policy.Server{Pin: policy.PinAll}, image: "n.io/x", want: "n.io/x:latest@" + digestA},
		"all, audit rule":        {server: policy.Server{Pin: policy.PinAll}, image: "u.io/x", want: "u.io/x:latest@" + digestA},
		"all, unresolved":        {server: policy.Server{Pin: policy.PinAll}, image: "n.io/x", fails: true, warned: true},
		"all, unresolved, ruled": {server: policy.Server{Pin: policy.PinAll}, image: "a.io/x", fails: true},
		"never":                  {server: policy.Server{Pin: policy.PinNever}, image: "a.io/x"},
		"audit server":           {server: policy.Server{Mode: policy.Audit, Pin: policy.PinAll}, image: "a.io/x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			d := policy.Decider{Server: c.server, Engine: policy.Direct{}, Resolver: resolver(func(context.Context, policy.Image) (policy.Resolution, error) {
				asked.Add(1)
				if c.fails {
					return policy.Resolution{}, judged(down)
				}
				return policy.Resolution{Digest: digestA}, nil
			})}
			q := policy.Question{Set: policy.NewSet(rules), Credentials: credential.None(), Images: ask(c.image)}
			got := d.Pin(t.Context(), q)[0]
			written := ""
			if got.Digest != "" {
				written = got.Reference.Pin(got.Digest).Written()
			}
			if written != c.want {
				t.Errorf("pinned to %q, want %q", written, c.want)
			}
			if (len(got.Warnings) > 0) != c.warned {
				t.Errorf("warnings %q", got.Warnings)
			}
			if wants := c.want != "" || c.fails; (asked.Load() > 0) != wants {
				t.Errorf("resolved %d times", asked.Load())
			}
		})
	}
}

// Different ways to write one image are one image; each answer keeps its own.
func TestDecideOnce(t *testing.T) {
	t.Parallel()
	var resolved, verified atomic.Int32
	r := verifying(t, "r", "docker.io")
	r.Verification.Verifier = verifier(func(context.Context, policy.Image) policy.Verdict {
		verified.Add(1)
		return good
	})
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: policy.Direct{}, Resolver: resolver(func(context.Context, policy.Image) (policy.Resolution, error) {
		resolved.Add(1)
		return policy.Resolution{Digest: digestA}, nil
	})}
	images := []string{"nginx", "BAD", "docker.io/library/nginx:latest", "index.docker.io/nginx", "BAD", "nginx@" + digestA, "nginx:latest"}
	got := d.Decide(t.Context(), policy.Question{Set: policy.NewSet([]*policy.Rule{r}), Credentials: credential.None(), Images: ask(images...)})
	if resolved.Load() != 1 || verified.Load() != 2 { // nginx:latest, and nginx@…
		t.Errorf("resolved %d times, verified %d times", resolved.Load(), verified.Load())
	}
	for i, image := range images {
		want := policy.Accepted
		if image == "BAD" {
			want = policy.Rejected
		} else if got[i].Reference.Written() != image || got[i].Digest != digestA {
			t.Errorf("answer %d is for %q, digest %q", i, got[i].Reference, got[i].Digest)
		}
		if got[i].Outcome() != want {
			t.Errorf("%s: %s", image, got[i].Outcome())
		}
	}
}

// Over the bound of one request the rest is not examined, and not let in.
func TestDecideBound(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	running, most := 0, 0
	r := verifying(t, "r", "a.io")
	r.Verification.Verifier = verifier(func(context.Context, policy.Image) policy.Verdict {
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		defer func() { mu.Lock(); running--; mu.Unlock() }()
		return good
	})
	var images []string
	for i := range 300 {
		image := fmt.Sprintf("a.io/x%d@%s", i, digestA)
		images = append(images, image, image)
	}
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: fails(errors.New("no")), Engine: policy.Direct{}}
	got := d.Decide(t.Context(), policy.Question{Set: policy.NewSet([]*policy.Rule{r}), Credentials: credential.None(), Images: ask(images...)})
	for i, decision := range got {
		want := policy.Accepted
		if i >= 2*256 {
			want = policy.Inconclusive
		}
		if decision.Outcome() != want {
			t.Fatalf("image %d: %s", i, decision.Outcome())
		}
	}
	if message := got[599].Findings[0].Verdict.Message; !strings.Contains(message, "256") {
		t.Errorf("the bound is not named: %q", message)
	}
	if most > 32 {
		t.Errorf("%d at once", most)
	}
}
