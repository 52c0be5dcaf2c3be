// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"
)

// programGrace is how long a program may take to end after SIGTERM: a little
// more than the 10 s that Pratique allows itself.
const programGrace = 15 * time.Second

// A Program is a further process that belongs to a cluster, such as a webhook.
// It sees the administrator's kubeconfig in the variable KUBECONFIG.
type Program struct {
	// Name is what it is called in messages; its output is in <Name>.log.
	Name   string
	Binary string
	Args   []string
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
		env: []string{"KUBECONFIG=" + c.Kubeconfig},
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
