// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package registrytest runs an OCI registry inside the test or program that calls it, fills it with signed
// images, records what is asked of it and makes it misbehave to order.
//
// The registry is go-containerregistry's own handler on a real loopback port, so that clients speak real HTTP
// to it. Signatures are made by the libraries of cosign and sigstore-go in the two forms that cosign writes:
// the ".sig" tag of cosign 2 and the bundle of cosign 3. What a test puts into the registry goes in by a back
// door: it is not recorded, needs no credentials and meets no fault; only what comes over the network does.
//
// Everything fails through [TB], so that calls need no error handling of their own.
package registrytest

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"sync"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// TB is what the package needs of a *testing.T. Programs bring their own; its Fatalf must not return.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Cleanup(cleanup func())
}

// Option changes the registry that New makes.
type Option func(*options)

type options struct {
	address   string
	referrers bool
	users     map[string]string
	bearer    bool
	tls       *tls.Config
}

func newOptions(opts []Option) options {
	o := options{address: "127.0.0.1:0", referrers: true, users: map[string]string{}}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// WithoutReferrers turns the referrers API off (default: on). Clients then use the tag schema of the OCI
// distribution specification: an index under the tag sha256-<hex>.
func WithoutReferrers() Option { return func(o *options) { o.referrers = false } }

// WithAddress makes the registry listen on hostPort (default: "127.0.0.1:0", a free port). Another address of
// 127.0.0.0/8 makes a second host that a test can watch for requests that should not come.
func WithAddress(hostPort string) Option { return func(o *options) { o.address = hostPort } }

// WithBasicAuth lets in only requests with the HTTP basic credentials of user. It may be given several times,
// once for each user; every user may read and write everything.
func WithBasicAuth(user, password string) Option {
	return func(o *options) { o.users[user], o.bearer = password, false }
}

// WithTokenAuth is WithBasicAuth with a token service: the registry wants a bearer token for the repository,
// which /token of the same server gives in exchange for the basic credentials.
func WithTokenAuth(user, password string) Option {
	return func(o *options) { o.users[user], o.bearer = password, true }
}

// Registry is a running registry. Its methods are safe for concurrent use.
type Registry struct {
	front
	content    http.Handler // what is stored, without faults or credentials
	guarded    http.Handler // content behind the credentials
	signatures signatures

	mu     sync.Mutex
	pushed map[string]int // how often each reference was pushed: seeds the next content
}

// New starts a registry, on plain HTTP unless an option says otherwise, that lives until tb is cleaned up.
func New(tb TB, opts ...Option) *Registry {
	tb.Helper()
	o := newOptions(opts)
	r := &Registry{pushed: map[string]int{}}
	silent := log.New(io.Discard, "", 0)
	r.content = r.signatures.within(buffered(registry.New(registry.Logger(silent), registry.WithReferrersSupport(o.referrers))))
	r.guarded = newGuard(r.content, o.users, o.bearer)
	r.open(tb, o, r.signatures.announced(r.guarded))
	return r
}

// Counted returns Requests without the ping of /v2/ and without token requests, as section 12 of the
// specification counts.
func (r *Registry) Counted() []Request {
	var counted []Request
	for _, request := range r.Requests() {
		if request.Path != "/v2/" && request.Path != "/v2" && request.Path != tokenPath {
			counted = append(counted, request)
		}
	}
	return counted
}

// BackDoor returns an option for go-containerregistry's remote package that leads straight to the contents:
// unrecorded, without credentials, past every fault.
func (r *Registry) BackDoor() remote.Option {
	return remote.WithTransport(backDoor{content: r.content})
}

// backDoor answers requests from the contents without a network.
type backDoor struct{ content http.Handler }

// RoundTrip implements http.RoundTripper.
func (b backDoor) RoundTrip(req *http.Request) (*http.Response, error) {
	inner := req.Clone(req.Context())
	if inner.Body == nil {
		inner.Body = http.NoBody // a handler may rely on a body, a client's request need not have one
	}
	inner.Host = req.URL.Host
	answer := capture(b.content, inner)
	if req.Body != nil {
		_ = req.Body.Close() // the contract of RoundTripper; reading it is over
	}
	return answer.response(req), nil
}
