// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"golang.org/x/net/http/httpproxy"
)

// Bounds of the connections to registries (spec section 6).
const (
	dialTimeout      = 5 * time.Second
	maxRedirects     = 5
	maxConnsPerHost  = 128 // a slow host slows only itself
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
	// Insecure lists the hosts (with port) that are asked over plain HTTP. They
	// are shown no credentials for that.
	Insecure []string
	// APIServer lists the hosts of the API server, with or without scheme and
	// port. Their addresses are refused by default.
	APIServer []string
	// RootCAs are the certificate authorities; nil means the system's. Those of
	// an image's own transport are trusted besides them.
	RootCAs *x509.CertPool
	// LocalLookaside says that lookasides may be folders here (file://), which a
	// policy must not have a server read.
	LocalLookaside bool
	// Observe is called once for each request sent, if set, with how long it was
	// until the header of the answer was there, or none was to come (status 0).
	Observe func(host string, status int, took time.Duration)

	// resolver looks names up; nil means as the system does.
	resolver *net.Resolver
}

// proxies says which proxy a request is sent through: what HTTPS_PROXY,
// HTTP_PROXY and NO_PROXY say now.
func (Options) proxies() func(*url.URL) (*url.URL, error) {
	return httpproxy.FromEnvironment().ProxyFunc()
}

// newTransport makes a transport with all bounds. Whoever calls it sets what it
// dials with: without a guard nothing may be dialled.
func newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    tlsShakeHandsFor,
		MaxConnsPerHost:        maxConnsPerHost,
		MaxIdleConnsPerHost:    maxIdlePerHost,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ForceAttemptHTTP2:      true,
		// A compressed answer would be unpacked before its bound is seen.
		DisableCompression: true,
	}
}
