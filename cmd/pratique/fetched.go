// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-dev/pratique/internal/keyservice"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/refresh"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
)

// fetched is what rules rest on besides their manifests: trust roots, the keys
// of key services, the evaluator of policies, and the files of a policy.json. Nobody who needs one waits.
type fetched struct {
	evaluator *language.Evaluator
	// checker compiles policies in a child of its own: evaluations that run away
	// must not keep a change of the rules waiting.
	checker *language.Evaluator
	trust   func() (*trust.Root, error)
	// stale says why the trust root is not as new as it should be, if so.
	stale func() error
	keys  func(reference string) ([]byte, error)
	// repositories are those that TrustRoots name.
	repositories *trust.Repositories
	// containers are the files of a policy.json, nil without any.
	containers *containers.Files
	// loops fetch until ctx ends, and tell changed what is new.
	loops   []func(ctx context.Context)
	changed chan struct{}
}

// checkTime bounds how long a policy is compiled, waiting for a process included:
// meanwhile no other change comes into force.
const checkTime = 10 * time.Second

// newFetched dials nobody, and starts nothing yet. What it fetches of its own it
// fetches over the transport.
func newFetched(s settings, transport http.RoundTripper) (*fetched, error) {
	command, err := evaluatorCommand()
	if err != nil {
		return nil, err
	}
	f := &fetched{
		changed:   make(chan struct{}, 1),
		evaluator: language.New(language.Options{Command: command}),
		checker:   language.New(language.Options{Command: command, Workers: 1}),
	}
	services := keyservice.New(keyservice.Options{Changed: f.tell})
	f.keys = services.Key
	f.repositories = trust.NewRepositories(transport, f.tell)
	f.loops = append(f.loops, services.Run, f.repositories.Run)
	if s.trustedRoot == "" {
		return f, f.publicRoot(transport)
	}
	return f, f.rootFile(s.trustedRoot)
}

// into hands all of it to a compiler, whose changes come for as long as anybody
// asks: not only until ctx ends.
func (f *fetched) into(ctx context.Context, c *source.Compiler) {
	ctx = context.WithoutCancel(ctx)
	c.Cosign.Evaluator, c.Trust, c.Keys = f.evaluator, f.trust, f.keys
	c.PolicyController.Repository = f.repositories.Root
	if f.containers != nil {
		c.Containers = f.containers.Loaded
	}
	c.Check = func(p language.Policy) error {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		return f.checker.Check(ctx, p)
	}
}

// close ends what evaluates.
func (f *fetched) close() {
	f.evaluator.Close()
	f.checker.Close()
}

// tell says that something is new.
func (f *fetched) tell() {
	select {
	case f.changed <- struct{}{}:
	default: // it is known already
	}
}

// run fetches until ctx ends, and calls again when something is new.
func (f *fetched) run(ctx context.Context, again func()) {
	var group errgroup.Group
	for _, loop := range f.loops {
		group.Go(func() error {
			loop(ctx)
			return nil
		})
	}
	log, last := logr.FromContextOrDiscard(ctx), ""
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-f.changed:
			again()
		}
		problem := ""
		if err := f.stale(); err != nil && !errors.Is(err, refresh.ErrPending) {
			problem = err.Error()
		}
		if problem != "" && problem != last {
			log.Error(errors.New(problem), "the trust root cannot be read again: the last good one, if there is one, stays in force")
		}
		last = problem
	}
	_ = group.Wait() // they return no errors
}

// beside keeps rules up to date, and what they rest on.
func (f *fetched) beside(r rules) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return r.run(ctx) })
		group.Go(func() error {
			f.run(ctx, r.again)
			return nil
		})
		return group.Wait()
	}
}

// rootFile is the trust root in a file, which must be good at first.
func (f *fetched) rootFile(path string) error {
	file, err := trust.NewFile(path, f.tell)
	if err != nil {
		return fmt.Errorf("reading --trusted-root: %w", err)
	}
	f.trust, f.stale = file.Root, file.Err
	f.loops = append(f.loops, file.Run)
	return nil
}

// publicRoot is the trust root of the public Sigstore, fetched from the moment a
// rule needs it.
func (f *fetched) publicRoot(transport http.RoundTripper) error {
	repository, err := trust.NewTUF(trust.Options{Transport: transport, Changed: f.tell})
	if err != nil {
		return err
	}
	f.trust, f.stale = repository.Root, repository.Err
	f.loops = append(f.loops, repository.Run)
	return nil
}
