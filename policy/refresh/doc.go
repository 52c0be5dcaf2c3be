// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package refresh keeps values that are fetched in the background: nobody who
// needs one waits for it.
//
// A value is fetched from the moment somebody first asks for it, and then again
// and again. The last good one is kept when that fails. What nobody asks for any
// more is forgotten: see [Map].
package refresh
