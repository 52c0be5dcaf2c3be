// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
)

const (
	// requestTime bounds one request. The API server allows at most 30 s.
	requestTime = 30 * time.Second
	// maxConnections is as many as any load here has requests in flight.
	maxConnections = concurrent
)

// newClient speaks as the API server does to webhooks: HTTP/1.1 over TLS, with
// connections that stay open.
func newClient() *http.Client {
	return &http.Client{Timeout: requestTime, Transport: &http.Transport{
		// The certificates are self-signed, made by the servers just now.
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
		MaxIdleConnsPerHost: maxConnections, MaxConnsPerHost: maxConnections, DisableCompression: true,
	}}
}

// load is a way to ask: so many requests with one review, so many at a time.
type load struct {
	review   *review
	path     string // /mutate or /validate
	inFlight int
	requests int
}

// sample is what came out of a load.
type sample struct {
	p50, p99  time.Duration
	perSecond float64
	cpu       time.Duration // of the server, for all requests
	requests  int
}

// exchange is one request, to be checked when the clock has stopped.
type exchange struct {
	uid     string
	elapsed time.Duration
	status  int
	answer  []byte
}

// driver asks a server. The same driver asks all of them.
type driver struct {
	client *http.Client
	uid    atomic.Uint64
}

// run puts a load on a server and checks every answer.
func (d *driver) run(ctx context.Context, server *process, l load) (sample, error) {
	url := "https://" + server.address + l.path + "?timeout=10s"
	exchanges := make([]exchange, l.requests)
	before, err := server.cpu()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := d.flood(ctx, url, l, exchanges); err != nil {
		return sample{}, fmt.Errorf("asking %s: %w", server.name, err)
	}
	elapsed := time.Since(began)
	after, err := server.cpu()
	if err != nil {
		return sample{}, err
	}
	want := expected{}
	if server.name != floorName && l.path == validatePath {
		want.verdict = "Accepted"
	}
	times := make([]time.Duration, len(exchanges))
	for i, e := range exchanges {
		times[i] = e.elapsed
		want.uid = e.uid
		if _, err := want.check(e.status, e.answer); err != nil {
			return sample{}, fmt.Errorf("answer of %s to %s: %w", server.name, l.path, err)
		}
	}
	slices.Sort(times)
	return sample{
		p50: times[len(times)/2], p99: times[len(times)*99/100],
		perSecond: float64(l.requests) / elapsed.Seconds(), cpu: after - before, requests: l.requests,
	}, nil
}

// flood sends one copy of the review for each exchange.
func (d *driver) flood(ctx context.Context, url string, l load, exchanges []exchange) error {
	errs := make([]error, l.inFlight)
	var next atomic.Int64
	var group sync.WaitGroup
	for worker := range l.inFlight {
		group.Go(func() {
			var body []byte
			for {
				i := next.Add(1) - 1
				if i >= int64(len(exchanges)) {
					return
				}
				n := d.uid.Add(1)
				body = l.review.copyTo(body, n)
				e := &exchanges[i]
				e.uid = uidOf(n)
				if errs[worker] = d.post(ctx, url, body, e); errs[worker] != nil {
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// post sends one review and notes the answer and how long it took.
func (d *driver) post(ctx context.Context, url string, body []byte, e *exchange) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	began := time.Now()
	response, err := d.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // it was only read
	e.answer, err = io.ReadAll(response.Body)
	e.elapsed = time.Since(began)
	e.status = response.StatusCode
	return err
}

// expected is how an answer must be: allowed, and about the request.
type expected struct {
	uid     string
	verdict string // the audit annotation; the floor has none
	patched bool
}

// check reads an answer and returns its patch.
func (w expected) check(status int, answer []byte) (patch []byte, err error) {
	if status != http.StatusOK {
		return nil, fmt.Errorf("status %d: %.200q", status, answer)
	}
	var got admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &got); err != nil {
		return nil, fmt.Errorf("reading %.200q: %w", answer, err)
	}
	r := got.Response
	switch {
	case got.APIVersion != "admission.k8s.io/v1" || got.Kind != "AdmissionReview" || r == nil:
		return nil, fmt.Errorf("not an AdmissionReview with a response: %.200q", answer)
	case string(r.UID) != w.uid:
		return nil, fmt.Errorf("uid %q instead of %q", r.UID, w.uid)
	case !r.Allowed:
		return nil, fmt.Errorf("not allowed: %+v", r.Result)
	case len(r.Warnings) > 0:
		return nil, fmt.Errorf("warnings: %q", r.Warnings)
	case r.AuditAnnotations["verdict"] != w.verdict:
		return nil, fmt.Errorf("verdict %q instead of %q", r.AuditAnnotations["verdict"], w.verdict)
	case w.patched != (r.Patch != nil):
		return nil, fmt.Errorf("patch %.200q", r.Patch)
	}
	return r.Patch, nil
}
