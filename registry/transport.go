// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

// Bounds of the connections to registries (spec section 6).
const (
	dialTimeout      = 5 * time.Second
	maxRedirects     = 5
	maxConnsPerHost  = 32 // a slow host slows only itself
	maxIdlePerHost   = 16
	idleTimeout      = 90 * time.Second
	maxHeaderBytes   = 64 << 10
	tlsShakeHandsFor = 5 * time.Second
)

// Options says which registries may be asked, and how.
type Options struct {
	// AllowCIDRs and DenyCIDRs change which addresses may be dialled. Denied
	// wins over allowed, allowed over what is refused by default.
	AllowCIDRs, DenyCIDRs []netip.Prefix
	// Insecure lists the hosts (with port) that are asked over plain HTTP.
	Insecure []string
	// APIServer lists the hosts of the API server, with or without scheme and
	// port. Their addresses are refused by default.
	APIServer []string
	// RootCAs are the certificate authorities; nil means the system's.
	RootCAs *x509.CertPool
	// Observe is called once for each request sent, if set.
	Observe func(host string, status int)

	// resolver looks names up; nil means as the system does.
	resolver *net.Resolver
}

// proxies says which proxy a request is sent through: what HTTPS_PROXY,
// HTTP_PROXY and NO_PROXY say now.
func (Options) proxies() func(*url.URL) (*url.URL, error) {
	return httpproxy.FromEnvironment().ProxyFunc()
}

// roundTripper sends requests over connections that the guard permits, or
// through a proxy.
type roundTripper struct {
	direct   *http.Transport
	proxied  *proxied
	insecure []string
	observe  func(host string, status int)
}

func newRoundTripper(o Options) (*roundTripper, error) {
	g := guard{allow: o.AllowCIDRs, deny: o.DenyCIDRs, api: newAPIServer(o.APIServer, o.resolver)}
	dialer := &net.Dialer{Timeout: dialTimeout, ControlContext: g.control, Resolver: o.resolver}
	base := &http.Transport{
		TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    tlsShakeHandsFor,
		MaxConnsPerHost:        maxConnsPerHost,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		// A compressed answer would be unpacked before its bound is seen.
		DisableCompression: true,
	}
	proxied, err := newProxied(base.Clone(), o, g)
	if err != nil {
		return nil, err
	}
	base.DialContext = dialer.DialContext
	rt := &roundTripper{direct: base, proxied: proxied, observe: o.Observe}
	for _, host := range o.Insecure {
		rt.insecure = append(rt.insecure, reference.CanonicalHost(host))
	}
	return rt, nil
}

// isInsecure reports whether the admin allows plain HTTP for a host.
func (rt *roundTripper) isInsecure(host string) bool {
	return slices.Contains(rt.insecure, reference.CanonicalHost(host))
}

// RoundTrip implements [http.RoundTripper]. The registry client chooses plain
// HTTP by itself for addresses that look local; here only the admin does.
func (rt *roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	insecure := rt.isInsecure(request.URL.Host)
	switch {
	case request.URL.Scheme == "http" && !insecure:
		return nil, &Error{
			Reason:  policy.ReasonUnreachable,
			Message: fmt.Sprintf("%s would be asked over plain HTTP; to allow that: --insecure-registries", request.URL.Host),
		}
	case request.URL.Scheme == "https" && insecure:
		request = request.Clone(request.Context())
		request.URL.Scheme = "http"
	}
	via, err := rt.transport(request)
	if err != nil {
		return nil, err
	}
	response, err := via.RoundTrip(request)
	if rt.observe != nil {
		status := 0
		if response != nil {
			status = response.StatusCode
		}
		rt.observe(request.URL.Host, status)
	}
	return response, err
}

// transport chooses the way that a request takes.
func (rt *roundTripper) transport(request *http.Request) (*http.Transport, error) {
	proxy, err := rt.proxied.of(request.URL)
	switch {
	case err != nil:
		return nil, &Error{Reason: policy.ReasonUnreachable, Message: "the address of the proxy for " + clipped(request.URL.Host) + " cannot be read", cause: err}
	case proxy == nil:
		return rt.direct, nil
	}
	return rt.proxied.transport, rt.proxied.permits(request.Context(), request.URL)
}
