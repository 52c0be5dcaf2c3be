// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/containerstest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Where something is missing or does not answer no image gets in, however well
// it is signed, and the message says what to mend.
func TestDown(t *testing.T) {
	t.Parallel()
	type scene struct {
		*site
		key   *containerstest.GPG
		image registrytest.Image
	}
	stored := func(s *scene, n int) registrytest.Match {
		return registrytest.Stored(s.image.Repository, s.image.Digest, n)
	}
	at := func(s *scene, name string) string { return name + s.lookaside.Host() }
	for name, row := range map[string]struct {
		change func(*scene)
		want   want
		says   func(*scene) string // in the message besides; may be nil
	}{
		"nothing": {func(*scene) {}, accepted, nil},
		"lookaside down": {
			func(s *scene) { s.lookaside.Close() }, want{policy.Inconclusive, policy.ReasonUnreachable, "lookaside"},
			func(s *scene) string { return at(s, "") },
		},
		"lookaside fails": {
			func(s *scene) {
				s.lookaside.Fault(registrytest.Any(), registrytest.Status(http.StatusInternalServerError))
			},
			want{policy.Inconclusive, policy.ReasonRegistryError, "500"}, func(s *scene) string { return at(s, "") },
		},
		"lookaside forbids": {
			func(s *scene) { s.lookaside.Fault(registrytest.Any(), registrytest.Status(http.StatusForbidden)) },
			want{policy.Inconclusive, "", "403"}, nil,
		},
		"lookaside is limited": {
			func(s *scene) { s.lookaside.Fault(registrytest.Any(), registrytest.Status(http.StatusTooManyRequests)) },
			want{policy.Inconclusive, policy.ReasonRateLimited, "429"}, nil,
		},
		"lookaside has nothing": {
			func(s *scene) { s.lookaside.Fault(registrytest.Any(), registrytest.Status(http.StatusNotFound)) },
			unsigned, nil,
		},
		"lookaside resets": {
			func(s *scene) { s.lookaside.Fault(stored(s, 1), registrytest.ResetMidBody()) }, want{policy.Inconclusive, "", ""}, nil,
		},
		"lookaside is endless": {
			func(s *scene) { s.lookaside.Fault(stored(s, 1), registrytest.Endless()) },
			want{policy.Inconclusive, policy.ReasonLimit, ""}, nil,
		},
		// The first signature is good, and one that verifies is enough.
		"second signature fails": {
			func(s *scene) { s.lookaside.Fault(stored(s, 2), registrytest.Status(http.StatusInternalServerError)) },
			accepted, nil,
		},
		"registry fails": {
			func(s *scene) {
				s.registry.Fault(registrytest.Any(), registrytest.Status(http.StatusInternalServerError))
			},
			want{policy.Inconclusive, policy.ReasonRegistryError, "500"}, nil,
		},
		"registry down": {func(s *scene) { s.registry.Close() }, want{policy.Inconclusive, policy.ReasonUnreachable, ""}, nil},
		"image gone": {
			func(s *scene) { s.registry.Delete(t, s.image) }, want{policy.Inconclusive, policy.ReasonNotFound, ""}, nil,
		},
		"another body": {
			func(s *scene) {
				s.registry.Fault(registrytest.Manifest(s.image.ByDigest()).And(registrytest.Method(http.MethodGet)),
					registrytest.Body("application/vnd.oci.image.manifest.v1+json", `{"schemaVersion":2}`))
			},
			want{policy.Rejected, policy.ReasonDigestMismatch, ""}, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &scene{site: newSite(t), key: newKey(t)}
			s.image = s.registry.PushImage(t, "acme/app:v1")
			s.simple(t, s.image, s.key, s.image.ByTag())
			rules := s.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, lists{
				s.image.Name(): {signedBy(s.key.Public(t), nil)},
			})})
			row.change(s)
			for _, written := range []string{s.image.ByTag(), s.image.ByDigest()} {
				if name == "another body" && written == s.image.ByTag() {
					continue // the fault is of the digest
				}
				got := s.decide(t, rules, written)
				row.want.check(t, got)
				if row.says != nil && !strings.Contains(got.Findings[0].Verdict.Message, row.says(s)) {
					t.Errorf("message = %q, want …%s…", got.Findings[0].Verdict.Message, row.says(s))
				}
			}
		})
	}
}

// Attachments that cannot be read leave it unknown whether there is one; those
// that are not looked at do not matter.
func TestAttachmentsDown(t *testing.T) {
	t.Parallel()
	s, gpgKey := newSite(t), newKey(t)
	sigstore, key := containerstest.NewSigstore(t), containerstest.NewKey(t)
	image := s.registry.PushImage(t, "acme/app:v1")
	s.simple(t, image, gpgKey, image.ByTag())
	sigstore.Sign(key, containerstest.Of(image, image.ByTag()), false).Push(t, s.registry, image)
	attached, simple := sigstoreSigned(key.PEM(t), nil), signedBy(gpgKey.Public(t), nil)
	accepted.check(t, s.judge(t, image.ByTag(), attached))
	s.registry.Fault(registrytest.Signature(image), registrytest.Status(http.StatusInternalServerError))
	down := want{policy.Inconclusive, policy.ReasonRegistryError, "500"}
	down.check(t, s.judge(t, image.ByTag(), attached))
	down.check(t, s.judge(t, image.ByTag(), simple, attached))
	accepted.check(t, s.judge(t, image.ByTag(), simple))
}

// Keys that cannot be read hold back what they are for, and nothing else.
func TestKeysDown(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	image := s.registry.PushImage(t, "acme/app:v1")
	other := s.registry.PushImage(t, "other/app:v1")
	s.simple(t, image, key, image.ByTag())
	s.simple(t, other, key, other.ByTag())
	sigstore := containerstest.NewSigstore(t)
	const file = "/etc/keys/release"
	byFile := requirement{"type": "signedBy", "keyType": "GPGKeys", "keyPath": file}
	attached := requirement{"type": "sigstoreSigned", "keyPath": file}
	all := files{"/etc/keys/good.gpg": key.Public(t), "/etc/keys/good.pub": containerstest.NewKey(t).PEM(t)}
	for name, row := range map[string]struct {
		requirement requirement
		files       files
		says        string
	}{
		"missing":                {byFile, all, file},
		"empty":                  {byFile, all.with(file, nil), file},
		"blank":                  {byFile, all.with(file, []byte("\n\n")), file},
		"no key":                 {byFile, all.with(file, []byte("this is no key")), file},
		"a cosign key":           {byFile, all.with(file, containerstest.NewKey(t).PEM(t)), file},
		"armor that is cut":      {byFile, all.with(file, key.Armored(t)[:200]), file},
		"a key that is cut":      {byFile, all.with(file, key.Public(t)[:40]), file},
		"second armor is cut":    {byFile, all.with(file, append(key.Armored(t), newKey(t).Armored(t)[:200]...)), file},
		"one of several missing": {requirement{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []string{"/etc/keys/good.gpg", file}}, all, file},
		"one of several empty":   {requirement{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []string{"/etc/keys/good.gpg", file}}, all.with(file, nil), file},
		"empty data":             {signedBy([]byte("no keyring"), nil), all, "keyData"},
		"sigstore missing":       {attached, all, file},
		"sigstore empty":         {attached, all.with(file, nil), file},
		"sigstore by GPG":        {attached, all.with(file, key.Armored(t)), file},
		"sigstore of several":    {requirement{"type": "sigstoreSigned", "keyPaths": []string{"/etc/keys/good.pub", file}}, all, file},
		"rekor missing":          {requirement{"type": "sigstoreSigned", "keyPath": "/etc/keys/good.pub", "rekorPublicKeyPath": file}, all, file},
		"rekor by GPG": {
			requirement{"type": "sigstoreSigned", "keyPath": "/etc/keys/good.pub", "rekorPublicKeyPath": file},
			all.with(file, key.Armored(t)), file,
		},
		"fulcio missing": {requirement{
			"type": "sigstoreSigned", "rekorPublicKeyData": sigstore.Rekor(),
			"fulcio": requirement{"caPath": file, "oidcIssuer": issuer, "subjectEmail": email},
		}, all, file},
		"fulcio without certificates": {requirement{
			"type": "sigstoreSigned", "rekorPublicKeyData": sigstore.Rekor(),
			"fulcio": requirement{"caPath": file, "oidcIssuer": issuer, "subjectEmail": email},
		}, all.with(file, []byte("none")), file},
		"pki missing": {requirement{
			"type": "sigstoreSigned", "pki": requirement{"caRootsPath": file, "subjectEmail": email},
		}, all, file},
		"pki between missing": {requirement{
			"type": "sigstoreSigned", "pki": requirement{"caRootsData": sigstore.CA(), "caIntermediatesPath": file, "subjectEmail": email},
		}, all, file},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := s.rules(t, terms{files: row.files, problems: true, policy: policyText(t, []requirement{rejectAll}, lists{
				image.Name(): {row.requirement}, other.Name(): {signedBy(key.Public(t), nil)},
			})})
			for _, written := range []string{image.ByTag(), image.ByDigest(), image.ByBoth()} {
				want{policy.Inconclusive, policy.ReasonNotReady, row.says}.check(t, s.decide(t, rules, written))
			}
			accepted.check(t, s.decide(t, rules, other.ByTag()))
		})
	}
	if _, err := all.read(file); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want that it does not exist", err)
	}
}

// Each key of registries.d is looked up by itself: what a repository does not say
// is what its namespace or the default says.
func TestPerFieldFallback(t *testing.T) {
	t.Parallel()
	s, gpgKey := newSite(t), newKey(t)
	empty := registrytest.NewLookaside(t)
	sigstore, key := containerstest.NewSigstore(t), containerstest.NewKey(t)
	image := s.registry.PushImage(t, "acme/team/app:v1")
	s.simple(t, image, gpgKey, image.ByTag())
	sigstore.Sign(key, containerstest.Of(image, image.ByTag()), false).Push(t, s.registry, image)
	attached, simple := sigstoreSigned(key.PEM(t), nil), signedBy(gpgKey.Public(t), nil)
	host := s.registry.Host()
	byDefault := "default-docker:\n  lookaside: " + s.lookaside.URL() + "\n"
	scope := func(name string, lines ...string) string {
		return fmt.Sprintf("  %s:\n    %s\n", name, strings.Join(lines, "\n    "))
	}
	const use, do, docker = "use-sigstore-attachments: true", "use-sigstore-attachments: false", "docker:\n"
	lookaside, other := "lookaside: "+s.lookaside.URL(), "lookaside: "+empty.URL()
	for name, row := range map[string]struct {
		text             string
		simple, attached bool
	}{
		"default only":             {byDefault, true, false},
		"attachments of the image": {byDefault + docker + scope(image.Name(), use), true, true},
		"attachments of the host":  {byDefault + docker + scope(host, use), true, true},
		"both above":               {docker + scope(host, lookaside) + scope(host+"/acme", use), true, true},
		"nearer lookaside":         {byDefault + docker + scope(host+"/acme", other, use), false, true},
		"nearest lookaside":        {docker + scope(host+"/acme", other, use) + scope(image.Name(), lookaside), true, true},
		"nearer no attachments":    {docker + scope(host, lookaside, use) + scope(host+"/acme/team", do), true, false},
		"another repository":       {docker + scope(host+"/acme/te", lookaside, use), false, false},
		"another host":             {docker + scope("example.com", lookaside, use), false, false},
		"the tag":                  {docker + scope(image.ByTag(), lookaside, use), true, true},
		"another tag":              {docker + scope(image.Name()+":v2", lookaside, use), false, false},
		"an old name":              {"default-docker:\n  sigstore: " + s.lookaside.URL() + "\n", true, false},
		"nothing":                  {"default-docker: {}\n", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, part := range []struct {
				requirement requirement
				found       bool
			}{{simple, row.simple}, {attached, row.attached}} {
				rules := s.rules(t, terms{
					registries: row.text, policy: policyText(t, []requirement{rejectAll}, lists{image.Name(): {part.requirement}}),
				})
				w := unsigned
				if part.found {
					w = accepted
				}
				w.check(t, s.decide(t, rules, image.ByTag()))
				// The tag that counts is the tag as written, pinned or not.
				w.check(t, s.decide(t, rules, image.ByBoth()))
			}
		})
	}
}

// A registry that keeps signatures itself is asked for them, and no lookaside
// server is.
func TestSignatureAPI(t *testing.T) {
	t.Parallel()
	s, key := newSite(t), newKey(t)
	s.registry.KeepSignatures()
	keep := func(image, as registrytest.Image) {
		s.registry.PutSignature(image.Repository, image.Digest, key.Sign(t, containerstest.Of(image, as.ByTag())))
	}
	kept, beside := s.registry.PushImage(t, "acme/kept:v1"), s.registry.PushImage(t, "acme/beside:v1")
	keep(kept, kept)
	s.simple(t, beside, key, beside.ByTag())
	index := s.registry.PushIndex(t, "acme/index:v1")
	for _, each := range index.Manifests {
		keep(each, index.Image)
	}
	wrong := s.registry.PushImage(t, "acme/wrong:v1")
	keep(wrong, kept)
	broken := s.registry.PushImage(t, "acme/broken:v1")
	keep(broken, broken)
	s.registry.Fault(registrytest.KeptSignatures("acme/broken"), registrytest.Status(http.StatusInternalServerError))
	byKey := signedBy(key.Public(t), nil)
	for name, row := range map[string]struct {
		image registrytest.Image
		want  want
	}{
		"kept":          {kept, accepted},
		"index":         {index.Image, accepted},
		"lookaside":     {beside, unsigned},
		"another name":  {wrong, otherName},
		"does not work": {broken, want{policy.Inconclusive, policy.ReasonRegistryError, "500"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, written := range []string{row.image.ByTag(), row.image.ByBoth()} {
				row.want.check(t, s.judge(t, written, byKey))
			}
		})
	}
	t.Cleanup(func() {
		if asked := s.lookaside.Requests(); len(asked) > 0 {
			t.Errorf("the lookaside server was asked: %v", asked)
		}
	})
}
