// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"net/http"
	"net/http/pprof"
)

// What net/http/pprof registers by itself is on http.DefaultServeMux, which nobody
// serves.

// profiles answers what go tool pprof and go tool trace ask for. The command line
// is not among it: nothing needs it, and nobody knows who asks.
func profiles() http.Handler {
	mux := http.NewServeMux()
	// The index also has the profiles that runtime/pprof knows by name.
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}
