// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"iter"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// broken are answers that leave it unknown what is there.
var broken = map[string]struct {
	fault registrytest.Behaviour
	want  policy.Reason
}{
	"401":     {registrytest.Status(http.StatusUnauthorized), policy.ReasonUnauthorized},
	"403":     {registrytest.Status(http.StatusForbidden), policy.ReasonUnauthorized},
	"408":     {registrytest.Status(http.StatusRequestTimeout), policy.ReasonDeadline},
	"429":     {registrytest.Status(http.StatusTooManyRequests), policy.ReasonRateLimited},
	"500":     {registrytest.Status(http.StatusInternalServerError), policy.ReasonRegistryError},
	"garbage": {registrytest.Garbage(), policy.ReasonUnexpected},
	"endless": {registrytest.Endless(), policy.ReasonLimit},
	"reset":   {hangUp, policy.ReasonUnreachable},
}

func hangUp(http.Handler) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

// Where one form cannot be read, the other still accepts; if that does not
// either, nothing is known.
func TestOneFormBroken(t *testing.T) {
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	matches := map[string]func(registrytest.Image) registrytest.Match{
		".sig":   registrytest.Signature,
		"bundle": registrytest.Referrers,
	}
	for name, fault := range broken {
		for form, match := range matches {
			for mode, options := range modes {
				t.Run(form+" "+name+", "+mode, func(t *testing.T) {
					defer inTime(t, soon)()
					for otherForm, sign := range forms {
						if otherForm == form {
							continue
						}
						r := registrytest.New(t, options...)
						image := r.PushImage(t, "acme/app:v1")
						forms[form](t, r, image, key) // signed, but that is not seen
						r.Fault(match(image), fault.fault)
						inconclusive := want{policy.Inconclusive, fault.want, r.Host()}
						inconclusive.check(t, verdict(t, r, image, by("", key)))
						sign(t, r, image, other)
						inconclusive.check(t, verdict(t, r, image, by("", key)))
						sign(t, r, image, key)
						accepted("").check(t, verdict(t, r, image, by("", key)))
					}
				})
			}
		}
	}
}

// The payload or the bundle itself cannot be read.
func TestBlobsBroken(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for form, sign := range forms {
		for name, fault := range broken {
			if name == "garbage" {
				continue // contradicts the digest: the same reason
			}
			t.Run(form+" "+name, func(t *testing.T) {
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				sign(t, r, image, key)
				remove := r.Fault(registrytest.Blob("acme/app"), fault.fault)
				want{policy.Inconclusive, fault.want, r.Host()}.check(t, verdict(t, r, image, by("", key)))
				remove()
				accepted("").check(t, verdict(t, r, image, by("", key)))
			})
		}
		t.Run(form+" contradicts its digest", func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			sign(t, r, image, key)
			r.Fault(registrytest.Blob("acme/app"), registrytest.Body("application/octet-stream", "{}"))
			want{policy.Inconclusive, policy.ReasonUnexpected, r.Host()}.check(t, verdict(t, r, image, by("", key)))
		})
	}
}

// No signature is only said of an image that can be read.
func TestImageBroken(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  want
	}{
		"404":          {registrytest.Status(http.StatusNotFound), want{policy.Inconclusive, policy.ReasonNotFound, "404"}},
		"401":          {registrytest.Status(http.StatusUnauthorized), want{policy.Inconclusive, policy.ReasonUnauthorized, "401"}},
		"429":          {registrytest.Status(http.StatusTooManyRequests), want{policy.Inconclusive, policy.ReasonRateLimited, "429"}},
		"500":          {registrytest.Status(http.StatusInternalServerError), want{policy.Inconclusive, policy.ReasonRegistryError, "500"}},
		"other bytes":  {registrytest.Garbage(), want{policy.Rejected, policy.ReasonDigestMismatch, "something else"}},
		"without end":  {registrytest.Endless(), want{policy.Inconclusive, policy.ReasonLimit, "4194304"}},
		"nothing else": {nil, unsigned},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			if test.fault != nil {
				r.Fault(registrytest.Manifest(image.ByDigest()), test.fault)
			}
			test.want.check(t, verdict(t, r, image, by("", key)))
		})
	}
	t.Run("the whole repository", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		image.Repository = "acme/missing"
		want{policy.Inconclusive, policy.ReasonNotFound, r.Host()}.check(t, verdict(t, r, image, by("", key)))
	})
	t.Run("everything", func(t *testing.T) {
		for name, fault := range broken {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			for _, sign := range forms {
				sign(t, r, image, key)
			}
			r.Fault(registrytest.Ping().Not(), fault.fault)
			got := verdict(t, r, image, by("", key))
			want{policy.Inconclusive, fault.want, r.Host()}.check(t, got)
			if t.Failed() {
				t.Fatal(name)
			}
		}
	})
	t.Run("the registry is down", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, key)
		client := newClient(t, r)
		accepted("").check(t, newVerifier(t, client, by("", key)).Verify(t.Context(), asked(t, image)))
		r.Close()
		want{policy.Inconclusive, policy.ReasonUnreachable, r.Host()}.check(t,
			newVerifier(t, client, by("", key)).Verify(t.Context(), asked(t, image)))
	})
}

// A wrong memory that the host has no API does not reject a signed image.
func TestWrongMemoryOfTheAPI(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image, missing := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "other/app:v1")
	r.SignBundle(t, image, key)
	v := newVerifier(t, newClient(t, r), by("", key))
	remove := r.Fault(registrytest.Referrers(missing), registrytest.Status(http.StatusNotFound))
	unsigned.check(t, v.Verify(t.Context(), asked(t, missing)))
	remove()
	accepted("").check(t, v.Verify(t.Context(), asked(t, image)))
}

func TestDeadline(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, match := range map[string]func(registrytest.Image) registrytest.Match{
		"the login":      func(registrytest.Image) registrytest.Match { return registrytest.Ping() },
		"everything":     func(registrytest.Image) registrytest.Match { return registrytest.Any() },
		"the .sig":       registrytest.Signature,
		"the referrers":  registrytest.Referrers,
		"the payloads":   func(registrytest.Image) registrytest.Match { return registrytest.Blob("acme/app") },
		"the image only": func(i registrytest.Image) registrytest.Match { return registrytest.Manifest(i.ByDigest()) },
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
			r.Fault(match(image), registrytest.Hang())
			v := newVerifier(t, newClient(t, r), by("", key))
			done := inTime(t, 5*time.Second)
			got := v.Verify(within(t, 300*time.Millisecond), asked(t, image))
			done()
			want{policy.Inconclusive, policy.ReasonDeadline, r.Host()}.check(t, got)
		})
	}
	for form, hangs := range map[string]func(registrytest.Image) registrytest.Match{
		".sig": registrytest.Referrers, "bundle": registrytest.Signature,
	} {
		t.Run("a good "+form+" does not wait for the other form", func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			forms[form](t, r, image, key)
			r.Fault(hangs(image), registrytest.Hang())
			defer inTime(t, 5*time.Second)()
			accepted("").check(t, verdict(t, r, image, by("", key)))
		})
	}
	t.Run("a context that is over", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, key)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := newVerifier(t, newClient(t, r), by("", key)).Verify(ctx, asked(t, image))
		want{policy.Inconclusive, policy.ReasonDeadline, ""}.check(t, got)
	})
}

// panics is a real client of which one question panics.
type panics struct {
	*registry.Client

	in    string
	value any
}

func (p panics) Signatures(ctx context.Context, image policy.Image) iter.Seq2[registry.Signature, error] {
	if p.in == "Signatures" {
		panic(p.value)
	}
	return p.Client.Signatures(ctx, image)
}

func (p panics) Attestations(ctx context.Context, image policy.Image) iter.Seq2[registry.Signature, error] {
	if p.in == "Attestations" {
		panic(p.value)
	}
	return p.Client.Attestations(ctx, image)
}

func (p panics) Bundles(ctx context.Context, image policy.Image, attestations bool) iter.Seq2[[]byte, error] {
	if p.in == "Bundles" {
		panic(p.value)
	}
	return p.Client.Bundles(ctx, image, attestations)
}

func (p panics) Recheck(ctx context.Context, image policy.Image, attestations bool) iter.Seq2[[]byte, error] {
	if p.in == "Recheck" {
		panic(p.value)
	}
	return p.Client.Recheck(ctx, image, attestations)
}

func TestPanic(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for _, in := range []string{"Signatures", "Attestations", "Bundles", "Recheck"} {
		for name, value := range map[string]any{
			"text": "boom", "several lines": "a\r\nb\x1b[2J", "nothing": context.Canceled, "long": string(make([]byte, 1<<20)),
		} {
			t.Run(in+" "+name, func(t *testing.T) {
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				attesting := by("", key)
				attesting.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}}
				v := newVerifier(t, panics{newClient(t, r), in, value}, by("", key), attesting)
				want{policy.Inconclusive, policy.ReasonInternal, "failed unexpectedly"}.check(t, v.Verify(t.Context(), asked(t, image)))
			})
		}
	}
	t.Run("in one form does not keep the other from accepting", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.SignLegacy(t, image, key)
		v := newVerifier(t, panics{newClient(t, r), "Bundles", "boom"}, by("", key))
		accepted("").check(t, v.Verify(t.Context(), asked(t, image)))
	})
	t.Run("no credentials at all", func(t *testing.T) {
		r := registrytest.New(t)
		image := asked(t, r.PushImage(t, "acme/app:v1"))
		image.Credentials = nil
		got := newVerifier(t, newClient(t, r), by("", key)).Verify(t.Context(), image)
		if got.Outcome != policy.Inconclusive && got.Reason != policy.ReasonNoSignature {
			t.Errorf("verdict = %+v, want Inconclusive, or that of no credentials", got)
		}
	})
	for name, digest := range map[string]string{
		"none": "", "a word": "sha256:x", "short": "sha256:ab", "another algorithm": "sha512:ab", "no algorithm": "abcd",
	} {
		t.Run("digest "+name, func(t *testing.T) {
			r := registrytest.New(t)
			pushed := r.PushImage(t, "acme/app:v1")
			r.SignLegacy(t, pushed, key)
			r.SignBundle(t, pushed, key)
			image := asked(t, pushed)
			image.Digest = digest
			got := newVerifier(t, newClient(t, r), by("", key)).Verify(t.Context(), image)
			if got.Outcome != policy.Inconclusive {
				t.Errorf("verdict = %+v, want Inconclusive", got)
			}
		})
	}
}

// One Verifier judges many images at once: for the race detector.
func TestConcurrentUse(t *testing.T) {
	key, other := registrytest.NewKey(t, registrytest.ECDSAP384), registrytest.NewKey(t, registrytest.Ed25519)
	r := registrytest.New(t)
	v := newVerifier(t, newClient(t, r), by("a", other, "env=prod"), by("b", key, "env=prod"))
	cases := map[string]want{}
	images := map[string]registrytest.Image{}
	for form, sign := range forms {
		good, bad := r.PushImage(t, "acme/good"+form[1:]+":v1"), r.PushImage(t, "acme/bad"+form[1:]+":v1")
		sign(t, r, good, key.AsCosign(), "env=prod")
		sign(t, r, bad, key, "env=dev")
		images["good "+form], cases["good "+form] = good, accepted(`"b"`)
		images["bad "+form], cases["bad "+form] = bad, want{policy.Rejected, policy.ReasonNoMatch, "annotations"}
	}
	images["plain"], cases["plain"] = r.PushImage(t, "acme/plain:v1"), unsigned
	var group sync.WaitGroup
	for range 8 {
		for name, image := range images {
			group.Go(func() { cases[name].check(t, v.Verify(t.Context(), asked(t, image))) })
		}
	}
	group.Wait()
}
