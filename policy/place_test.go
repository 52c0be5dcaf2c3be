// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// rewrites makes a rule that does nothing but rewrite.
func rewrites(tb testing.TB, from, to string) *policy.Rule {
	tb.Helper()
	return &policy.Rule{
		Kind: "ImageConfig", Name: "mirror", Mode: policy.Enforce, Prefixes: prefixes(tb, from),
		Rewrite: &policy.Rewrite{To: prefixes(tb, to)[0]},
	}
}

func lookup(r *policy.Rule) *policy.Rule {
	r.Rewrite.Lookup = true
	return r
}

func named(r *policy.Rule, name string) *policy.Rule {
	r.Name = name
	return r
}

// asked remembers what a registry was asked about.
type asked struct {
	mu    sync.Mutex
	names []string
}

func (a *asked) Resolve(_ context.Context, i policy.Image) (policy.Resolution, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names = append(a.names, i.Reference.Canonical())
	return policy.Resolution{Digest: digestA}, nil
}

func TestPinRewrites(t *testing.T) {
	t.Parallel()
	hub := func(tb testing.TB) *policy.Rule { return rewrites(tb, "docker.io", "mirror.corp/hub/") }
	for name, test := range map[string]struct {
		image  string
		rules  func(testing.TB) []*policy.Rule
		server policy.Server
		other  bool // not of a Pod

		rewritten, digest, resolved string
	}{
		"a name and its digest": {
			image: "nginx",
			rules: func(tb testing.TB) []*policy.Rule {
				return []*policy.Rule{hub(tb), says(tb, "v", "mirror.corp/hub/", good)}
			},
			rewritten: "mirror.corp/hub/library/nginx:latest", digest: digestA, resolved: "mirror.corp/hub/library/nginx:latest",
		},
		"not covered under the new name": {
			image:     "acme/app:1",
			rules:     func(tb testing.TB) []*policy.Rule { return []*policy.Rule{hub(tb), says(tb, "v", "docker.io", good)} },
			rewritten: "mirror.corp/hub/acme/app:1",
		},
		"the digest stays": {
			image:     "acme/app@" + digestB,
			rules:     func(tb testing.TB) []*policy.Rule { return []*policy.Rule{hub(tb)} },
			rewritten: "mirror.corp/hub/acme/app@" + digestB,
		},
		"once": {
			image: "mirror.corp/hub/acme/app:1",
			rules: func(tb testing.TB) []*policy.Rule { return []*policy.Rule{hub(tb)} },
		},
		"the longest prefix, inside a component": {
			image: "docker.io/acme/app-s3:1",
			rules: func(tb testing.TB) []*policy.Rule {
				return []*policy.Rule{hub(tb), named(rewrites(tb, "docker.io/acme/app", "mirror.corp/apps/x"), "longer")}
			},
			rewritten: "mirror.corp/apps/x-s3:1",
		},
		"only where to look": {
			image: "nginx:1",
			rules: func(tb testing.TB) []*policy.Rule {
				return []*policy.Rule{lookup(hub(tb)), says(tb, "v", "mirror.corp/", good)}
			},
			digest: digestA, resolved: "mirror.corp/hub/library/nginx:1",
		},
		"no Pod": {
			image: "nginx:1", other: true,
			rules: func(tb testing.TB) []*policy.Rule { return []*policy.Rule{hub(tb)} },
		},
		"audited": {
			image: "nginx:1",
			rules: func(tb testing.TB) []*policy.Rule { return []*policy.Rule{audited(hub(tb))} },
		},
		"server audits": {
			image: "nginx:1", server: policy.Server{Mode: policy.Audit},
			rules: func(tb testing.TB) []*policy.Rule { return []*policy.Rule{hub(tb)} },
		},
		"another pins": {
			image: "nginx:1", server: policy.Server{Pin: policy.PinNever},
			rules:     func(tb testing.TB) []*policy.Rule { return []*policy.Rule{hub(tb), says(tb, "v", "mirror.corp", good)} },
			rewritten: "mirror.corp/hub/library/nginx:1",
		},
		"another namespace": {
			image: "nginx:1",
			rules: func(tb testing.TB) []*policy.Rule { return []*policy.Rule{inProd(hub(tb))} },
		},
		"nothing is left of the name": {
			image: "docker.io/acme/app:1",
			rules: func(tb testing.TB) []*policy.Rule {
				return []*policy.Rule{rewrites(tb, "docker.io/acme/app", "mirror.corp/")}
			},
		},
		"one that is not ready is in the way": {
			image: "docker.io/acme/app:1",
			rules: func(tb testing.TB) []*policy.Rule {
				return []*policy.Rule{hub(tb), held(tb, "held", "docker.io/acme/")}
			},
		},
		"not in Audit": {
			image: "docker.io/acme/app:1",
			rules: func(tb testing.TB) []*policy.Rule {
				return []*policy.Rule{hub(tb), audited(held(tb, "held", "docker.io/acme/"))}
			},
			rewritten: "mirror.corp/hub/acme/app:1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			registry := &asked{}
			d := policy.Decider{Server: test.server, Resolver: registry, Engine: policy.Direct{}}
			got := d.Pin(t.Context(), policy.Question{
				Set: policy.NewSet(test.rules(t)), Namespace: policy.Namespace{Name: "shop"}, Credentials: credential.None(),
				Images: ask(test.image), Pods: !test.other,
			})[0]
			if got.Rewritten.Written() != test.rewritten || got.Digest != test.digest {
				t.Errorf("rewritten to %q, pinned to %q; want %q, %q", got.Rewritten.Written(), got.Digest, test.rewritten, test.digest)
			}
			if resolved := strings.Join(registry.names, " "); resolved != test.resolved {
				t.Errorf("resolved %q, want %q", resolved, test.resolved)
			}
		})
	}
}

func TestDecideRewrites(t *testing.T) {
	t.Parallel()
	hub := func() *policy.Rule { return rewrites(t, "docker.io", "mirror.corp/hub/") }
	prod, unreadable := policy.Namespace{Name: "shop"}, policy.Namespace{Name: "shop", Unreadable: true}
	for name, test := range map[string]struct {
		image     string
		rules     []*policy.Rule
		namespace policy.Namespace
		pinned    bool
		want      []string
		message   string // part of the first finding's
	}{
		"a template: as it will be": {
			image: "nginx@" + digestB, rules: []*policy.Rule{hub(), says(t, "v", "mirror.corp", bad)}, namespace: prod,
			want: []string{"v/Enforce Rejected NoSignature"}, message: "as mirror.corp/hub/library/nginx@" + digestB + ": no signature",
		},
		"rules for the old name do not count": {
			image: "nginx@" + digestB, rules: []*policy.Rule{hub(), says(t, "v", "docker.io", bad)}, namespace: prod,
			want: []string{"server/ Skipped NotCovered"},
		},
		"a Pod that still has the old name": {
			image: "nginx@" + digestB, rules: []*policy.Rule{hub(), says(t, "v", "mirror.corp", good)}, namespace: prod, pinned: true,
			want: []string{"mirror/Enforce Rejected NotRewritten"}, message: "not rewritten to mirror.corp/hub/library/nginx@" + digestB,
		},
		"a Pod, audited": {
			image: "nginx@" + digestB, rules: []*policy.Rule{audited(hub()), says(t, "v", "docker.io", good)}, namespace: prod, pinned: true,
			want: []string{"v/Enforce Accepted Verified"},
		},
		"a Pod that keeps its name": {
			image: "nginx@" + digestB, rules: []*policy.Rule{lookup(hub()), says(t, "v", "mirror.corp", good)}, namespace: prod, pinned: true,
			want: []string{"v/Enforce Accepted Verified"}, message: "as mirror.corp/hub/library/nginx@" + digestB,
		},
		"a Pod with the new name": {
			image: "mirror.corp/hub/library/nginx@" + digestB, rules: []*policy.Rule{hub(), says(t, "v", "mirror.corp", good)},
			namespace: prod, pinned: true, want: []string{"v/Enforce Accepted Verified"}, message: "fine",
		},
		"the namespace cannot be read": {
			image: "nginx@" + digestB, rules: []*policy.Rule{inProd(hub()), says(t, "v", "docker.io", good)}, namespace: unreadable, pinned: true,
			want: []string{"mirror/Enforce Inconclusive Namespace", "v/Enforce Accepted Verified"}, message: "labels of namespace",
		},
		"the namespace cannot be read, nothing else covers it": {
			image: "nginx@" + digestB, rules: []*policy.Rule{inProd(hub())}, namespace: unreadable, pinned: true,
			want: []string{"mirror/Enforce Inconclusive Namespace"},
		},
		"it cannot be rewritten": {
			image: "docker.io/acme/app:1", rules: []*policy.Rule{rewrites(t, "docker.io/acme/app", "mirror.corp/")}, namespace: prod,
			want: []string{"mirror/Enforce Rejected InvalidReference"}, message: "cannot be rewritten",
		},
		"one that is not ready holds back": {
			image: "docker.io/acme/app@" + digestB, rules: []*policy.Rule{hub(), held(t, "held", "docker.io/acme/")}, namespace: prod, pinned: true,
			want: []string{"held/Enforce Inconclusive NotReady"},
		},
		"what comes on top shadows nothing": {
			image: "mirror.corp/hub/x@" + digestB, namespace: prod, pinned: true,
			rules: []*policy.Rule{adds(says(t, "added", "mirror.corp/hub/", good)), says(t, "v", "mirror.corp", bad)},
			want:  []string{"added/Enforce Accepted Verified", "v/Enforce Rejected NoSignature"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := policy.Decider{Resolver: pointsAt(digestA), Engine: policy.Direct{}}
			got := d.Decide(t.Context(), policy.Question{
				Set: policy.NewSet(test.rules), Namespace: test.namespace, Credentials: credential.None(),
				Images: ask(test.image), Pods: true, Pinned: test.pinned,
			})[0]
			if diff := gocmp.Diff(test.want, describe(got)); diff != "" {
				t.Fatalf("findings (-want +got):\n%s", diff)
			}
			if message := got.Findings[0].Verdict.Message; !strings.Contains(message, test.message) {
				t.Errorf("message %q, want %q in it", message, test.message)
			}
			if got.Reference.Written() != test.image {
				t.Errorf("answered about %q", got.Reference.Written())
			}
		})
	}
}

func adds(r *policy.Rule) *policy.Rule {
	r.Adds = true
	return r
}
