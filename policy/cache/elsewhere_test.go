// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// signedThere accepts what has a signature in its first place, whoever made it.
type signedThere struct{ client *registry.Client }

func (v signedThere) Verify(ctx context.Context, image policy.Image) policy.Verdict {
	for _, err := range v.client.Signatures(ctx, image.Elsewhere[0]) {
		if err != nil {
			return policy.VerdictOf(err)
		}
		return good
	}
	return bad
}

// tenants are several who ask about the same image, whose signatures are in a
// registry that not all of them may read.
type tenants struct {
	decider policy.Decider
	set     *policy.Set
	image   reference.Reference
	other   *registrytest.Registry
}

func newTenants(t *testing.T) *tenants {
	t.Helper()
	own := registrytest.New(t)
	other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"), registrytest.WithBasicAuth("reader", "password"))
	pushed := own.PushImage(t, "acme/app:v1")
	other.SignLegacy(t, pushed.At(registrytest.Place{Repository: "signatures"}), registrytest.NewKey(t, registrytest.ECDSAP256))
	client, err := registry.New(registry.Options{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{own.Host()},
	})
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	made, err := cache.New(policy.Direct{}, client, client, cache.Options{Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	r := rule(1)
	r.Mode, r.Prefixes = policy.Enforce, []reference.Prefix{prefix(t, own.Host())}
	r.Verification.Verifier = signedThere{client}
	r.Verification.Places = []policy.Place{{Repository: image(t, other.Host()+"/signatures").Reference}}
	way := &policy.Rule{
		Kind: "ImageConfig", Name: "way", Prefixes: []reference.Prefix{prefix(t, other.Host())},
		Transport: &policy.Transport{PlainHTTP: true, Hash: sha256.Sum256([]byte("plain"))},
	}
	return &tenants{
		decider: policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: made, Engine: made},
		set:     policy.NewSet([]*policy.Rule{r, way}), image: image(t, pushed.ByDigest()).Reference, other: other,
	}
}

// ask decides for whoever has a credential for the signatures as that user, "" for none.
func (s *tenants) ask(t *testing.T, user string) policy.Verdict {
	t.Helper()
	source := credential.None()
	if user != "" {
		config := login(t, s.other.Host(), user)
		source = credential.NewSource(func(context.Context) (credential.Found, error) {
			return credential.Found{Configs: []credential.Config{config}}, nil
		})
	}
	decision := s.decider.Decide(t.Context(), policy.Question{Set: s.set, Credentials: source, Images: []policy.Asked{{Reference: s.image}}})[0]
	if len(decision.Findings) != 1 {
		t.Fatalf("findings: %+v", decision.Findings)
	}
	return decision.Findings[0].Verdict
}

// Who may not read the signatures of an image is refused, and nobody else for that:
// for the image itself both have the same credentials.
func TestRefusalsElsewhereAreNotShared(t *testing.T) {
	t.Parallel()
	s := newTenants(t)
	for _, user := range []string{"", "stranger"} {
		if got := s.ask(t, user); got.Outcome != policy.Inconclusive || got.Reason != policy.ReasonUnauthorized {
			t.Errorf("%q: %+v", user, got)
		}
	}
	// What is refused once is refused from memory to the same, while it lasts.
	s.other.Reset()
	for _, user := range []string{"", "stranger"} {
		if got := s.ask(t, user); got.Outcome != policy.Inconclusive {
			t.Errorf("%q again: %+v", user, got)
		}
	}
	if n := len(s.other.Requests()); n != 0 {
		t.Errorf("%d requests for what was refused just now", n)
	}
	if got := s.ask(t, "reader"); got.Outcome != policy.Accepted {
		t.Errorf("reader: %+v", got)
	}
	// Accepted is for all.
	if got := s.ask(t, "stranger"); got.Outcome != policy.Accepted {
		t.Errorf("stranger, after the reader: %+v", got)
	}
}

// At the same time they do not wait for one another's answers either.
func TestFlightsElsewhereAreNotShared(t *testing.T) {
	t.Parallel()
	s := newTenants(t)
	release := make(chan struct{})
	s.other.Fault(registrytest.First(1, registrytest.Any()), registrytest.Hold(release))
	var group sync.WaitGroup
	group.Go(func() {
		if got := s.ask(t, "stranger"); got.Outcome == policy.Rejected {
			t.Errorf("stranger: %+v", got)
		}
	})
	eventually(t, "the first asks", func() bool { return len(s.other.Requests()) > 0 })
	if got := s.ask(t, "reader"); got.Outcome != policy.Accepted {
		t.Errorf("reader, while the other one waits: %+v", got)
	}
	close(release)
	group.Wait()
}

// A verdict that is held for everybody is found without keeping anything of the
// image: this is the way of nearly all requests.
func TestHeldVerdictsAllocateNothing(t *testing.T) {
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &behind{}
	b.says(good)
	made, err := cache.New(b, b, client, cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	r, it, ctx := rule(1), image(t, "a.io/x@"+digestA), t.Context()
	if got := made.Verify(ctx, r, it); got.Outcome != policy.Accepted {
		t.Fatal(fmt.Sprint(got))
	}
	if n := testing.AllocsPerRun(100, func() { made.Verify(ctx, r, it) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
