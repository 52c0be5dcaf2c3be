// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// moving is a signed and an unsigned image under one tag.
func (s *stack) moving(tb testing.TB, repository string) (good, bad registrytest.Image) {
	tb.Helper()
	good = s.host.PushImage(tb, repository+":good")
	s.host.SignLegacy(tb, good, s.key)
	bad = s.host.PushImage(tb, repository+":bad")
	return s.host.Tag(tb, repository, "v1", good.Digest), s.host.Tag(tb, repository, "v2", bad.Digest)
}

// check: whatever came of it, no other digest than the signed one is stored.
func check(t *testing.T, stored string, allowed bool, good registrytest.Image) {
	t.Helper()
	if allowed && stored != pod(good.ByBoth()) {
		t.Errorf("let in: %s", stored)
	}
}

// A tag that moves at any moment of an admission: after each number of answers.
func TestTagMovesMeanwhile(t *testing.T) {
	t.Parallel()
	for n := range 8 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			s := newStack(t, setting{})
			good, bad := s.moving(t, "acme/app")
			s.host.Fault(registrytest.Any(), s.host.MoveTagAfter(n, good, bad.Digest))
			for range 3 {
				stored, got := s.admit(t, ask{object: pod(good.ByTag())})
				check(t, stored, got.Allowed, good)
			}
		})
	}
}

// A tag that names another image with each answer.
func TestTagFlips(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"good", "bad"} {
		t.Run(first, func(t *testing.T) {
			t.Parallel()
			now := &clock{now: time.Now()}
			s := newStack(t, setting{cache: cache.Options{Now: now.Now}})
			good, bad := s.moving(t, "acme/app")
			flips := []registrytest.Image{good, bad}
			if first == "bad" {
				flips = []registrytest.Image{bad, good}
			}
			s.host.Fault(registrytest.Manifest(good.ByTag()), registrytest.FlipFlop(flips...))
			in, out := 0, 0
			for range 10 {
				stored, got := s.admit(t, ask{object: pod(good.ByTag())})
				check(t, stored, got.Allowed, good)
				if got.Allowed {
					in++
				} else {
					out++
				}
				now.add(31 * time.Second) // so that the tag is asked for again
			}
			if in == 0 || out == 0 {
				t.Errorf("%d let in, %d denied: the tag did not flip", in, out)
			}
		})
	}
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// A tag that moves while verdict and tag are cached: the old digest or none.
func TestTagMovesWhileCached(t *testing.T) {
	t.Parallel()
	now := &clock{now: time.Now()}
	s := newStack(t, setting{cache: cache.Options{Now: now.Now}})
	good, bad := s.moving(t, "acme/app")
	if _, got := s.admit(t, ask{object: pod(good.ByTag())}); !got.Allowed {
		t.Fatalf("denied: %s", message(got))
	}
	s.host.Tag(t, "acme/app", "v1", bad.Digest)
	for _, elapsed := range []time.Duration{0, 29 * time.Second, 2 * time.Second, 10 * time.Minute, time.Hour} {
		now.add(elapsed)
		stored, got := s.admit(t, ask{object: pod(good.ByTag())})
		check(t, stored, got.Allowed, good)
		if elapsed == 2*time.Second && got.Allowed {
			t.Error("the tag is still followed to where it was, past its time")
		}
	}
	// The unsigned digest has no share in the verdict of the tag's old one.
	if got := s.send(t, "/validate", ask{object: pod("" + good.ByTag() + "@" + bad.Digest)}); got.Allowed {
		t.Error("the unsigned digest was let in under the signed one's tag")
	}
	// Nor has its name under another repository.
	if _, got := s.admit(t, ask{object: pod(s.host.Host() + "/acme/other@" + good.Digest)}); got.Allowed {
		t.Error("let in under another repository")
	}
}

// The registry goes away after the mutating pass, or before both, with and
// without a warm cache.
func TestRegistryGoesAway(t *testing.T) {
	t.Parallel()
	now := &clock{now: time.Now()}
	s := newStack(t, setting{cache: cache.Options{Now: now.Now}})
	good, _ := s.moving(t, "acme/app")
	cold := s.host.PushImage(t, "acme/cold:v1")
	s.host.SignLegacy(t, cold, s.key)
	if _, got := s.admit(t, ask{object: pod(good.ByTag())}); !got.Allowed {
		t.Fatalf("denied: %s", message(got))
	}
	pinned := apply(t, pod(cold.ByTag()), s.send(t, "/mutate", ask{object: pod(cold.ByTag())}))
	remove := s.host.Fault(registrytest.Any(), registrytest.Status(503))
	if got := s.send(t, "/validate", ask{object: pinned}); got.Allowed || got.Result.Code != 503 {
		t.Errorf("cold: %s", message(got))
	}
	for range 2 {
		stored, got := s.admit(t, ask{object: pod(good.ByTag())})
		if stored != pod(good.ByBoth()) || !got.Allowed {
			t.Errorf("warm: stored %s, %s", stored, message(got))
		}
		now.add(10 * time.Minute) // the tag is stale then, and serves
	}
	now.add(time.Hour) // the verdict has ended too
	if stored, got := s.admit(t, ask{object: pod(good.ByTag())}); got.Allowed || stored != pod(good.ByTag()) {
		t.Errorf("too old: stored %s, %s", stored, message(got))
	}
	remove()
	now.add(3 * time.Second)
	if _, got := s.admit(t, ask{object: pod(cold.ByTag())}); !got.Allowed {
		t.Errorf("it is back: %s", message(got))
	}
}

// A stale tag is told of in both passes' warnings.
func TestStaleWarns(t *testing.T) {
	t.Parallel()
	now := &clock{now: time.Now()}
	s := newStack(t, setting{cache: cache.Options{Now: now.Now}, policies: func(host string) string { return staticConfig("tag", host+"/acme/app:v1", "pass") }})
	good, _ := s.moving(t, "acme/app")
	s.admit(t, ask{object: pod(good.ByTag())})
	now.add(time.Minute)
	s.host.Fault(registrytest.Any(), registrytest.Status(503))
	_, got := s.admit(t, ask{object: pod(good.ByTag())})
	if !got.Allowed || !strings.Contains(strings.Join(got.Warnings, "\n"), "registry unreachable: the tag was resolved from the cache, past its time") {
		t.Errorf("%s, warnings %q", message(got), got.Warnings)
	}
}

// Rules that name a digest, or a tag, hold for what may run, not for what the
// registry says at the moment.
func TestDigestRulesAndFlips(t *testing.T) {
	t.Parallel()
	now := &clock{now: time.Now()}
	var blocked string
	probe := registrytest.New(t).PushImage(t, "free/app:bad") // content is the same in every registry
	blocked = probe.Digest
	s := newStack(t, setting{cache: cache.Options{Now: now.Now}, policies: func(host string) string {
		return staticConfig("block", host+"/free/app@"+blocked, "fail") + staticConfig("free", host+"/free/", "pass")
	}})
	bad := s.host.PushImage(t, "free/app:bad")
	if bad.Digest != blocked {
		t.Fatal("the image is another than in the policy")
	}
	good := s.host.PushImage(t, "free/app:v1")
	// Unpinned, because the mutating pass could not ask, and harmless when the
	// validating pass asks: the node asks again.
	down := s.host.Fault(registrytest.Any(), registrytest.Status(503))
	stored := apply(t, pod(good.ByTag()), s.send(t, "/mutate", ask{object: pod(good.ByTag())}))
	if got := s.send(t, "/validate", ask{object: stored}); got.Allowed {
		t.Error("let in although it is not known whether the blocked digest is meant")
	}
	down()
	now.add(3 * time.Second)
	if got := s.send(t, "/validate", ask{object: stored}); got.Allowed {
		t.Error("let in without a digest, although a rule blocks one of this repository")
	}
	stored, got := s.admit(t, ask{object: pod(good.ByTag())})
	if !got.Allowed || stored != pod(good.ByBoth()) {
		t.Errorf("stored %s, %s", stored, message(got))
	}
	if _, got := s.admit(t, ask{object: pod(bad.ByTag())}); got.Allowed {
		t.Error("the blocked digest was let in by its tag")
	}
	if _, got := s.admit(t, ask{object: pod(good.Name() + ":v1@" + blocked)}); got.Allowed {
		t.Error("the blocked digest was let in under another tag")
	}
}

// The validation of what is pinned asks nothing about tags.
func TestNoTagLookup(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	good, _ := s.moving(t, "acme/app")
	if got := s.send(t, "/validate", ask{object: pod(good.ByBoth())}); !got.Allowed {
		t.Fatalf("denied: %s", message(got))
	}
	for _, request := range s.host.Requests() {
		if strings.HasSuffix(request.Path, "/manifests/v1") {
			t.Errorf("asked for the tag: %s", request)
		}
	}
	s.host.Reset()
	if got := s.send(t, "/validate", ask{object: pod(good.ByBoth(), good.ByDigest())}); !got.Allowed || len(s.host.Requests()) > 0 {
		t.Errorf("%s, requests %v", message(got), s.host.Requests())
	}
}

// Many at once, while the tag moves to and fro: under the race detector too.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	good, bad := s.moving(t, "acme/app")
	stop := make(chan struct{})
	var mover, senders sync.WaitGroup
	mover.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				s.host.Tag(t, "acme/app", "v1", []string{good.Digest, bad.Digest}[i%2])
			}
		}
	})
	for range 20 {
		senders.Go(func() {
			for range 5 {
				stored, got := s.admit(t, ask{object: pod(good.ByTag())})
				check(t, stored, got.Allowed, good)
			}
		})
	}
	senders.Wait()
	close(stop)
	mover.Wait()
}
