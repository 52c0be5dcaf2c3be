// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// enough is how long anything here may take.
const enough = 20 * time.Second

// eventually waits until it holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(enough); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

// held makes the engine wait until release is called.
func (b *behind) held(v policy.Verdict) (release func()) {
	gate := make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verify = func(ctx context.Context, _ *policy.Rule, _ policy.Image) policy.Verdict {
		select {
		case <-gate:
			return v
		case <-ctx.Done():
			return policy.VerdictOf(ctx.Err())
		}
	}
	return sync.OnceFunc(func() { close(gate) })
}

// 100 who ask the same at once are one question.
func TestOneFlight(t *testing.T) {
	t.Parallel()
	for name, verdict := range map[string]policy.Verdict{"Accepted": good, "Rejected": bad, "Inconclusive": down} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, b, _ := newCache(t, cache.Options{})
			release := b.held(verdict)
			defer release()
			var asking, right atomic.Int32
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					asking.Add(1)
					if made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA)) == verdict {
						right.Add(1)
					}
				})
			}
			eventually(t, "all ask", func() bool { return asking.Load() == 100 })
			release()
			wg.Wait()
			if verified, _ := b.counts(); verified != 1 || right.Load() != 100 {
				t.Errorf("the engine was asked %d times, %d got its answer", verified, right.Load())
			}
			seen := b.seen()
			if seen["verdicts shared"]+seen["verdicts hit"]+seen["verdicts miss"] != 100 || seen["verdicts miss"] > 1 {
				t.Errorf("events %v", seen)
			}
		})
	}
}

// Who has other credentials does not board another's flight.
func TestFlightsByIdentity(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	release := b.held(good)
	defer release()
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA, login(t, "a.io", fmt.Sprintf("user-%d", i%2))))
		})
	}
	eventually(t, "both fly", func() bool { verified, _ := b.counts(); return verified == 2 })
	release()
	wg.Wait()
	if verified, _ := b.counts(); verified != 2 {
		t.Errorf("the engine was asked %d times, want 2", verified)
	}
}

// A leader that goes away fails nobody but itself.
func TestCancelledLeader(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	release := b.held(good)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	leader := make(chan policy.Verdict, 1)
	go func() { leader <- made.Verify(ctx, rule(1), image(t, "a.io/x@"+digestA)) }()
	eventually(t, "the leader flies", func() bool { verified, _ := b.counts(); return verified == 1 })

	followers := make(chan policy.Verdict, 20)
	for range cap(followers) {
		go func() { followers <- made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA)) }()
	}
	cancel()
	select {
	case v := <-leader:
		if v.Outcome != policy.Inconclusive || v.Reason != policy.ReasonDeadline {
			t.Errorf("the leader got %+v", v)
		}
	case <-time.After(enough):
		t.Fatal("the leader waits although its time is over")
	}
	release()
	for range cap(followers) {
		if v := <-followers; v != good {
			t.Errorf("a follower got %+v", v)
		}
	}
	if verified, _ := b.counts(); verified != 1 {
		t.Errorf("the engine was asked %d times", verified)
	}
}

// What nobody waits for any more goes on, so that a retry finds it.
func TestWorkGoesOn(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	landed := make(chan struct{})
	gate := make(chan struct{})
	b.verify = func(ctx context.Context, _ *policy.Rule, _ policy.Image) policy.Verdict {
		defer close(landed)
		<-gate
		if deadline, ok := ctx.Deadline(); ctx.Err() != nil || !ok || time.Until(deadline) > 30*time.Second {
			t.Errorf("in the background: %v, until %v", ctx.Err(), deadline)
		}
		return good
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if v := made.Verify(ctx, rule(1), image(t, "a.io/x@"+digestA)); v.Outcome != policy.Inconclusive {
		t.Fatalf("got %+v", v)
	}
	if v, ok := b.seen()["verdicts hit"]; ok {
		t.Fatalf("%d hits", v)
	}
	close(gate)
	<-landed
	eventually(t, "the retry hits", func() bool {
		return made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA)) == good && b.seen()["verdicts hit"] > 0
	})
	if verified, _ := b.counts(); verified != 1 {
		t.Errorf("the engine was asked %d times", verified)
	}
}

// The tag's flight is the same: shared, and not ended by who leaves.
func TestTagFlight(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	gate := make(chan struct{})
	b.resolve = func(ctx context.Context, _ policy.Image) (policy.Resolution, error) {
		<-gate
		return policy.Resolution{Digest: digestA}, ctx.Err()
	}
	ctx, cancel := context.WithCancel(t.Context())
	leader := make(chan error, 1)
	go func() {
		_, err := made.Resolve(ctx, image(t, "a.io/x:1"))
		leader <- err
	}()
	eventually(t, "the leader flies", func() bool { _, resolved := b.counts(); return resolved == 1 })
	cancel()
	if err := <-leader; policy.VerdictOf(err).Outcome != policy.Inconclusive {
		t.Errorf("the leader got %v", err)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if got, err := made.Resolve(t.Context(), image(t, "a.io/x:1")); err != nil || got.Digest != digestA {
				t.Errorf("a follower got %+v, %v", got, err)
			}
		})
	}
	close(gate)
	wg.Wait()
	if _, resolved := b.counts(); resolved != 1 {
		t.Errorf("asked %d times", resolved)
	}
}

func TestPanicInFlight(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	b.verify = func(context.Context, *policy.Rule, policy.Image) policy.Verdict { panic("boom") }
	b.resolve = func(context.Context, policy.Image) (policy.Resolution, error) { panic("boom") }
	for range 3 { // and it is not kept
		if v := made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA)); v.Outcome != policy.Inconclusive || v.Reason != policy.ReasonInternal {
			t.Errorf("got %+v", v)
		}
		if got, err := made.Resolve(t.Context(), image(t, "a.io/x:1")); err == nil {
			t.Errorf("got %+v", got)
		}
	}
	b.says(good)
	b.pointsTo(digestA, nil)
	if v := made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA)); v != good {
		t.Errorf("afterwards: %+v", v)
	}
}

// No more than 256 questions are under way about one host, and 1024 in all; one
// more is answered at once, and the answer is not kept. One host that hangs
// leaves room for the others, and so do those who ask with the same credentials:
// 192 of one host's.
func TestFlightBound(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	release := b.held(good)
	defer release()
	var wg sync.WaitGroup
	flying := 0
	fill := func(host string) {
		for i := range 256 {
			var of []credential.Config // anonymous, and somebody's
			if i >= 192 {
				of = append(of, login(t, host, "somebody"))
			}
			wg.Go(func() { made.Verify(t.Context(), rule(1), image(t, fmt.Sprintf("%s/x%d@%s", host, i, digestA), of...)) })
			if i == 191 {
				eventually(t, "the first fly", func() bool { verified, _ := b.counts(); return verified == flying+192 })
				if v := made.Verify(t.Context(), rule(1), image(t, host+"/x999@"+digestA)); v.Reason != policy.ReasonLimit || !strings.Contains(v.Message, "the same credentials") {
					t.Errorf("got %+v", v)
				}
			}
		}
		flying += 256
		eventually(t, "all fly", func() bool { verified, _ := b.counts(); return verified == flying })
	}
	late := func(host string) policy.Verdict {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		return made.Verify(ctx, rule(1), image(t, host+"/late@"+digestA))
	}
	fill("hangs.io")
	if v := late("hangs.io"); v.Outcome != policy.Inconclusive || v.Reason != policy.ReasonLimit {
		t.Errorf("got %+v", v)
	}
	if got, err := made.Resolve(t.Context(), image(t, "hangs.io/late:1")); err == nil || policy.VerdictOf(err).Reason != policy.ReasonLimit {
		t.Errorf("tags are not in the same bound: %+v, %v", got, err)
	}
	fill("b.io")
	fill("c.io")
	// This one is asked, and so stays under way after its requester has left.
	if v := late("d.io"); v.Reason != policy.ReasonDeadline {
		t.Errorf("got %+v", v)
	}
	flying++
	for i := range 255 {
		of := login(t, "d.io", strconv.Itoa(i))
		wg.Go(func() { made.Verify(t.Context(), rule(1), image(t, fmt.Sprintf("d.io/x%d@%s", i, digestA), of)) })
	}
	flying += 255
	eventually(t, "all fly", func() bool { verified, _ := b.counts(); return verified == flying })
	if v := late("e.io"); v.Outcome != policy.Inconclusive || v.Reason != policy.ReasonLimit {
		t.Errorf("got %+v", v)
	}
	release()
	wg.Wait()
	eventually(t, "there is room again", func() bool { return late("hangs.io") == good })
}

// A request that is over begins nothing.
func TestEndedRequest(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 100 {
		if v := made.Verify(ctx, rule(1), image(t, fmt.Sprintf("a.io/x%d@%s", i, digestA))); v.Reason != policy.ReasonDeadline {
			t.Errorf("got %+v", v)
		}
	}
	time.Sleep(20 * time.Millisecond) // flights would begin by themselves
	if verified, _ := b.counts(); verified != 0 {
		t.Errorf("the engine was asked %d times", verified)
	}
}

// 200 requests at once, through the real engine, make the registry requests of one.
func TestOneFlightToRegistry(t *testing.T) {
	t.Parallel()
	requests := func(concurrent int) int {
		host := registrytest.New(t)
		key := registrytest.NewKey(t, registrytest.ECDSAP256)
		pushed := host.PushImage(t, "acme/app:v1")
		host.SignLegacy(t, pushed, key)
		client, err := registry.New(registry.Options{
			AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{host.Host()},
		})
		if err != nil {
			t.Fatal(err)
		}
		made, err := cache.New(policy.Direct{}, client, client, cache.Options{})
		if err != nil {
			t.Fatal(err)
		}
		verifier, err := cosign.New(cosign.Options{Source: client}, []cosign.Authority{{Name: "release", Keys: [][]byte{[]byte(key.PublicPEM())}}})
		if err != nil {
			t.Fatal(err)
		}
		r := rule(1)
		r.Verification.Verifier = verifier
		r.Mode = policy.Enforce
		r.Prefixes = append(r.Prefixes, prefix(t, host.Host()))
		decider := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Resolver: made, Engine: made}
		set := policy.NewSet([]*policy.Rule{r})
		defer host.Fault(registrytest.Any(), registrytest.Delay(20*time.Millisecond))()
		var wg sync.WaitGroup
		for range concurrent {
			wg.Go(func() {
				asked := image(t, pushed.ByTag())
				got := decider.Decide(t.Context(), policy.Question{
					Set: set, Credentials: credential.None(), Images: []policy.Asked{{Reference: asked.Reference}, {Reference: asked.Reference}},
				})
				for _, d := range got {
					if d.Outcome() != policy.Accepted || d.Digest != pushed.Digest {
						t.Errorf("%s %s: %+v", d.Outcome(), d.Digest, d.Findings)
					}
				}
			})
		}
		wg.Wait()
		return len(host.Counted())
	}
	one, many := requests(1), requests(200)
	// The look-up of bundles is given up when the signature under .sig holds,
	// so one more or less of them is sent.
	if many > one+1 || one > 4 {
		t.Errorf("%d requests for one, %d for two hundred", one, many)
	}
}
