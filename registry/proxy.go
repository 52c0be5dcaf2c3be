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
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// lookupTime bounds looking a name up here that a proxy will look up again.
	// Behind a proxy there is often nobody who answers.
	lookupTime = 2 * time.Second
	// lookedUpFor is how long what came of that is kept.
	lookedUpFor = 30 * time.Second
)

// proxies says which requests are sent through a proxy. A proxy resolves and
// connects where we cannot see it, so that what we can see of a target is judged
// before.
type proxies struct {
	of       func(*url.URL) (*url.URL, error)
	roots    *x509.CertPool
	guard    guard
	resolver *net.Resolver
	// looked holds for each host that was looked up why it is refused, or "".
	looked *otter.Cache[string, string]
}

func newProxies(o Options, g guard) (*proxies, error) {
	looked, err := otter.New(&otter.Options[string, string]{
		MaximumSize:      maxHosts,
		ExpiryCalculator: otter.ExpiryWriting[string, string](lookedUpFor),
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of looked up hosts: %w", err)
	}
	return &proxies{of: o.proxies(), roots: o.RootCAs, guard: g, resolver: o.resolver, looked: looked}, nil
}

// through makes a transport send through proxies. Only proxies are dialled by
// it, and the guard does not look at them. They are trusted, and shown
// something, as the server's own way says: an image's is between us and its
// registry.
func (p *proxies) through(transport *http.Transport) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, Resolver: p.resolver}
	transport.DialContext = dialer.DialContext
	// It is the first hop that this dials, never the target behind a proxy.
	transport.DialTLSContext = (&tls.Dialer{
		NetDialer: dialer, Config: &tls.Config{RootCAs: p.roots, MinVersion: tls.VersionTLS12},
	}).DialContext
	transport.Proxy = func(request *http.Request) (*url.URL, error) {
		proxy, err := p.of(request.URL)
		if proxy == nil && err == nil {
			err = errors.New("a request without a proxy") // would be dialled unseen
		}
		return proxy, err
	}
	return transport
}

// choose says over which connections a request goes.
func (p *proxies) choose(request *http.Request, over connections) (*http.Transport, error) {
	proxy, err := p.of(request.URL)
	switch {
	case err != nil:
		return nil, &Error{Reason: policy.ReasonUnreachable, Message: "the address of the proxy for " + clipped(request.URL.Host) + " cannot be read", cause: err}
	case proxy == nil:
		return over.direct, nil
	}
	return over.proxied, p.permits(request.Context(), request.URL)
}

// permits reports why a target may not be asked through a proxy. A name that
// does not resolve here may be: that it does at the proxy is what proxies are
// for.
func (p *proxies) permits(ctx context.Context, target *url.URL) error {
	host := strings.TrimSuffix(strings.ToLower(target.Hostname()), ".")
	if address, err := netip.ParseAddr(host); err == nil {
		return p.guard.check(ctx, address)
	}
	if isLocal(host) {
		return &Error{
			Reason:  policy.ReasonUnreachable,
			Message: clipped(host) + " is no name that registries are asked at through a proxy",
		}
	}
	message, ok := p.looked.GetIfPresent(host)
	if !ok {
		message = p.lookUp(ctx, host)
		if ctx.Err() == nil {
			p.looked.Set(host, message)
		}
	}
	if message != "" {
		return &Error{Reason: policy.ReasonUnreachable, Message: message}
	}
	return nil
}

// lookUp says why a host is refused, or nothing.
func (p *proxies) lookUp(ctx context.Context, host string) string {
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	addresses, err := p.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return ""
	}
	for _, address := range addresses {
		if err := p.guard.check(ctx, address); err != nil {
			return fmt.Sprintf("%s: %s", clipped(host), err)
		}
	}
	return ""
}

// isLocal reports whether a name means the proxy itself, or is an address in a
// form that many resolvers understand and ours does not: 2130706433, 0x7f.1.
func isLocal(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	return last == "localhost" || last == "" || strings.HasPrefix(last, "0x") || strings.Trim(last, "0123456789") == ""
}
