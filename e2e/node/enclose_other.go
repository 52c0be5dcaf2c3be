// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import "errors"

const (
	stageVariable, stageInside = "PRATIQUE_NODE_STAGE", "inside"
	cgroupVariable             = "PRATIQUE_NODE_CGROUP"
)

// enclose leaves out what needs Linux.
func enclose() int { return leftOut([]string{"Linux"}) }

func removeAll(string) error { return errors.ErrUnsupported }

// mountMemory is not called: no node starts here.
func mountMemory(string, int64) error { return errors.ErrUnsupported }
