// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package logwriter_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/internal/logwriter"
)

// long is more than any test takes.
const long = time.Minute

// file is written to as a test wants it.
type file struct {
	text bytes.Buffer
	// begun gets something when a write begins, and room says how many bytes it may
	// write. Without them, all.
	begun chan struct{}
	room  chan int
}

func guarded() *file { return &file{begun: make(chan struct{}), room: make(chan int)} }

// all is room for everything.
const all = 1 << 30

func (f *file) Write(text []byte) (int, error) {
	room := all
	if f.begun != nil {
		f.begun <- struct{}{}
		room = <-f.room
	}
	n, _ := f.text.Write(text[:min(room, len(text))])
	if n < len(text) {
		return n, errors.New("no space left on device")
	}
	return n, nil
}

// give waits for a write and gives it room.
func (f *file) give(room int) {
	<-f.begun
	f.room <- room
}

func dropped(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "pratique_log_lines_dropped_total" {
		t.Fatalf("%v: %v", families, err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

func write(t *testing.T, w *logwriter.Writer, text string) {
	t.Helper()
	if n, err := w.Write([]byte(text)); n != len(text) || err != nil {
		t.Errorf("wrote %d of %d: %v", n, len(text), err)
	}
}

// TestEverythingIsWritten: from many at once, whole and in the order of each.
func TestEverythingIsWritten(t *testing.T) {
	t.Parallel()
	to, registry := &file{}, prometheus.NewRegistry()
	w := logwriter.New(to, registry)
	const writers, lines = 8, 1000
	var group sync.WaitGroup
	for writer := range writers {
		group.Go(func() {
			for line := range lines {
				write(t, w, fmt.Sprintf("%d %d\n", writer, line))
			}
		})
	}
	group.Wait()
	w.Close(long)
	next := make([]int, writers)
	for text := range strings.Lines(to.text.String()) {
		var writer, line int
		if _, err := fmt.Sscanf(text, "%d %d\n", &writer, &line); err != nil || line != next[writer] {
			t.Fatalf("%q, after %d: %v", text, next[writer], err)
		}
		next[writer]++
	}
	for writer, got := range next {
		if got != lines {
			t.Errorf("%d lines of %d", got, writer)
		}
	}
	write(t, w, "late\n")
	if got := dropped(t, registry); got != 1 {
		t.Errorf("%v are dropped, want the late one", got)
	}
}

// TestNobodyReads: nobody waits, what is too much is counted, and the rest comes
// when somebody reads.
func TestNobodyReads(t *testing.T) {
	t.Parallel()
	to, registry := guarded(), prometheus.NewRegistry()
	w := logwriter.New(to, registry)
	write(t, w, "first\n")
	<-to.begun
	line := strings.Repeat("x", 1023) + "\n"
	for range 3 << 10 {
		write(t, w, line)
	}
	if got := dropped(t, registry); got != 2<<10 {
		t.Errorf("%v lines are dropped, want 2 MiB of 3", got)
	}
	w.Close(0) // nor does who ends
	to.room <- all
	to.give(all)
	w.Close(long)
	if diff := cmp.Diff("first\n"+strings.Repeat(line, 1<<10), to.text.String()); diff != "" {
		t.Errorf("-want +got:\n%.300s", diff)
	}
}

// TestFullDisk: what does not fit is counted; what comes when there is room again
// is not spoiled by the line that was torn.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	to, registry := guarded(), prometheus.NewRegistry()
	w := logwriter.New(to, registry)
	write(t, w, "one\ntwo\nthree\n")
	to.give(len("one\ntw"))
	write(t, w, "four\n")
	to.give(0) // the end of the torn line
	write(t, w, "five\n")
	to.give(1)
	to.give(all)
	write(t, w, "six\n")
	to.give(0) // nothing is torn
	write(t, w, "seven\n")
	to.give(all)
	w.Close(long)
	if diff := cmp.Diff("one\ntw\nfive\nseven\n", to.text.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := dropped(t, registry); got != 4 {
		t.Errorf("%v lines are dropped, want two, three, four and six", got)
	}
}
