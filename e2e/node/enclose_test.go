// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// actVariable has this program be one that uses Main.
	actVariable = "PRATIQUE_NODE_TEST"
	// markVariable is an argument by which a process of a test is found.
	markVariable = "PRATIQUE_NODE_MARK"
	// within bounds what takes a fraction of a second.
	within = 30 * time.Second
)

func TestMain(m *testing.M) {
	acts := map[string]func() int{"describe": describe, "obey": obey, "linger": linger, "sleep": sleep}
	act, ok := acts[os.Getenv(actVariable)]
	switch {
	case !ok:
		os.Exit(m.Run())
	case os.Getenv(actVariable) == "sleep":
		os.Exit(act())
	default:
		os.Exit(Main(act))
	}
}

// describe says what it sees.
func describe() int {
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		fmt.Println("interface", i.Name)
	}
	_, err := net.DialTimeout("tcp", "192.0.2.1:80", time.Second)
	fmt.Println("unreachable", errors.Is(err, syscall.ENETUNREACH))
	fmt.Println("child of init", os.Getppid() == 1)
	fmt.Println("arguments", strings.Join(os.Args[1:], " "))
	err = errors.Join(os.WriteFile("/run/pratique-test", nil, 0o600), os.WriteFile("/var/lib/pratique-test", nil, 0o600))
	fmt.Println("wrote", err == nil)
	return 7
}

// obey ends when it is told to.
func obey() int {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM)
	fmt.Println("ready")
	<-told
	return 3
}

// linger leaves a process behind that belongs to nobody, and does not end.
func linger() int {
	cmd := exec.Command("/proc/self/exe", os.Getenv(markVariable))
	cmd.Env = append(os.Environ(), actVariable+"=sleep")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("ready")
	return sleep()
}

func sleep() int {
	time.Sleep(time.Hour)
	return 0
}

// acting is this program, about to act.
func acting(t *testing.T, act string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), actVariable+"="+act)
	return cmd
}

// possible says whether Main can do its work here. If not it says so.
func possible(t *testing.T) bool {
	t.Helper()
	if lack := missing(); len(lack) > 0 {
		if leftOut(lack) != 0 {
			t.Fatalf("lacking: %v", lack)
		}
		return false
	}
	return true
}

func TestMainGivesAMachineOfItsOwn(t *testing.T) {
	t.Parallel()
	if !possible(t) {
		return
	}
	cmd := acting(t, "describe", "one", "two three")
	out, _ := cmd.Output()
	want := "interface lo\ninterface pratique0\nunreachable true\nchild of init true\narguments one two three\nwrote true\n"
	if got, code := string(out), cmd.ProcessState.ExitCode(); got != want || code != 7 {
		t.Errorf("exit code %d, output\n%swant 7,\n%s", code, got, want)
	}
	for _, path := range []string{"/run/pratique-test", "/var/lib/pratique-test"} {
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s is seen outside", path)
		}
	}
}

func TestMainForwardsSignals(t *testing.T) {
	t.Parallel()
	if !possible(t) {
		return
	}
	cmd := acting(t, "obey")
	awaitReady(t, cmd)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 {
		t.Errorf("%s, want exit code 3", cmd.ProcessState)
	}
}

func TestNothingOutlivesAKill(t *testing.T) {
	t.Parallel()
	if !possible(t) {
		return
	}
	mark := rand.Text()
	cmd := acting(t, "linger")
	cmd.Env = append(cmd.Env, markVariable+"="+mark)
	awaitReady(t, cmd)
	if n := processes(t, mark); n != 1 {
		t.Fatalf("%d processes linger, want 1", n)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for deadline := time.Now().Add(within); processes(t, mark) > 0; time.Sleep(poll) {
		if time.Now().After(deadline) {
			t.Fatal("a process outlived its namespace")
		}
	}
	// Only the kernel's control groups are left, until the next run.
	if out, err := acting(t, "describe").CombinedOutput(); len(out) == 0 {
		t.Fatal(err)
	}
	left, err := filepath.Glob(fmt.Sprintf("/sys/fs/cgroup/*/pratique-node-%d", cmd.Process.Pid))
	if err != nil || len(left) > 0 {
		t.Errorf("control groups %v, %v", left, err)
	}
}

func TestMainSaysWhatIsLeftOut(t *testing.T) {
	t.Parallel()
	for required, want := range map[string]struct {
		code int
		says string
	}{
		"":         {0, "LEFT OUT: everything in node.test"},
		"required": {1, "FAIL: everything in node.test"},
		"true":     {1, `FAIL: PRATIQUE_E2E_NODE="true"`},
	} {
		cmd := acting(t, "describe")
		cmd.Env = append(cmd.Env, "PATH=", requiredVariable+"="+required)
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != want.code {
			t.Errorf("%q: exit code %d, want %d", required, code, want.code)
		}
		if !strings.Contains(string(out), want.says) || strings.Contains(want.says, "everything") && !strings.Contains(string(out), "it lacks") || strings.Contains(string(out), "interface") {
			t.Errorf("%q: output %q", required, out)
		}
	}
}

// awaitReady starts a program and waits until it says that it is ready.
func awaitReady(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("it says %q, %v", line, err)
	}
}

// processes counts those with an argument.
func processes(t *testing.T, argument string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		args, _ := os.ReadFile(file) // it may have ended
		if slices.Contains(strings.Split(string(args), "\x00"), argument) {
			n++
		}
	}
	return n
}
