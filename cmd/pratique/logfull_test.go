// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// fullLog is how many reviews a test sends: what they have logged is more than a
// pipe and the program hold together (64 KiB and twice 1 MiB).
const fullLog = 9000

// TestLogCannotBeWritten: whatever becomes of the log, reviews are answered, and
// the program ends when it should.
func TestLogCannotBeWritten(t *testing.T) {
	t.Parallel()
	for name, open := range map[string]func(t *testing.T) (log *os.File, read func() []string){
		"the disk is full":      fullDisk,
		"nobody reads":          func(t *testing.T) (*os.File, func() []string) { return pipe(t, false) },
		"the reader is no more": func(t *testing.T) (*os.File, func() []string) { return pipe(t, true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			log, read := open(t)
			s := &process{}
			s.start(t, log, f.local("--policies", f.policies)...)
			answered(t, s, f)
			lost := sampled(t, s, "pratique_log_lines_dropped_total")
			if lost == 0 || lost > 2*fullLog {
				t.Errorf("%v lines are said to be lost of those of %d reviews", lost, fullLog)
			}
			lines := read()
			s.stop()
			if s.ended != nil {
				t.Errorf("it ended with %v", s.ended)
			}
			entries(t, strings.Join(lines, ""))
		})
	}
}

// fullDisk takes nothing.
func fullDisk(t *testing.T) (*os.File, func() []string) {
	t.Helper()
	file, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file, func() []string { return nil }
}

// pipe takes what fits into it. read reads some lines of it.
func pipe(t *testing.T, gone bool) (*os.File, func() []string) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = from.Close(), to.Close() })
	if gone {
		_ = from.Close()
		return to, func() []string { return nil }
	}
	return to, func() (lines []string) {
		reader := bufio.NewReader(from)
		for range fullLog / 9 {
			line, err := reader.ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		return lines
	}
}

// answered sends reviews and checks each answer.
func answered(t *testing.T, s *process, f fixture) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	t.Cleanup(transport.CloseIdleConnections)
	// Long after the webhook's own deadline.
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	for i := range fullLog {
		image, want := f.signed.ByBoth(), `"allowed":true`
		if i%2 == 1 {
			image, want = f.unsigned.ByBoth(), `"allowed":false`
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+s.webhook+"/validate?timeout=5s", strings.NewReader(review(image)))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("review %d: %v", i, err)
		}
		text, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil || !strings.Contains(string(text), want) || i%2 == 1 && !strings.Contains(string(text), "no signature") {
			t.Fatalf("review %d: %v, %s %s", i, err, response.Status, text)
		}
	}
}

// sampled is the value of a metric without labels.
func sampled(t *testing.T, s *process, name string) float64 {
	t.Helper()
	for line := range strings.Lines(send(t, "http://"+s.metrics+"/metrics", "")) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			value, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil {
				t.Fatal(err)
			}
			return value
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
