// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "syscall"

// processAttributes makes a server die with this process, even if that is killed.
func processAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
