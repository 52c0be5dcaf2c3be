// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"fmt"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
)

// published is an image in a registry of package registry.
type published struct{ repository, tag, digest string }

func (p published) byTag() string    { return p.repository + ":" + p.tag }
func (p published) byDigest() string { return p.repository + "@" + p.digest }
func (p published) pinned() string   { return p.byTag() + "@" + p.digest }

// publish pushes a new image, or an index of two.
func publish(t *testing.T, repository, tag string, index bool) published {
	t.Helper()
	target, err := name.NewTag(repository+":"+tag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	var digest v1.Hash
	if index {
		made, err := random.Index(64, 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(target, made); err != nil {
			t.Fatal(err)
		}
		digest, err = made.Digest()
		if err != nil {
			t.Fatal(err)
		}
	} else {
		made, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.Write(target, made); err != nil {
			t.Fatal(err)
		}
		if digest, err = made.Digest(); err != nil {
			t.Fatal(err)
		}
	}
	return published{repository, tag, digest.String()}
}

// TestSignedByTheCommandLines: what cosign 2 and cosign 3 sign, in a registry
// with the referrers API and in one without, is admitted and pinned; what they
// sign with another key, or did not sign, is refused.
func TestSignedByTheCommandLines(t *testing.T) {
	t.Parallel()
	key, err := signer.GenerateKeyPair(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	other, err := signer.GenerateKeyPair(t.TempDir(), "secret")
	if err != nil {
		t.Fatal(err)
	}
	for registryName, host := range map[string]string{"referrers API": shared.memory.Host, "distribution": shared.distribution.Host} {
		for signerName, sign := range map[string]signer.Func{"cosign 2": cosign2.Sign, "cosign 3": cosign3.Sign} {
			for shape, index := range map[string]bool{"image": false, "index": true} {
				t.Run(registryName+"/"+signerName+"/"+shape, func(t *testing.T) {
					t.Parallel()
					r := newRoom(t)
					prefix := host + "/" + r.namespace + "/"
					r.policy(t, "", fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  verification: {provider: Cosign, cosign: {authorities: [{name: release, key: {data: %q}}]}}`, prefix, key.PublicPEM))
					good := publish(t, prefix+"app", "v1", index)
					forged := publish(t, prefix+"forged", "v1", index)
					bare := publish(t, prefix+"bare", "v1", index)
					if err := sign(t.Context(), key, good.byDigest(), nil); err != nil {
						t.Fatal(err)
					}
					if err := sign(t.Context(), other, forged.byDigest(), nil); err != nil {
						t.Fatal(err)
					}
					stored := r.create(t.Context(), pod("signed", good.byTag())).admitted(t, good.pinned())
					// The same again gets the same, and what is pinned stays as it is.
					r.try(t.Context(), pod("again", good.byTag())).admitted(t, good.pinned())
					r.try(t.Context(), pod("pinned", imagesOf(stored)...)).admitted(t, good.pinned())
					r.try(t.Context(), pod("digest", good.byDigest())).admitted(t, good.byDigest())
					r.try(t.Context(), pod("forged", forged.byTag())).refused(t, rejected,
						"spec.containers[0].image: "+forged.pinned(), `Rejected by ImageConfig`,
						`authority "release": no signature matches its key (1 found)`, "hint: pratique verify "+forged.byTag())
					r.try(t.Context(), pod("bare", bare.byTag())).refused(t, rejected, bare.pinned(), "no signature")
					// Every reason at once.
					r.try(t.Context(), pod("all", bare.byTag(), good.byTag(), forged.byTag())).refused(t, rejected,
						"spec.containers[0].image: "+bare.pinned()+" Rejected", "spec.containers[2].image: "+forged.pinned()+" Rejected")
				})
			}
		}
	}
}

// TestSignedBothWays: nobody who may push spoils a good signature of one form
// by attaching something of the other.
func TestSignedBothWays(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	for name, registry := range map[string]*room{"referrers API": r, "referrers tag": r.at(r.withoutAPI)} {
		registry.policy(t, map[string]string{"referrers API": "", "referrers tag": "-tag"}[name], keyed(registry.prefix(), r.key))
		t.Run(name, func(t *testing.T) {
			r := registry
			legacy := r.signed(t, "legacy:v1")
			r.registry.SignBundle(t, legacy, r.other)
			r.registry.BrokenBundle(t, legacy)
			r.try(t.Context(), pod("legacy", legacy.ByTag())).admitted(t, legacy.ByBoth())

			bundle := r.unsigned(t, "bundle:v1")
			r.registry.SignLegacy(t, bundle, r.other)
			r.registry.GarbageLegacy(t, bundle)
			r.registry.SignBundle(t, bundle, r.key)
			r.try(t.Context(), pod("bundle", bundle.ByTag())).admitted(t, bundle.ByBoth())

			tampered := r.signed(t, "tampered:v1")
			r.registry.TamperLegacy(t, tampered)
			r.try(t.Context(), pod("tampered", tampered.ByTag())).refused(t, rejected, "no signature matches its key")

			altered := r.unsigned(t, "altered:v1")
			r.registry.SignBundle(t, altered, r.key)
			r.registry.TamperBundles(t, altered)
			r.try(t.Context(), pod("altered", altered.ByTag())).refused(t, rejected, "Rejected by ImageConfig")

			moved := r.unsigned(t, "moved:v1")
			r.registry.CopyLegacy(t, legacy, moved)
			r.registry.CopyBundles(t, bundle, moved)
			r.try(t.Context(), pod("moved", moved.ByTag())).refused(t, rejected, "Rejected by ImageConfig")
		})
	}
}
