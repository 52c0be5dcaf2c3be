// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// defaultTime bounds one evaluation: an admission request has ten seconds
	// by default, of which fetching and verifying take the better part. Policies
	// in use take milliseconds.
	defaultTime = 2 * time.Second
	// defaultWorkers is how many evaluations run at once: each may use
	// memoryLimit.
	defaultWorkers = 2
)

// Options are what an [Evaluator] works with.
type Options struct {
	// Command starts a process that calls [Serve].
	Command []string
	// Env is the whole environment of that process; by default there is none.
	Env []string
	// Workers is how many processes there may be; 0 means 2.
	Workers int
	// Time bounds one evaluation; 0 means 2 s.
	Time time.Duration
}

// Evaluator compiles and evaluates policies in child processes. They are started
// when they are needed; whoever finds none free waits.
type Evaluator struct {
	options Options
	// slots has a value for each child there may be: nil for one that is not
	// running. Who holds the value has the child for himself.
	slots  chan *child
	closed chan struct{}

	mu   sync.Mutex
	used map[*child]struct{} // those that were taken from slots
}

// New starts nothing yet.
func New(o Options) *Evaluator {
	if o.Workers <= 0 {
		o.Workers = defaultWorkers
	}
	if o.Time <= 0 {
		o.Time = defaultTime
	}
	e := &Evaluator{
		options: o, slots: make(chan *child, o.Workers), closed: make(chan struct{}), used: map[*child]struct{}{},
	}
	for range o.Workers {
		e.slots <- nil
	}
	return e
}

// Check compiles a policy. The error is a [*SyntaxError] if the text is at
// fault, else it implements [policy.Judged].
func (e *Evaluator) Check(ctx context.Context, p Policy) error {
	_, err := e.ask(ctx, request{Language: p.Language, Text: p.Text, Check: true})
	return err
}

// Evaluate asks a policy about a document, which must be JSON. Errors say that
// there is no result; they implement [policy.Judged].
func (e *Evaluator) Evaluate(ctx context.Context, p Policy, document []byte) (Result, error) {
	if len(document) > MaxDocument {
		return Result{}, policy.Undecided(policy.ReasonLimit, "the document has more than %d MiB", MaxDocument>>20).Err()
	}
	a, err := e.ask(ctx, request{Language: p.Language, Text: p.Text, document: document})
	if err != nil {
		return Result{}, err
	}
	return Result{Compliant: a.Compliant, Message: oneLine(a.Message)}, nil
}

// Close ends all children, and what they are doing.
func (e *Evaluator) Close() {
	e.mu.Lock()
	select {
	case <-e.closed:
		e.mu.Unlock()
		return
	default:
	}
	close(e.closed)
	for c := range e.used {
		c.kill()
	}
	e.mu.Unlock()
	for range cap(e.slots) {
		if c := <-e.slots; c != nil {
			c.retire()
		}
	}
}

// ask has the answer of a child, or an error that tells why there is none.
func (e *Evaluator) ask(ctx context.Context, q request) (answer, error) {
	switch {
	case len(q.Text) > MaxText:
		return answer{}, &SyntaxError{Message: fmt.Sprintf("the policy has more than %d KiB", MaxText>>10)}
	case strings.TrimSpace(q.Text) == "":
		// To CUE it would be one that everything fulfils.
		return answer{}, &SyntaxError{Message: "the policy is empty"}
	}
	c, err := e.acquire(ctx)
	if err != nil {
		return answer{}, err
	}
	limited, cancel := context.WithTimeout(ctx, e.options.Time)
	defer cancel()
	until, _ := limited.Deadline()
	q.Budget = time.Until(until)
	asked, bounded := ctx.Deadline()
	late := policy.Undecided(policy.ReasonLimit, "the policy did not end within %s", e.options.Time)
	if bounded && !asked.After(until) {
		late = tooLate
	}
	stop := context.AfterFunc(limited, c.kill)
	a, err := c.ask(q)
	if killed := !stop(); killed {
		go e.retire(c)
	} else if err != nil {
		e.retire(c) // to know its cause
	} else {
		go e.settle(c)
	}
	switch {
	case err == nil:
		return a, judge(a, late)
	case ctx.Err() != nil:
		return answer{}, tooLate.Err()
	case limited.Err() != nil:
		return answer{}, late.Err()
	default:
		return answer{}, c.cause().Err()
	}
}

// judge is the error that an answer amounts to.
func judge(a answer, late policy.Verdict) error {
	switch a.Kind {
	case answered:
		return nil
	case uncompiled:
		return &SyntaxError{Line: a.Line, Column: a.Column, Message: oneLine(a.Message)}
	case overtime:
		return late.Err()
	case overlimit:
		return policy.Undecided(policy.ReasonLimit, "%s", oneLine(a.Message)).Err()
	default:
		return unexpected.Err()
	}
}

// The verdicts when a request ends before there is a result.
var (
	tooLate    = policy.Undecided(policy.ReasonDeadline, "the policy was not evaluated within the request's time")
	closing    = policy.Undecided(policy.ReasonInternal, "the evaluator of policies was closed")
	unexpected = policy.Undecided(policy.ReasonInternal, "evaluating the policy failed unexpectedly")
)
