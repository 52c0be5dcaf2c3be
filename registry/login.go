// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/pratique-dev/pratique/policy"
)

// pingPath is where a registry is asked how to log in.
const pingPath = "/v2/"

// keepsHeader is where a registry says, in its answer to the ping, that it keeps
// signatures itself (signature-protocols of go.podman.io/image, "docker/distribution
// API extension").
const keepsHeader = "X-Registry-Supports-Signatures"

// errPinged is why a registry is not pinged a second time. It is no [*Error],
// so that what came of the first ping is what is reported.
var errPinged = errors.New("it was asked already")

// login carries all requests of one login: the ping, the token requests and
// whatever the session sends. The library above decides what it sends where,
// and follows redirects with it; this is where its decisions are held against
// the rules.
type login struct {
	next  http.RoundTripper
	site  site
	terms terms
	// own is the registry's host, as requests name it.
	own string
	// secret says that there is a credential to keep.
	secret bool
	pinged atomic.Bool
	// made says that the login is complete: its requests are the session's.
	made   atomic.Bool
	tokens tokens
	// keeps is what the registry said to the ping of keeping signatures itself.
	keeps atomic.Bool
}

// RoundTrip implements [http.RoundTripper].
func (l *login) RoundTrip(request *http.Request) (*http.Response, error) {
	if err := l.permits(request); err != nil {
		if request.Body != nil {
			_ = request.Body.Close() // the contract of RoundTripper
		}
		return nil, err
	}
	if l.plain(request.URL.Host) && request.URL.Scheme != "http" {
		request = request.Clone(request.Context())
		request.URL.Scheme = "http"
	}
	if request.Response == nil && request.URL.Path != pingPath {
		if !l.made.Load() {
			l.tokens.serve(request.URL)
		} else if l.tokens.servedAt(request.URL) {
			return l.tokens.ask(request, l.next)
		}
	}
	response, err := l.next.RoundTrip(request)
	if err == nil {
		l.note(request, response)
	}
	return response, err
}

// note remembers what a registry says of itself when it is asked how to log in. If
// it redirects, the last word counts, as for a node.
func (l *login) note(request *http.Request, response *http.Response) {
	if asked, _ := origin(request); asked.URL.Path == pingPath {
		l.keeps.Store(response.Header.Get(keepsHeader) == "1")
	}
}

// plain reports whether a host is asked over plain HTTP.
func (l *login) plain(host string) bool { return l.terms.plain(l.own, host) }

// permits reports why a request may not be sent.
func (l *login) permits(request *http.Request) error {
	host := request.URL.Host
	if err := l.leads(request); err != nil {
		return err
	}
	switch {
	case l.again(request):
		return errPinged
	case request.URL.Scheme == "http" && !l.plain(host):
		return &Error{
			Reason:  policy.ReasonUnreachable,
			Message: fmt.Sprintf("%s would be asked over plain HTTP; to allow that: --insecure-registries", clipped(host)),
		}
	case !l.secret || !shows(request):
		return nil
	case !l.site.includes(host):
		return l.site.refusal(host)
	case l.plain(host) && (!l.terms.plainHTTP || !l.site.own(host)):
		return &Error{
			Reason: policy.ReasonUnauthorized,
			Message: fmt.Sprintf("%s wants its credentials shown at %s over plain HTTP: not done; for the registry's own site %s",
				l.site.registry, clipped(host), allowsPlainHTTP),
		}
	}
	return nil
}

// again reports whether a request is the library's own second ping: it asks
// local addresses over HTTPS, and then over HTTP, at its own discretion. Over
// plain HTTP both would be the same request here, and over HTTPS it is not what
// anybody allowed.
func (l *login) again(request *http.Request) bool {
	if request.URL.Path != pingPath || request.Response != nil {
		return false
	}
	if l.plain(request.URL.Host) {
		return l.pinged.Swap(true)
	}
	return request.URL.Scheme == "http"
}

// leads reports why nobody is followed to where a request goes: too far, or
// from HTTPS to plain HTTP.
func (l *login) leads(request *http.Request) error {
	host := request.URL.Host
	from, hops := origin(request)
	if hops > maxRedirects {
		return redirectsError(clipped(from.URL.Host))
	}
	secure, plain := !l.plain(l.own), l.plain(host)
	if hops > 0 {
		secure = request.Response.Request.URL.Scheme == "https"
		plain = plain || request.URL.Scheme == "http"
	}
	if secure && plain {
		return downgradeError(l.site.registry, host)
	}
	return nil
}

// shows reports whether a request may hold a credential: passwords and tokens
// are in a header, refresh tokens in the body.
func shows(request *http.Request) bool {
	return request.Header.Get("Authorization") != "" || request.Header.Get("Cookie") != "" ||
		request.Body != nil && request.Body != http.NoBody
}

// origin is the request that redirects led from, and how many they were.
func origin(request *http.Request) (from *http.Request, hops int) {
	for request.Response != nil && request.Response.Request != nil {
		request = request.Response.Request
		hops++
	}
	return request, hops
}
