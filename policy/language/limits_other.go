// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package language

// limitData has nothing to ask of other kernels: the memory is looked at often.
func limitData() {}
