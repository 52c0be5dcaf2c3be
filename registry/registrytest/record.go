// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Request is one request that came over the network.
type Request struct {
	Method, Host, Path, Query string
	// Authorization and Cookie are the whole headers, empty when there were none.
	Authorization, Cookie string
	// Certificate is the common name of the client's certificate, empty if it showed none.
	Certificate string
	// Body is what came with the request, up to 64 KiB; empty when a registry's contents were sent.
	Body string
	// Status is what was answered; 0 while it is not, and when the connection was broken instead.
	Status int
	// Began is when the request arrived, Answered when the first byte of its answer was ready to be sent. A
	// request that was broken off has Answered when it ended; one that still runs has the zero time.
	Began, Answered time.Time
}

// String returns the request as one line: "GET /v2/acme/app/manifests/v1 200".
func (r Request) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s %d", r.Method, r.Path, r.Status))
}

// Depth returns how many of the requests were made one after another: the length of the longest chain in
// which each request began when the one before it was answered. Requests that still run are left out.
func Depth(requests []Request) int {
	answered := slices.DeleteFunc(slices.Clone(requests), func(r Request) bool { return r.Answered.IsZero() })
	slices.SortFunc(answered, func(a, b Request) int { return a.Answered.Compare(b.Answered) })
	depth, end := 0, time.Time{}
	for _, request := range answered { // the one that ends first leaves most room for others
		if !request.Began.Before(end) {
			depth, end = depth+1, request.Answered
		}
	}
	return depth
}

type recorder struct {
	mu      sync.Mutex
	entries []*entry
}

// entry is a request under way; its fields are guarded by the recorder's lock.
type entry struct {
	recorder *recorder
	request  Request
}

func (r *recorder) begin(req *http.Request) *entry {
	e := &entry{recorder: r, request: Request{
		Method: req.Method, Host: req.Host, Path: req.URL.Path, Query: req.URL.RawQuery,
		Authorization: req.Header.Get("Authorization"), Cookie: req.Header.Get("Cookie"),
		Certificate: shownBy(req), Body: form(req), Began: time.Now(),
	}}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
	return e
}

// maxForm is how much of a body is recorded.
const maxForm = 64 << 10

// form reads the body of a request that is no upload, which is where refresh tokens are sent, and puts it back.
func form(req *http.Request) string {
	if req.Body == nil || strings.HasPrefix(req.URL.Path, "/v2/") {
		return ""
	}
	read, _ := io.ReadAll(io.LimitReader(req.Body, maxForm)) // what broke off is recorded up to there
	req.Body = io.NopCloser(io.MultiReader(bytes.NewReader(read), req.Body))
	return string(read)
}

func (r *recorder) requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	requests := make([]Request, 0, len(r.entries))
	for _, e := range r.entries {
		requests = append(requests, e.request)
	}
	return requests
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = nil
}

// answered notes the first status; later calls change nothing.
func (e *entry) answered(status int) {
	e.recorder.mu.Lock()
	defer e.recorder.mu.Unlock()
	if e.request.Answered.IsZero() {
		e.request.Status, e.request.Answered = status, time.Now()
	}
}

// end notes a request that was broken off without an answer.
func (e *entry) end() { e.answered(0) }

// recordedWriter notes the status before a byte of the answer can reach the client, so that a test that has
// its answer also finds it recorded.
type recordedWriter struct {
	http.ResponseWriter
	entry *entry
}

func (w *recordedWriter) WriteHeader(status int) {
	w.entry.answered(status)
	w.ResponseWriter.WriteHeader(status)
}

func (w *recordedWriter) Write(p []byte) (int, error) {
	w.entry.answered(http.StatusOK)
	return w.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recordedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// buffered answers only when handler is done. go-containerregistry's handler writes under its lock: without
// this a client that reads slowly would stop all others.
func buffered(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { capture(handler, req).send(w) })
}

// answer is a whole response held in memory, to be changed, sent in pieces, or handed to a client in process.
type answer struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func capture(handler http.Handler, req *http.Request) *answer {
	a := &answer{header: http.Header{}}
	handler.ServeHTTP(a, req)
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a
}

// Header implements http.ResponseWriter.
func (a *answer) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// send writes the answer to w.
func (a *answer) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body.Bytes()) // the client may be gone
}

func (a *answer) response(req *http.Request) *http.Response {
	length := int64(a.body.Len())
	if req.Method == http.MethodHead {
		length = -1
		if n, err := fmt.Sscan(a.header.Get("Content-Length"), &length); n != 1 || err != nil {
			length = -1
		}
	}
	return &http.Response{
		Status:     fmt.Sprintf("%d %s", a.status, http.StatusText(a.status)),
		StatusCode: a.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: a.header, Body: io.NopCloser(&a.body), ContentLength: length, Request: req,
	}
}
