// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"net/netip"
	"net/url"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// simple is a client, and an image with n signatures of so many bytes: kept by the
// registry itself if there is no lookaside.
func simple(t *testing.T, n, bytes int, beside bool) (client *Client, image policy.Image, lookaside *url.URL) {
	t.Helper()
	r, l := registrytest.New(t), registrytest.NewLookaside(t)
	pushed := r.PushImage(t, "acme/app:v1")
	if !beside {
		r.KeepSignatures()
	}
	for range n {
		r.PutSignature(pushed.Repository, pushed.Digest, make([]byte, bytes))
		l.Put(pushed.Repository, pushed.Digest, make([]byte, bytes))
	}
	client, err := New(Options{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{r.Host()}})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := reference.Parse(pushed.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	lookaside, err = url.Parse(l.URL())
	if err != nil {
		t.Fatal(err)
	}
	return client, policy.Image{Reference: ref, Digest: pushed.Digest, Credentials: credential.None()}, lookaside
}

// TestSimpleSignaturesHavePlaces: what is in memory is counted for as long as it is,
// and no longer, however it ends.
func TestSimpleSignaturesHavePlaces(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		bytes       int
		beside      bool
		held, large int // of the host, while one is looked at
	}{
		"a small list":     {bytes: 100},
		"a large list":     {bytes: largeBody, large: 1},
		"beside":           {bytes: 100, beside: true, held: 1},
		"beside and large": {bytes: maxSignature, beside: true, held: 1},
	} {
		for end, consume := range map[string]func(look func()){
			"the last":  func(look func()) { look() },
			"the first": func(look func()) { look() },
			"a panic": func(look func()) {
				defer func() { _ = recover() }()
				look()
			},
		} {
			t.Run(name+", to "+end, func(t *testing.T) {
				t.Parallel()
				client, image, lookaside := simple(t, 3, test.bytes, test.beside)
				its := client.places.of(image.Reference.Host())
				if test.beside {
					its = client.places.of(lookaside.Host)
				}
				seen := 0
				consume(func() {
					for signature, err := range client.SimpleSignatures(t.Context(), image, lookaside) {
						if err != nil {
							t.Fatal(err)
						}
						if len(its.held) != test.held || len(its.large) != test.large || len(client.large) != test.large || its.looked.TryAcquire(maxLooked) {
							t.Errorf("while one is looked at, %d are held and %d large, or it is not counted", len(its.held), len(its.large))
						}
						if slack := cap(signature.Untrusted) - len(signature.Untrusted); slack > largeBody {
							t.Errorf("%d bytes are kept in %d", len(signature.Untrusted), cap(signature.Untrusted))
						}
						seen++
						switch end {
						case "the first":
							return
						case "a panic":
							panic("of who looks")
						}
					}
				})
				if want := map[string]int{"the last": 3, "the first": 1, "a panic": 1}[end]; seen != want {
					t.Errorf("%d signatures, want %d", seen, want)
				}
				full(t, its)
				if len(client.large) != 0 {
					t.Errorf("%d places for large ones are not given back", len(client.large))
				}
			})
		}
	}
}

// TestSimpleSignaturesWait: who finds no place waits for no longer than anybody
// waits for him, and says so once.
func TestSimpleSignaturesWait(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		bytes  int
		beside bool
		taken  func(c *Client, its *places)
	}{
		"to be held":            {100, true, func(_ *Client, its *places) { fill(its.held) }},
		"to be large":           {largeBody, true, func(_ *Client, its *places) { fill(its.large) }},
		"to be large, of all":   {largeBody, false, func(c *Client, _ *places) { fill(c.large) }},
		"to be looked at":       {100, true, func(_ *Client, its *places) { its.looked.TryAcquire(maxLooked) }},
		"to be looked at, kept": {100, false, func(_ *Client, its *places) { its.looked.TryAcquire(maxLooked) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, image, lookaside := simple(t, 3, test.bytes, test.beside)
			its := client.places.of(image.Reference.Host())
			if test.beside {
				its = client.places.of(lookaside.Host)
			}
			for _, err := range client.SimpleSignatures(t.Context(), image, nil) { // which logs in
				if err != nil {
					t.Fatal(err)
				}
			}
			test.taken(client, its)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			var failed []error
			for signature, err := range client.SimpleSignatures(ctx, image, lookaside) {
				if err == nil {
					t.Errorf("%d bytes without a place", len(signature.Untrusted))
					continue
				}
				failed = append(failed, err)
			}
			if len(failed) != 1 || policy.VerdictOf(failed[0]).Reason != policy.ReasonDeadline {
				t.Errorf("errors %v, want one about the time", failed)
			}
		})
	}
}

func fill(places chan struct{}) {
	for len(places) < cap(places) {
		places <- struct{}{}
	}
}
