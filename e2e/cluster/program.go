// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// programGrace is how long a program may take to end after SIGTERM: a little
// more than the 20 s that Pratique allows itself.
const programGrace = 25 * time.Second

// A Program is a further process that belongs to a cluster, such as a webhook.
type Program struct {
	// Name is what it is called in messages; its output is in <Name>.log.
	Name   string
	Binary string
	Args   []string
	// Kubeconfig is the file that it sees in the variable KUBECONFIG; empty means
	// the administrator's.
	Kubeconfig string
}

// Run starts a program. It ends with Stop, before everything that was started
// earlier, or when the returned function is called.
func (c *Cluster) Run(program Program) (stop func() error, err error) {
	binary, err := filepath.Abs(program.Binary)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", program.Name, err)
	}
	err = c.start(binary, component{
		name: program.Name, args: program.Args, grace: programGrace,
		env: []string{"KUBECONFIG=" + cmp.Or(program.Kubeconfig, c.Kubeconfig)},
	})
	if err != nil {
		return nil, err
	}
	p := c.processes[len(c.processes)-1]
	return func() error {
		i := slices.Index(c.processes, p)
		if i < 0 {
			return nil
		}
		c.processes = slices.Delete(c.processes, i, i+1)
		return p.stop()
	}, nil
}

// Log is the path of what a component or program printed.
func (c *Cluster) Log(name string) string { return filepath.Join(c.Dir, name+".log") }

// A Process is a program that belongs to no cluster, such as a registry. It
// sees no kubeconfig. On Linux it ends with this process, however that ends.
type Process struct{ process *process }

// StartProcess starts a program. Its working directory is dir, which must be
// there, and its log is in it. The caller ends it with Stop.
func StartProcess(dir string, program Program) (*Process, error) {
	binary, err := filepath.Abs(program.Binary)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", program.Name, err)
	}
	p, err := startProcess(binary, dir, component{name: program.Name, args: program.Args, grace: programGrace})
	if err != nil {
		return nil, err
	}
	return &Process{p}, nil
}

// Failure is nil while the process runs; else it says how it ended, with the
// end of its log.
func (p *Process) Failure() error {
	if !p.process.ended() {
		return nil
	}
	return p.process.failure()
}

// Stop ends the process and waits until it is gone: SIGTERM, and SIGKILL if
// that does not end it in time. It is an error if it had ended before.
func (p *Process) Stop() error { return p.process.stop() }

// PID is its process id.
func (p *Process) PID() int { return p.process.pid }
