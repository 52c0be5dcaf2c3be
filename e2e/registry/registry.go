// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package registry runs OCI registries for tests, on loopback. Two kinds are in
// this process; clients find signatures in them differently:
//
//	Distribution  github.com/distribution/distribution, on disk, no referrers API
//	Memory        go-containerregistry's, in memory, with the referrers API
//
// Both speak plain HTTP, which clients accept of loopback addresses, and ask
// for no credentials. A test that wants faults or recorded requests wraps their
// handler. A third is a process of its own, and private if it is told to be:
//
//	Process       Distribution with TLS, client certificates, passwords or tokens
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/sirupsen/logrus"

	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // Distribution's storage
)

const (
	// headerTimeout closes a connection whose client says nothing; it is far
	// above what any client on loopback needs.
	headerTimeout = 10 * time.Second
	// stopTimeout is what requests in flight get to end when the registry
	// stops; after that their connections are closed. It is short because
	// connections that were opened and never used count as in flight.
	stopTimeout = 500 * time.Millisecond
)

// Options say how a registry runs. The zero value is useful for Memory.
type Options struct {
	// Dir is where Distribution keeps its content; it is made if need be, and
	// what an earlier registry left there is served again. Memory ignores it.
	Dir string
	// Addr is the address to listen on, such as "127.0.0.1:5000". Empty means a
	// free port of 127.0.0.1.
	Addr string
	// Wrap, if not nil, is given the registry's handler and returns the one
	// that is served.
	Wrap func(http.Handler) http.Handler
	// Log receives the registry's log, from several goroutines at once; nil
	// discards it. Distribution logs to logrus' standard logger: of several in
	// one process the last one started says where all of them log.
	Log io.Writer
}

// A Registry is a running registry.
type Registry struct {
	// Host is "127.0.0.1:port", the first part of an image reference.
	Host string

	server *http.Server
	served chan error // what Serve returned
	close  func() error
}

// Distribution starts the registry of github.com/distribution/distribution on
// the folder options.Dir. It has no referrers API: clients keep an index under
// the tag sha256-<hex> instead. Deleting is allowed.
func Distribution(options Options) (*Registry, error) {
	if options.Dir == "" {
		return nil, errors.New("starting the distribution registry: Options.Dir is empty")
	}
	// The storage driver makes it only at the first push; a bad one is better
	// known now.
	if err := os.MkdirAll(options.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("making the registry's folder: %w", err)
	}
	logrus.SetOutput(options.log())

	config := &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": options.Dir},
			"delete":     configuration.Parameters{"enabled": true},
			// Left to itself it walks the folder from time to time to remove old
			// uploads; a test's registry does not get old.
			"maintenance": configuration.Parameters{"uploadpurging": map[any]any{"enabled": false}},
		},
	}
	app := handlers.NewApp(context.Background(), config)
	return serve(app, options, app.Shutdown)
}

// Memory starts go-containerregistry's registry. Its referrers API reports the
// config's media type as artifactType, ignores the filter and has no stable
// order: clients must not rely on any of them.
func Memory(options Options) (*Registry, error) {
	handler := registry.New(
		registry.WithReferrersSupport(true),
		registry.Logger(log.New(options.log(), "", log.LstdFlags)),
	)
	return serve(handler, options, func() error { return nil })
}

// Stop ends the registry and frees its port. Requests in flight get half a
// second, then their connections are closed. Calling it again does nothing.
func (r *Registry) Stop() error {
	if r.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := r.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = r.server.Close()
	}
	if err != nil {
		err = fmt.Errorf("closing the registry's connections: %w", err)
	}
	r.server = nil
	if served := <-r.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serving the registry: %w", served))
	}
	return errors.Join(err, r.close())
}

func (o Options) log() io.Writer {
	if o.Log == nil {
		return io.Discard
	}
	return o.Log
}

func serve(handler http.Handler, options Options, closeHandler func() error) (*Registry, error) {
	addr := options.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening for the registry: %w", err), closeHandler())
	}
	if options.Wrap != nil {
		handler = options.Wrap(handler)
	}

	r := &Registry{
		Host: listener.Addr().String(),
		server: &http.Server{
			Handler:           handler,
			ReadHeaderTimeout: headerTimeout,
			ErrorLog:          log.New(options.log(), "", log.LstdFlags),
		},
		served: make(chan error, 1),
		close:  closeHandler,
	}
	server := r.server // Stop, which may come before the goroutine runs, forgets it
	go func() { r.served <- server.Serve(listener) }()
	return r, nil
}
