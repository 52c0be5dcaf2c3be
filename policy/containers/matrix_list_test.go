// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/containers/containerstest"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// All requirements of a list must hold, each by a signature of its own.
func TestLists(t *testing.T) {
	t.Parallel()
	s, team, audit := newSite(t), newKey(t), newKey(t)
	sigstore, key := containerstest.NewSigstore(t), containerstest.NewKey(t)
	push := func(name string, by ...*containerstest.GPG) registrytest.Image {
		image := s.registry.PushImage(t, name+":v1")
		for _, each := range by {
			s.simple(t, image, each, image.ByTag())
		}
		return image
	}
	attach := func(image registrytest.Image) registrytest.Image {
		sigstore.Sign(key, containerstest.Of(image, image.Name()), false).Push(t, s.registry, image)
		return image
	}
	byTeam, byAudit := signedBy(team.Public(t), nil), signedBy(audit.Public(t), nil)
	attached := sigstoreSigned(key.PEM(t), requirement{"type": "matchRepository"})
	for name, row := range map[string]struct {
		image registrytest.Image
		list  []requirement
		want  want
	}{
		"both keys, both signed":            {push("list/a", team, audit), []requirement{byTeam, byAudit}, accepted},
		"both keys, first signed":           {push("list/b", team), []requirement{byTeam, byAudit}, noMatch("key")},
		"both keys, second signed":          {push("list/c", audit), []requirement{byTeam, byAudit}, noMatch("key")},
		"one key, the other signed first":   {push("list/d", audit, team), []requirement{byTeam}, accepted},
		"both sorts, both signed":           {attach(push("list/e", team)), []requirement{byTeam, attached}, accepted},
		"both sorts, attachment only":       {attach(push("list/f")), []requirement{byTeam, attached}, unsigned},
		"both sorts, simple signature only": {push("list/g", team), []requirement{attached, byTeam}, unsigned},
		// "Note that other requirements in the array still apply."
		"anything and a key":        {push("list/h", team), []requirement{acceptAnything, byTeam}, accepted},
		"anything and a key, none":  {push("list/i"), []requirement{acceptAnything, byTeam}, unsigned},
		"a key and anything, none":  {push("list/j"), []requirement{byTeam, acceptAnything}, unsigned},
		"reject and anything":       {push("list/k"), []requirement{rejectAll, acceptAnything}, want{policy.Rejected, policy.ReasonStatic, ""}},
		"anything and reject":       {push("list/l"), []requirement{acceptAnything, rejectAll}, want{policy.Rejected, policy.ReasonStatic, ""}},
		"a key and reject":          {push("list/m", team), []requirement{byTeam, rejectAll}, want{policy.Rejected, "", ""}},
		"anything twice":            {push("list/n"), []requirement{acceptAnything, acceptAnything}, want{policy.Accepted, policy.ReasonStatic, ""}},
		"two keys in one keyring":   {push("list/o", audit), []requirement{signedBy(slices.Concat(team.Public(t), audit.Public(t)), nil)}, accepted},
		"two armored, first signed": {push("list/p", team), []requirement{signedBy(slices.Concat(team.Armored(t), audit.Armored(t)), nil)}, accepted},
		// The library alone would read the first one only.
		"two armored, second signed":  {push("list/q", audit), []requirement{signedBy(slices.Concat(team.Armored(t), audit.Armored(t)), nil)}, accepted},
		"two armored, another signed": {push("list/r", newKey(t)), []requirement{signedBy(slices.Concat(team.Armored(t), audit.Armored(t)), nil)}, noMatch("key")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			row.want.check(t, s.judge(t, row.image.ByTag(), row.list...))
		})
	}
}

// Keys of every algorithm count, as gpg makes them.
func TestAlgorithms(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for name, options := range map[string]containerstest.KeyOptions{
		"rsa":    {Algorithm: containerstest.RSA},
		"nist":   {Algorithm: containerstest.NIST},
		"ed":     {Algorithm: containerstest.Ed25519},
		"subkey": {Algorithm: containerstest.NIST, Subkey: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := containerstest.NewGPG(t, options)
			image := s.registry.PushImage(t, "algorithm/"+name+":v1")
			s.simple(t, image, key, image.ByTag())
			accepted.check(t, s.judge(t, image.ByTag(), signedBy(key.Public(t), nil)))
			accepted.check(t, s.judge(t, image.ByTag(), signedBy(key.Armored(t), nil)))
		})
	}
}

// What cosign's own code writes counts for those identities that look at no tag.
func TestCosign(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	image := s.registry.PushImage(t, "acme/app:v1")
	s.registry.SignLegacy(t, image, key, "env=prod")
	for name, row := range map[string]struct {
		identity requirement
		want     want
	}{
		"matchRepository":        {requirement{"type": "matchRepository"}, accepted},
		"exactRepository":        {requirement{"type": "exactRepository", "dockerRepository": image.Name()}, accepted},
		"another repository":     {requirement{"type": "exactRepository", "dockerRepository": image.Name() + "-other"}, otherName},
		"omitted":                {nil, otherName},
		"matchRepoDigestOrExact": {requirement{"type": "matchRepoDigestOrExact"}, otherName},
		"remapIdentity":          {requirement{"type": "remapIdentity", "prefix": image.Registry, "signedPrefix": image.Registry}, otherName},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, written := range []string{image.ByTag(), image.ByDigest(), image.ByBoth()} {
				row.want.check(t, s.judge(t, written, sigstoreSigned([]byte(key.PublicPEM()), row.identity)))
			}
		})
	}
}

// The message says what of an index verifies, or does not.
func TestIndexSays(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	push := func(name string) registrytest.Index { return s.registry.PushIndex(t, name+":v1") }
	sign := func(image registrytest.Image, as registrytest.Image) { s.simple(t, image, key, as.ByTag()) }
	itself, each, one, none := push("says/itself"), push("says/each"), push("says/one"), push("says/none")
	// What a build says of an image is in the index too, and never runs.
	described := s.registry.PushIndex(t, "says/described:v1", "linux/amd64", "unknown/unknown")
	sign(described.Manifests[0], described.Image)
	only := s.registry.PushIndex(t, "says/only:v1", "unknown/unknown")
	sign(only.Manifests[0], only.Image)
	sign(itself.Image, itself.Image)
	sign(each.Manifests[0], each.Image)
	sign(each.Manifests[1], each.Image)
	sign(one.Manifests[1], one.Image)
	for name, row := range map[string]struct {
		index registrytest.Index
		want  want
	}{
		"itself":    {itself, want{policy.Accepted, policy.ReasonVerified, "the index itself is signed"}},
		"each":      {each, want{policy.Accepted, policy.ReasonVerified, "each of its 2 platform manifests is signed"}},
		"one":       {one, want{policy.Rejected, policy.ReasonNoSignature, "its platform linux/amd64: "}},
		"none":      {none, want{policy.Rejected, policy.ReasonNoSignature, "its platform linux/amd64, and 1 more: "}},
		"described": {described, want{policy.Accepted, policy.ReasonVerified, "each of its 1 platform manifests is signed"}},
		"only":      {only, unsigned},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, written := range []string{row.index.ByTag(), row.index.ByDigest()} {
				row.want.check(t, s.judge(t, written, signedBy(key.Public(t), nil)))
			}
		})
	}
}

// An ImageConfig and a policy.json that are about the same image must both
// accept, and each says so itself.
func TestBothEngines(t *testing.T) {
	t.Parallel()
	s, gpgKey := newSite(t), newKey(t)
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	verifier, err := cosign.New(cosign.Options{Source: s.client}, []cosign.Authority{
		{Name: "release", Keys: [][]byte{[]byte(key.PublicPEM())}},
	})
	if err != nil {
		t.Fatal(err)
	}
	prefixes, err := reference.ParsePrefix(s.registry.Host() + "/acme")
	if err != nil {
		t.Fatal(err)
	}
	config := &policy.Rule{
		Kind: "ImageConfig", Name: "acme", Mode: policy.Enforce, Prefixes: prefixes,
		Verification: &policy.Verification{Engine: cosign.Engine, Verifier: verifier},
	}
	file := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, lists{
		s.registry.Host(): {signedBy(gpgKey.Public(t), nil)},
	})})
	push := func(name string, simple, attached bool) registrytest.Image {
		image := s.registry.PushImage(t, name+":v1")
		if simple {
			s.simple(t, image, gpgKey, image.ByTag())
		}
		if attached {
			s.registry.SignLegacy(t, image, key)
		}
		return image
	}
	for name, row := range map[string]struct {
		image            registrytest.Image
		simple, attached policy.Outcome
		overall          policy.Outcome
	}{
		"both":     {push("acme/both", true, true), policy.Accepted, policy.Accepted, policy.Accepted},
		"simple":   {push("acme/simple", true, false), policy.Accepted, policy.Rejected, policy.Rejected},
		"attached": {push("acme/attached", false, true), policy.Rejected, policy.Accepted, policy.Rejected},
		"neither":  {push("acme/neither", false, false), policy.Rejected, policy.Rejected, policy.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, written := range []string{row.image.ByTag(), row.image.ByDigest(), row.image.ByBoth()} {
				got := s.decide(t, append(slices.Clone(file), config), written)
				if got.Outcome() != row.overall || len(got.Findings) != 2 {
					t.Fatalf("%s: decision = %s of %d findings, want %s of 2", written, got.Outcome(), len(got.Findings), row.overall)
				}
				for _, f := range got.Findings {
					want := row.attached
					if f.Rule.Kind == containers.Kind {
						want = row.simple
						if f.Rule.Verification.Engine != containers.Engine || f.Rule.Name != s.registry.Host() {
							t.Errorf("rule = %s %q of engine %q", f.Rule.Kind, f.Rule.Name, f.Rule.Verification.Engine)
						}
					}
					if f.Verdict.Outcome != want {
						t.Errorf("%s: %s %q = %s: %s, want %s", written, f.Rule.Kind, f.Rule.Name, f.Verdict.Outcome, f.Verdict.Message, want)
					}
				}
			}
		})
	}
	// Outside of the ImageConfig's prefix the policy is alone.
	alone := push("other/app", true, false)
	accepted.check(t, s.decide(t, append(slices.Clone(file), config), alone.ByTag()))
}

// An ImageConfig's requirements are for what it selects. Attachments are looked
// for then, whether registries.d speaks of them or not.
func TestImageConfig(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sigstore, key := containerstest.NewSigstore(t), containerstest.NewKey(t)
	image, bare := s.registry.PushImage(t, "acme/app:v1"), s.registry.PushImage(t, "acme/bare:v1")
	moved := s.registry.PushImage(t, "acme/app:v2")
	for _, each := range []registrytest.Image{image, moved} {
		sigstore.Sign(key, containerstest.Of(each, each.ByTag()), false).Push(t, s.registry, each)
	}
	prefixes, err := reference.ParsePrefix(s.registry.Host() + "/acme")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(requirement{"type": "sigstoreSigned", "keyPath": "secret://keys/release"})
	if err != nil {
		t.Fatal(err)
	}
	read := files{"secret://keys/release": key.PEM(t)}.read
	verification, err := containers.Compile(containers.Options{Source: s.client, Attached: true}, []json.RawMessage{raw}, read)
	if err != nil {
		t.Fatal(err)
	}
	rules := []*policy.Rule{{
		Kind: "ImageConfig", Name: "acme", Mode: policy.Enforce, Prefixes: prefixes, Verification: verification,
	}}
	for written, w := range map[string]want{
		image.ByTag(): accepted, image.ByDigest(): accepted, image.ByBoth(): accepted,
		// As v1 it was not signed; but v1 is not what it is called here, and so is judged
		// by its digest.
		image.ByTag() + "@" + moved.Digest: accepted,
		bare.ByTag():                       unsigned, bare.ByDigest(): unsigned,
	} {
		w.check(t, s.decide(t, rules, written))
	}
	s.registry.Tag(t, "acme/app", "v1", moved.Digest)
	otherName.check(t, s.decide(t, rules, image.ByTag()))
	otherName.check(t, s.decide(t, rules, image.ByTag()+"@"+moved.Digest))
	if len(s.lookaside.Requests()) > 0 {
		t.Error("a lookaside server was asked that nothing names")
	}
}

// Images that a policy is not about need no network, and are told apart: what the
// default lets in is not covered.
func TestStatic(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	host := s.registry.Host()
	rules := s.rules(t, terms{policy: policyText(t, []requirement{acceptAnything}, lists{
		host + "/open": {acceptAnything}, host + "/closed": {rejectAll},
	})})
	for written, w := range map[string]want{
		host + "/open/app:v1":   {policy.Accepted, policy.ReasonStatic, ""},
		host + "/closed/app:v1": {policy.Rejected, policy.ReasonStatic, "reject"},
		host + "/app:v1":        {policy.Skipped, "", ""},
	} {
		got := s.decide(t, rules, written)
		w.check(t, got)
		if got.Digest != "" {
			t.Errorf("%s was resolved", written)
		}
	}
	if asked := append(s.registry.Requests(), s.lookaside.Requests()...); len(asked) > 0 {
		t.Errorf("requests = %v, want none", asked)
	}
	for _, rule := range rules {
		if strings.HasPrefix(rule.Name, host) != (rule.Scope != nil && rule.Scope.Name != "") || rule.Kind != containers.Kind {
			t.Errorf("rule = %s %q with scope %v", rule.Kind, rule.Name, rule.Scope)
		}
	}
}
