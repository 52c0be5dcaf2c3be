// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"crypto"
	"fmt"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Every kind of key, in every way in which cosign's versions sign with it, in
// both forms, for both shapes of image, at both kinds of registry: the right
// key accepts and another of the same kind does not.
func TestKeys(t *testing.T) {
	for _, kind := range []registrytest.Kind{
		registrytest.ECDSAP256, registrytest.ECDSAP384, registrytest.ECDSAP521,
		registrytest.RSA2048, registrytest.RSA4096, registrytest.Ed25519,
	} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			key, other := registrytest.NewKey(t, kind), registrytest.NewKey(t, kind)
			for signer, with := range map[string]*registrytest.Key{"SHA-256": key, "as cosign chooses": key.AsCosign()} {
				for form, sign := range forms {
					for mode, options := range modes {
						t.Run(strings.Join([]string{signer, form, mode}, ", "), func(t *testing.T) {
							r := registrytest.New(t, options...)
							index := r.PushIndex(t, "acme/index:v1")
							images := map[string]registrytest.Image{
								"image": r.PushImage(t, "acme/app:v1"),
								"index": index.Image,
							}
							for shape, image := range images {
								sign(t, r, image, with)
								got := verdict(t, r, image, by("release", key))
								accepted(`"release"`).check(t, got)
								if got.Signer != "release" {
									t.Errorf("%s: signer = %q", shape, got.Signer)
								}
								noMatch.check(t, verdict(t, r, image, by("release", other)))
							}
							// The index is signed, not what it lists.
							for _, image := range index.Manifests {
								unsigned.check(t, verdict(t, r, image, by("release", key)))
							}
						})
					}
				}
			}
		})
	}
}

func TestHashAlgorithm(t *testing.T) {
	hashes := map[string]crypto.Hash{"default": 0, "SHA-224": crypto.SHA224, "SHA-256": crypto.SHA256, "SHA-384": crypto.SHA384, "SHA-512": crypto.SHA512}
	for _, kind := range []registrytest.Kind{registrytest.ECDSAP256, registrytest.ECDSAP384, registrytest.ECDSAP521, registrytest.RSA2048} {
		key := registrytest.NewKey(t, kind)
		for signs, signHash := range hashes {
			if signHash == 0 || signHash == crypto.SHA224 {
				continue // what is signed is always over one that is named
			}
			for form, sign := range forms {
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				sign(t, r, image, key.WithHash(signHash))
				for verifies, hash := range hashes {
					if kind == registrytest.RSA2048 && hash == crypto.SHA224 {
						continue // see TestBadKeys
					}
					t.Run(fmt.Sprintf("%s signs %s over %s, verified over %s", kind, form, signs, verifies), func(t *testing.T) {
						authority := by("release", key)
						authority.Hash = hash
						expected := noMatch
						byDefault := hash == 0 || hash == crypto.SHA256
						fits := signHash == crypto.SHA256 || kind == registrytest.ECDSAP384 && signHash == crypto.SHA384 ||
							kind == registrytest.ECDSAP521 && signHash == crypto.SHA512
						if hash == signHash || byDefault && fits {
							expected = accepted(`"release"`)
						}
						expected.check(t, verdict(t, r, image, authority))
					})
				}
			}
		}
	}
}

func TestSeveralAuthorities(t *testing.T) {
	signer := registrytest.NewKey(t, registrytest.ECDSAP256)
	first, last := registrytest.NewKey(t, registrytest.Ed25519), registrytest.NewKey(t, registrytest.ECDSAP384)
	for form, sign := range forms {
		t.Run(form, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			sign(t, r, image, signer)
			for i := range 3 {
				authorities := []cosign.Authority{by("a", first), by("b", last)}
				authorities = append(authorities[:min(i, 2)], append([]cosign.Authority{by("the one", signer)}, authorities[min(i, 2):]...)...)
				accepted(`"the one"`).check(t, verdict(t, r, image, authorities...))
			}
			got := verdict(t, r, image, by("a", first), by("", last))
			noMatch.check(t, got)
			for _, name := range []string{`authority "a"`, `authority "1"`, "(1 found)"} {
				if !strings.Contains(got.Message, name) {
					t.Errorf("message = %q, want %s in it", got.Message, name)
				}
			}
			// The same key under several names, and twice in a list.
			accepted("").check(t, verdict(t, r, image, by("a", signer), by("b", signer)))
		})
	}
	t.Run("one signature each", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, signer)
		r.SignBundle(t, image, first)
		accepted(`"legacy"`).check(t, verdict(t, r, image, by("legacy", signer)))
		accepted(`"bundle"`).check(t, verdict(t, r, image, by("bundle", first)))
		got := verdict(t, r, image, by("neither", last))
		noMatch.check(t, got)
		if !strings.Contains(got.Message, "(2 found)") {
			t.Errorf("message = %q, want both forms counted", got.Message)
		}
	})
}

// However many authorities, each signature is read once.
func TestEachSignatureIsReadOnce(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	signer := registrytest.NewKey(t, registrytest.ECDSAP256)
	for range 3 {
		r.SignLegacy(t, image, signer)
	}
	r.SignBundle(t, image, signer)
	var authorities []cosign.Authority
	for range 32 {
		authorities = append(authorities, by("", registrytest.NewKey(t, registrytest.ECDSAP256)))
	}
	noMatch.check(t, verdict(t, r, image, authorities...))
	// .sig manifest, 3 payloads, referrers, bundle manifest, bundle; the image.
	// The 3 payloads are the same bytes, but each is a layer of its own.
	if n := len(r.Counted()); n != 8 {
		t.Errorf("%d requests, want 8: %v", n, r.Counted())
	}
}

func TestAnnotations(t *testing.T) {
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	missing := want{policy.Rejected, policy.ReasonNoMatch, "no signature by its key has all the annotations"}
	type signatures [][]string
	for name, test := range map[string]struct {
		signed signatures // annotations of each signature by the key
		asked  []string
		want   want
	}{
		"none asked":                    {signatures{{"env=prod"}}, nil, accepted("")},
		"exactly":                       {signatures{{"env=prod"}}, []string{"env=prod"}, accepted("")},
		"more than asked":               {signatures{{"env=prod", "team=a"}}, []string{"env=prod"}, accepted("")},
		"two of two":                    {signatures{{"env=prod", "team=a"}}, []string{"env=prod", "team=a"}, accepted("")},
		"in the second signature":       {signatures{{"env=dev"}, {"env=prod"}}, []string{"env=prod"}, accepted("")},
		"empty value":                   {signatures{{"env="}}, []string{"env="}, accepted("")},
		"none there":                    {signatures{{}}, []string{"env=prod"}, missing},
		"empty value asked, none there": {signatures{{}}, []string{"env="}, missing},
		"another value":                 {signatures{{"env=dev"}}, []string{"env=prod"}, missing},
		"a longer value":                {signatures{{"env=production"}}, []string{"env=prod"}, missing},
		"a shorter value":               {signatures{{"env=pro"}}, []string{"env=prod"}, missing},
		"value in another case":         {signatures{{"env=Prod"}}, []string{"env=prod"}, missing},
		"name in another case":          {signatures{{"Env=prod"}}, []string{"env=prod"}, missing},
		"a pattern":                     {signatures{{"env=prod"}}, []string{"env=*"}, missing},
		"one of two":                    {signatures{{"env=prod"}}, []string{"env=prod", "team=a"}, missing},
		"spread over two signatures":    {signatures{{"env=prod"}, {"team=a"}}, []string{"env=prod", "team=a"}, missing},
		"with space":                    {signatures{{"env= prod"}}, []string{"env=prod"}, missing},
	} {
		for form, sign := range forms {
			t.Run(name+" in "+form, func(t *testing.T) {
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				for _, annotations := range test.signed {
					sign(t, r, image, key, annotations...)
				}
				// The right words by another key never count.
				sign(t, r, image, other, append([]string{"other=yes"}, test.asked...)...)
				test.want.check(t, verdict(t, r, image, by("", key, test.asked...)))
			})
		}
	}
	t.Run("spread over both forms", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, key, "env=prod")
		r.SignBundle(t, image, key, "team=a")
		missing.check(t, verdict(t, r, image, by("", key, "env=prod", "team=a")))
		accepted("").check(t, verdict(t, r, image, by("", key, "env=prod"), by("", key, "no=such")))
		accepted("").check(t, verdict(t, r, image, by("", key, "team=a")))
	})
	t.Run("of one authority are not asked of another", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, key)
		accepted(`"b"`).check(t, verdict(t, r, image, by("a", key, "env=prod"), by("b", key)))
		missing.check(t, verdict(t, r, image, by("a", key, "env=prod"), by("b", other)))
	})
}

func TestStatic(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	pass, fail := cosign.Authority{Name: "p", Static: cosign.StaticPass}, cosign.Authority{Name: "f", Static: cosign.StaticFail}
	for name, test := range map[string]struct {
		authorities []cosign.Authority
		want        *want
	}{
		"pass":           {[]cosign.Authority{pass}, &want{policy.Accepted, policy.ReasonStatic, `"p"`}},
		"fail":           {[]cosign.Authority{fail}, &want{policy.Rejected, policy.ReasonStatic, `"f"`}},
		"fail or pass":   {[]cosign.Authority{fail, pass}, &want{policy.Accepted, policy.ReasonStatic, `"p"`}},
		"key or pass":    {[]cosign.Authority{by("k", key), pass}, &want{policy.Accepted, policy.ReasonStatic, `"p"`}},
		"fail and fail":  {[]cosign.Authority{fail, fail}, &want{policy.Rejected, policy.ReasonStatic, `"f"`}},
		"a key":          {[]cosign.Authority{by("k", key)}, nil},
		"fail or a key":  {[]cosign.Authority{fail, by("k", key)}, nil},
		"a key, or fail": {[]cosign.Authority{by("k", key), fail}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			// A Source that is nil proves that it is not asked.
			got := newVerifier(t, nil, test.authorities...).Fixed()
			if test.want == nil {
				if got != nil {
					t.Errorf("Fixed = %+v, want nil: it depends on the image", got)
				}
				return
			}
			if got == nil {
				t.Fatal("Fixed = nil, want a verdict")
			}
			test.want.check(t, *got)
		})
	}
	t.Run("fail beside a key", func(t *testing.T) {
		r := registrytest.New(t)
		signed, plain := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "acme/app:v2")
		r.SignLegacy(t, signed, key)
		accepted(`"k"`).check(t, verdict(t, r, signed, fail, by("k", key)))
		unsigned.check(t, verdict(t, r, plain, fail, by("k", key)))
		other := registrytest.NewKey(t, registrytest.ECDSAP256)
		want{policy.Rejected, policy.ReasonNoMatch, `authority "f": refuses every image`}.check(t, verdict(t, r, signed, fail, by("k", other)))
	})
	t.Run("alone, asked all the same", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, key)
		if got := verdict(t, r, image, fail); got.Outcome != policy.Rejected {
			t.Errorf("verdict = %+v, want Rejected", got)
		}
	})
}
