// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/pratique-dev/pratique/policy"
)

// peer is a server whose answers are read.
type peer struct {
	client *Client
	host   string // for people, and for whose places its answers take
	base   string // the address that all is below which is asked for
}

// errKeepsNone is what comes of asking a registry that does not keep signatures
// itself for those.
var errKeepsNone = errors.New("it keeps no signatures itself")

// request is one thing to ask a server for.
type request struct {
	method string
	// path follows the base, in RFC 3986 form; or it is a whole address, such as
	// one that a registry itself gave.
	path   string
	accept string
	what   string // for people: manifest, signature
	limit  int64  // bytes of the answer's body
	// kept says that it is asked only of a registry that keeps signatures itself;
	// of another it is errKeepsNone.
	kept bool
	// take is given the whole body. Where that is large, few are in memory: what
	// is kept of it should be little, or its place be kept as well.
	take func(untrustedBody []byte) error
	// keep, if set, is given what gives the place of a large body back, once that
	// was taken.
	keep func(back func())
}

// answer is what came back with status 200, but for its body.
type answer struct {
	header http.Header
	url    string
}

// send sends a request, again if its answer breaks off.
func (p *peer) send(ctx context.Context, r request, client *http.Client) (answer, error) {
	for {
		got, err := p.sendOnce(ctx, r, client)
		if err == nil || !isReset(err) || !pause(ctx, 0, func() {}) {
			return got, err
		}
	}
}

func (p *peer) sendOnce(ctx context.Context, r request, client *http.Client) (answer, error) {
	target := r.path
	if !strings.Contains(target, "://") {
		target = p.base + r.path
	}
	sent, err := http.NewRequestWithContext(ctx, r.method, target, nil)
	if err != nil {
		return answer{}, garbageError(p.host, r.what)
	}
	if r.accept != "" {
		sent.Header.Set("Accept", r.accept)
	}
	response, err := client.Do(sent)
	if err != nil {
		return answer{}, dialError(ctx, p.host, r.what, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return answer{}, p.refused(r, response)
	}
	got := answer{header: response.Header, url: target}
	if r.method == http.MethodHead {
		return got, nil
	}
	return got, p.read(ctx, response, r)
}

// refused is why an answer is none. A server that speaks HTTPS answers 400 to
// plain HTTP.
func (p *peer) refused(r request, response *http.Response) *Error {
	e := statusError(p.host, r.what, response.StatusCode)
	if response.StatusCode == http.StatusBadRequest && response.Request.URL.Scheme == "http" {
		e.Message += " over plain HTTP: it may speak HTTPS"
	}
	return e
}

// read reads a body that has at most limit bytes, and has it taken. More is an
// error: what was cut off might have changed the meaning of the rest.
func (p *peer) read(ctx context.Context, response *http.Response, r request) error {
	if length, err := strconv.ParseInt(response.Header.Get("Content-Length"), 10, 64); err == nil && length > r.limit {
		return limitError(p.host, r.what, r.limit)
	}
	var body bytes.Buffer
	back, err := p.fill(ctx, &body, response.Body, r)
	defer func() { back() }()
	switch {
	case (err == nil || errors.Is(err, io.EOF)) && int64(body.Len()) > r.limit:
		return limitError(p.host, r.what, r.limit)
	case err == nil:
		err = r.take(body.Bytes())
		if err == nil && r.keep != nil {
			r.keep(back)
			back = func() {}
		}
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		return &Error{
			Reason:  policy.ReasonUnreachable,
			Message: fmt.Sprintf("%s broke off while sending the %s", p.host, r.what),
			cause:   err,
		}
	default:
		return dialError(ctx, p.host, r.what, err)
	}
}

// fill reads a body, in a place for large ones if it is large, which is given
// back by calling the function.
func (p *peer) fill(ctx context.Context, into *bytes.Buffer, from io.Reader, r request) (back func(), err error) {
	untrustedBody := io.LimitReader(from, r.limit+1)
	switch _, err := io.CopyN(into, untrustedBody, largeBody); {
	case err == io.EOF: //nolint:errorlint // what wraps it is a connection that broke off
		return func() {}, nil
	case err != nil:
		return func() {}, err
	}
	back, err = p.client.takeLarge(ctx, p.host)
	if err != nil {
		return func() {}, dialError(ctx, p.host, r.what, err)
	}
	_, err = io.Copy(into, untrustedBody)
	return back, err
}
