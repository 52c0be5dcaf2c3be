// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package loglimit keeps strangers from filling the log: of the lines that they
// can cause at will, a few are logged, and how many were not.
package loglimit

import (
	"sync"
	"time"
)

// Of what a stranger causes within a window only so many lines are logged:
// enough to see what happens, and nothing to a disk.
const (
	lines  = 10
	window = time.Minute
)

// Limit counts lines of one kind. The zero value is ready for use.
type Limit struct {
	mu      sync.Mutex
	began   time.Time // of the window
	logged  int       // in it
	omitted int       // since the last one that was logged
}

// Next reports whether one more line may be logged now, and then how many were
// left out since the last one that was.
func (l *Limit) Next(now time.Time) (omitted int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Sub(l.began) >= window {
		l.began, l.logged = now, 0
	}
	if l.logged == lines {
		l.omitted++
		return 0, false
	}
	l.logged++
	omitted, l.omitted = l.omitted, 0
	return omitted, true
}
