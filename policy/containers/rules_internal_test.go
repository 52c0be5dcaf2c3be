// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/registry"
)

func asked(scope string, line int, list ...object) config.Requirements {
	return config.Requirements{Written: scope, Line: line, List: written(list...)}
}

func TestRules(t *testing.T) {
	t.Parallel()
	g := newGPG(asEd25519, time.Hour, 0)
	signed, accept, reject := byGPG(g.public()), object{"type": "insecureAcceptAnything"}, object{"type": "reject"}
	broken := object{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/missing"}
	type rule struct {
		Name, Scope string
		Engine      string
		Fixed       policy.Outcome
		Reason      policy.Reason
		ByReference bool
	}
	const digestScope = "a.io/b@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for title, row := range map[string]struct {
		policy   config.Policy
		want     []rule
		problems []config.Problem
	}{
		"default": {
			config.Policy{Default: asked("", 3, signed)},
			[]rule{{Name: "default", Engine: Engine, ByReference: true}}, nil,
		},
		"a default that accepts all": {config.Policy{Default: asked("", 3, accept, accept)}, nil, nil},
		"a default that refuses all": {
			config.Policy{Default: asked("", 3, reject)},
			[]rule{{Name: "default", Engine: Engine, Fixed: policy.Rejected, Reason: policy.ReasonStatic}}, nil,
		},
		"scopes": {
			config.Policy{Default: asked("", 3, accept), Scopes: map[string]config.Requirements{
				"docker.io/library/x": asked("index.docker.io/library/x", 5, accept), "*.io": asked("*.io", 6, signed), digestScope: asked(digestScope, 7, signed),
			}},
			[]rule{
				{Name: "*.io", Scope: "*.io", Engine: Engine, ByReference: true},
				{Name: digestScope, Scope: digestScope, Engine: Engine},
				{Name: "index.docker.io/library/x", Scope: "docker.io/library/x", Engine: Engine, Fixed: policy.Accepted, Reason: policy.ReasonStatic},
			}, nil,
		},
		"the transport's default": {
			config.Policy{Default: asked("", 3, signed), Scopes: map[string]config.Requirements{"": asked("", 5, reject)}},
			[]rule{{Name: "docker", Engine: Engine, Fixed: policy.Rejected, Reason: policy.ReasonStatic}}, nil,
		},
		"the transport's default accepts all": {
			config.Policy{Default: asked("", 3, reject), Scopes: map[string]config.Requirements{"": asked("", 5, accept)}}, nil, nil,
		},
		"held back": {
			config.Policy{Default: asked("", 3, accept, broken), Scopes: map[string]config.Requirements{"a.io": asked("A.io", 5, broken)}},
			[]rule{
				{Name: "A.io", Scope: "a.io", Engine: Engine, Reason: policy.ReasonNotReady},
				{Name: "default", Engine: Engine, Reason: policy.ReasonNotReady},
			},
			[]config.Problem{
				{Line: 5, Message: `the images of "A.io" are held back: requirements[0].keyPath "/missing": it cannot be read: file does not exist`},
				{Line: 3, Message: `the images of "default" are held back: requirements[1].keyPath "/missing": it cannot be read: file does not exist`},
			},
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			rules, problems := Rules(Options{Source: newShelf()}, &row.policy, noFiles)
			var got []rule
			for _, r := range rules {
				if r.Kind != "policy.json" || r.Mode != policy.Enforce || r.Prefixes != nil || r.Namespaces != nil {
					t.Errorf("rule = %+v", r)
				}
				one := rule{Name: r.Name, Scope: r.Scope.Name, Engine: r.Verification.Engine, ByReference: r.Verification.ByReference}
				if fixed := r.Verification.Fixed; fixed != nil {
					one.Fixed, one.Reason = fixed.Outcome, fixed.Reason
					if fixed.Outcome == policy.Inconclusive && !strings.HasPrefix(fixed.Message, "it is not ready: requirements[") {
						t.Errorf("message = %q", fixed.Message)
					}
				}
				got = append(got, one)
			}
			for i, p := range problems {
				if !strings.Contains(p.Hint, "mount the file there") {
					t.Errorf("hint = %q", p.Hint)
				}
				problems[i].Hint = ""
			}
			if diff := cmp.Diff(row.want, got) + cmp.Diff(row.problems, problems); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A scope of one digest judges by the digest, whatever tag is written beside it.
func TestDigestScope(t *testing.T) {
	t.Parallel()
	g := newGPG(asEd25519, time.Hour, 0)
	s := newShelf()
	digest := s.image(1)
	s.sign(digest, g.sign(digest, "example.com/acme/app:another"))
	scope := "example.com/acme/app@" + digest
	rules, _ := Rules(Options{Source: s}, &config.Policy{
		Default: asked("", 1, object{"type": "reject"}),
		Scopes: map[string]config.Requirements{
			scope:                     asked(scope, 2, byGPG(g.public())),
			"example.com/acme/app:v1": asked("example.com/acme/app:v1", 3, byGPG(g.public())),
		},
	}, noFiles)
	for _, rule := range rules {
		for _, image := range []policy.Image{byTag(digest), byDigest(digest), imageOf(name+"@"+digest, digest)} {
			switch {
			case rule.Name == "default":
			case rule.Name == scope || image.Reference.Tag() == "":
				expect(t, rule.Verification.Verifier.Verify(t.Context(), image), policy.Accepted, policy.ReasonVerified, "")
			default:
				expect(t, rule.Verification.Verifier.Verify(t.Context(), image), policy.Rejected, policy.ReasonNoMatch, "judged as example.com/acme/app:v1")
			}
		}
	}
}

// As on a node, attachments are looked for only where registries.d says so.
func TestRulesLookForNoAttachments(t *testing.T) {
	t.Parallel()
	key := newECDSA()
	s := newShelf()
	digest := s.image(1)
	s.attached[digest] = []registry.Signature{attach(key, digest, name)}
	p := &config.Policy{Default: asked("", 1, bySigstore(publicPEM(key.Public())))}
	rules, _ := Rules(Options{Source: s, Attached: true}, p, noFiles)
	expect(t, rules[0].Verification.Verifier.Verify(t.Context(), byTag(digest)), policy.Rejected, policy.ReasonNoSignature, "use-sigstore-attachments")
}
