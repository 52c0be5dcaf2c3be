// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

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
type guard struct {
	allow, deny []netip.Prefix
	api         *apiServer
}

func (g guard) permits(ctx context.Context, address netip.Addr) bool {
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
	case slices.ContainsFunc(refused, in):
		return false
	default:
		return !g.api.has(ctx, address)
	}
}

// check is why an address may not be dialled.
func (g guard) check(ctx context.Context, address netip.Addr) error {
	if g.permits(ctx, address) {
		return nil
	}
	return &Error{
		Reason: policy.ReasonUnreachable,
		Message: fmt.Sprintf("%s is an address that registries are not asked at; if one is there, allow it with --registry-allow-cidrs",
			address),
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

// control is a [net.Dialer] ControlContext function.
func (g guard) control(ctx context.Context, _, address string, _ syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("reading the address %q: %w", address, err)
	}
	return g.check(ctx, target.Addr())
}

// apiServerFor is how long it is remembered which addresses the API server's
// names have.
const apiServerFor = time.Minute

// apiServer knows the addresses of the API server, which answers much that is
// no image to whoever reaches it. The zero value and nil know none.
type apiServer struct {
	known    []netip.Addr // written as addresses
	names    []string
	resolver *net.Resolver

	mu       sync.Mutex
	resolved map[string][]netip.Addr
	at       time.Time
}

// newAPIServer takes hosts as they stand in a kubeconfig or in an environment:
// with or without scheme and port. Empty ones are left out.
func newAPIServer(hosts []string, resolver *net.Resolver) *apiServer {
	a := &apiServer{resolver: resolver, resolved: map[string][]netip.Addr{}}
	for _, written := range hosts {
		host := written
		if _, after, ok := strings.Cut(host, "://"); ok {
			host, _, _ = strings.Cut(after, "/")
		}
		if address, err := netip.ParseAddr(host); err == nil {
			a.known = append(a.known, address.Unmap())
			continue
		}
		host = (&url.URL{Host: host}).Hostname()
		if address, err := netip.ParseAddr(host); err == nil {
			a.known = append(a.known, address.Unmap())
		} else if host != "" {
			a.names = append(a.names, host)
		}
	}
	return a
}

// has reports whether the API server has an address.
func (a *apiServer) has(ctx context.Context, address netip.Addr) bool {
	if a == nil {
		return false
	}
	if slices.Contains(a.known, address) {
		return true
	}
	if len(a.names) == 0 {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.at) > apiServerFor {
		a.resolve(ctx)
	}
	for _, addresses := range a.resolved {
		if slices.Contains(addresses, address) {
			return true
		}
	}
	return false
}

// resolve looks the names up. A name that does not resolve now keeps the
// addresses that it had: the API server is still there.
func (a *apiServer) resolve(ctx context.Context) {
	// What comes of it serves others, so it must not end with this request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookupTime)
	defer cancel()
	for _, name := range a.names {
		found, err := a.resolver.LookupNetIP(ctx, "ip", name)
		if err != nil {
			continue
		}
		for i := range found {
			found[i] = found[i].Unmap()
		}
		a.resolved[name] = found
	}
	a.at = time.Now()
}
