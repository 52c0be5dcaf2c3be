// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodecases holds what needs a real node (package node): what the
// others' control plane without one cannot show. Where the machine cannot run a
// node its tests say so and are left out.
package nodecases
