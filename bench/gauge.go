// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
)

// resetPeak makes peak begin anew: 5 written to clear_refs sets VmHWM back to
// what is resident now (proc_pid_clear_refs(5)).
func (p *process) resetPeak() error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.cmd.Process.Pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("resetting the peak memory of %s: %w", p.name, err)
	}
	return nil
}

// peak is the most memory that was resident since resetPeak.
func (p *process) peak() (int64, error) {
	return memory(strconv.Itoa(p.cmd.Process.Pid), "VmHWM:")
}

// goroutines is how many the server has, by its own metrics.
func (p *process) goroutines(ctx context.Context) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/metrics", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("reading the metrics of %s: %w", p.name, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, fmt.Errorf("reading the metrics of %s: %w", p.name, err)
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	lines := bufio.NewScanner(response.Body)
	found := ""
	for lines.Scan() { // to the end, so that the connection is used again
		if rest, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			found = rest
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("reading the metrics of %s: %w", p.name, err)
	}
	count, err := strconv.Atoi(found)
	if err != nil {
		return 0, fmt.Errorf("reading the metrics of %s: go_goroutines: %w", p.name, err)
	}
	return count, nil
}
