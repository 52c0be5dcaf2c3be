// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"net/http"
	"time"
)

const (
	// defaultTimeout is the API server's own for a webhook that sets none
	// (admissionregistration.k8s.io/v1, timeoutSeconds).
	defaultTimeout = 10 * time.Second
	// maxTimeout is the most that it allows.
	maxTimeout = 30 * time.Second
	// margin is kept back of the time, so that the answer arrives in it: enough
	// to write it and for a slow network, and never more than a quarter.
	margin = 500 * time.Millisecond
	// readWithin bounds the reading of a review, and writeWithin the writing of
	// the answer: the API server does both at once, and whoever does not would
	// hold a place for nothing.
	readWithin  = 5 * time.Second
	writeWithin = 5 * time.Second
)

// budget is how long an answer may take: what the API server appends as
// ?timeout=, less the margin.
func budget(r *http.Request) time.Duration {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil || timeout <= 0 {
		timeout = defaultTimeout
	}
	timeout = min(timeout, maxTimeout)
	return timeout - min(margin, timeout/4)
}
