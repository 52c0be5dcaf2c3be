// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bench measures pratique serve beside the floor: a TLS webhook that
// decodes the AdmissionReview with the standard library and allows it, and
// knows nothing else. A figure by itself says more about the machine than about
// the program; the ratio of the two, taken by one client in one run, says what
// examining images costs. A second part measures what registries that are slow
// or lie cost the server and everyone else. README.md tells how to read the
// tables.
//
//	make bench
//	go run ./bench --pratique bin/pratique [--part floor|hostile] [--quick]
//
// The exit status is 0 if everything ran and every answer was right. It is 1 if
// an answer was wrong, or if more registry requests were made than section 12
// of the specification allows: those need no clock. A time that is not reached
// is told in the table and nowhere else, because clocks depend on what else the
// machine does.
package main
