// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/e2e/sigstore"
)

// TestMain makes every call that leaves loopback fail, so that these tests also
// prove that signing and verifying make none. Proxies are read once, hence not
// in a test.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		if err := os.Setenv(name, "http://127.0.0.1:1"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func start(t *testing.T) *sigstore.Sigstore {
	t.Helper()
	s, err := sigstore.Start(t.Context(), sigstore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Two run side by side, although some of their ports are fixed: each is in a
// namespace that has no interface but loopback. Nothing is left of one that was
// stopped.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	all := make([]*sigstore.Sigstore, 2)
	var starting sync.WaitGroup
	for i := range all {
		starting.Go(func() { all[i] = start(t) })
	}
	starting.Wait()
	if t.Failed() {
		return
	}
	namespaces := []string{namespace(t, os.Getpid())}
	var last []int
	for _, s := range all {
		processes := descendants(t, s.PID())
		last = processes
		if want := []string{"fulcio", "posix", "rekor-server", "servers", "timestamp-server"}; !cmp.Equal(names(t, processes), want) {
			t.Errorf("processes %v, want %v", names(t, processes), want)
		}
		for i, pid := range processes {
			own := namespace(t, pid)
			if i > 0 && own != namespaces[len(namespaces)-1] {
				t.Errorf("process %d is in %s, not with the others", pid, own)
			}
			if i == 0 {
				if slices.Contains(namespaces, own) {
					t.Errorf("process %d shares %s", pid, own)
				}
				namespaces = append(namespaces, own)
			}
			if found := interfaces(t, pid); !cmp.Equal(found, []string{"lo"}) {
				t.Errorf("process %d sees %v, want lo alone", pid, found)
			}
		}
	}

	if err := all[1].Stop(); err != nil {
		t.Error(err)
	}
	for _, pid := range last {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	if left := descendants(t, all[0].PID()); len(left) != 5 {
		t.Errorf("the other one has %d processes, want 5", len(left))
	}
}

// A server that ends takes all with it, and its log is shown.
func TestServerEnds(t *testing.T) {
	t.Parallel()
	s, err := sigstore.Start(t.Context(), sigstore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	processes := descendants(t, s.PID())
	i := slices.IndexFunc(processes, func(pid int) bool { return names(t, []int{pid})[0] == "rekor-server" })
	if i < 0 {
		t.Fatalf("no Rekor 1 among %v", names(t, processes))
	}
	if err := syscall.Kill(processes[i], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for s.Failure() == nil { // the test's own limit ends it
		time.Sleep(10 * time.Millisecond)
	}
	for _, pid := range processes {
		if err := syscall.Kill(pid, 0); err == nil {
			t.Errorf("process %d is still there", pid)
		}
	}
	err = s.Stop()
	if err == nil || !strings.Contains(err.Error(), "rekor1 ended by itself\n") {
		t.Errorf("%v, want it to name Rekor 1", err)
	}
}

func TestStartFails(t *testing.T) {
	t.Parallel()
	if _, err := sigstore.Start(t.Context(), sigstore.Options{}); err == nil {
		t.Error("started in no folder")
	}

	// All but Fulcio are there.
	programs := t.TempDir()
	built, err := filepath.Abs("servers/bin")
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(built, "servers"))
	if err != nil {
		t.Fatal(err)
	}
	// Not a link: what it starts is beside the program itself.
	if err := os.WriteFile(filepath.Join(programs, "servers"), content, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(built, "timestamp-server"), filepath.Join(programs, "timestamp-server")); err != nil {
		t.Fatal(err)
	}
	_, err = sigstore.Start(t.Context(), sigstore.Options{Dir: t.TempDir(), Programs: programs})
	if err == nil || !strings.Contains(err.Error(), "starting fulcio: ") {
		t.Errorf("%v, want it to name Fulcio", err)
	}
}

// descendants are the processes inside the namespace: the child of the process
// and its children.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	inner := children(t, pid)
	if len(inner) != 1 {
		t.Fatalf("process %d has %d children, want 1", pid, len(inner))
	}
	return append(inner, children(t, inner[0])...)
}

// children are the processes that any thread of the process started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads of process %d: %v", pid, err)
	}
	var found []int
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for field := range strings.FieldsSeq(string(content)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err != nil {
				t.Fatal(err)
			}
			found = append(found, child)
		}
	}
	return found
}

func names(t *testing.T, pids []int) []string {
	t.Helper()
	var found []string
	for _, pid := range pids {
		path, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, filepath.Base(path))
	}
	slices.Sort(found)
	return found
}

func namespace(t *testing.T, pid int) string {
	t.Helper()
	found, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// interfaces are those of the process's namespace.
func interfaces(t *testing.T, pid int) []string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		if name, _, ok := strings.Cut(line, ":"); ok {
			found = append(found, strings.TrimSpace(name))
		}
	}
	return found
}
