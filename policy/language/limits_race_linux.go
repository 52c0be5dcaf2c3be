// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build race

package language

// The race detector maps some bytes of its own for each of the program, and says
// in its own words that it cannot.
func init() {
	dataRoom *= 8
	refusals = append(refusals, "ThreadSanitizer")
}
