// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import "syscall"

// processAttributes makes a component die with this process, even if that is
// killed, and keeps a terminal's Ctrl-C from it, so that Stop decides the order.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
