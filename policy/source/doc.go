// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package source keeps the rules in force up to date: it reads ImageConfigs and
// the Secrets they name, from a cluster or from files, and compiles them into a
// [policy.Set] that it swaps as a whole.
//
// An ImageConfig that cannot be compiled still holds back the images that it
// selects: a mistake never widens access.
package source
