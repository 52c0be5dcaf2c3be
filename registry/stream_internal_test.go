// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func described(n int) descriptors {
	var d descriptors
	for i := range n {
		d.items = append(d.items, descriptor{UntrustedDigest: fmt.Sprint(i)})
	}
	return d
}

func itself(_ context.Context, d descriptor) fetched[string] {
	return fetched[string]{item: d.UntrustedDigest, ok: true}
}

// over is a stream of signatures that are read by read.
func over(from descriptors, p *places, read func(context.Context, descriptor) fetched[string]) stream[string] {
	return stream[string]{from: from, most: maxSignatures, what: "signatures", host: "a.io", places: p, read: read}
}

// full takes all places there are, which shows that nobody has any.
func full(t *testing.T, p *places) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, places := range []chan struct{}{p.held, p.large} {
		for range cap(places) {
			if _, err := take(ctx, places); err != nil {
				t.Fatalf("%d of %d places are not given back", len(places), cap(places))
			}
		}
	}
	if p.looked.Acquire(ctx, maxLooked) != nil {
		t.Fatal("not all that are looked at are given back")
	}
}

func TestStreamGivesItsPlacesBack(t *testing.T) {
	for end, consume := range map[string]func(*places){
		"the last": func(p *places) {
			n := 0
			for item, err := range over(described(64), p, itself).all(t.Context()) {
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
			for _, err := range over(described(64), p, itself).all(t.Context()) {
				if err != nil {
					t.Error(err)
				}
				break
			}
		},
		"a panic of who looks": func(p *places) {
			defer func() { _ = recover() }()
			for _, err := range over(described(64), p, itself).all(t.Context()) {
				panic(fmt.Sprint("boom", err))
			}
		},
		"panics of who reads": func(p *places) {
			read := func(context.Context, descriptor) fetched[string] { panic("boom") }
			n := 0
			for _, err := range over(described(10), p, read).all(t.Context()) {
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
			hang := func(ctx context.Context, _ descriptor) fetched[string] {
				<-ctx.Done()
				return fetched[string]{err: ctx.Err()}
			}
			var last error
			for _, err := range over(described(64), p, hang).all(ctx) {
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
	read := func(ctx context.Context, d descriptor) fetched[string] {
		note(held.Add(1), &most)
		time.Sleep(time.Millisecond)
		return itself(ctx, d)
	}
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			n := 0
			for _, err := range over(described(20), p, read).all(t.Context()) {
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
		for _, err := range over(from, newPlaces(), itself).all(t.Context()) {
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

// lately puts off what it is asked for, and takes a large place for it then.
func lately(p *places, item func() (string, error)) func(context.Context, descriptor) fetched[string] {
	return func(context.Context, descriptor) fetched[string] {
		return fetched[string]{late: func(ctx context.Context, keep func(back func())) (string, error) {
			back, err := take(ctx, p.large)
			if err != nil {
				return "", err
			}
			keep(back)
			return item()
		}}
	}
}

// TestLateOnesGiveTheirPlacesBack: what is read when its turn comes keeps its place
// for as long as it is looked at, and no longer, whatever comes of it.
func TestLateOnesGiveTheirPlacesBack(t *testing.T) {
	for name, test := range map[string]struct {
		item  func() (string, error)
		items int // of 10
		stop  bool
	}{
		"all are read":   {item: func() (string, error) { return "x", nil }, items: 10},
		"one is read":    {item: func() (string, error) { return "x", nil }, items: 1, stop: true},
		"none is read":   {item: func() (string, error) { return "", errors.New("boom") }},
		"reading panics": {item: func() (string, error) { panic("boom") }},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlaces()
			items, failed := 0, 0
			for _, err := range over(described(10), p, lately(p, test.item)).all(t.Context()) {
				if err != nil {
					failed++
					continue
				}
				if items++; len(p.large) != 1 || p.looked.TryAcquire(1) {
					t.Errorf("while a large one is looked at, %d have a place for it, and others may be looked at", len(p.large))
				}
				if test.stop {
					break
				}
			}
			if items != test.items || !test.stop && items+failed != 10 {
				t.Errorf("%d items and %d errors, want %d items", items, failed, test.items)
			}
			full(t, p)
		})
	}
	t.Run("the time is over", func(t *testing.T) {
		p := newPlaces()
		for range cap(p.large) {
			p.large <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		var last error
		for _, err := range over(described(10), p, lately(p, func() (string, error) { return "x", nil })).all(ctx) {
			last = err
		}
		if !errors.Is(last, context.DeadlineExceeded) {
			t.Errorf("error %v: nobody can know that this was all", last)
		}
		for range cap(p.large) {
			<-p.large
		}
		full(t, p)
	})
}

// TestLateOnesHoldNothingWhileTheyWait: more of them than there are places may wait.
func TestLateOnesHoldNothingWhileTheyWait(t *testing.T) {
	p := newPlaces()
	wait := make(chan struct{})
	held := lately(p, func() (string, error) { <-wait; return "x", nil })
	var wg sync.WaitGroup
	var read atomic.Int32
	for range maxHeld {
		wg.Go(func() {
			for _, err := range over(described(8), p, held).all(t.Context()) {
				if err == nil {
					read.Add(1)
				}
			}
		})
	}
	for end := time.Now().Add(10 * time.Second); len(p.large) < cap(p.large); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d are read", len(p.large))
		}
	}
	small := 0
	for _, err := range over(described(20), p, itself).all(t.Context()) {
		if err == nil {
			small++
		}
	}
	if small != 20 {
		t.Errorf("%d small ones beside large ones that wait, want 20", small)
	}
	close(wait)
	wg.Wait()
	if read.Load() != maxHeld*8 {
		t.Errorf("%d large ones, want %d", read.Load(), maxHeld*8)
	}
	full(t, p)
}

// TestLargeAttestationsKeepTheirPlace: what is large is counted for as long as it is
// looked at, and what is small is not.
func TestLargeAttestationsKeepTheirPlace(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	for _, size := range []int{100, 2 * maxSignature, 3 * maxSignature, 200} {
		r.PushAttestationLayer(t, image, make([]byte, size), nil)
	}
	client, err := New(Options{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Insecure: []string{r.Host()}})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := reference.Parse(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	its := client.places.of(r.Host())
	for attestation, err := range client.Attestations(t.Context(), policy.Image{Reference: ref, Digest: image.Digest, Credentials: credential.None()}) {
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		if len(attestation.UntrustedPayload) > maxSignature {
			want = 1
		}
		if len(client.large) != want || len(its.large) != want {
			t.Errorf("%d bytes have %d places, and %d of the host, want %d", len(attestation.UntrustedPayload), len(client.large), len(its.large), want)
		}
		if slack := cap(attestation.UntrustedPayload) - len(attestation.UntrustedPayload); slack > largeBody {
			t.Errorf("%d bytes are kept in %d", len(attestation.UntrustedPayload), cap(attestation.UntrustedPayload))
		}
	}
	if len(client.large) != 0 {
		t.Errorf("%d places are not given back", len(client.large))
	}
	full(t, its)
}
