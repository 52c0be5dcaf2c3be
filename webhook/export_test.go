// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

// Held is how many bytes large bodies hold now.
func (b *Bodies) Held() int64 { return b.held.Load() }

// Take holds bytes as a large body does, and reports whether there was room.
func (b *Bodies) Take(bytes int64) bool { return b.take(bytes) }

// GiveBack is the end of Take.
func (b *Bodies) GiveBack(bytes int64) { (&share{of: b, bytes: bytes}).release() }
