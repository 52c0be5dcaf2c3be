// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// TestRegistryFaults: whatever a registry does, the answer comes in time, says
// what it was, and lets nothing in.
func TestRegistryFaults(t *testing.T) {
	t.Parallel()
	tag := func(i registrytest.Image) registrytest.Match { return registrytest.Manifest(i.ByTag()) }
	digest := func(i registrytest.Image) registrytest.Match { return registrytest.Manifest(i.ByDigest()) }
	blob := func(i registrytest.Image) registrytest.Match { return registrytest.Blob(i.Repository) }
	type fault struct {
		match     func(registrytest.Image) registrytest.Match
		behaviour registrytest.Behaviour
		code      int32
		texts     []string
	}
	for name, test := range map[string]fault{
		"tag 404":            {tag, registrytest.Status(404), inconclusive, []string{`answered 404 to the request for the tag "v1"`, "hidden without credentials"}},
		"tag 401":            {tag, registrytest.Status(401), inconclusive, []string{"answered 401", "no credentials for this host were found"}},
		"tag 403":            {tag, registrytest.Status(403), inconclusive, []string{"answered 403", "no credentials for this host were found"}},
		"tag 429":            {tag, registrytest.Status(429), inconclusive, []string{"answered 429", "too many requests"}},
		"tag 500":            {tag, registrytest.Status(500), inconclusive, []string{"answered 500"}},
		"tag teapot":         {tag, registrytest.Status(418), inconclusive, []string{"answered 418"}},
		"nonsense digest":    {tag, registrytest.WrongDigest("sha256:nonsense"), inconclusive, []string{"sent a digest that cannot be read"}},
		"digest of nothing":  {tag, registrytest.WrongDigest("sha256:" + strings.Repeat("0", 64)), inconclusive, []string{"answered 404"}},
		"another body":       {digest, registrytest.Body("application/vnd.oci.image.manifest.v1+json", "{}"), rejected, []string{"sent something else for the digest"}},
		"image 500":          {digest, registrytest.Status(500), inconclusive, []string{"answered 500"}},
		"signature 401":      {registrytest.Signature, registrytest.Status(401), inconclusive, []string{"answered 401", "signature"}},
		"signature 429":      {registrytest.Signature, registrytest.Status(429), inconclusive, []string{"answered 429"}},
		"signature 500":      {registrytest.Signature, registrytest.Status(500), inconclusive, []string{"answered 500 to the request for the signature manifest"}},
		"signature garbage":  {registrytest.Signature, registrytest.Garbage(), inconclusive, []string{"sent a signature manifest that cannot be read"}},
		"signature reset":    {registrytest.Signature, registrytest.ResetMidBody(), inconclusive, []string{"signature manifest"}},
		"signature endless":  {registrytest.Signature, registrytest.Endless(), inconclusive, []string{"more than", "bytes"}},
		"signature huge":     {registrytest.Signature, registrytest.Oversized(64 << 20), inconclusive, []string{"more than", "bytes"}},
		"referrers 500":      {registrytest.Referrers, registrytest.Status(500), inconclusive, []string{"answered 500 to the request for the list of referrers"}},
		"referrers garbage":  {registrytest.Referrers, registrytest.Garbage(), inconclusive, []string{"list of referrers that cannot be read"}},
		"payload 500":        {blob, registrytest.Status(500), inconclusive, []string{"answered 500 to the request for the signature"}},
		"payload tampered":   {blob, registrytest.Body("application/octet-stream", "{}"), inconclusive, []string{"sent a signature that cannot be read"}},
		"redirect for ever":  {tag, registrytest.Redirect("http://" + shared.Env.Registry.Host()), inconclusive, []string{"redirected more than"}},
		"tag hangs":          {tag, registrytest.Hang(), inconclusive, []string{"not examined within the request's time"}},
		"signature hangs":    {registrytest.Signature, registrytest.Hang(), inconclusive, []string{"not examined within the request's time"}},
		"referrers drip":     {registrytest.Referrers, registrytest.SlowDrip(time.Second), inconclusive, []string{"not examined within the request's time"}},
		"everything at once": {func(registrytest.Image) registrytest.Match { return nil }, registrytest.Status(500), inconclusive, []string{"answered 500"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			r.enforce(t)
			image := r.unsigned(t, "app:v1")
			switch {
			case strings.HasPrefix(name, "payload"), strings.HasPrefix(name, "tag"):
				r.registry.SignLegacy(t, image, r.key)
			case name == "signature reset": // what is not there cannot break off
				r.registry.SignLegacy(t, image, r.other)
			}
			match := test.match(image)
			if match == nil {
				match = registrytest.Manifest(image.Repository).Or(registrytest.Referrers(image)).Or(registrytest.Blob(image.Repository))
			}
			remove := r.registry.Fault(match, test.behaviour)
			began := time.Now()
			got := r.try(t.Context(), pod("app", image.ByTag()))
			got.refused(t, test.code, append(test.texts, "spec.containers[0].image: "+image.ByTag())...)
			// Two webhooks, 10 s each, and neither was given up on.
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			remove()
			if !strings.HasPrefix(name, "tag ") || name == "tag hangs" {
				return // whoever asks again waits for the question that is under way
			}
			// An Inconclusive is soon forgotten.
			r.eventually(t, inForce, "it is examined again", func(ctx context.Context) error {
				return r.try(ctx, pod("app", image.ByTag())).err
			})
		})
	}
}

// TestSignedInSpiteOf: a fault of one form of signature does not spoil the other.
func TestSignedInSpiteOf(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		match func(registrytest.Image) registrytest.Match
		sign  func(*room, *testing.T, registrytest.Image)
	}{
		"referrers hang":  {registrytest.Referrers, func(r *room, t *testing.T, i registrytest.Image) { r.registry.SignLegacy(t, i, r.key) }},
		"signature hangs": {registrytest.Signature, func(r *room, t *testing.T, i registrytest.Image) { r.registry.SignBundle(t, i, r.key) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			r.enforce(t)
			image := r.unsigned(t, "app:v1")
			test.sign(r, t, image)
			r.registry.Fault(test.match(image), registrytest.Hang())
			began := time.Now()
			r.try(t.Context(), pod("app", image.ByTag())).admitted(t, image.ByBoth())
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("it took %s", took)
			}
		})
	}
}

const (
	// tagFor is how long what a tag names is remembered (spec section 5).
	tagFor = 30 * time.Second
	// clocks is what two processes may differ by in noticing.
	clocks = 500 * time.Millisecond
)

// TestRegistryDown: what was accepted goes on being accepted while the registry
// is away; what was not is Inconclusive.
func TestRegistryDown(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.doomed)
	r.enforce(t)
	signed, unknown, unsigned := r.signed(t, "app:v1"), r.signed(t, "unknown:v1"), r.unsigned(t, "unsigned:v1")
	r.try(t.Context(), pod("app", signed.ByTag())).admitted(t, signed.ByBoth())
	r.try(t.Context(), pod("unsigned", unsigned.ByTag())).refused(t, rejected, "no signature")
	resolved := time.Now()
	r.registry.Close()
	r.create(t.Context(), pod("tag", signed.ByTag())).admitted(t, signed.ByBoth())
	r.create(t.Context(), pod("pinned", signed.ByBoth())).admitted(t, signed.ByBoth())
	r.create(t.Context(), pod("digest", signed.ByDigest())).admitted(t, signed.ByDigest())
	r.try(t.Context(), pod("unknown", unknown.ByTag())).refused(t, inconclusive, "Inconclusive by ImageConfig", "cannot be reached", "no connection")
	r.try(t.Context(), pod("unknown", unknown.ByDigest())).refused(t, inconclusive, "cannot be reached")
	// Past the time of the tag, with a warning.
	time.Sleep(time.Until(resolved.Add(tagFor + clocks)))
	r.try(t.Context(), pod("stale", signed.ByTag())).warned(t, []string{signed.ByBoth()}, "registry unreachable")
	// Not for what was never accepted.
	r.try(t.Context(), pod("unsigned", unsigned.ByTag())).refused(t, inconclusive, "cannot be reached")
}
