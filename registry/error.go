// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/pratique-dev/pratique/policy"
)

// Error is a request that a registry did not answer as asked. It quotes nothing
// of what the registry sent but, clipped, the name of a type or platform: a body
// may hold anything, a token included.
type Error struct {
	Reason  policy.Reason
	Message string // one line for people, naming the host
	status  int    // that the registry answered with, 0 for none
	cause   error
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.cause }

// Verdict implements [policy.Judged]: only a body that contradicts the digest
// it was asked for is a fault of the image, all else leaves it unexamined.
func (e *Error) Verdict() policy.Verdict {
	v := policy.Undecided(e.Reason, "%s", e.Message)
	if e.Reason == policy.ReasonDigestMismatch {
		v.Outcome = policy.Rejected
	}
	return v
}

// isNotFound reports whether the registry said that the thing is not there.
func isNotFound(err error) bool { return hasReason(err, policy.ReasonNotFound) }

func hasReason(err error, reason policy.Reason) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Reason == reason
}

// statusError maps an answer's status (spec section 4).
func statusError(host, what string, status int) *Error {
	e := &Error{Reason: policy.ReasonUnexpected, status: status}
	explain := ""
	switch {
	case status >= http.StatusInternalServerError:
		e.Reason = policy.ReasonRegistryError
	case status == http.StatusNotFound:
		e.Reason = policy.ReasonNotFound
		explain = ": not there, or hidden without credentials"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		e.Reason = policy.ReasonUnauthorized
	case status == http.StatusTooManyRequests:
		e.Reason = policy.ReasonRateLimited
		explain = ": too many requests"
	case status == http.StatusRequestTimeout:
		e.Reason = policy.ReasonDeadline
	}
	e.Message = fmt.Sprintf("%s answered %d to the request for the %s%s", host, status, what, explain)
	return e
}

// dialError maps what went wrong before there was an answer.
func dialError(ctx context.Context, host, what string, err error) *Error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	if answered, ok := errors.AsType[*transport.Error](err); ok && answered.StatusCode != 0 {
		return statusError(host, what, answered.StatusCode)
	}
	e := &Error{Reason: policy.ReasonUnreachable, cause: err}
	timeout, _ := errors.AsType[net.Error](err)
	switch {
	case ctx.Err() != nil, errors.Is(err, context.DeadlineExceeded), timeout != nil && timeout.Timeout():
		e.Reason = policy.ReasonDeadline
		e.Message = fmt.Sprintf("%s did not answer the request for the %s in time", host, what)
	default:
		e.Message = fmt.Sprintf("%s cannot be reached for the %s: %s", host, what, briefly(err))
	}
	return e
}

// loginError maps what went wrong while logging in. A 404 there does not say
// that the thing itself is missing: nobody asked for it yet.
func loginError(ctx context.Context, host, what string, err error) *Error {
	e := dialError(ctx, host, what, err)
	if e.status == http.StatusBadRequest {
		// What a token service answers to a grant that it does not know any more
		// (RFC 6749, section 5.2).
		return &Error{
			Reason: policy.ReasonUnauthorized, status: e.status,
			Message: fmt.Sprintf("%s answered %d to the login for the %s", host, e.status, what),
		}
	}
	if e.Reason != policy.ReasonNotFound {
		return e
	}
	return &Error{
		Reason:  policy.ReasonUnexpected,
		Message: fmt.Sprintf("%s answered %d to the login for the %s", host, http.StatusNotFound, what),
	}
}

// briefly names a transport failure without repeating anything from the peer.
func briefly(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its name does not resolve"
	}
	if why := brieflyTLS(err); why != "" {
		return why
	}
	op, ok := errors.AsType[*net.OpError](err)
	switch {
	case ok && op.Op == "proxyconnect":
		return "no connection to the proxy"
	case ok && op.Op == "dial":
		return "no connection"
	case ok:
		return "connection broken"
	// The library's own rules, which have no error of their own.
	case strings.Contains(err.Error(), "realm"):
		return "it names a token service without an address, at an internal one, or over plain HTTP"
	default:
		return "the exchange failed"
	}
}

// brieflyTLS names what went wrong between TCP and HTTP, or nothing.
func brieflyTLS(err error) string {
	if isUnknownAuthority(err) {
		return "its certificate is signed by an authority that is not trusted; registry.tls of an ImageConfig, or --ca-file, brings one that is"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "its certificate is for another name"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not valid"
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return "it speaks plain HTTP; to allow that: --insecure-registries, or insecurePlainHTTP in an ImageConfig"
	}
	// An alert (RFC 8446, section 6). The request was not answered.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" {
		return "it ends the TLS connection; it may want another client certificate, or one at all"
	}
	return ""
}

func isUnknownAuthority(err error) bool {
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok
}

// redirectsError is why a host is not followed any further.
func redirectsError(host string) *Error {
	return &Error{
		Reason:  policy.ReasonLimit,
		Message: fmt.Sprintf("%s redirected more than %d times", host, maxRedirects),
	}
}

// downgradeError is why a host is not followed to another.
func downgradeError(host, untrustedTo string) *Error {
	return &Error{
		Reason:  policy.ReasonUnreachable,
		Message: fmt.Sprintf("%s leads from HTTPS to plain HTTP at %s: not followed", host, clipped(untrustedTo)),
	}
}

// tooMany is why some of a host's things of one kind are not looked at.
func tooMany(host, what string, most int) *Error {
	return &Error{
		Reason:  policy.ReasonLimit,
		Message: fmt.Sprintf("%s lists more %s than the %d that are tried", host, what, most),
	}
}

func limitError(host, what string, limit int64) *Error {
	return &Error{
		Reason:  policy.ReasonLimit,
		Message: fmt.Sprintf("%s sent %s of more than %d bytes", host, article(what), limit),
	}
}

func garbageError(host, what string) *Error {
	return &Error{
		Reason:  policy.ReasonUnexpected,
		Message: fmt.Sprintf("%s sent %s that cannot be read", host, article(what)),
	}
}

// article puts the article before a word.
func article(what string) string {
	if strings.HasPrefix(what, "a") {
		return "an " + what
	}
	return "a " + what
}
