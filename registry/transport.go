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
	"slices"
	"syscall"
	"time"

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
	// RootCAs are the certificate authorities; nil means the system's.
	RootCAs *x509.CertPool
	// Observe is called once for each request sent, if set.
	Observe func(host string, status int)
}

// refused are the addresses that no registry has and that much else listens on:
// the node itself, cloud metadata services, everything that is not unicast.
var refused = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("192.0.0.0/24"), // protocol assignments, and a cloud's metadata
	netip.MustParsePrefix("224.0.0.0/3"),  // multicast, reserved, broadcast
	netip.MustParsePrefix("100.100.100.200/32"),
	netip.MustParsePrefix("168.63.129.16/32"),
	netip.MustParsePrefix("::/96"), // unspecified, loopback, and IPv4 as RFC 4291 first wrote it
	// IPv4 addresses in other clothes: translated (RFC 2765, RFC 8215) and
	// tunnelled (RFC 3056).
	netip.MustParsePrefix("::ffff:0:0:0/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"),
	netip.MustParsePrefix("2002::/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
	netip.MustParsePrefix("fd00:ec2::254/128"),
	netip.MustParsePrefix("fd20:ce::254/128"),
}

// nat64 is the prefix behind which IPv4 addresses hide (RFC 6052, section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// guard decides about addresses at the moment they are dialled, so that neither
// a name nor a redirect leads around it.
type guard struct{ allow, deny []netip.Prefix }

func (g guard) permits(address netip.Addr) bool {
	dialled := address.Unmap().WithZone("")
	address = dialled
	if nat64.Contains(address) {
		bytes := address.As16()
		address = netip.AddrFrom4([4]byte(bytes[12:]))
	}
	in := func(p netip.Prefix) bool { return unmapped(p).Contains(address) }
	switch {
	case slices.ContainsFunc(g.deny, in), slices.ContainsFunc(g.deny, func(p netip.Prefix) bool { return p.Contains(dialled) }):
		return false
	case slices.ContainsFunc(g.allow, in):
		return true
	default:
		return !slices.ContainsFunc(refused, in)
	}
}

// unmapped is a prefix of IPv4-mapped addresses as the prefix of IPv4 addresses
// that it is.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapped = 96 // bits before the IPv4 address (RFC 4291, section 2.5.5.2)
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return p
}

// control is a [net.Dialer] Control function.
func (g guard) control(_, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("reading the address %q: %w", address, err)
	}
	if !g.permits(target.Addr()) {
		return &Error{
			Reason: policy.ReasonUnreachable,
			Message: fmt.Sprintf("%s is an address that registries are not asked at; if one is there, allow it with --registry-allow-cidrs",
				target.Addr()),
		}
	}
	return nil
}

// roundTripper sends requests over connections that the guard permits.
type roundTripper struct {
	base     *http.Transport
	insecure []string
	observe  func(host string, status int)
}

func newRoundTripper(o Options) *roundTripper {
	dialer := &net.Dialer{Timeout: dialTimeout, Control: guard{allow: o.AllowCIDRs, deny: o.DenyCIDRs}.control}
	rt := &roundTripper{
		base: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: o.RootCAs, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    tlsShakeHandsFor,
			MaxConnsPerHost:        maxConnsPerHost,
			MaxIdleConnsPerHost:    maxIdlePerHost,
			IdleConnTimeout:        idleTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
			ForceAttemptHTTP2:      true,
			// A compressed answer would be unpacked before its bound is seen.
			DisableCompression: true,
		},
		observe: o.Observe,
	}
	for _, host := range o.Insecure {
		rt.insecure = append(rt.insecure, reference.CanonicalHost(host))
	}
	return rt
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
	response, err := rt.base.RoundTrip(request)
	if rt.observe != nil {
		status := 0
		if response != nil {
			status = response.StatusCode
		}
		rt.observe(request.URL.Host, status)
	}
	return response, err
}
