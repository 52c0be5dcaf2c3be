// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package installed holds cases of Pratique as an admin has it: its own image,
// installed by Helm from the chart on a real node (package node), asked by the
// API server through the Service, with images in a private registry that the node
// really pulls. Where the machine cannot run a node its tests say so and are left
// out.
//
// The webhook configurations are the cluster's, so there is one release at a
// time: the tests run one after another, each with a release of its own.
package installed
