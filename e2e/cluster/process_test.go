// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// script writes a program that takes the place of the control plane's binary.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestStopKillsWhatIgnoresSIGTERM(t *testing.T) {
	dir := t.TempDir()
	// Each sleep is short, for killing the shell leaves the last one behind.
	p, err := startProcess(script(t, "trap '' TERM; echo up; while :; do sleep 0.1; done"), dir,
		component{name: "stubborn", grace: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if text, _ := tail(p.logFile); text == "up" { // the trap is set
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it did not start")
		}
	}
	if err := p.stop(); err == nil || !strings.Contains(err.Error(), "stopping stubborn: killed") {
		t.Errorf("stop: %v, want that it was killed", err)
	}
	if err := syscall.Kill(p.pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is left: %v", p.pid, err)
	}
}

func TestStopTellsOfAnEarlierEnd(t *testing.T) {
	p, err := startProcess(script(t, "echo out of luck; exit 3"), t.TempDir(), component{name: "brief", grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	err = p.stop()
	if err == nil || !strings.Contains(err.Error(), "brief ended by itself: exit status 3") || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("stop: %v, want the exit status and the log", err)
	}
}

func TestComponentsDoNotSeeOurEnvironment(t *testing.T) {
	t.Setenv("ETCD_NAME", "somebody")
	t.Setenv("KUBECONFIG", "/home/somebody/.kube/config")
	p, err := startProcess(script(t, "env"), t.TempDir(), component{name: "nosy", grace: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	<-p.done
	b, err := os.ReadFile(p.logFile)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "somebody") || !strings.Contains(string(b), "PATH=") {
		t.Errorf("environment:\n%s", b)
	}
}

func TestTail(t *testing.T) {
	var long strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&long, "line %d\n", i)
	}
	for name, test := range map[string]struct {
		content string
		lines   int
		last    string
	}{
		"empty":      {"", 1, ""},
		"one line":   {"a\n", 1, "a"},
		"many lines": {long.String(), tailLines, "line 999"},
		"huge line":  {strings.Repeat("x", 3*tailBytes), 1, strings.Repeat("x", tailBytes)},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			if err := os.WriteFile(path, []byte(test.content), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := tail(path)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(got, "\n")
			if len(lines) != test.lines || lines[len(lines)-1] != test.last {
				t.Errorf("%d lines, the last %q; want %d, %q", len(lines), lines[len(lines)-1], test.lines, test.last)
			}
		})
	}
	if _, err := tail(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("a log that is absent has a tail")
	}
}

func TestFreePortsAreDistinct(t *testing.T) {
	ports, err := FreePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range ports {
		if port == 0 || seen[port] {
			t.Fatalf("ports %v", ports)
		}
		seen[port] = true
	}
}

// A port that was taken between choosing and listening is no reason to fail;
// anything else is.
func TestStartAgainWhenAPortIsTaken(t *testing.T) {
	for says, want := range map[string]int{
		"listen tcp 127.0.0.1:2379: bind: address already in use": startAttempts,
		"permission denied": 1,
	} {
		t.Run(says, func(t *testing.T) {
			dir := t.TempDir()
			binary := script(t, `[ "$1" = etcd ] && echo once >>"$HOME/attempts" && echo "`+says+`" && exit 1; exec sleep 5`)
			c, err := Start(t.Context(), Options{Binary: binary, Dir: dir, ReadyTimeout: 10 * time.Second})
			if err == nil {
				_ = c.Stop()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), says) {
				t.Errorf("error %q, want %q in it", err, says)
			}
			attempts, err := os.ReadFile(filepath.Join(dir, "attempts"))
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(string(attempts), "once"); got != want {
				t.Errorf("%d attempts, want %d", got, want)
			}
		})
	}
}
