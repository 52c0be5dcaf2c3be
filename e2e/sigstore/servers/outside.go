// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// addressesFile is written once everything answers. It maps what is in relayed
// to "127.0.0.1:port".
const addressesFile = "addresses.json"

// relayed names the servers that are reached from outside, in the order of the
// listeners that the inner process inherits.
func relayed() []relay {
	return []relay{
		{"fulcio", fulcioPort},
		{"timestamp", timestampPort},
		{"rekor1", rekor1Port},
		{"rekor2", rekor2Port},
	}
}

// A relay is a listener outside that leads to a port inside.
type relay struct {
	name string
	port int
}

// runOutside opens the listeners and runs this program again inside a new
// namespace. A socket belongs to the namespace in which it was made, whoever
// accepts from it: that is how the inner process is reached.
func runOutside(ctx context.Context, args []string, dir string) error {
	addresses := map[string]string{}
	inner := exec.Command("/proc/self/exe", append([]string{"-inside"}, args...)...) // ended by its id below
	for _, r := range relayed() {
		address, file, err := listen()
		if err != nil {
			return fmt.Errorf("listening for %s: %w", r.name, err)
		}
		addresses[r.name] = address
		inner.ExtraFiles = append(inner.ExtraFiles, file) // open as long as this process is
	}
	inner.SysProcAttr = namespaceAttributes()
	inner.Stderr = os.Stderr
	ready, err := inner.StdoutPipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	// The signal of namespaceAttributes is sent when the thread ends that made
	// the process; this goroutine is main's and keeps its thread to the end.
	runtime.LockOSThread()
	if err := inner.Start(); err != nil {
		return fmt.Errorf("starting a process in a network namespace of its own: %w", err)
	}
	go func() {
		if _, err := bufio.NewReader(ready).ReadString('\n'); err == nil {
			if err := writeAddresses(dir, addresses); err != nil {
				fmt.Fprintln(os.Stderr, "servers:", err)
				_ = inner.Process.Signal(syscall.SIGTERM)
			}
		}
		_, _ = io.Copy(io.Discard, ready)
	}()
	go func() {
		<-ctx.Done()
		_ = inner.Process.Signal(syscall.SIGTERM) // an error means that it has just ended
	}()
	if err := inner.Wait(); err != nil {
		return fmt.Errorf("in the namespace: %w", err)
	}
	return nil
}

// listen opens a listener on loopback, as the file that a process can inherit.
func listen() (address string, file *os.File, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	defer listener.Close() // the file is a copy
	file, err = listener.(*net.TCPListener).File()
	if err != nil {
		return "", nil, err
	}
	return listener.Addr().String(), file, nil
}

// namespaceAttributes ask for a network namespace, which ends with the last
// process in it. Whoever is not root gets it by way of a user namespace, where
// the system allows that.
func namespaceAttributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return a
}

// writeAddresses leaves no moment at which half of the file can be read.
func writeAddresses(dir string, addresses map[string]string) error {
	content, err := json.Marshal(addresses)
	if err != nil {
		return fmt.Errorf("encoding the addresses: %w", err)
	}
	path := filepath.Join(dir, addressesFile)
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("writing the addresses: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("writing the addresses: %w", err)
	}
	return nil
}
