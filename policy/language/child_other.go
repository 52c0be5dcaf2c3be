// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package language

import "syscall"

// childAttributes are none: a child ends when its input does.
func childAttributes() *syscall.SysProcAttr { return nil }
