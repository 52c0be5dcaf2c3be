// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// attackers is how many requests ask one bad registry at the same time,
	// each about an image of its own: twice the connections to one host.
	attackers = 64
	// faultTimeout is shorter than the API server's own, so that the part is
	// over sooner. What a registry can make the server do is bounded by size
	// and not by this.
	faultTimeout = 5 * time.Second
	// limitPeak is the memory limit of the container.
	limitPeak = 512 << 20
	// limitBack is when all goroutines must have ended: what goes on for those
	// who have left does so for 30 s (spec section 5).
	limitBack = 30 * time.Second
	// idle is how many goroutines the connections take that are kept for the
	// next request: two for each of 16, for 90 s, to a registry and its ally.
	idle = 2 * 2 * 16
	// afterClosing is how long goroutines may take to notice that the other
	// side of their connections has closed.
	afterClosing = 5 * time.Second
	// breathing is how many goroutines come and go in a server at rest.
	breathing = 4
	// lookEvery is how exactly the time until they are back is known.
	lookEvery = 100 * time.Millisecond
)

// faults are what a registry may do, one by one: those that take most memory
// last, because a process gives it back late.
var faults = []struct {
	name  string
	order func(bad *badRegistry)
}{
	{"tags that flip", func(bad *badRegistry) {
		for i, image := range bad.images {
			other := bad.images[(i+1)%len(bad.images)]
			bad.Fault(registrytest.Manifest(image.ByTag()), registrytest.FlipFlop(image, bad.unsigned(image), other))
		}
	}},
	{"wrong Docker-Content-Digest", every(registrytest.WrongDigest("sha256:" + strings.Repeat("ab", 32)))},
	{"content types that change", every(registrytest.ContentTypes("text/html", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.oci.image.manifest.v1+json"))},
	{"a byte a second", func(bad *badRegistry) { bad.drip() }},
	{"Content-Length of 1 MiB, and no more bytes", every(registrytest.HugeLength(1 << 20))},
	{"1 GiB, packed", every(registrytest.Bomb(1 << 30))},
	{"401, realm at another registry", func(bad *badRegistry) {
		bad.Fault(registrytest.Any(), registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, bad.ally.Host())))
	}},
	{"401, realm at itself without end", func(bad *badRegistry) {
		bad.Fault(tokens(), registrytest.Endless())
		bad.Fault(registrytest.Any(), registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, bad.Host())))
	}},
	{"redirects to another registry", func(bad *badRegistry) {
		bad.Fault(registrytest.Ping().Not(), registrytest.Redirect("http://"+bad.ally.Host()))
	}},
	{"redirects in a circle", func(bad *badRegistry) {
		bad.Fault(registrytest.Any(), registrytest.Redirect("http://"+bad.Host()))
	}},
	{"429 with Retry-After", every(registrytest.RetryAfter(429, "1"))},
	{"reset in mid-body", every(registrytest.ResetMidBody())},
	{"referrers pages that link to themselves", every(registrytest.SelfLink())},
	{"hostile digests", every(registrytest.HostileDigests("", "sha256:", "sha256:../../x", "http://169.254.169.254/x", strings.Repeat("a", 1<<16)))},
	{"bodies without end", every(registrytest.Endless())},
	{"Content-Length of 4 GiB", every(registrytest.HugeLength(4 << 30))},
	{"4 MiB, the largest that is read", every(registrytest.Oversized(4 << 20))},
	{"10,000 signatures", func(bad *badRegistry) {
		for _, image := range bad.images {
			bad.Fault(registrytest.Signature(image).Or(registrytest.Referrers(image)), registrytest.Crowd(10_000))
		}
	}},
}

// every is a fault of all that follows the login.
func every(behaviour registrytest.Behaviour) func(*badRegistry) {
	return func(bad *badRegistry) { bad.Fault(registrytest.Ping().Not(), behaviour) }
}

// tokens matches the requests to the token service.
func tokens() registrytest.Match {
	return func(request *http.Request) bool { return request.URL.Path == "/token" }
}

// unsigned pushes an image that nobody signs into the repository of another.
func (b *badRegistry) unsigned(beside registrytest.Image) registrytest.Image {
	return b.PushImage(b.tb, beside.Repository+":unsigned")
}

// faultRows orders the faults one after the other.
func (h *hostile) faultRows(ctx context.Context) ([]row, error) {
	var peaks, backs []row
	start, err := h.atRest(ctx)
	if err != nil {
		return nil, err
	}
	for i, bad := range h.bad {
		h.sayf("hostile registries: %d of %d: %s", i+1, len(h.bad), bad.name)
		peak, back, err := h.endure(ctx, bad)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", bad.name, err)
		}
		peaks = append(peaks, atMost(bad.name+": peak resident", limitPeak, mebibytes).measured(float64(peak)))
		backs = append(backs, atMost(bad.name+": goroutines back after", float64(limitBack), seconds).measured(float64(back)))
	}
	end, err := h.atRest(ctx)
	if err != nil {
		return nil, err
	}
	after := atMost("after all of them: goroutines, before and now", 1+float64(breathing)/float64(start), whole)
	return append(append(peaks, backs...), after.compared(float64(start), float64(end), float64(end)/float64(start))), nil
}

// atRest counts the goroutines without any that serve the client.
func (h *hostile) atRest(ctx context.Context) (int, error) {
	h.driver.client.CloseIdleConnections()
	time.Sleep(lookEvery) // the server has to see it
	return h.server.goroutines(ctx)
}

// endure sends requests about one bad registry: the most memory that they took,
// and how long after the last answer the goroutines were as many as before.
func (h *hostile) endure(ctx context.Context, bad *badRegistry) (peak int64, back time.Duration, err error) {
	before, err := h.atRest(ctx)
	if err != nil {
		return 0, 0, err
	}
	if err := h.server.resetPeak(); err != nil {
		return 0, 0, err
	}
	if err := h.attack(ctx, bad); err != nil {
		return 0, 0, err
	}
	ended := time.Now()
	if _, err := h.atRest(ctx); err != nil {
		return 0, 0, err
	}
	// The registry keeps its side open, so that whatever hangs ends by itself.
	// Idle connections are kept for longer, and end when it closes.
	if back, err = h.fewer(ctx, before+idle, ended, limitBack); err != nil {
		return 0, 0, err
	}
	bad.Close()
	bad.ally.Close()
	late, err := h.fewer(ctx, before+breathing, time.Now(), afterClosing)
	if err != nil {
		return 0, 0, err
	}
	if late > afterClosing { // what is left are no idle connections
		back = max(back, limitBack+late)
	}
	peak, err = h.server.peak()
	return peak, back, err
}

// attack asks about all images of a registry at once, through both passes.
func (h *hostile) attack(ctx context.Context, bad *badRegistry) error {
	errs := make([]error, len(bad.images))
	var group sync.WaitGroup
	for i, image := range bad.images {
		group.Go(func() {
			a := attempt{path: mutatePath, image: image, written: image.ByTag(), timeout: faultTimeout}
			if a.written, _, errs[i] = h.try(ctx, a); errs[i] == nil {
				a.path = validatePath
				_, _, errs[i] = h.try(ctx, a)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// fewer waits until there are at most so many goroutines, and returns how long
// after since that was; more than limit if it gave up.
func (h *hostile) fewer(ctx context.Context, most int, since time.Time, limit time.Duration) (time.Duration, error) {
	for {
		now, err := h.server.goroutines(ctx)
		elapsed := time.Since(since)
		if err != nil || now <= most || elapsed > limit {
			return elapsed, err
		}
		time.Sleep(lookEvery)
	}
}
