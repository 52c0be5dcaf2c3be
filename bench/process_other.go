// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "syscall"

// processAttributes is empty where no system call ties a process to its parent.
func processAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
