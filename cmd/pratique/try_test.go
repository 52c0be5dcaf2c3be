// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
)

// TestTryFlags: what makes no sense is refused before anybody is asked. What the
// API server answers is in e2e/cases.
func TestTryFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"one image is tried at a time":       {},
		"one image is tried at a time\nhint": {"a", "b"},
		"-n: \"A\" is not a namespace's":     {"a", "-n", "A"},
		"must be Admitted|Denied":            {"a", "--expect=Rejected"},
		"--timeout: 0s is no time":           {"a", "--timeout=0s"},
	} {
		if _, stderr, code := call(t, append([]string{"try"}, args...)...); code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d and %q, want %q", args, code, stderr, want)
		}
	}
}
