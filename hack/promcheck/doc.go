// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package promcheck holds the alerts and the dashboard in deploy against
// Prometheus' own library and against docs/metrics.md, which a test of
// cmd/pratique holds against what the program exports. It is a module of its own:
// the program needs none of that library.
package promcheck
