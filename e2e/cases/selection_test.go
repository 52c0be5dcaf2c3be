// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestNamespaceSelector(t *testing.T) {
	t.Parallel()
	r, other := newRoom(t, "e2e.pratique.dev/team=acme"), newRoom(t)
	r.policy(t, "", keyed(r.prefix(), r.key, "  namespaceSelector: {matchLabels: {e2e.pratique.dev/team: acme}}"))
	unsigned := r.unsigned(t, "unsigned:v1")
	r.try(t.Context(), pod("selected", unsigned.ByTag())).refused(t, rejected, "no signature")
	other.try(t.Context(), pod("other", unsigned.ByTag())).admitted(t, unsigned.ByTag())

	// The labels of a namespace may change.
	label := []byte(`{"metadata":{"labels":{"e2e.pratique.dev/team":"acme"}}}`)
	if _, err := r.client.CoreV1().Namespaces().Patch(t.Context(), other.namespace, types.MergePatchType, label, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	other.eventually(t, inForce, "the label counts", func(ctx context.Context) error {
		return mustRefuse(other.try(ctx, pod("other", unsigned.ByTag())), "no signature")
	})
}

// mustRefuse is for polling: an error unless the answer is a denial with the text.
func mustRefuse(a answer, text string) error {
	if a.err == nil {
		return errors.New("admitted")
	}
	if !strings.Contains(a.err.Error(), text) {
		return a.err
	}
	return nil
}

func TestEqualPrefixes(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.policy(t, "-a", keyed(r.prefix(), r.key))
	r.policy(t, "-b", keyed(r.prefix(), r.other))
	one, both := r.signed(t, "one:v1"), r.signed(t, "both:v1")
	r.registry.SignBundle(t, both, r.other)
	got := r.try(t.Context(), pod("one", one.ByTag()))
	got.refused(t, rejected, `Rejected by ImageConfig "`+r.namespace+`-b"`)
	if strings.Contains(got.err.Error(), r.namespace+`-a"`) {
		t.Errorf("the one that accepts is named too: %v", got.err)
	}
	r.try(t.Context(), pod("both", both.ByTag())).admitted(t, both.ByBoth())
}

func TestLongerPrefix(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.policy(t, "", keyed(r.prefix(), r.key))
	r.policy(t, "-lab", fixed(r.prefix()+"lab/", "pass"))
	r.policy(t, "-closed", fixed(r.prefix()+"closed/", "fail"))
	r.policy(t, "-plain", "\n  matchImages: [{prefix: "+r.prefix()+"plain/}]")
	lab, plain, closed := r.unsigned(t, "lab/app:v1"), r.unsigned(t, "plain/app:v1"), r.signed(t, "closed/app:v1")
	r.silent(t, func() { r.try(t.Context(), pod("lab", lab.ByTag())).admitted(t, lab.ByTag()) })
	r.silent(t, func() {
		r.try(t.Context(), pod("closed", closed.ByTag())).refused(t, rejected, "-closed", "refuses every image")
	})
	// It has no verification, so it stands before nobody's.
	r.try(t.Context(), pod("plain", plain.ByTag())).refused(t, rejected, `ImageConfig "`+r.namespace+`"`, "no signature")
}

// TestPrefixIntoTheTag: it adds to the rule of the repository, where the tag
// counts (spec section 2).
func TestPrefixIntoTheTag(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.policy(t, "", keyed(r.prefix(), r.key))
	r.policy(t, "-tag", keyed(r.prefix()+"app:release-", r.other))
	develop, release := r.signed(t, "app:develop"), r.signed(t, "app:release-1")
	r.try(t.Context(), pod("develop", develop.ByTag())).admitted(t, develop.ByBoth())
	r.try(t.Context(), pod("release", release.ByTag())).refused(t, rejected, `ImageConfig "`+r.namespace+`-tag"`)
	// The registry's tag says so, too.
	r.try(t.Context(), pod("claimed", release.ByBoth())).refused(t, rejected, `ImageConfig "`+r.namespace+`-tag"`)
	// A tag beside another digest is only a claim.
	claimed := r.prefix() + "app:release-1@" + develop.Digest
	r.try(t.Context(), pod("claimed", claimed)).admitted(t, claimed)
	// Nobody can say.
	unknown := r.prefix() + "app:release-2@" + develop.Digest
	r.try(t.Context(), pod("unknown", unknown)).refused(t, inconclusive, "whether its tag names this digest cannot be known", "404")
	r.registry.SignLegacy(t, release, r.other)
	r.eventually(t, 2*rejectedFor, "the second signature counts", func(ctx context.Context) error {
		return r.try(ctx, pod("release", release.ByTag())).err
	})
}

// TestPrefixOfADigest: a prefix that names a whole digest replaces all others.
func TestPrefixOfADigest(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	vouched, unsigned := r.unsigned(t, "app:v1"), r.unsigned(t, "app:v2")
	r.policy(t, "", keyed(r.prefix(), r.key))
	r.policy(t, "-digest", fixed(r.prefix()+"app@"+vouched.Digest, "pass"))
	r.try(t.Context(), pod("digest", vouched.ByDigest())).admitted(t, vouched.ByDigest())
	r.try(t.Context(), pod("tag", vouched.ByTag())).admitted(t, vouched.ByBoth())
	r.try(t.Context(), pod("other", unsigned.ByTag())).refused(t, rejected, "no signature")
}

// TestNoLookupOfATag: the validation of what is pinned asks for no tag.
func TestNoLookupOfATag(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed := r.signed(t, "app:v1")
	r.create(t.Context(), pod("pinned", signed.ByBoth())).admitted(t, signed.ByBoth())
	if all := r.requests(); slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, "/manifests/v1 ") }) || len(all) == 0 {
		t.Errorf("requests:\n%s", strings.Join(all, "\n"))
	}
}

// TestRequests counts what an admission costs the registry (spec section 12).
func TestRequests(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		sign func(*room, *testing.T) string
		most int
	}{
		"legacy": {func(r *room, t *testing.T) string { return r.signed(t, "app:v1").ByTag() }, 4},
		"bundle": {func(r *room, t *testing.T) string {
			image := r.unsigned(t, "app:v1")
			r.registry.SignBundle(t, image, r.key)
			return image.ByTag()
		}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoom(t)
			r.enforce(t)
			image := test.sign(r, t)
			// The same image eight times costs no more.
			p := pod("cold", slices.Repeat([]string{image}, 8)...)
			p.Spec.InitContainers = []corev1.Container{{Name: "i", Image: image}}
			if err := r.create(t.Context(), p).err; err != nil {
				t.Fatal(err)
			}
			if cold := r.requests(); len(cold) > test.most {
				t.Errorf("%d requests, want at most %d:\n%s", len(cold), test.most, strings.Join(cold, "\n"))
			}
			r.silent(t, func() {
				if err := r.create(t.Context(), pod("warm", image)).err; err != nil {
					t.Error(err)
				}
			})
		})
	}
}
