// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/sigstore/policy-controller/pkg/apis/glob"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/webhook"
)

// labelled is a policy about objects: their labels say ok.
type labelled struct{}

func (labelled) Judge(_ context.Context, _ string, o *policy.Object) policy.Verdict {
	if set, err := o.Labels(); err != nil || set["ok"] != "yes" {
		return policy.Refused(policy.ReasonPolicy, "not labelled")
	}
	return policy.Verdict{Outcome: policy.Accepted}
}

type acceptsAll struct{}

func (acceptsAll) Verify(context.Context, policy.Image) policy.Verdict {
	return policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonVerified}
}

// looking surrounds requests with a rule that looks at the objects of the
// namespace shop, besides those of the stack.
type looking struct{ webhook.Surroundings }

func (l looking) Namespace(_ context.Context, name string) policy.Namespace {
	return policy.Namespace{Name: name, Labels: labels.Set{"name": name}}
}

func (l looking) Set() *policy.Set {
	exact, err := glob.Compile("**")
	if err != nil {
		panic(err)
	}
	all, err := policy.NewGlob("**", exact)
	if err != nil {
		panic(err)
	}
	return policy.NewSet(append(l.Surroundings.Set().Rules(), &policy.Rule{
		Kind: "ClusterImagePolicy", Name: "looks", Mode: policy.Enforce, Globs: &policy.Globs{Patterns: []policy.Glob{all}, Namespaced: true},
		Namespaces:   labels.SelectorFromSet(labels.Set{"name": "shop"}),
		Verification: &policy.Verification{Verifier: acceptsAll{}, Object: labelled{}},
	}))
}

func surrounded(w webhook.Surroundings) webhook.Surroundings { return looking{w} }

// TestUnchangedImagesOfObjectsThatAreLookedAt: something else of an object than
// its images changes, and a rule looks at that.
func TestUnchangedImagesOfObjectsThatAreLookedAt(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{surrounds: surrounded})
	i := s.images(t)
	// The unsigned one is refused by the stack's own rules wherever it is new.
	const deployment = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"x","generation":1,"labels":{"ok":"%s"},"annotations":{"a":"b"}%s},` +
		`"spec":{"replicas":%d,"template":{"spec":{"containers":[{"name":"c","image":%q}]}}},"status":{"replicas":3}}`
	object := func(ok, more string, replicas int) string {
		return fmt.Sprintf(deployment, ok, more, replicas, i.unsigned.ByBoth())
	}
	replaced := func(in, before, after string) string {
		now := strings.Replace(in, before, after, 1)
		if now == in {
			t.Fatalf("no %q in %s", before, in)
		}
		return now
	}
	const deleted = `,"deletionTimestamp":"2026-01-01T00:00:00Z","finalizers":["a/b"]`
	const refused = "403 spec.template.spec.containers[0].image: IMAGE Rejected by ClusterImagePolicy \"looks\": not labelled"
	for name, c := range map[string]struct {
		namespace, old, object string
		want                   string
	}{
		"it keeps what it must have":                 {"shop", object("yes", "", 3), object("yes", `,"x":1`, 3), "allowed"},
		"it loses it":                                {"shop", object("yes", "", 3), object("no", "", 3), refused},
		"it did not have it before":                  {"shop", object("no", "", 3), object("no", `,"x":1`, 3), refused},
		"in another namespace":                       {"pier", object("yes", "", 3), object("no", "", 3), "allowed"},
		"more replicas":                              {"shop", object("no", "", 3), object("no", "", 4), refused},
		"fewer replicas":                             {"shop", object("no", "", 3), object("no", "", 2), "allowed"},
		"fewer replicas, as noted":                   {"shop", object("no", "", 3), replaced(replaced(replaced(object("no", "", 2), `"replicas":3}`, `"replicas":2}`), `"generation":1`, `"generation":2,"resourceVersion":"7","managedFields":[]`), `"a":"b"`, `"a":"b","deployment.kubernetes.io/desired-replicas":"2","kubectl.kubernetes.io/last-applied-configuration":"{}"`), "allowed"},
		"fewer replicas, and a label":                {"shop", object("yes", "", 3), object("no", "", 2), refused},
		"fewer replicas, and an annotation":          {"shop", object("no", "", 3), replaced(object("no", "", 2), `"a":"b"`, `"a":"c"`), refused},
		"fewer replicas, and the template":           {"shop", object("no", "", 3), replaced(object("no", "", 2), `"spec":{"containers"`, `"spec":{"hostNetwork":true,"containers"`), refused},
		"no replicas any more":                       {"shop", object("no", "", 3), replaced(object("no", "", 0), `"replicas":0,`, ``), refused},
		"replicas that are no number":                {"shop", object("no", "", 3), replaced(object("no", "", 0), `"replicas":0,`, `"replicas":"0",`), refused},
		"its finalizer is removed":                   {"shop", object("no", deleted, 3), replaced(object("no", deleted, 3), `["a/b"]`, `[]`), "allowed"},
		"its labels change while it goes":            {"shop", object("yes", deleted, 3), object("no", deleted, 3), "allowed"},
		"it says that it goes":                       {"shop", object("yes", "", 3), object("no", deleted, 3), refused},
		"a time of deletion that is none":            {"shop", object("yes", `,"deletionTimestamp":null`, 3), object("no", `,"deletionTimestamp":null`, 3), refused},
		"its image changes while it goes":            {"shop", replaced(object("yes", deleted, 3), i.unsigned.ByBoth(), i.signed.ByBoth()), object("yes", deleted, 3), "403 spec.template.spec.containers[0].image: IMAGE Rejected by ImageConfig \"acme\": no signature"},
		"its image changes and it has fewer of them": {"shop", replaced(object("yes", "", 3), i.unsigned.ByBoth(), i.signed.ByBoth()), object("yes", "", 2), "403 spec.template.spec.containers[0].image: IMAGE Rejected by ImageConfig \"acme\": no signature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := message(s.send(t, "/validate", ask{
				group: "apps", version: "v1", kind: "Deployment", namespace: c.namespace, object: c.object, old: c.old,
			}))
			got, _, _ = strings.Cut(strings.Replace(got, i.unsigned.ByBoth(), "IMAGE", 1), "; hint")
			if got != c.want {
				t.Errorf("%s\nwant %s", got, c.want)
			}
		})
	}
}

// TestObjectsThatAreLookedAt is the same when images are new: in Pods, which are
// pinned first.
func TestObjectsThatAreLookedAt(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{surrounds: surrounded})
	i := s.images(t)
	bare := pod(i.signed.ByTag())
	labelled := strings.Replace(bare, `"name":"x"`, `"name":"x","labels":{"ok":"yes"}`, 1)
	if stored, got := s.admit(t, ask{object: labelled}); !got.Allowed || stored == labelled {
		t.Errorf("labelled: %s, stored %s", message(got), stored)
	}
	stored, got := s.admit(t, ask{object: bare})
	if !strings.Contains(message(got), "not labelled") {
		t.Errorf("bare: %s", message(got))
	}
	if got := s.send(t, "/validate", ask{object: bare, namespace: "pier"}); !strings.Contains(message(got), "not pinned") {
		t.Errorf("in another namespace: %s", message(got))
	}
	// What was made before there were rules has a tag to this day.
	if got := s.send(t, "/validate", ask{object: labelled, old: bare}); !got.Allowed {
		t.Errorf("an old Pod: %s", message(got))
	}
	if got := s.send(t, "/validate", ask{object: bare, old: labelled}); !strings.Contains(message(got), "not labelled") {
		t.Errorf("an old Pod that loses its label: %s", message(got))
	}
	if patched := s.send(t, "/mutate", ask{object: bare, old: labelled}); patched.Patch != nil {
		t.Errorf("what is not new is patched: %s", patched.Patch)
	}
	_ = stored
}
