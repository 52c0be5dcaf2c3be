// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

const (
	// maxFlights is how many questions are under way at once: two for each of
	// the requests that may be in flight (spec section 6).
	maxFlights = 1024
	// maxHostFlights is how many of them may be about one host, so that one that
	// does not answer slows only itself: as many as one request has images.
	maxHostFlights = 256
	// maxShareFlights is how many of those may be by the same credentials, which
	// may be one tenant's: what he has wait is not all that may wait.
	maxShareFlights = 192
	// flightTime is how long one goes on after all who asked have left, so that
	// a retry finds the answer (spec section 5).
	flightTime = 30 * time.Second
)

// flights asks the same question once for all who ask it at the same time. A
// question has no owner: whoever leaves does not end it for the others.
type flights[T any] struct {
	group singleflight.Group
	slots *slots
}

func newFlights[T any](slots *slots) *flights[T] { return &flights[T]{slots: slots} }

// slots counts what is under way.
type slots struct {
	mu     sync.Mutex
	total  int
	hosts  map[string]int
	shares map[asker]int
}

// asker is who asks a host.
type asker struct {
	host string
	who  credential.Identity
}

func newSlots() *slots { return &slots{hosts: map[string]int{}, shares: map[asker]int{}} }

// take takes a slot, or says why there is none.
func (s *slots) take(by asker) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.shares[by] >= maxShareFlights:
		return policy.Undecided(policy.ReasonLimit, "%d other images of %s are being examined with the same credentials", maxShareFlights, by.host).Err()
	case s.hosts[by.host] >= maxHostFlights:
		return policy.Undecided(policy.ReasonLimit, "%d other images of %s are being examined", maxHostFlights, by.host).Err()
	case s.total >= maxFlights:
		return policy.Undecided(policy.ReasonLimit, "%d other images are being examined", maxFlights).Err()
	}
	s.total++
	s.hosts[by.host]++
	s.shares[by]++
	return nil
}

func (s *slots) give(by asker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.total--
	if s.hosts[by.host]--; s.hosts[by.host] == 0 {
		delete(s.hosts, by.host)
	}
	if s.shares[by]--; s.shares[by] == 0 {
		delete(s.shares, by)
	}
}

// question is what is asked, and who asks whom.
type question struct {
	key string
	by  asker
}

// result is what a flight brings: an answer, or why there is none.
type result[T any] struct {
	answer T
	err    error
}

// do returns the answer of ask, which runs with a context of its own. shared
// says that somebody else asks it. It returns early with ctx's error if ctx
// ends, and does not begin once it has.
func (f *flights[T]) do(ctx context.Context, q question, ask func(context.Context) (T, error)) (answer T, shared bool, err error) {
	if err := ctx.Err(); err != nil {
		return answer, false, err
	}
	ctx = policy.KeepDeadline(ctx)
	var asks atomic.Bool
	flight := f.group.DoChan(q.key, func() (any, error) {
		asks.Store(true)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flightTime)
		defer cancel()
		return f.fly(ctx, q.by, ask), nil
	})
	select {
	case <-ctx.Done():
		return answer, !asks.Load(), ctx.Err()
	case landed := <-flight:
		r, _ := landed.Val.(result[T])
		return r.answer, !asks.Load(), r.err
	}
}

// fly asks, if there is room for one more question. A panic becomes an error:
// singleflight would end the process with it.
func (f *flights[T]) fly(ctx context.Context, by asker, ask func(context.Context) (T, error)) (r result[T]) {
	defer func() {
		if p := recover(); p != nil {
			r = result[T]{err: policy.Panicked(p).Err()}
		}
	}()
	if r.err = f.slots.take(by); r.err != nil {
		return r
	}
	defer f.slots.give(by)
	r.answer, r.err = ask(ctx)
	return r
}
