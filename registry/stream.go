// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"iter"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// parallelFetches is how many signatures of one image are fetched ahead of
	// the one that is looked at.
	parallelFetches = 8
	// maxHeld is how many signatures of one host are in memory at the same time,
	// of all images. With the bound on each, a host that sends the largest takes
	// 32 MiB and no more.
	maxHeld = 32
	// maxLooked is how many of those are looked at at the same time: reading
	// one that is made to be hard takes much memory and half a second, and one
	// host must not take all processors with that.
	maxLooked = 4
)

// places are what the answers of one host may take at the same time. Each
// place is a token in its channel.
type places struct{ held, looked, large chan struct{} }

func newPlaces() *places {
	return &places{
		held: make(chan struct{}, maxHeld), looked: make(chan struct{}, maxLooked), large: make(chan struct{}, maxHostLarge),
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

// stream reads what descriptors describe, up to the bound, several ahead and in
// their order. One that cannot be read does not keep the others from being
// tried. Each holds a place while it is in memory; places are taken in order,
// so that who has any has the one that is looked at next, and nobody waits for
// himself.
type stream[T any] struct {
	from   descriptors
	host   string
	places *places
	// read returns false for what is to be left out.
	read func(context.Context, descriptor) (T, bool, error)
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
				<-one
				<-s.places.held
			}
		}()
		for one := range ahead {
			if !s.look(ctx, one, yield) {
				return
			}
		}
		if err := s.rest(ctx); err != nil {
			var none T
			yield(none, err)
		}
	}
}

// look yields one when it is there, and gives its places back.
func (s stream[T]) look(ctx context.Context, one chan fetched[T], yield func(T, error) bool) (more bool) {
	defer func() { <-s.places.held }()
	f := <-one
	if f.err != nil || !f.ok {
		return f.err == nil || yield(f.item, f.err)
	}
	back, err := take(ctx, s.places.looked)
	if err != nil {
		var none T
		return yield(none, err)
	}
	defer back()
	return yield(f.item, nil)
}

// rest is why there may be more than was read.
func (s stream[T]) rest(ctx context.Context) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(s.from.items) <= maxSignatures && !s.from.more {
		return nil
	}
	return &Error{
		Reason:  policy.ReasonLimit,
		Message: fmt.Sprintf("%s lists more signatures than the %d that are tried", s.host, maxSignatures),
	}
}

// fetched is what came of one descriptor.
type fetched[T any] struct {
	item T
	ok   bool
	err  error
}

// fetchAhead begins to read one after the other, as places become free, and
// ends early if ctx does.
func (s stream[T]) fetchAhead(ctx context.Context, ahead chan<- chan fetched[T]) {
	defer close(ahead)
	for _, d := range s.from.items[:min(len(s.from.items), maxSignatures)] {
		select {
		case s.places.held <- struct{}{}:
		case <-ctx.Done():
			return
		}
		one := make(chan fetched[T], 1)
		go func() {
			var f fetched[T]
			// Nobody above would survive a panic.
			defer func() {
				if p := recover(); p != nil {
					f = fetched[T]{err: policy.Panicked(p).Err()}
				}
				one <- f
			}()
			f.item, f.ok, f.err = s.read(ctx, d)
		}()
		ahead <- one
	}
}
