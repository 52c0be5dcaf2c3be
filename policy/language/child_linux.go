// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import "syscall"

// childAttributes have the kernel end a child whose parent is gone.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
