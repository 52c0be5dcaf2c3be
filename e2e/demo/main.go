// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command demo shows Pratique at work on a real control plane, as a transcript
// of kubectl. It exits with 1 if anything goes otherwise than it says; the logs
// of what it started are kept then.
//
// With DEMO_KEEP=1 everything goes on running, until it is interrupted.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// demoWithin bounds the whole, once everything is built.
const demoWithin = 5 * time.Minute

// errInterrupted is how the demo ends if it is not let finish.
var errInterrupted = errors.New("interrupted")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "pratique-demo-")
	if err != nil {
		return err
	}
	defer func() {
		if err == nil || errors.Is(err, errInterrupted) {
			err = errors.Join(err, os.RemoveAll(dir))
			return
		}
		sweep(dir)
		err = fmt.Errorf("%w\nthe logs of what was running are in %s", err, dir)
	}()
	cleanup := &cleanup{}
	defer cleanup.run()
	defer func() { err = errors.Join(failureOf(recover()), err) }()
	return show(ctx, dir, cleanup)
}

// show starts everything, tells the story and ends everything.
func show(ctx context.Context, dir string, cleanup *cleanup) (err error) {
	bounded, cancel := context.WithTimeout(ctx, demoWithin)
	defer cancel()
	show := newTranscript(os.Stdout)
	show.Title("Starting a control plane, a registry and pratique serve")
	registry := registrytest.New(cleanup)
	fmt.Printf("a registry on %s, in this process\n", registry.Host())
	e, err := env.Start(bounded, env.Options{Dir: dir, Log: os.Stdout, Registry: registry})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() { err = errors.Join(err, e.Stop()) }()

	s := &story{Env: e, show: show, images: sign(cleanup, registry)}
	if err := s.tell(bounded); err != nil {
		return interrupted(ctx, err)
	}
	if os.Getenv("DEMO_KEEP") == "" {
		show.Sayf("To go on from here: DEMO_KEEP=1 make demo leaves all of it running.")
		return nil
	}
	s.keep(ctx)
	return nil
}

// interrupted is what an error means once the demo was told to end: the steps
// fail then because their commands are killed.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}
