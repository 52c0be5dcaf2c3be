// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// endWithin bounds the end of processes after SIGKILL.
const endWithin = 10 * time.Second

// shim is the program that each Pod's containers are children of. It outlives
// containerd, so that containerd can be restarted alone.
const shim = "containerd-shim-runc-v2"

// endContainers kills the processes of all containers, and those that keep them.
// In this PID namespace there are no others' shims.
func endContainers() error {
	deadline := time.Now().Add(endWithin)
	for {
		pids, err := containerProcesses()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("containers' processes %v are left after %s", pids, endWithin)
		}
		for _, pid := range pids {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("ending container process %d: %w", pid, err)
			}
		}
		time.Sleep(poll)
	}
}

// containerProcesses lists shims and all that descends from them.
func containerProcesses() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	parents, shims := map[int]int{}, map[int]bool{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		parent, zombie := parentOf(pid)
		if zombie {
			continue // ended; its parent has yet to take note
		}
		parents[pid] = parent
		args, _ := os.ReadFile("/proc/" + entry.Name() + "/cmdline")
		program, _, _ := bytes.Cut(args, []byte{0})
		shims[pid] = strings.HasSuffix(string(program), shim)
	}
	var found []int
	for pid := range parents {
		for ancestor := pid; ancestor != 0; ancestor = parents[ancestor] {
			if shims[ancestor] {
				found = append(found, pid)
				break
			}
		}
	}
	return found, nil
}

// parentOf reads the parent of a process, and whether it has ended: 0, true also
// if there is none.
func parentOf(pid int) (parent int, ended bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, true
	}
	// pid (name) state parent …; the name may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, true
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, err != nil || fields[0] == "Z"
}

// Kill ends a program by SIGKILL wherever it runs in a container of the Pod, or of
// any Pod if the id is empty, and returns how many processes that were.
func (n *Node) Kill(program string, pod types.UID) (killed int, err error) {
	pids, err := containerProcesses()
	if err != nil {
		return 0, fmt.Errorf("killing %s: %w", program, err)
	}
	for _, pid := range pids {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		name, _, _ := bytes.Cut(args, []byte{0})
		// The kubelet names a Pod's control group by its id.
		groups, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if filepath.Base(string(name)) != program || !bytes.Contains(groups, []byte("/pod"+string(pod))) {
			continue // another one, or it has ended
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err == nil {
			killed++
		} else if !errors.Is(err, syscall.ESRCH) {
			return killed, fmt.Errorf("killing %s, process %d: %w", program, pid, err)
		}
	}
	return killed, nil
}
