// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package refresh

import "time"

// Options say how a value is kept. The zero value has defaults.
type Options[V any] struct {
	// Every is how long after a good fetch the next one begins; an hour by
	// default.
	Every time.Duration
	// Timeout is how long a fetch may take; 10 s by default.
	Timeout time.Duration
	// RetryFirst is how long after a failed fetch the next one begins, 1 s by
	// default. With each failure it doubles, up to RetryMost, 5 minutes by
	// default; it is never more than Every.
	RetryFirst, RetryMost time.Duration
	// Equal reports whether two values are the same. Nil means that each one that
	// was fetched is another.
	Equal func(a, b V) bool
	// Changed is called by Run when a value is there for the first time, when it
	// is another one, and when its error is another one; also once when nobody
	// asked for a value during Every, so that those who still need it ask again.
	// It may ask for values; it must not block. Nil means that nobody is told.
	Changed func()
}

func (o Options[V]) withDefaults() Options[V] {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.Every, time.Hour)
	set(&o.Timeout, 10*time.Second)
	set(&o.RetryFirst, time.Second)
	set(&o.RetryMost, 5*time.Minute)
	if o.Equal == nil {
		o.Equal = func(V, V) bool { return false }
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	return o
}

// retryAfter is how long is waited after so many failures in a row.
func (o Options[V]) retryAfter(failures int) time.Duration {
	most := min(o.RetryMost, o.Every)
	wait := o.RetryFirst
	for range failures - 1 {
		if wait >= most {
			break
		}
		wait *= 2
	}
	return min(wait, most)
}
