// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/containerstest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// newKey makes a key of the sort that is quickest to make.
func newKey(t *testing.T) *containerstest.GPG {
	t.Helper()
	return containerstest.NewGPG(t, containerstest.KeyOptions{})
}

// pinned is a reference after the mutating webhook: with the digest that its tag
// names now.
func (s *site) pinned(t *testing.T, rules []*policy.Rule, written string) string {
	t.Helper()
	q := question(t, rules, written)
	digest := s.decider().Pin(t.Context(), q)[0].Digest
	if digest == "" {
		t.Fatalf("%s was not pinned", written)
	}
	return q.Images[0].Reference.Pin(digest).Written()
}

// validate decides as the validating webhook does about a Pod that is pinned.
func (s *site) validate(t *testing.T, rules []*policy.Rule, written string) policy.Decision {
	t.Helper()
	q := question(t, rules, written)
	q.Pinned = true
	return s.decider().Decide(t.Context(), q)[0]
}

// Whoever can write tags, but not sign, moves v2 back to the image that was
// signed as v1. By its tag the default identity rule refuses it, and pinning
// changes nothing of that.
func TestTagMovedBack(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	first := s.registry.PushImage(t, "acme/app:v1")
	second := s.registry.PushImage(t, "acme/app:v2")
	s.simple(t, first, key, first.ByTag())
	s.simple(t, second, key, second.ByTag())
	rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, lists{
		first.Name(): {signedBy(key.Public(t), nil)},
	})})

	pinned := s.pinned(t, rules, second.ByTag())
	accepted.check(t, s.decide(t, rules, second.ByTag()))
	accepted.check(t, s.validate(t, rules, pinned))

	s.registry.Tag(t, "acme/app", "v2", first.Digest)
	refused := otherName
	refused.check(t, s.decide(t, rules, second.ByTag()))
	moved := s.pinned(t, rules, second.ByTag())
	if want := first.Name() + ":v2@" + first.Digest; moved != want {
		t.Errorf("pinned = %s, want %s", moved, want)
	}
	refused.check(t, s.validate(t, rules, moved))
	// Who asks for the digest alone has asked for that image, whatever it is called.
	accepted.check(t, s.decide(t, rules, first.ByDigest()))
	// What was pinned before is the same image as before.
	accepted.check(t, s.validate(t, rules, pinned))
}

// A rule that a trusted tag is under does not let in what is written beside it.
func TestTrustedTagBesideAnotherDigest(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	trusted := s.registry.PushImage(t, "acme/app:trusted")
	evil := s.registry.PushImage(t, "acme/app:evil")
	s.simple(t, trusted, key, trusted.ByTag())
	written := trusted.ByTag() + "@" + evil.Digest
	for name, row := range map[string]struct {
		scopes lists
		want   want
		own    want // of the trusted tag beside its own digest
	}{
		"a tag that needs no signature": {
			lists{trusted.ByTag(): {acceptAnything}},
			want{policy.Rejected, policy.ReasonStatic, ""}, want{policy.Accepted, "", ""},
		},
		"a tag that needs one": {
			lists{trusted.ByTag(): {signedBy(key.Public(t), requirement{"type": "matchExact"})}},
			want{policy.Rejected, policy.ReasonStatic, ""}, accepted,
		},
		"a repository that needs one": {
			lists{trusted.Name(): {signedBy(key.Public(t), nil)}},
			unsigned, accepted,
		},
		"a weak tag in a strict repository": {
			lists{trusted.Name(): {signedBy(key.Public(t), nil)}, trusted.ByTag(): {acceptAnything}},
			unsigned, want{policy.Accepted, "", ""},
		},
		// The other way round the stricter rule of the tag must not be dodged by what is
		// written beside it: here both are the same image.
		"a strict tag in a weak repository": {
			lists{trusted.Name(): {acceptAnything}, evil.ByTag(): {rejectAll}},
			want{policy.Accepted, "", ""}, want{policy.Accepted, "", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, row.scopes)})
			row.want.check(t, s.decide(t, rules, written))
			row.want.check(t, s.validate(t, rules, written))
			row.own.check(t, s.decide(t, rules, trusted.ByBoth()))
		})
	}
	// A tag that nobody has yet makes it unknown which of the rules applies.
	rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, lists{trusted.Name() + ":new": {acceptAnything}})})
	want{policy.Inconclusive, policy.ReasonNotFound, "whether its tag names this digest"}.
		check(t, s.decide(t, rules, trusted.Name()+":new@"+evil.Digest))
}

// What is right for a tag is right for it after the Pod was pinned.
func TestPinnedTag(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	image := s.registry.PushImage(t, "acme/app:v1")
	s.simple(t, image, key, image.ByTag())
	exact := signedBy(key.Public(t), requirement{"type": "matchExact"})
	for name, scopes := range map[string]lists{
		"tag scope":               {image.ByTag(): {signedBy(key.Public(t), nil)}},
		"tag scope, matchExact":   {image.ByTag(): {exact}},
		"matchExact":              {image.Name(): {exact}},
		"stricter repository":     {image.ByTag(): {exact}, image.Name(): {rejectAll}},
		"stricter host":           {image.ByTag(): {exact}, image.Registry: {rejectAll}},
		"another tag is rejected": {image.Name(): {exact}, image.Name() + ":v2": {rejectAll}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, scopes)})
			accepted.check(t, s.decide(t, rules, image.ByTag()))
			pinned := s.pinned(t, rules, image.ByTag())
			if pinned != image.ByBoth() {
				t.Errorf("pinned = %s, want %s", pinned, image.ByBoth())
			}
			accepted.check(t, s.validate(t, rules, pinned))
			// By the digest alone none of them holds: no tag is claimed.
			want{policy.Rejected, "", ""}.check(t, s.validate(t, rules, image.ByDigest()))
		})
	}
}

// A scope that names a digest must accept besides what its tag is in, and is the
// only one that counts for the digest alone.
func TestDigestScope(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	team, audit := newKey(t), newKey(t)
	push := func(name string, by ...*containerstest.GPG) registrytest.Image {
		image := s.registry.PushImage(t, name+":v1")
		for _, key := range by {
			s.simple(t, image, key, image.ByTag())
		}
		return image
	}
	refused := noMatch("key")
	for name, row := range map[string]struct {
		image         registrytest.Image
		tag, byDigest want
	}{
		"both":    {push("acme/both", team, audit), accepted, accepted},
		"team":    {push("acme/team", team), refused, refused},
		"audit":   {push("acme/audit", audit), refused, accepted},
		"neither": {push("acme/neither"), unsigned, unsigned},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, lists{
				row.image.Name():     {signedBy(team.Public(t), nil)},
				row.image.ByDigest(): {signedBy(audit.Public(t), nil)},
			})})
			row.tag.check(t, s.decide(t, rules, row.image.ByTag()))
			row.tag.check(t, s.decide(t, rules, row.image.ByBoth()))
			row.byDigest.check(t, s.decide(t, rules, row.image.ByDigest()))
			// Beside a tag that names another image the digest is alone.
			other := s.registry.PushImage(t, row.image.Repository+":other")
			row.byDigest.check(t, s.decide(t, rules, other.ByTag()+"@"+row.image.Digest))
		})
	}
	// It is found for a tag that names the digest, in a repository that no scope is about.
	image := push("acme/vulnerable", team)
	rules := s.rules(t, terms{policy: policyText(t, []requirement{acceptAnything}, lists{image.ByDigest(): {rejectAll}})})
	for _, written := range []string{image.ByTag(), image.ByBoth(), image.ByDigest(), image.Name() + ":none@" + image.Digest} {
		want{policy.Rejected, policy.ReasonStatic, ""}.check(t, s.decide(t, rules, written))
	}
}

// Other ways to write a name do not lead out of a scope, and neither do other
// ways to write a scope.
func TestScopeDodges(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for scope, written := range map[string][]string{
		"registry.example.com/acme": {
			"registry.example.com/acme/app:v1", "REGISTRY.example.com/acme/app:v1", "Registry.Example.Com/acme/app",
			"registry.example.com:443/acme/app:v1", "REGISTRY.EXAMPLE.COM:443/acme/app:v1", "registry.example.com/acme:v1",
			"registry.example.com/acme/app:v1@sha256:0000000000000000000000000000000000000000000000000000000000000000",
			"registry.example.com/acme/app@sha256:0000000000000000000000000000000000000000000000000000000000000000",
		},
		"registry.example.com":       {"registry.example.com:443/x", "REGISTRY.example.com/x", "registry.example.com/a/b/c/d"},
		"*.example.com":              {"registry.example.com:443/x", "REGISTRY.EXAMPLE.com:5000/x", "a.b.example.com/x"},
		"registry.example.com/app:1": {"registry.example.com/app:1", "REGISTRY.example.com:443/app:1"},
		"docker.io/library/busybox": {
			"busybox", "busybox:1", "library/busybox", "docker.io/busybox", "docker.io/library/busybox:1",
			"index.docker.io/library/busybox", "index.docker.io/busybox", "registry-1.docker.io/library/busybox",
			"INDEX.DOCKER.IO/library/busybox", "docker.io:443/library/busybox",
		},
		"docker.io/acme":                   {"acme/app", "index.docker.io/acme/app:v1", "registry-1.docker.io/acme/app"},
		"docker.io/library/busybox:latest": {"busybox", "index.docker.io/library/busybox:latest"},
		"REGISTRY.example.com:443/acme":    {"registry.example.com/acme/app", "registry.example.com:443/acme/app:v1"},
		"index.docker.io/acme":             {"acme/app", "docker.io/acme/app:v1"},
		"*.io":                             {"busybox", "index.docker.io/acme/app", "quay.io/acme/app"},
	} {
		t.Run(scope, func(t *testing.T) {
			t.Parallel()
			rules := s.rules(t, terms{policy: policyText(t, []requirement{acceptAnything}, lists{scope: {rejectAll}})})
			for _, w := range written {
				want{policy.Rejected, policy.ReasonStatic, ""}.check(t, s.decide(t, rules, w))
			}
			// These are in none of them.
			for _, w := range []string{
				"registry.example.com.evil.test/acme/app", "registry.example.org/acme/app:1", "example.com/app:1", "localhost/busybox",
			} {
				want{policy.Skipped, "", ""}.check(t, s.decide(t, rules, w))
			}
		})
	}
}

// The same holds for what signatures claim: an image that is written otherwise is
// the one that was signed.
func TestIdentityWrittenOtherwise(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	image := s.registry.PushImage(t, "acme/app:latest")
	s.simple(t, image, key, image.Name()+":latest")
	for _, written := range []string{image.Name(), image.ByTag(), image.ByTag() + "@" + image.Digest} {
		accepted.check(t, s.judge(t, written, signedBy(key.Public(t), requirement{"type": "matchExact"})))
	}
}
