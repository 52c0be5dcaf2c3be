// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"context"

	"github.com/pratique-dev/pratique/policy"
)

// acquire waits for a child that has greeted, and takes it. It must be given to
// one of release, settle and retire.
func (e *Evaluator) acquire(ctx context.Context) (*child, error) {
	if ctx.Err() != nil {
		return nil, tooLate.Err()
	}
	select {
	case <-e.closed:
		return nil, closing.Err()
	case <-ctx.Done():
		return nil, tooLate.Err()
	case c := <-e.slots:
		if c != nil && c.alive() && e.use(c) {
			return c, nil
		}
		return e.start(ctx, c)
	}
}

// start puts a child in the place of one that is dead, or of none. A child that
// is ready only after ctx has ended is there for the next request.
func (e *Evaluator) start(ctx context.Context, dead *child) (*child, error) {
	type start struct {
		child *child
		err   error
	}
	started := make(chan start)
	go func() {
		if dead != nil {
			dead.retire()
		}
		c, err := e.startOne(ctx)
		if err != nil {
			e.slots <- nil
		}
		select {
		case started <- start{c, err}:
		case <-ctx.Done():
			if err == nil {
				e.release(c)
			}
		}
	}()
	select {
	case s := <-started:
		return s.child, s.err
	case <-ctx.Done():
		return nil, tooLate.Err()
	}
}

func (e *Evaluator) startOne(ctx context.Context) (*child, error) {
	c, err := startChild(ctx, e.options)
	if err != nil {
		return nil, notStarted(err)
	}
	if !e.use(c) {
		c.retire()
		return nil, closing.Err()
	}
	if err := c.greeted(startTime); err != nil {
		e.forget(c)
		c.retire()
		return nil, notStarted(err)
	}
	return c, nil
}

func notStarted(err error) error {
	return policy.Undecided(policy.ReasonInternal, "the evaluator of policies could not be started: %v", err).Err()
}

// use notes that a child was taken, unless the evaluator is closed.
func (e *Evaluator) use(c *child) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	select {
	case <-e.closed:
		return false
	default:
		e.used[c] = struct{}{}
		return true
	}
}

func (e *Evaluator) forget(c *child) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.used, c)
}

// release leaves a child that has greeted to whoever is next.
func (e *Evaluator) release(c *child) {
	e.forget(c)
	e.slots <- c
}

// settle releases a child that has answered, once it has greeted again.
func (e *Evaluator) settle(c *child) {
	if err := c.greeted(settleTime); err != nil {
		e.retire(c) // it ended, as it does now and then
		return
	}
	e.release(c)
}

// retire ends a child and lets another be started, but not before it is gone.
func (e *Evaluator) retire(c *child) {
	c.retire()
	e.forget(c)
	e.slots <- nil
}
