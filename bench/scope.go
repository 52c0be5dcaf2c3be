// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"slices"
)

// scope stands in for a test where registrytest wants one.
type scope struct{ cleanups []func() }

// fatal is how Fatalf leaves: as a panic that only within catches.
type fatal struct{ err error }

// within calls f with a scope, runs the scope's cleanups, and returns f's
// error or what was fatal.
func within(f func(*scope) error) (err error) {
	s := &scope{}
	defer func() {
		for _, cleanup := range slices.Backward(s.cleanups) {
			cleanup()
		}
		switch p := recover().(type) {
		case nil:
		case fatal:
			err = errors.Join(err, p.err)
		default:
			panic(p)
		}
	}()
	return f(s)
}

// Helper implements [registrytest.TB].
func (*scope) Helper() {}

// Fatalf implements [registrytest.TB].
func (*scope) Fatalf(format string, args ...any) { panic(fatal{fmt.Errorf(format, args...)}) }

// Cleanup implements [registrytest.TB].
func (s *scope) Cleanup(cleanup func()) { s.cleanups = append(s.cleanups, cleanup) }
