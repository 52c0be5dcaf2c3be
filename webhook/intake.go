// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-logr/logr"

	"github.com/pratique-dev/pratique/internal/loglimit"
)

// intake takes reviews in, if they are not too large, while there is a place for
// them. A review takes its place only when all of it has arrived: who sends
// nothing, or slowly, keeps nobody out.
type intake struct {
	places chan struct{}
	most   int64 // bytes of a review
}

// errTooMany tells the API server to go by failurePolicy.
var errTooMany = &httpError{http.StatusServiceUnavailable, "too many reviews at once"}

// visit is a review that was taken in.
type visit struct {
	asked      *request
	began, due time.Time
	reading    time.Duration // how long it took to be here
}

// take reads a review and has it answered, which ends when it is due. An error
// was not answered yet. Whatever happens, a panic too, the place and the memory
// that the review had are free again.
func (i *intake) take(w http.ResponseWriter, r *http.Request, bodies *Bodies, answer func(context.Context, visit) error) error {
	v := visit{began: time.Now()}
	v.due = v.began.Add(budget(r))
	connection := http.NewResponseController(w)
	if err := connection.SetWriteDeadline(v.due.Add(writeWithin)); err != nil {
		return fmt.Errorf("bounding the time to write: %w", err)
	}
	memory := share{of: bodies, most: i.most}
	defer memory.release()
	untrustedBody, err := memory.readInTime(connection, r, v)
	if err != nil {
		// Without it net/http would read on before it answers.
		w.Header().Set("Connection", "close")
		return err
	}
	select {
	case i.places <- struct{}{}:
		defer func() { <-i.places }()
	default:
		return errTooMany
	}
	if v.asked, err = parseReview(untrustedBody); err != nil {
		return err
	}
	v.reading = time.Since(v.began)
	// It ends too if the API server goes away.
	ctx, cancel := context.WithDeadline(r.Context(), v.due)
	defer cancel()
	return answer(ctx, v)
}

// readInTime reads the body of a request if it arrives in time. Then the
// deadline is lifted, or it would end the connection during the examination;
// after an error it stays, because the rest of the request may still be read.
func (s *share) readInTime(connection *http.ResponseController, r *http.Request, v visit) ([]byte, error) {
	within := v.began.Add(readWithin)
	if v.due.Before(within) {
		within = v.due
	}
	if err := connection.SetReadDeadline(within); err != nil {
		return nil, fmt.Errorf("bounding the time to read: %w", err)
	}
	if err := checkHeader(r); err != nil {
		return nil, err
	}
	untrustedBody, err := s.read(r)
	if err != nil {
		return nil, err
	}
	if err := connection.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("lifting the time to read: %w", err)
	}
	return untrustedBody, nil
}

// refusals answers what is no review that can be answered, or cannot be now.
type refusals struct {
	limit loglimit.Limit // whoever reaches the port decides how many there are
}

// refuse returns the status that it answers with.
func (r *refusals) refuse(log logr.Logger, w http.ResponseWriter, err error) (status int) {
	refusal, ok := errors.AsType[*httpError](err)
	if !ok {
		refusal = &httpError{http.StatusInternalServerError, "the request could not be read"}
	}
	if omitted, ok := r.limit.Next(time.Now()); ok {
		log.Info("not a review", "status", refusal.status, "reason", refusal.message, "notLogged", omitted)
	}
	http.Error(w, refusal.message, refusal.status)
	return refusal.status
}
