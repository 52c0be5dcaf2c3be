// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package refresh

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// ErrPending is the error of a value that has not been fetched yet.
var ErrPending = errors.New("it is being fetched")

// maxUnderWay is how many fetches of one value may go on at the same time. Only
// one is waited for; the others have outlived their time without heeding it.
// While there are so many, no other is begun: a service that never answers is
// not given ever more connections.
const maxUnderWay = 3

// Map keeps values that are fetched in the background, by their keys.
//
// A value that nobody asked for during twice Options.Every is forgotten, and
// not fetched any more. Those who keep what they were given, and ask again only
// when they are told of a change, are told in time (Options.Changed).
type Map[K comparable, V any] struct {
	fetch   func(context.Context, K) (V, error)
	options Options[V]
	// wake tells Run that something is due earlier than it knew.
	wake chan struct{}

	mu      sync.Mutex
	entries map[K]*entry[V]
}

// entry is what is known of one value. Its fields are guarded by Map.mu.
type entry[V any] struct {
	value V
	good  bool // value was fetched
	// err is that of the last fetch; ErrPending before the first has ended.
	err   error
	first chan struct{} // closed once the first fetch has ended
	tried bool          // first is closed

	failures int       // in a row
	due      time.Time // when to fetch next
	fetching bool      // a fetch is waited for
	underWay int       // fetches that have not ended, waited for or not

	askedAt  time.Time
	reminded bool // Changed was called because nobody asked
}

// NewMap makes a Map. Nothing is fetched before somebody asks for it, nor before
// Run.
func NewMap[K comparable, V any](fetch func(context.Context, K) (V, error), options Options[V]) *Map[K, V] {
	return &Map[K, V]{
		fetch: fetch, options: options.withDefaults(),
		wake: make(chan struct{}, 1), entries: map[K]*entry[V]{},
	}
}

// Get returns a value as it was fetched last. Until a fetch went well it returns
// the error of the last one, at first ErrPending. It never blocks.
func (m *Map[K, V]) Get(key K) (V, error) {
	e := m.ask(key)
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.good {
		return e.value, nil
	}
	return e.value, e.err
}

// Err is why the last fetch of a value failed; nil if it did not, and if nobody
// asked for the value. There may be a value all the same: that of an earlier
// fetch.
func (m *Map[K, V]) Err(key K) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.entries[key]; ok {
		return e.err
	}
	return nil
}

// Wait is Get after the first fetch has ended, well or not. It is for programs
// that have nothing else to do meanwhile.
func (m *Map[K, V]) Wait(ctx context.Context, key K) (V, error) {
	select {
	case <-m.ask(key).first:
		return m.Get(key)
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// ask notes that a value is needed.
func (m *Map[K, V]) ask(key K) *entry[V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	e, ok := m.entries[key]
	if !ok {
		e = &entry[V]{err: ErrPending, first: make(chan struct{}), due: now}
		m.entries[key] = e
		select {
		case m.wake <- struct{}{}:
		default: // Run has been told already
		}
	}
	e.askedAt, e.reminded = now, false
	return e
}

// outcome is what came of a fetch.
type outcome[V any] struct {
	value V
	err   error
}

// ended is a fetch that is not waited for any more.
type ended[V any] struct {
	entry *entry[V]
	outcome[V]
}

// Run fetches what is asked for, until ctx ends. Once it has returned nothing is
// fetched any more and Changed is not called. It is called once.
func (m *Map[K, V]) Run(ctx context.Context) {
	results := make(chan ended[V])
	for ctx.Err() == nil {
		wait, remind := m.begin(ctx, results)
		if remind {
			m.options.Changed()
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-timer.C:
		case result := <-results:
			if ctx.Err() == nil && m.record(result) {
				m.options.Changed()
			}
		}
		timer.Stop()
	}
}

// begin forgets what nobody asks for and begins what is due. It returns how long
// nothing more is, and whether somebody should be reminded to ask.
func (m *Map[K, V]) begin(ctx context.Context, results chan<- ended[V]) (wait time.Duration, remind bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	wait = m.options.Every
	for key, e := range m.entries {
		if e.fetching {
			continue
		}
		if !now.Before(e.due) {
			idle := now.Sub(e.askedAt)
			if idle >= 2*m.options.Every {
				delete(m.entries, key)
				continue
			}
			if idle >= m.options.Every && !e.reminded {
				e.reminded, remind = true, true
			}
			m.start(ctx, key, results)
		}
		if !e.fetching {
			wait = min(wait, e.due.Sub(now))
		}
	}
	return wait, remind
}

// start begins a fetch, or puts it off if too many go on.
func (m *Map[K, V]) start(ctx context.Context, key K, results chan<- ended[V]) {
	e := m.entries[key]
	if e.underWay >= maxUnderWay {
		e.due = time.Now().Add(m.options.retryAfter(e.failures))
		return
	}
	e.fetching = true
	e.underWay++
	go func() {
		result := ended[V]{entry: e, outcome: m.within(ctx, key, e)}
		select {
		case results <- result:
		case <-ctx.Done():
		}
	}()
}

// within is what comes of a fetch in its time. A fetch that does not heed the
// end of its time is left alone, and what it brings later is dropped.
func (m *Map[K, V]) within(ctx context.Context, key K, e *entry[V]) outcome[V] {
	ctx, cancel := context.WithTimeout(ctx, m.options.Timeout)
	defer cancel()
	answer := make(chan outcome[V], 1)
	go func() {
		// What does not return has not fetched anything (runtime.Goexit).
		got := outcome[V]{err: errors.New("the fetch was given up")}
		defer func() {
			if p := recover(); p != nil {
				got = outcome[V]{err: panicked(p)}
			}
			m.mu.Lock()
			e.underWay--
			m.mu.Unlock()
			answer <- got
		}()
		value, err := m.fetch(ctx, key)
		got = outcome[V]{value: value, err: err}
	}()
	var got outcome[V]
	select {
	case got = <-answer:
	case <-ctx.Done():
		got.err = ctx.Err()
	}
	if got.err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		got.err = fmt.Errorf("no answer within %s", m.options.Timeout)
	}
	return got
}

// panicked is a panic as an error. Only what the runtime says of one is
// repeated: another value may hold what was being fetched.
func panicked(p any) error {
	if err, ok := p.(runtime.Error); ok {
		return fmt.Errorf("the fetch panicked: %w", err)
	}
	return fmt.Errorf("the fetch panicked with a value of the type %T", p)
}

// record keeps what came of a fetch, and reports whether that is a change.
func (m *Map[K, V]) record(result ended[V]) (changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, before := result.entry, result.entry.err
	e.fetching = false
	e.err = result.err
	if !e.tried {
		e.tried = true
		close(e.first)
	}
	if result.err != nil {
		e.failures++
		e.due = time.Now().Add(m.options.retryAfter(e.failures))
		return before == nil || before.Error() != result.err.Error()
	}
	e.failures = 0
	e.due = time.Now().Add(m.options.Every)
	changed = before != nil || !e.good || !m.options.Equal(e.value, result.value)
	e.value, e.good = result.value, true
	return changed
}
