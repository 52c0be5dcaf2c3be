// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// PodLogs is the folder of what containers print:
// <namespace>_<Pod>_<id>/<container>/<restarts>.log.
func (n *Node) PodLogs() string { return filepath.Join(n.logs(), "pods") }

// FillLogs fills the disk that what containers print is on, until nothing more
// can be written there, and returns what frees it again. It needs
// Options.LogSpace.
func (n *Node) FillLogs() (free func() error, err error) {
	if n.logSpace == 0 {
		return nil, errors.New("filling the disk of the logs: they have none of their own (Options.LogSpace)")
	}
	// Not in the folder of the Pods' logs, where the kubelet removes what is no Pod's.
	filler := filepath.Join(n.logs(), "filler")
	f, err := os.Create(filler)
	if err != nil {
		return nil, fmt.Errorf("filling the disk of the logs: %w", err)
	}
	zeros := make([]byte, 1<<16)
	for err == nil {
		_, err = f.Write(zeros)
	}
	err = errors.Join(err, f.Close())
	if !errors.Is(err, syscall.ENOSPC) {
		return nil, fmt.Errorf("filling the disk of the logs: %w", err)
	}
	return func() error { return os.Remove(filler) }, nil
}

// mountLogs gives the logs a disk of their own, if they are to have one. It goes
// with the namespaces.
func (n *Node) mountLogs() error {
	if n.logSpace == 0 {
		return nil
	}
	if err := os.MkdirAll(n.logs(), 0o755); err != nil {
		return fmt.Errorf("making a disk for the logs: %w", err)
	}
	if err := mountMemory(n.logs(), n.logSpace); err != nil {
		return fmt.Errorf("making a disk for the logs: %w", err)
	}
	return nil
}
