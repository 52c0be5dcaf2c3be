// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// access makes a rule that says how registries are reached.
func access(tb testing.TB, name, prefix string) *policy.Rule {
	tb.Helper()
	return &policy.Rule{
		Kind: "ImageConfig", Name: name, Prefixes: prefixes(tb, prefix),
		Authentication: &policy.Authentication{Credentials: basic(tb, prefix, name), Problem: "secret of " + name + " is missing"},
		Transport:      &policy.Transport{Authorities: []byte(name)},
	}
}

// basic is a Secret with one credential.
func basic(tb testing.TB, host, user string) credential.Config {
	tb.Helper()
	config, err := credential.Parse(fmt.Appendf(nil, `{"auths":{%q:{"username":%q,"password":"s3cret"}}}`, host, user))
	if err != nil {
		tb.Fatal(err)
	}
	return config
}

// seen is what a verifier is told of one place.
type seen struct {
	Repository, Digest, TagPrefix string
	// Way is whose transport and credentials are its own, Users who is shown there.
	Way, Problem, Unusable string
	Users                  string
	Apart                  bool
}

func seenIn(ctx context.Context, t *testing.T, image policy.Image) seen {
	t.Helper()
	s := seen{Repository: image.Reference.Repository(), Digest: image.Digest, TagPrefix: image.TagPrefix, Apart: image.Apart}
	if image.Transport != nil {
		s.Way, s.Unusable = string(image.Transport.Authorities), image.Transport.Unusable
	}
	if image.Authentication != nil {
		s.Problem = image.Authentication.Problem
	}
	ring, err := image.Ring(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var users []string
	for _, auth := range ring.For(ctx, s.Repository) {
		users = append(users, auth.Username)
	}
	s.Users = strings.Join(users, " ")
	return s
}

// places makes a rule that looks in places, and remembers what it is told of them.
func places(t *testing.T, into *[]seen, v policy.Verdict, where ...policy.Place) *policy.Rule {
	t.Helper()
	r := verifying(t, "r", "a.io")
	r.Verification.Places = where
	r.Verification.Verifier = verifier(func(ctx context.Context, image policy.Image) policy.Verdict {
		*into = nil
		for _, there := range image.Elsewhere {
			*into = append(*into, seenIn(ctx, t, there))
		}
		return v
	})
	return r
}

func placeAt(t *testing.T, repository string) policy.Place {
	t.Helper()
	return policy.Place{Repository: parse(t, repository)}
}

// decideOne decides about an image whose request brings a credential for each host.
func decideOne(t *testing.T, ns policy.Namespace, image string, rules ...*policy.Rule) policy.Decision {
	t.Helper()
	source := credential.NewSource(func(context.Context) (credential.Found, error) {
		return credential.Found{Configs: []credential.Config{basic(t, "a.io", "own-a"), basic(t, "s.io", "own-s")}}, nil
	})
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: pointsAt(digestA), Engine: policy.Direct{}}
	return d.Decide(t.Context(), policy.Question{
		Set: policy.NewSet(rules), Namespace: ns, Credentials: source, Images: []policy.Asked{{Reference: parse(t, image)}},
	})[0]
}

// How a place is reached, and with which credentials, is said by the rules for it.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	own, theirs := access(t, "own", "a.io"), access(t, "theirs", "s.io")
	prod := access(t, "prod", "s.io/prod/")
	prod.Namespaces = labels.SelectorFromSet(labels.Set{"env": "prod"})
	prefixed := placeAt(t, "s.io/all")
	prefixed.TagPrefix = "team_"
	prefixed.Credentials = []credential.Config{basic(t, "s.io", "first"), basic(t, "a.io", "never")}
	for name, test := range map[string]struct {
		place policy.Place
		ns    policy.Namespace
		image string
		want  seen
	}{
		"the image's own repository": {
			place: policy.Place{TagPrefix: "team_"},
			want:  seen{Repository: "a.io/x", TagPrefix: "team_", Way: "own", Problem: "secret of own is missing", Users: "own-a own"},
		},
		"its own, by name": {
			place: placeAt(t, "a.io/x"),
			want:  seen{Repository: "a.io/x", Way: "own", Problem: "secret of own is missing", Users: "own-a own"},
		},
		"another host": {
			place: placeAt(t, "s.io/all"),
			want:  seen{Repository: "s.io/all", Way: "theirs", Problem: "secret of theirs is missing", Users: "own-s theirs", Apart: true},
		},
		"another repository of the host": {
			place: placeAt(t, "a.io/signatures"),
			want:  seen{Repository: "a.io/signatures", Way: "own", Problem: "secret of own is missing", Users: "own-a own", Apart: true},
		},
		"what the rules say nothing of": {place: placeAt(t, "u.io/all"), want: seen{Repository: "u.io/all", Apart: true}},
		"credentials of its own": {
			place: prefixed,
			want:  seen{Repository: "s.io/all", TagPrefix: "team_", Way: "theirs", Problem: "secret of theirs is missing", Users: "first own-s theirs", Apart: true},
		},
		"an image by tag": {
			place: placeAt(t, "s.io/all"), image: "a.io/x:1",
			want: seen{Repository: "s.io/all", Way: "theirs", Problem: "secret of theirs is missing", Users: "own-s theirs", Apart: true},
		},
		"a tag and a digest of the place do not count": {
			place: placeAt(t, "s.io/all:x@"+digestB),
			want:  seen{Repository: "s.io/all", Way: "theirs", Problem: "secret of theirs is missing", Users: "own-s theirs", Apart: true},
		},
		"a rule of the namespace": {
			place: placeAt(t, "s.io/prod/all"), ns: policy.Namespace{Name: "n", Labels: labels.Set{"env": "prod"}},
			want: seen{Repository: "s.io/prod/all", Way: "prod", Problem: "secret of prod is missing", Users: "own-s prod", Apart: true},
		},
		"a rule of another namespace": {
			place: placeAt(t, "s.io/prod/all"), ns: policy.Namespace{Name: "n"},
			want: seen{Repository: "s.io/prod/all", Way: "theirs", Problem: "secret of theirs is missing", Users: "own-s theirs", Apart: true},
		},
		"a namespace that cannot be read": {
			place: placeAt(t, "s.io/prod/all"), ns: policy.Namespace{Name: "n", Unreadable: true},
			want: seen{
				Repository: "s.io/prod/all", Users: "own-s", Apart: true,
				Unusable: `the labels of namespace "n" could not be read, so whether the rule applies is unknown, of ImageConfig "prod"`,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []seen
			if test.image == "" {
				test.image = "a.io/x@" + digestA
			}
			decision := decideOne(t, test.ns, test.image, places(t, &got, good, test.place), own, theirs, prod)
			if decision.Outcome() != policy.Accepted {
				t.Fatalf("%+v", decision.Findings)
			}
			test.want.Digest = digestA
			if diff := gocmp.Diff([]seen{test.want}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Places keep their order, and rules without any are told of none.
func TestElsewhereInOrder(t *testing.T) {
	t.Parallel()
	var got []seen
	decideOne(t, policy.Namespace{}, "a.io/x@"+digestA, places(t, &got, good, placeAt(t, "s.io/b"), policy.Place{}, placeAt(t, "s.io/a"), placeAt(t, "s.io/b")))
	var order []string
	for _, s := range got {
		order = append(order, s.Repository)
	}
	if diff := gocmp.Diff([]string{"s.io/b", "a.io/x", "s.io/a", "s.io/b"}, order); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	decideOne(t, policy.Namespace{}, "a.io/x@"+digestA, places(t, &got, good))
	if got != nil {
		t.Errorf("without places: %v", got)
	}
}

// What is wrong with the credentials for a place is told where that may be why.
func TestElsewhereProblems(t *testing.T) {
	t.Parallel()
	own, theirs := access(t, "own", "a.io"), access(t, "theirs", "s.io")
	for name, test := range map[string]struct {
		verdict policy.Verdict
		want    string
	}{
		"not let in":       {policy.Undecided(policy.ReasonUnauthorized, "s.io answered 401"), "s.io answered 401; secret of theirs is missing; secret of own is missing"},
		"nothing there":    {policy.Undecided(policy.ReasonNotFound, "a.io answered 404"), "a.io answered 404; secret of theirs is missing; secret of own is missing"},
		"something else":   {bad, "no signature"},
		"it does not hold": {down, "a.io cannot be reached"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []seen
			decision := decideOne(t, policy.Namespace{}, "a.io/x@"+digestA, places(t, &got, test.verdict, placeAt(t, "s.io/all"), policy.Place{}), own, theirs)
			if got := decision.Findings[0].Verdict.Message; got != test.want {
				t.Errorf("message %q, want %q", got, test.want)
			}
		})
	}
}
