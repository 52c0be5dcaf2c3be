// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
)

const (
	// maxToken bounds what a token service answers; the library takes no more.
	maxToken = 64 << 10
	// tokenServes is for how long a new token also serves those who find the
	// old one expired: all that was under way when it did.
	tokenServes = time.Second
)

// tokens asks the token service of one login once for all its requests that
// find their token expired: the library would ask once for each of them.
type tokens struct {
	flights singleflight.Group

	mu      sync.Mutex
	service string // where it is; empty if the login needed none
	last    tokenAnswer
}

// tokenAnswer is what a token service answered to a request.
type tokenAnswer struct {
	key           string
	at            time.Time
	response      *http.Response // but for its body
	untrustedBody []byte
}

// serve says where the token service is.
func (t *tokens) serve(at *url.URL) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.service = at.Host + at.Path
}

func (t *tokens) servedAt(at *url.URL) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.service != "" && t.service == at.Host+at.Path
}

// ask sends a token request, or shares the answer to one that is the same.
func (t *tokens) ask(request *http.Request, next http.RoundTripper) (*http.Response, error) {
	body, err := drain(request)
	if err != nil {
		return nil, err
	}
	key := fmt.Sprintf("%q", []string{request.Method, request.URL.String(), request.Header.Get("Authorization"), string(body)})
	// Others may wait for this answer, so it must not end with this request.
	ctx := context.WithoutCancel(request.Context())
	flight := t.flights.DoChan(key, func() (_ any, err error) {
		defer func() {
			// A panic here would end the process: there is nobody above.
			if p := recover(); p != nil {
				err = fmt.Errorf("asking for a token panicked: %.200v", p)
			}
		}()
		if held := t.held(key); held != nil {
			return held, nil
		}
		ctx, cancel := context.WithTimeout(ctx, handshakeTime)
		defer cancel()
		sent := request.Clone(ctx)
		if len(body) > 0 {
			sent.Body = io.NopCloser(bytes.NewReader(body))
		}
		return t.fetch(sent, key, next)
	})
	select {
	case <-request.Context().Done():
		return nil, request.Context().Err()
	case result := <-flight:
		if result.Err != nil {
			return nil, result.Err
		}
		answer := result.Val.(*tokenAnswer)
		response := *answer.response
		response.Header = answer.response.Header.Clone()
		response.Body = io.NopCloser(bytes.NewReader(answer.untrustedBody))
		return &response, nil
	}
}

// held is the answer of a moment ago, if it was one to the same request.
func (t *tokens) held(key string) *tokenAnswer {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.last.key != key || time.Since(t.last.at) > tokenServes {
		return nil
	}
	held := t.last
	return &held
}

func (t *tokens) fetch(request *http.Request, key string, next http.RoundTripper) (*tokenAnswer, error) {
	response, err := next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	got := &tokenAnswer{key: key, response: response}
	// One byte more than is allowed, for the library to see.
	if got.untrustedBody, err = io.ReadAll(io.LimitReader(response.Body, maxToken+1)); err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusOK {
		t.mu.Lock()
		defer t.mu.Unlock()
		got.at = time.Now()
		t.last = *got
	}
	return got, nil
}

// drain takes a request's body, which the library made.
func drain(request *http.Request) ([]byte, error) {
	if request.Body == nil || request.Body == http.NoBody {
		return nil, nil
	}
	defer func() { _ = request.Body.Close() }()
	return io.ReadAll(request.Body)
}
