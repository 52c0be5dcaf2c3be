// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
)

// cleanup is a [registrytest.TB] for a program.
type cleanup struct{ functions []func() }

func (*cleanup) Helper() {}

// Fatalf must not return, and what was started must not outlive the program:
// it unwinds the stack.
func (*cleanup) Fatalf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (c *cleanup) Cleanup(f func()) { c.functions = append(c.functions, f) }

func (c *cleanup) run() {
	for _, f := range c.functions {
		f()
	}
}

// failure is what Fatalf panics with.
type failure string

func (f failure) Error() string { return string(f) }

// failureOf is the error of Fatalf. Any other panic goes on.
func failureOf(recovered any) error {
	if recovered == nil {
		return nil
	}
	if f, ok := recovered.(failure); ok {
		return f
	}
	panic(recovered)
}

// sweep removes what the demo wrote, but for the logs. It is best effort: it
// runs after something went wrong, which is what is to be told.
func sweep(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if entry.IsDir() {
			sweep(path)
		}
		if entry.IsDir() || filepath.Ext(path) != ".log" {
			_ = os.Remove(path) // a folder that still has logs stays
		}
	}
}
