// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package loglimit_test

import (
	"testing"
	"time"

	"github.com/pratique-dev/pratique/internal/loglimit"
)

func TestLimit(t *testing.T) {
	t.Parallel()
	var limit loglimit.Limit
	start := time.Unix(0, 0)
	logged, omitted := 0, 0
	// 25 lines at once, 5 more within the minute, and 12 after it.
	for i, at := range []time.Duration{0, 59 * time.Second, time.Minute} {
		for range []int{25, 5, 12}[i] {
			if left, ok := limit.Next(start.Add(at)); ok {
				logged++
				omitted += left
			} else if left != 0 {
				t.Errorf("%d are told of with no line", left)
			}
		}
		if want := []int{10, 10, 20}[i]; logged != want {
			t.Errorf("after %s %d lines are logged, want %d", at, logged, want)
		}
	}
	if omitted != 20 {
		t.Errorf("%d lines were said to be left out, want 20", omitted)
	}
	if left, ok := limit.Next(start.Add(time.Hour)); !ok || left != 2 {
		t.Errorf("an hour later: %t, %d left out", ok, left)
	}
}
