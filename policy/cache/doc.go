// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cache keeps verdicts, and what tags name, in memory.
//
// It stands in front of an engine and a resolver and changes nothing of what
// they say: a verdict is kept under the digest it is about and everything else
// that it rests on, never under a tag or a host (spec section 5). The same
// question asked by many at once is asked once.
package cache
