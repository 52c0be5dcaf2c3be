// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Proxy is a running HTTP proxy on loopback: it tunnels what is asked for with CONNECT, passes plain requests
// on, and notes every target. Its methods are safe for concurrent use.
type Proxy struct {
	listener net.Listener
	routes   map[string]string

	mu      sync.Mutex
	targets []string
}

// NewProxy starts a proxy that lives until tb is cleaned up. routes says where it finds each target, both as
// "host:port"; it knows no others.
func NewProxy(tb TB, routes map[string]string) *Proxy {
	tb.Helper()
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("starting a proxy: %v", err)
	}
	p := &Proxy{listener: listener, routes: routes}
	server := &http.Server{
		Handler: http.HandlerFunc(p.serve), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: 30 * time.Second,
	}
	go func() { _ = server.Serve(listener) }() // ends with ErrServerClosed when it is closed
	tb.Cleanup(func() { _ = server.Close() })
	return p
}

// Host returns the address of the proxy: "127.0.0.1:41234".
func (p *Proxy) Host() string { return p.listener.Addr().String() }

// Targets returns what was asked of the proxy so far, in order: "CONNECT registry.example.com:443", or
// "GET http://registry.example.com/v2/".
func (p *Proxy) Targets() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.targets)
}

func (p *Proxy) serve(w http.ResponseWriter, req *http.Request) {
	p.mu.Lock()
	p.targets = append(p.targets, req.Method+" "+req.RequestURI)
	p.mu.Unlock()
	if !req.URL.IsAbs() && req.Method != http.MethodConnect {
		http.Error(w, "this is a proxy", http.StatusBadRequest)
		return
	}
	to, known := p.routes[req.Host]
	if !known {
		http.Error(w, "no such host", http.StatusBadGateway)
		return
	}
	onward, err := (&net.Dialer{}).DialContext(req.Context(), "tcp", to)
	if err != nil {
		http.Error(w, "no connection", http.StatusBadGateway)
		return
	}
	defer onward.Close()
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	if req.Method == http.MethodConnect {
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n") // the client may be gone
	} else {
		req.Close = true // one request a connection is enough
		_ = req.Write(onward)
	}
	done := make(chan struct{}, 2)
	for to, from := range map[net.Conn]io.Reader{onward: buffered, conn: onward} {
		go func() {
			_, _ = io.Copy(to, from) // whoever ends first ends both
			done <- struct{}{}
		}()
	}
	<-done
}
