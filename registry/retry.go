// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// maxRetries is how often anything is sent again for one request to a
	// registry: its login, redirects and tokens included.
	maxRetries = 3
	// firstPause is how long the first of them waits at least; each waits
	// twice as long as the one before.
	firstPause = 100 * time.Millisecond
	// maxRetryDrain is how much of an answer is read so that its connection
	// can be used again.
	maxRetryDrain = 4 << 10
)

// retries is what one request to a registry may still try again. It goes along
// in the context, so that layers above one another do not multiply.
type retries struct {
	// until is when whoever asks stops waiting.
	until time.Time

	mu   sync.Mutex
	made int
}

type retriesKey struct{}

// withRetries returns a context in which requests are retried, for as long as
// somebody waits for what comes of it.
func withRetries(ctx context.Context) context.Context {
	until, ok := policy.AskedUntil(ctx)
	if !ok {
		until = time.Now().Add(handshakeTime)
	}
	return context.WithValue(ctx, retriesKey{}, &retries{until: until})
}

// pause waits until a request may be sent again, at least for as long as the
// registry wants; before is called once it is clear that it will be. False says
// that it must not be sent, because that was often enough or because it would
// be too late.
func pause(ctx context.Context, wanted time.Duration, before func()) bool {
	r, ok := ctx.Value(retriesKey{}).(*retries)
	if !ok {
		return false
	}
	wait, ok := r.take(wanted)
	if !ok || ctx.Err() != nil {
		return false
	}
	before()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done(): // sending it will say so
	}
	return true
}

func (r *retries) take(wanted time.Duration) (wait time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wait = max(wanted, firstPause<<r.made)
	if r.made == maxRetries || time.Until(r.until) <= wait {
		return 0, false
	}
	r.made++
	return wait, true
}

// retrier sends again what a registry asks to be sent later, and what it broke
// off before it answered.
type retrier struct{ next http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (r retrier) RoundTrip(request *http.Request) (*http.Response, error) {
	for {
		response, err := r.next.RoundTrip(request)
		wanted, again := retriable(request, response, err)
		if !again || !pause(request.Context(), wanted, func() { discard(response) }) {
			return response, err
		}
	}
}

// retriable reports whether a request may be sent again, and how long the
// registry wants us to wait for that. Without its word only a broken connection
// is a reason.
func retriable(request *http.Request, response *http.Response, err error) (wanted time.Duration, again bool) {
	switch {
	case request.Method != http.MethodGet && request.Method != http.MethodHead, request.Body != nil && request.Body != http.NoBody:
		return 0, false
	case err != nil:
		return 0, isReset(err)
	case response.StatusCode == http.StatusTooManyRequests, response.StatusCode == http.StatusServiceUnavailable:
		return retryAfter(response.Header.Get("Retry-After"), time.Now())
	default:
		return 0, false
	}
}

// retryAfter reads a Retry-After header: seconds, or a date (RFC 9110, section
// 10.2.3).
func retryAfter(untrusted string, now time.Time) (wanted time.Duration, ok bool) {
	if seconds, err := strconv.ParseUint(untrusted, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	date, err := http.ParseTime(untrusted)
	if err != nil {
		return 0, false
	}
	return max(0, date.Sub(now)), true
}

// isReset reports whether the other side broke a connection off.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func discard(response *http.Response) {
	if response == nil {
		return
	}
	_, _ = io.CopyN(io.Discard, response.Body, maxRetryDrain) // it is the connection that counts
	_ = response.Body.Close()
}
