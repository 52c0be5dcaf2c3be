// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

// The stages of Main, each the same program: outside makes the namespaces, init
// is their process 1, inside does the work.
const (
	stageVariable = "PRATIQUE_NODE_STAGE"
	stageInit     = "init"
	stageInside   = "inside"
	// cgroupVariable tells init how its control groups are called.
	cgroupVariable = "PRATIQUE_NODE_CGROUP"
)

// enclose runs this program again in namespaces of its own, and removes the
// control groups, which belong to no namespace.
func enclose() int {
	if os.Getenv(stageVariable) == stageInit {
		return beInit()
	}
	group := cgroupPrefix + fmt.Sprint(os.Getpid())
	// Those of a run that was killed are still there.
	if err := removeCgroups(); err != nil {
		fmt.Fprintf(os.Stderr, "node: removing control groups of earlier runs: %v\n", err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit, cgroupVariable+"="+group)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC,
		// When this process is killed, init is; and with init all that it holds.
		Pdeathsig: syscall.SIGKILL,
	}
	// The signal comes when the thread ends that started the process.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		if errors.Is(err, syscall.EPERM) {
			return leftOut([]string{"the right to make namespaces"})
		}
		fmt.Fprintf(os.Stderr, "FAIL: node: making namespaces: %v\n", err)
		return 1
	}
	stop := forwardSignals(cmd.Process)
	err := cmd.Wait()
	stop()
	code := cmd.ProcessState.ExitCode()
	if code < 0 {
		fmt.Fprintf(os.Stderr, "FAIL: node: %v\n", err)
		code = 1
	}
	if err := removeCgroups(); err != nil {
		fmt.Fprintf(os.Stderr, "node: removing control groups: %v\n", err)
	}
	return code
}

// beInit prepares the namespaces, starts the program in them and waits for every
// process that is left to it. When it returns, the kernel ends all others.
func beInit() int {
	if err := furnish(os.Getenv(cgroupVariable)); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: node: %v\n", err)
		return 1
	}
	if err := os.Setenv(stageVariable, stageInside); err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: node: %v\n", err)
		return 1
	}
	process, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL: node: starting inside of the namespaces: %v\n", err)
		return 1
	}
	defer forwardSignals(process)()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			fmt.Fprintf(os.Stderr, "FAIL: node: waiting for processes: %v\n", err)
			return 1
		case pid == process.Pid && status.Exited():
			return status.ExitStatus()
		case pid == process.Pid && status.Signaled():
			fmt.Fprintf(os.Stderr, "FAIL: node: ended by %s\n", status.Signal())
			return 1
		}
	}
}

// forwardSignals hands those by which people and go test end a program to the
// one that does the work, until the returned function is called.
func forwardSignals(process *os.Process) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = process.Signal(s) // it may have ended just now
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
