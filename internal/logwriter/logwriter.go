// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package logwriter writes a log that nobody waits for: who logs goes on at once,
// whatever becomes of the lines.
//
// Standard error is a pipe in a container, of 64 KiB. While nobody reads it, as
// when the container runtime is stopped or its disk is full (containerd issues
// 9342 and 12462), a write to it does not return, and whoever logs next waits for
// a lock. A webhook would stop answering because of what it has to say about it.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// maxWaiting is how many bytes wait to be written; as many again may be on their
// way. A line about a review has some 400: it takes more of them than come in the
// second or two that a busy disk may be away.
const maxWaiting = 1 << 20

// Writer hands on what is written to it, in order and whole lines at a time. What
// comes while too much waits is dropped, and counted, as is what cannot be
// written. Make it with [New].
type Writer struct {
	to      io.Writer
	dropped prometheus.Counter
	done    chan struct{} // closed when all is written, after Close

	mu      sync.Mutex
	more    sync.Cond // that there is more waiting, or no more to come
	waiting []byte
	closed  bool
}

// New returns a Writer to a file. Who has it closes it with Close.
func New(to io.Writer, registerer prometheus.Registerer) *Writer {
	w := &Writer{
		to: to, done: make(chan struct{}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "pratique_log_lines_dropped_total",
			Help: "Lines of the log that are lost, because nobody read them or they could not be written.",
		}),
	}
	w.more.L = &w.mu
	registerer.MustRegister(w.dropped)
	go w.run()
	return w
}

// Write implements [io.Writer]. Each call is one line or more, with their ends.
// It never waits, and never fails: there is nowhere to say so.
func (w *Writer) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.waiting)+len(lines) > maxWaiting {
		w.dropped.Add(count(lines))
		return len(lines), nil
	}
	w.waiting = append(w.waiting, lines...)
	w.more.Signal()
	return len(lines), nil
}

// Close waits until all is written, but no longer than that.
func (w *Writer) Close(within time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.more.Signal()
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-time.After(within):
	}
}

func (w *Writer) run() {
	defer close(w.done)
	torn := false // the last line that was written lacks its end
	for batch := w.next(nil); len(batch) > 0; batch = w.next(batch) {
		if torn {
			// What follows would be spoiled by it.
			if _, err := w.to.Write([]byte{'\n'}); err != nil {
				w.dropped.Add(count(batch))
				continue
			}
			torn = false
		}
		if n, err := w.to.Write(batch); err != nil {
			w.dropped.Add(count(batch[n:]))
			torn = n > 0 && batch[n-1] != '\n'
		}
	}
}

// next waits for what is to be written, and gives the room of what was written
// back. It returns nothing when nothing is to come.
func (w *Writer) next(written []byte) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.waiting) == 0 && !w.closed {
		w.more.Wait()
	}
	batch := w.waiting
	w.waiting = written[:0]
	return batch
}

// count is how many lines there are.
func count(lines []byte) float64 { return float64(bytes.Count(lines, []byte{'\n'})) }
