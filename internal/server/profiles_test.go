// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"net/http"
	"strings"
	"testing"
)

// TestProfiles: they are on an address of their own, and on no other.
func TestProfiles(t *testing.T) {
	t.Parallel()
	o := options(t, http.NotFound)
	o.MetricsAddress, o.PprofAddress = freeAddress(t), freeAddress(t)
	start(t, o)
	at := "http://" + o.PprofAddress + "/debug/pprof/"
	for path, want := range map[string]string{
		"": "goroutine", "goroutine?debug=1": "goroutine profile", "heap?debug=1": "heap profile", "symbol": "num_symbols", "trace?seconds=0.01": "go 1.",
	} {
		if status, body := get(t.Context(), at+path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %.100q", path, status, body)
		}
	}
	for _, elsewhere := range []string{
		at + "cmdline", "http://" + o.PprofAddress + "/metrics", "http://" + o.MetricsAddress + "/debug/pprof/",
		"http://" + o.HealthAddress + "/debug/pprof/", "https://" + o.BindAddress + "/debug/pprof/",
	} {
		if status, body := get(t.Context(), elsewhere); status != http.StatusNotFound {
			t.Errorf("%s: %d, %.100q", elsewhere, status, body)
		}
	}
}
