// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"
)

const (
	// maxCompiled is how many compiled policies a child keeps: one of Rego takes
	// some hundred kB.
	maxCompiled = 32
	// maxRequests is after how many requests a child ends: whatever piles up in
	// it, goes.
	maxRequests = 10_000
	// budgetShare is the part of the time that a child may spend before it
	// answers that it was not enough, so that it need not be killed.
	budgetShare = 0.9
)

// The bounds that a child meets by itself.
var (
	errOvertime = errors.New("the policy did not end in time")
	errCost     = fmt.Errorf("the policy costs more than %d steps", celCost)
)

// program is a policy that was compiled. Its errors say that there is no result:
// errOvertime, errCost, or a *SyntaxError. A document that a policy cannot handle
// does not comply.
type program interface {
	evaluate(ctx context.Context, document []byte) (Result, error)
}

// compile makes a policy ready.
func compile(ctx context.Context, p Policy) (program, error) {
	switch p.Language {
	case CUE:
		return compileCUE(ctx, p.Text)
	case Rego:
		return compileRego(ctx, p.Text)
	case CEL:
		return compileCEL(ctx, p.Text)
	default:
		return nil, &SyntaxError{Message: fmt.Sprintf("there is no language %q", p.Language)}
	}
}

// Serve answers the requests of an [Evaluator] that started this process as its
// child. It takes the process over: it bounds its memory, writes nothing else to
// its standard output, and ends it when the parent is gone or the memory is
// spent. It returns when the parent has no more requests, or when the process
// had better be replaced.
func Serve(in io.Reader, out io.Writer) error {
	// What a library prints must not look like an answer.
	os.Stdout = os.Stderr
	limitProcess()
	s := &server{compiled: map[[sha256.Size]byte]program{}, requests: make(chan request)}
	go s.read(in)
	for range maxRequests {
		if err := writeFrame(out, []byte(greeting)); err != nil {
			return fmt.Errorf("greeting the parent: %w", err)
		}
		q, more := <-s.requests
		if !more {
			return nil
		}
		reply := s.serve(q)
		if err := writeJSON(out, reply); err != nil {
			return fmt.Errorf("answering: %w", err)
		}
		s.busy.Store(false)
		q.document = nil
		if reply.Kind == failed || !freeMemory() {
			return nil
		}
	}
	return nil
}

// server is what a child keeps between requests.
type server struct {
	compiled map[[sha256.Size]byte]program
	requests chan request
	busy     atomic.Bool
}

// read hands requests on until the input ends. The parent closes it when it has
// no more use for an answer: nothing can stop what is being evaluated then, but
// the end of the process.
func (s *server) read(in io.Reader) {
	for {
		q, err := readRequest(in)
		if err != nil {
			if s.busy.Load() {
				os.Exit(1)
			}
			close(s.requests)
			return
		}
		s.busy.Store(true)
		s.requests <- q
	}
}

func (s *server) serve(q request) (reply answer) {
	defer watchMemory()()
	defer func() {
		if p := recover(); p != nil {
			// What it holds may be of the document, and is told nobody.
			reply = answer{Kind: failed}
		}
	}()
	//nolint:forbidigo // the child's requests come from no caller
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(float64(q.Budget)*budgetShare))
	defer cancel()
	result, err := s.answer(ctx, q)
	syntax, isSyntax := errors.AsType[*SyntaxError](err)
	switch {
	case isSyntax:
		return answer{Kind: uncompiled, Message: oneLine(syntax.Message), Line: syntax.Line, Column: syntax.Column}
	case errors.Is(err, errOvertime):
		return answer{Kind: overtime}
	case errors.Is(err, errCost):
		return answer{Kind: overlimit, Message: err.Error()}
	case err != nil:
		return answer{Kind: failed}
	default:
		return answer{Kind: answered, Compliant: result.Compliant, Message: oneLine(result.Message)}
	}
}

func (s *server) answer(ctx context.Context, q request) (Result, error) {
	compiled, err := s.compile(ctx, Policy{q.Language, q.Text})
	if err != nil || q.Check {
		return Result{}, err
	}
	if err := checkDocument(q.document); err != nil {
		return Result{Message: err.Error()}, nil //nolint:nilerr // such a document does not comply
	}
	return compiled.evaluate(ctx, q.document)
}

// compile remembers what compiled.
func (s *server) compile(ctx context.Context, p Policy) (program, error) {
	key := sha256.Sum256([]byte(string(p.Language) + "\x00" + p.Text))
	if known, ok := s.compiled[key]; ok {
		return known, nil
	}
	compiled, err := compile(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(s.compiled) >= maxCompiled {
		for any := range s.compiled { // whichever: all of them in turn are needed again
			delete(s.compiled, any)
			break
		}
	}
	s.compiled[key] = compiled
	return compiled, nil
}
