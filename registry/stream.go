// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"iter"

	"golang.org/x/sync/semaphore"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// parallelFetches is how many signatures of one image are fetched ahead of
	// the one that is looked at.
	parallelFetches = 8
	// maxHeld is how many signatures of one host are in memory at the same time,
	// of all images. With the bound on each, a host that sends the largest takes
	// 32 MiB and no more. Attestations that are larger come on top, each in a
	// place for a large body.
	maxHeld = 32
	// maxLooked is how many of those are looked at at the same time: reading
	// one that is made to be hard takes much memory and half a second, and one
	// host must not take all processors with that. One that is larger than a
	// signature is looked at alone.
	maxLooked = 4
)

// places are what the answers of one host may take at the same time. Each
// place of a channel is a token in it.
type places struct {
	held, large chan struct{}
	looked      *semaphore.Weighted
}

func newPlaces() *places {
	return &places{
		held: make(chan struct{}, maxHeld), large: make(chan struct{}, maxHostLarge), looked: semaphore.NewWeighted(maxLooked),
	}
}

// nothing is a sequence without items; err, if any, says why.
func nothing[T any](err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

// stream reads what descriptors describe, up to a bound, several ahead and in
// their order. One that cannot be read does not keep the others from being
// tried. Each holds a place while it is in memory; places are taken in order,
// so that who has any has the one that is looked at next, and nobody waits for
// himself. For the same reason whoever looks at one must not read another
// stream meanwhile.
type stream[T any] struct {
	from   descriptors
	most   int    // that are tried
	what   string // they are, for people
	host   string
	places *places
	read   func(context.Context, descriptor) fetched[T]
}

// fetched is what came of one descriptor.
type fetched[T any] struct {
	item T
	ok   bool // false is what is to be left out
	err  error
	// late, if set, reads the item when its turn comes: it is too large to be
	// held until then. keep is given what gives its place for a large body back.
	late func(ctx context.Context, keep func(back func())) (T, error)
}

// as makes something else of an item that was read, or will be.
func as[T, U any](f fetched[T], convert func(T) U) fetched[U] {
	other := fetched[U]{ok: f.ok, err: f.err}
	if f.ok {
		other.item = convert(f.item)
	}
	if f.late != nil {
		other.late = func(ctx context.Context, keep func(back func())) (item U, err error) {
			late, err := f.late(ctx, keep)
			if err == nil {
				item = convert(late)
			}
			return item, err
		}
	}
	return other
}

// all reads all of it. Errors are part of the sequence.
func (s stream[T]) all(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		ahead := make(chan chan fetched[T], parallelFetches)
		go s.fetchAhead(ctx, ahead)
		defer func() {
			cancel()
			for one := range ahead { // what was begun ends, and gives its place back
				s.forget(<-one)
			}
		}()
		for one := range ahead {
			if !s.look(ctx, <-one, yield) {
				return
			}
		}
		if err := s.rest(ctx); err != nil {
			var none T
			yield(none, err)
		}
	}
}

// look yields one, and gives its places back.
func (s stream[T]) look(ctx context.Context, f fetched[T], yield func(T, error) bool) (more bool) {
	defer s.forget(f)
	weight := int64(1)
	if f.late != nil {
		back := func() {}
		defer func() { back() }()
		read, keep := f.late, func(given func()) { back = given }
		f = guarded(func() fetched[T] {
			item, err := read(ctx, keep)
			return fetched[T]{item: item, ok: err == nil, err: err}
		})
		weight = maxLooked
	}
	if f.err != nil || !f.ok {
		return f.err == nil || yield(f.item, f.err)
	}
	more, err := s.places.look(ctx, weight, func() bool { return yield(f.item, nil) })
	if err != nil {
		var none T
		return yield(none, err)
	}
	return more
}

// look has one thing looked at when there are not too many that are, or says why
// it cannot be.
func (p *places) look(ctx context.Context, weight int64, yield func() (more bool)) (more bool, err error) {
	if err := p.looked.Acquire(ctx, weight); err != nil {
		return false, err
	}
	defer p.looked.Release(weight)
	return yield(), nil
}

// forget gives the place of one back that was read. Those that are read late hold
// none: nothing of them is in memory yet, and then they have a larger one.
func (s stream[T]) forget(f fetched[T]) {
	if f.late == nil {
		<-s.places.held
	}
}

// guarded makes a panic an error.
func guarded[T any](read func() fetched[T]) (f fetched[T]) {
	defer func() {
		if p := recover(); p != nil {
			f = fetched[T]{err: policy.Panicked(p).Err()}
		}
	}()
	return read()
}

// rest is why there may be more than was read.
func (s stream[T]) rest(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(s.from.items) <= s.most && !s.from.more {
		return nil
	}
	return tooMany(s.host, s.what, s.most)
}

// fetchAhead begins to read one after the other, as places become free, and
// ends early if ctx does.
func (s stream[T]) fetchAhead(ctx context.Context, ahead chan<- chan fetched[T]) {
	defer close(ahead)
	for _, d := range s.from.items[:min(len(s.from.items), s.most)] {
		select {
		case s.places.held <- struct{}{}:
		case <-ctx.Done():
			return
		}
		one := make(chan fetched[T], 1)
		go func() {
			f := guarded(func() fetched[T] { return s.read(ctx, d) }) // nobody above would survive a panic
			if f.late != nil {
				<-s.places.held
			}
			one <- f
		}()
		ahead <- one
	}
}
