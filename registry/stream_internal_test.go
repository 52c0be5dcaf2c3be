// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

func described(n int) descriptors {
	var d descriptors
	for i := range n {
		d.items = append(d.items, descriptor{UntrustedDigest: fmt.Sprint(i)})
	}
	return d
}

func itself(_ context.Context, d descriptor) (string, bool, error) {
	return d.UntrustedDigest, true, nil
}

// full takes all places there are, which shows that nobody has any.
func full(t *testing.T, p *places) {
	t.Helper()
	late := time.After(10 * time.Second)
	for _, places := range []chan struct{}{p.held, p.looked} {
		for range cap(places) {
			select {
			case places <- struct{}{}:
			case <-late:
				t.Fatalf("%d of %d places are not given back", len(places), cap(places))
			}
		}
	}
}

func TestStreamGivesItsPlacesBack(t *testing.T) {
	for end, consume := range map[string]func(*places){
		"the last": func(p *places) {
			n := 0
			for item, err := range (stream[string]{described(64), "a.io", p, itself}).all(t.Context()) {
				if err != nil || item != fmt.Sprint(n) {
					t.Errorf("item %d is %q, %v", n, item, err)
				}
				n++
			}
			if n != 64 {
				t.Errorf("%d items", n)
			}
		},
		"the first": func(p *places) {
			for _, err := range (stream[string]{described(64), "a.io", p, itself}).all(t.Context()) {
				if err != nil {
					t.Error(err)
				}
				break
			}
		},
		"a panic of who looks": func(p *places) {
			defer func() { _ = recover() }()
			for _, err := range (stream[string]{described(64), "a.io", p, itself}).all(t.Context()) {
				panic(fmt.Sprint("boom", err))
			}
		},
		"panics of who reads": func(p *places) {
			read := func(context.Context, descriptor) (string, bool, error) { panic("boom") }
			n := 0
			for _, err := range (stream[string]{described(10), "a.io", p, read}).all(t.Context()) {
				if v := policy.VerdictOf(err); v.Outcome != policy.Inconclusive || v.Trace == "" {
					t.Errorf("error %v", err)
				}
				n++
			}
			if n != 10 {
				t.Errorf("%d errors", n)
			}
		},
		"the time": func(p *places) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			hang := func(ctx context.Context, _ descriptor) (string, bool, error) {
				<-ctx.Done()
				return "", false, ctx.Err()
			}
			var last error
			for _, err := range (stream[string]{described(64), "a.io", p, hang}).all(ctx) {
				last = err
			}
			if !errors.Is(last, context.DeadlineExceeded) {
				t.Errorf("error %v: nobody can know that this was all", last)
			}
		},
	} {
		t.Run(end, func(t *testing.T) {
			p := newPlaces()
			consume(p)
			full(t, p)
		})
	}
}

// TestStreamsOfOneHost: all of a host's streams together keep to its places, and
// come to their ends.
func TestStreamsOfOneHost(t *testing.T) {
	p := newPlaces()
	var held, looked, most, mostLooked atomic.Int32
	note := func(now int32, most *atomic.Int32) {
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
	}
	read := func(_ context.Context, d descriptor) (string, bool, error) {
		note(held.Add(1), &most)
		time.Sleep(time.Millisecond)
		return d.UntrustedDigest, true, nil
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			n := 0
			for _, err := range (stream[string]{described(20), "a.io", p, read}).all(t.Context()) {
				if err != nil {
					t.Error(err)
				}
				note(looked.Add(1), &mostLooked)
				time.Sleep(100 * time.Microsecond)
				looked.Add(-1)
				held.Add(-1)
				n++
			}
			if n != 20 {
				t.Errorf("%d items, want 20", n)
			}
		})
	}
	wg.Wait()
	if most.Load() > maxHeld || mostLooked.Load() > maxLooked {
		t.Errorf("%d held at once, %d looked at", most.Load(), mostLooked.Load())
	}
	full(t, p)
}

// TestStreamBound: what is not read is told.
func TestStreamBound(t *testing.T) {
	for label, from := range map[string]descriptors{"too many": described(65), "more elsewhere": {more: true}} {
		var last error
		n := 0
		for _, err := range (stream[string]{from, "a.io", newPlaces(), itself}).all(t.Context()) {
			if err != nil {
				last = err
				continue
			}
			n++
		}
		if !hasReason(last, policy.ReasonLimit) || n > maxSignatures {
			t.Errorf("%s: %d items, error %v", label, n, last)
		}
	}
}
