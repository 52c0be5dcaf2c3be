// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package chart holds charts/pratique to what a real API server says of it:
// installed, upgraded, rolled back and uninstalled by Helm as users run it, on a
// control plane without a node. What needs running Pods is not here: nothing is
// armed, and no hook is run.
package chart
