// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// front is a running server's side of the network: it records what comes, and misbehaves to order.
type front struct {
	listener net.Listener
	server   *http.Server
	shut     sync.Once
	recorder recorder
	faults   faults
}

// open starts to serve content, until tb is cleaned up.
func (f *front) open(tb TB, o options, content http.Handler) {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", o.address)
	if err != nil {
		tb.Fatalf("starting a server: %v", err)
	}
	f.listener = listener
	f.server = &http.Server{
		Handler:           f.recorded(content),
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: 30 * time.Second, // a client that never finishes its header must not outlive a test
	}
	serve := f.server.Serve
	if o.tls != nil {
		f.server.TLSConfig = o.tls
		serve = func(l net.Listener) error { return f.server.ServeTLS(l, "", "") }
	}
	go func() { _ = serve(listener) }() // ends with ErrServerClosed when Close is called
	tb.Cleanup(f.Close)
}

// recorded is the front door: record, then the faults that match, then the content.
func (f *front) recorded(content http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		entry := f.recorder.begin(req)
		defer entry.end()
		f.faults.wrap(req, content).ServeHTTP(&recordedWriter{ResponseWriter: w, entry: entry}, req)
	})
}

// Host returns the address of the server as image references name it: "127.0.0.1:41234".
func (f *front) Host() string { return f.listener.Addr().String() }

// Close stops the server and ends every request that still hangs in it. Later calls do nothing.
func (f *front) Close() {
	f.shut.Do(func() { _ = f.server.Close() }) // nobody could do anything about its error
}

// Fault orders behaviour for the requests that match, until remove is called. Of several faults that match
// one request the first ordered is outermost: it sees the request first and the answer last. Credentials are
// asked for behind all faults.
func (f *front) Fault(match Match, behaviour Behaviour) (remove func()) {
	return f.faults.add(match, behaviour)
}

// Requests returns what came over the network so far, in order of arrival.
func (f *front) Requests() []Request { return f.recorder.requests() }

// Reset forgets the requests so far. Contents and faults stay.
func (f *front) Reset() { f.recorder.reset() }
