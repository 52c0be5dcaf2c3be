// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
)

// relocate copies an image with its signatures to another repository, as imgpkg
// copy --cosign-signatures does: what is under the tag .sig is copied as it is,
// in the place of what was there.
func relocate(t *testing.T, image published, repository string) published {
	t.Helper()
	for _, tag := range []string{image.tag, attachedTag(image.digest, ".sig")} {
		from, err := name.NewTag(image.repository + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		content, err := remote.Image(from)
		if err != nil {
			t.Fatal(err)
		}
		to, err := name.NewTag(repository + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(to, content); err != nil {
			t.Fatal(err)
		}
	}
	return published{repository, image.tag, image.digest}
}

// TestImgpkg: two owners sign with a key each. In the test repository the image
// is signed again, with an annotation, once its tests have passed, and it is
// copied on to the production repository with its signatures. There both owners
// must have signed it, one of them with the annotation: two ImageConfigs of the
// same prefix must both accept.
func TestImgpkg(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	dev, test, prod := r.memory.Host+"/"+r.namespace+"/dev", r.distribution.Host+"/"+r.namespace+"/test", r.distribution.Host+"/"+r.namespace+"/prod"
	server, bundle, stranger := keyPair(t), keyPair(t), keyPair(t)
	sign := func(image published, key signer.Key, annotations map[string]string) {
		t.Helper()
		if err := cosign2.Sign(t.Context(), key, image.byDigest(), annotations); err != nil {
			t.Fatal(err)
		}
	}
	owners := func(environment, repository string, more ...string) {
		t.Helper()
		r.policy(t, "-server-"+environment, authorized(repository, []authority{{name: "server team", key: server.PublicPEM}}))
		r.policy(t, "-bundle-"+environment, authorized(repository, []authority{{name: "bundle team", key: bundle.PublicPEM, more: more}}))
	}
	owners("dev", dev)
	owners("test", test)
	owners("prod", prod, `annotations: {e2e-tests-passed: "True"}`)
	admitted := func(image published) {
		t.Helper()
		r.try(t.Context(), pod("app", image.byTag())).admitted(t, image.pinned())
	}
	refused := func(image published, texts ...string) {
		t.Helper()
		r.try(t.Context(), pod("app", image.byTag())).refused(t, rejected, append(texts, image.pinned())...)
	}
	const (
		lacks      = `authority "bundle team": no signature by its key has all the annotations "e2e-tests-passed=True"`
		noneOf     = ` team": no signature matches its key (1 found)`
		noneOfBoth = ` team": no signature matches its key (2 found)`
	)
	half := publish(t, dev+"/half", "1.0.0", false)
	sign(half, server, nil)
	refused(half, `authority "bundle`+noneOf)
	made := publish(t, dev, "1.0.0", false)
	sign(made, server, nil)
	sign(made, bundle, nil)
	admitted(made)

	tested := relocate(t, made, test)
	admitted(tested)
	// Not promoted yet: copied with what it has.
	refused(relocate(t, made, prod+"/early"), lacks)
	// In their case, annotations count.
	sign(tested, bundle, map[string]string{"e2e-tests-passed": "true"})
	refused(relocate(t, tested, prod+"/case"), lacks)
	// Whoever tested is not asked; another's word is none of the owner's.
	sign(tested, stranger, map[string]string{"e2e-tests-passed": "True"})
	sign(tested, server, map[string]string{"e2e-tests-passed": "True"})
	refused(relocate(t, tested, prod+"/stranger"), lacks)

	sign(tested, bundle, map[string]string{"e2e-tests-passed": "True"})
	promoted := relocate(t, tested, prod+"/app")
	r.create(t.Context(), pod("promoted", promoted.byTag())).admitted(t, promoted.pinned())
	// It is the signatures in the same repository that count, and the digest.
	refused(relocate(t, made, prod+"/original"), lacks)

	// Both owners, whoever promoted: one is not enough.
	alone := publish(t, test, "2.0.0", false)
	sign(alone, bundle, map[string]string{"e2e-tests-passed": "True"})
	sign(alone, stranger, nil)
	refused(relocate(t, alone, prod+"/alone"), `ImageConfig "`+r.namespace+`-server-prod": authority "server`+noneOfBoth)
}
