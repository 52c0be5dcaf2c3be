// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// cgroupRoot is where the controllers are mounted, each in a folder of its own.
	cgroupRoot = "/sys/fs/cgroup"
	// cgroupPrefix and the id of the process outside are the name of its control
	// groups.
	cgroupPrefix = "pratique-node-"
	// furnishWithin bounds some calls of ip, which take milliseconds each.
	furnishWithin = 30 * time.Second
)

// furnish makes of fresh namespaces a machine that a node can run on.
func furnish(group string) error {
	ctx, cancel := context.WithTimeout(context.Background(), furnishWithin)
	defer cancel()
	if err := makeCgroups(group); err != nil {
		return fmt.Errorf("making control groups: %w", err)
	}
	if err := mountAll(); err != nil {
		return err
	}
	return connect(ctx)
}

// mountAll hides what is the machine's own: nothing that is mounted here is seen
// outside, and what is written to /run, /var/lib and /var/log stays in memory.
// Some programs of a node have no flag for their folders there.
func mountAll() error {
	const overlays = "/run/overlays"
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{target: "/", flags: syscall.MS_REC | syscall.MS_PRIVATE},
		{source: "proc", target: "/proc", kind: "proc", flags: syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC},
		{source: "pratique", target: "/run", kind: "tmpfs", flags: syscall.MS_NOSUID | syscall.MS_NODEV, data: "mode=755"},
		{source: "pratique", target: "/var/lib", kind: "overlay"},
		{source: "pratique", target: "/var/log", kind: "overlay"},
		// The kubelet hands mounts on to containers, as on a machine of its own.
		{target: "/", flags: syscall.MS_REC | syscall.MS_SHARED},
	} {
		if m.kind == "overlay" {
			base := filepath.Join(overlays, filepath.Base(m.target))
			upper, work := filepath.Join(base, "upper"), filepath.Join(base, "work")
			if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
				return fmt.Errorf("making folders for %s: %w", m.target, err)
			}
			m.data = "lowerdir=" + m.target + ",upperdir=" + upper + ",workdir=" + work
		}
		if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	return nil
}

// mountMemory mounts a disk in memory of so many bytes.
func mountMemory(dir string, size int64) error {
	return syscall.Mount("pratique", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, fmt.Sprintf("mode=755,size=%d", size))
}

// connect makes the network: loopback, and the bridge that Pods are put on.
func connect(ctx context.Context) error {
	for _, command := range []string{
		"ip link set lo up",
		"ip link add name " + bridge + " type bridge",
		"ip address add " + Address + "/" + podPrefixLength + " dev " + bridge,
		"ip link set " + bridge + " up",
		// Else the way to a Service is none, until kube-proxy turns it elsewhere.
		"ip route add " + ServiceCIDR + " dev " + bridge,
	} {
		args := strings.Fields(command)
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, out)
		}
	}
	for _, file := range []string{"/proc/sys/net/ipv4/ip_forward", bridgeFilter} {
		if err := os.WriteFile(file, []byte("1"), 0o644); err != nil {
			return fmt.Errorf("setting up the network: %w", err)
		}
	}
	return nil
}

// makeCgroups makes the control group beneath which the kubelet keeps those of
// Pods: in each hierarchy, or in the only one of version 2.
func makeCgroups(group string) error {
	parents := []string{cgroupRoot}
	if _, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers")); err != nil {
		if parents, err = filepath.Glob(filepath.Join(cgroupRoot, "*", "cgroup.procs")); err != nil {
			return err
		}
		for i := range parents {
			parents[i] = filepath.Dir(parents[i])
		}
	}
	for _, parent := range parents {
		if err := os.Mkdir(filepath.Join(parent, group), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the control groups of this process and of those that are
// no more.
func removeCgroups() error {
	var ours []string
	err := filepath.WalkDir(cgroupRoot, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // somebody else's, removed meanwhile
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		if inOurs(path) {
			ours = append(ours, path)
		}
		return nil
	})
	// The innermost come last.
	for _, dir := range slices.Backward(ours) {
		if removeErr := syscall.Rmdir(dir); removeErr != nil && !errors.Is(removeErr, syscall.ENOENT) {
			err = errors.Join(err, fmt.Errorf("removing %s: %w", dir, removeErr))
		}
	}
	return err
}

// inOurs says whether a folder is a control group of this process, or of one
// that has ended, or beneath such a group.
func inOurs(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		id, found := strings.CutPrefix(part, cgroupPrefix)
		if !found {
			continue
		}
		pid, err := strconv.Atoi(id)
		if err != nil {
			return false
		}
		return pid == os.Getpid() || errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	}
	return false
}

// removeAll removes a folder with all that is mounted in it.
func removeAll(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("reading the mounts: %w", err)
	}
	// What was mounted last may be on what was mounted before.
	for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[4], dir+"/") {
			continue
		}
		if err := syscall.Unmount(fields[4], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", fields[4], err)
		}
	}
	return os.RemoveAll(dir)
}
