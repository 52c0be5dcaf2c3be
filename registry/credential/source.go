// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// Names says where an object's credentials are to be looked for: in one
// namespace, and nowhere else. The zero value is an object that has none.
type Names struct {
	Namespace   string
	PullSecrets []string // that the object names itself
	// Expected are those of them that are about to be there, if they are not:
	// that is nothing to tell.
	Expected []string
	// ServiceAccount is whose pull secrets are used too; "" for none.
	ServiceAccount string
}

// Source finds the credentials of one request when they are first needed: a
// request whose verdicts are cached needs none. It is safe for concurrent use.
type Source struct {
	load func(context.Context) (Found, error)

	mu    sync.Mutex
	done  bool
	got   Found
	err   error
	noted []string
}

// Found is what a Source found.
type Found struct {
	Configs []Config // the object's own
	// Last are tried after those that the selected rule brings: the
	// ServiceAccount's, and then what Then added.
	Last     []Config
	Warnings []string // what was named and is missing
}

// NewSource returns a Source that calls load at most once, unless load was
// stopped by its context.
func NewSource(load func(context.Context) (Found, error)) *Source { return &Source{load: load} }

// None is a Source without credentials.
func None() *Source {
	return NewSource(func(context.Context) (Found, error) { return Found{}, nil })
}

// Then returns a Source of what s finds and, after all of it, last.
func (s *Source) Then(last Config) *Source {
	return NewSource(func(ctx context.Context) (Found, error) {
		found, err := s.load(ctx)
		found.Last = append(slices.Clip(found.Last), last)
		return found, err
	})
}

// Ring returns the request's credentials in the order of spec section 6: the
// object's own, those given, which the selected rule brings, and the rest.
func (s *Source) Ring(ctx context.Context, more ...Config) (Ring, error) {
	return s.RingAfter(ctx, nil, more...)
}

// RingAfter is Ring with credentials that come before all others.
func (s *Source) RingAfter(ctx context.Context, first []Config, more ...Config) (Ring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.got, s.err = s.load(ctx)
		s.done = ctx.Err() == nil
	}
	if s.err != nil {
		return Ring{}, s.err
	}
	// A rule may have said something else of its registry, and bring none.
	more = slices.DeleteFunc(slices.Clone(more), Config.none)
	all := slices.Concat(first, s.got.Configs, more, s.got.Last)
	// One may be there twice, as where a Pod was given a copy of the rule's own.
	secrets := 0
	for i, c := range all {
		if c.chain == nil && !slices.ContainsFunc(all[:i], c.same) {
			secrets++
		}
	}
	if secrets > MaxSecrets {
		return Ring{}, fmt.Errorf("%d pull secrets, the ImageConfig's among them, of which at most %d are read", secrets, MaxSecrets)
	}
	return Ring{configs: all, warn: s.note}, nil
}

// note keeps a warning that comes up while credentials are chosen. Each image
// of a request may have the same to say.
func (s *Source) note(warning string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.noted, warning) {
		s.noted = append(s.noted, warning)
	}
}

// Warnings lists what was found wrong, once credentials were needed.
func (s *Source) Warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append(slices.Clip(s.got.Warnings), s.noted...)
}
