// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"os"
	"strconv"
	"strings"
	"syscall"
)

// dataRoom is memoryLimit, and room for what the runtime maps and does not use:
// the heap grows by 64 MiB at a time, and each thread has a stack.
var dataRoom uint64 = memoryLimit + 128<<20

// limitData makes the kernel refuse memory beyond the limit: one allocation may
// ask for all the memory there is before anybody looks. Go ends when it is
// refused. What the process has mapped already counts too.
func limitData() {
	// The child rather than the parent, should the machine run out of memory.
	// Where it cannot be told, the limits hold all the same.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0o600)

	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return
	}
	fields := strings.Fields(string(statm))
	const data = 5 // proc(5): size resident shared text lib data
	if len(fields) <= data {
		return
	}
	pages, err := strconv.ParseUint(fields[data], 10, 64)
	if err != nil {
		return
	}
	limit := pages*uint64(os.Getpagesize()) + dataRoom //nolint:gosec // a page has a size
	_ = syscall.Setrlimit(syscall.RLIMIT_DATA, &syscall.Rlimit{Cur: limit, Max: limit})
}
