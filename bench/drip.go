// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// drippers is how many requests hang at a time.
	drippers = 50
	// dripEvery is how long a registry takes for each byte.
	dripEvery = time.Second
	// dripTimeout is the API server's own for a webhook that sets none.
	dripTimeout = 10 * time.Second
	// limitDrip is when a drip must be answered: the server keeps half a second
	// back, and half of that is left to a network that is slower than loopback.
	limitDrip = dripTimeout - 250*time.Millisecond
	// limitOthers is how much slower everyone else may become.
	limitOthers = 2
	// hangAtLeast is how many requests a registry must have before it for the
	// measurement to begin: half of what the server sends to one host at once.
	hangAtLeast = 16

	// The others, in each round before and in each meanwhile.
	coldAdmissions = 300
	warmReviews    = 3000
	othersInFlight = 4
)

// times are what everyone else was served in.
type times struct{ coldP50, coldP99, warmP50, warmP99 float64 }

// dripRows measures everyone else before and while requests hang, in turns.
func (h *hostile) dripRows(ctx context.Context) ([]row, error) {
	if _, err := h.others(ctx, h.fresh(coldAdmissions)); err != nil {
		return nil, fmt.Errorf("warming up: %w", err)
	}
	var before, meanwhile []times
	var slowest time.Duration
	for i, registry := range h.drips {
		h.sayf("slow registries: round %d of %d", i+1, h.effort.drips)
		first, second := h.fresh(coldAdmissions), h.fresh(coldAdmissions)
		quiet, err := h.others(ctx, first)
		if err != nil {
			return nil, err
		}
		registry.drip()
		hanging, err := h.hang(ctx, registry)
		if err != nil {
			return nil, err
		}
		slow, err := h.others(ctx, second)
		measured := time.Now()
		answered, waitErr := hanging.wait()
		if err := errors.Join(err, waitErr); err != nil {
			return nil, err
		}
		if first := slices.MinFunc(answered, drip.compare); first.at.Before(measured) {
			return nil, fmt.Errorf("the first drip was answered %s before everyone else was measured: the machine is too slow for this", measured.Sub(first.at))
		}
		for _, d := range answered {
			slowest = max(slowest, d.elapsed)
		}
		before, meanwhile = append(before, quiet), append(meanwhile, slow)
		registry.Close() // what goes on in the background must not fall into the next round
	}
	return append(othersRows(before, meanwhile),
		atMost(fmt.Sprintf("%d requests to a registry of a byte a second: slowest answer, timeout 10 s", drippers), float64(limitDrip), millis).measured(float64(slowest))), nil
}

// drip makes the registry send a byte a second. It does not say digests, so
// that looking a tag up means reading too.
func (b *badRegistry) drip() {
	b.Fault(registrytest.Method(http.MethodHead), registrytest.WrongDigest(""))
	b.Fault(registrytest.Any(), registrytest.SlowDrip(dripEvery))
}

// drip is the answer to a request that hung.
type drip struct {
	at      time.Time
	elapsed time.Duration
}

func (d drip) compare(other drip) int { return d.at.Compare(other.at) }

// hanging are requests under way.
type hanging struct {
	group    sync.WaitGroup
	answered []drip
	errs     []error
}

// hang sends requests about a registry that drips, half of them by tag, and
// returns when they hang.
func (h *hostile) hang(ctx context.Context, bad *badRegistry) (*hanging, error) {
	all := &hanging{answered: make([]drip, drippers), errs: make([]error, drippers)}
	for i, image := range bad.images {
		a := attempt{path: mutatePath, image: image, written: image.ByTag(), timeout: dripTimeout}
		if i%2 == 0 {
			a.path, a.written = validatePath, image.ByBoth()
		}
		all.group.Go(func() {
			var left string
			left, all.answered[i].elapsed, all.errs[i] = h.try(ctx, a)
			all.answered[i].at = time.Now()
			if all.errs[i] == nil && left != a.written {
				all.errs[i] = fmt.Errorf("%s was pinned to %s: its registry does not drip", a.written, left)
			}
		})
	}
	for deadline := time.Now().Add(dripTimeout / 2); bad.reading() < hangAtLeast; time.Sleep(probeEvery) {
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("waiting for requests to hang: only %d of %d do", bad.reading(), hangAtLeast)
		}
	}
	return all, nil
}

// reading is how many GET requests the registry has had, all of which it is
// still sending an answer to.
func (b *badRegistry) reading() (n int) {
	for _, request := range b.Counted() {
		if request.Method == http.MethodGet {
			n++
		}
	}
	return n
}

func (a *hanging) wait() ([]drip, error) {
	a.group.Wait()
	return a.answered, errors.Join(a.errs...)
}

// fresh pushes and signs images that nobody has asked about.
func (h *hostile) fresh(n int) []registrytest.Image {
	images := make([]registrytest.Image, n)
	for i := range images {
		h.pushed++
		images[i] = h.registry.PushImage(h.tb, fmt.Sprintf("acme/other-%d:%s", h.pushed, reviewTag))
		h.registry.SignLegacy(h.tb, images[i], h.key)
	}
	return images
}

// others measures cold and warm requests about a registry that works.
func (h *hostile) others(ctx context.Context, fresh []registrytest.Image) (times, error) {
	cold, err := h.cold(ctx, fresh)
	if err != nil {
		return times{}, err
	}
	warm, err := h.driver.run(ctx, h.server, load{review: h.small, path: validatePath, inFlight: othersInFlight, requests: warmReviews})
	if err != nil {
		return times{}, err
	}
	return times{
		coldP50: float64(cold[len(cold)/2]), coldP99: float64(cold[len(cold)*99/100]),
		warmP50: float64(warm.p50), warmP99: float64(warm.p99),
	}, nil
}

// cold admits images through both passes, and returns how long each took,
// sorted.
func (h *hostile) cold(ctx context.Context, images []registrytest.Image) ([]time.Duration, error) {
	c := &cold{bench: h.bench, server: h.server}
	elapsed := make([]time.Duration, len(images))
	errs := make([]error, othersInFlight)
	h.registry.Reset()
	runtime.GC() // the client's garbage must not be the server's time
	var group sync.WaitGroup
	for worker := range othersInFlight {
		group.Go(func() {
			for i := worker; i < len(images); i += othersInFlight {
				began := time.Now()
				if err := c.admit(ctx, uidOf(h.driver.uid.Add(1)), images[i].ByTag()); err != nil {
					errs[worker] = fmt.Errorf("cold: %s, of which the registry was asked %q: %w", images[i], h.askedOf(images[i]), err)
					return
				}
				elapsed[i] = time.Since(began)
			}
		})
	}
	group.Wait()
	// Each was asked about for the first time: its tag, its signatures.
	if n := len(h.registry.Counted()); n < 2*len(images) {
		errs = append(errs, fmt.Errorf("cold: the registry was asked only %d times about %d images", n, len(images)))
	}
	slices.Sort(elapsed)
	return elapsed, errors.Join(errs...)
}

// askedOf is what the good registry was asked for about an image.
func (h *hostile) askedOf(image registrytest.Image) (asked []string) {
	for _, request := range h.registry.Requests() {
		if strings.HasPrefix(request.Path, "/v2/"+image.Repository+"/") {
			asked = append(asked, request.String())
		}
	}
	return asked
}

// othersRows compares the rounds.
func othersRows(before, meanwhile []times) []row {
	var rows []row
	for _, c := range []struct {
		what   string
		figure func(times) float64
		judged bool
	}{
		{"cold admissions of everyone else, mutate + validate: p50", func(t times) float64 { return t.coldP50 }, false},
		{"cold admissions of everyone else, mutate + validate: p99", func(t times) float64 { return t.coldP99 }, true},
		{"warm /validate of everyone else, 1 KB: p50", func(t times) float64 { return t.warmP50 }, false},
		{"warm /validate of everyone else, 1 KB: p99", func(t times) float64 { return t.warmP99 }, true},
	} {
		var first, second, ratios []float64
		for i := range before {
			b, m := c.figure(before[i]), c.figure(meanwhile[i])
			first, second, ratios = append(first, b), append(second, m), append(ratios, m/b)
		}
		r := told(c.what, micros)
		if c.judged {
			r = atMost(c.what, limitOthers, micros)
		}
		rows = append(rows, r.compared(median(first), median(second), median(ratios)))
	}
	return rows
}
