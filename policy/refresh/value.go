// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package refresh

import "context"

// Value is one value that is fetched in the background. It is a [Map] with one
// key, and follows the same rules.
type Value[V any] struct {
	values *Map[struct{}, V]
}

// New makes a Value. Nothing is fetched before somebody asks for it, nor before
// Run.
func New[V any](fetch func(context.Context) (V, error), options Options[V]) *Value[V] {
	return &Value[V]{values: NewMap(func(ctx context.Context, _ struct{}) (V, error) { return fetch(ctx) }, options)}
}

// Get returns the value as it was fetched last, or why there is none yet.
func (v *Value[V]) Get() (V, error) { return v.values.Get(struct{}{}) }

// Err is why the last fetch failed, nil if it did not. There may be a value all
// the same: that of an earlier fetch.
func (v *Value[V]) Err() error { return v.values.Err(struct{}{}) }

// Wait is Get after the first fetch has ended, well or not. It is for programs
// that have nothing else to do meanwhile.
func (v *Value[V]) Wait(ctx context.Context) (V, error) { return v.values.Wait(ctx, struct{}{}) }

// Run fetches what is asked for, until ctx ends.
func (v *Value[V]) Run(ctx context.Context) { v.values.Run(ctx) }
