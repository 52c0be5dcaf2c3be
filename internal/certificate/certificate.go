// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package certificate makes the certificate that the webhook serves with, and
// replaces it in time without a request that fails.
//
// All of it is in one Secret of Pratique's own namespace, which every replica
// reads and the elected one writes: the leaf, and the authorities by which the
// API server is to believe it. What the API server goes by is in the webhook
// configurations, and it learns of changes there late. So a new authority is
// first trusted, beside the old one; only when both configurations have carried
// it for a while does it sign the leaf; and the old one goes when no replica can
// be serving a leaf of its any more.
package certificate

import (
	"net"
	"time"
)

// What the Secret has under which key. The names of the leaf are those of
// Secrets for TLS, that of the authorities is cert-manager's.
const (
	keyLeaf           = "tls.crt"
	keyLeafKey        = "tls.key"
	keyAuthorities    = "ca.crt" // newest first
	keyAuthoritiesKey = "ca.key" // of those that may still sign, newest first
)

// What makes a Secret ours. One without it is somebody's own: it is not written.
const (
	labelMade = "pratique.dev/certificates"
	valueMade = "made"
)

// backdate is how long before it was made a certificate begins to be good. API
// servers must believe it at once, also if their clocks are behind, or that of the
// replica that made it is ahead: it would be too early for a replacement then,
// and nobody would notice that it was one. As long as an authority is good.
const backdate = 365 * 24 * time.Hour

// Times are how long certificates are good, and how long is waited before one
// is relied on, or not any more.
type Times struct {
	// Authority and Leaf are how long they are good. Each is replaced when two
	// thirds of that are over, as cert-manager does by default.
	Authority, Leaf time.Duration
	// Overlap is how long both configurations must have carried an authority
	// before it signs what is served.
	Overlap time.Duration
	// Retire is how long an authority is trusted after the last leaf that it
	// signed was replaced.
	Retire time.Duration
}

// DefaultTimes are those of pratique serve.
//
// A year and 30 days: the last third of them, four months and ten days, is the
// time in which somebody can mend what keeps them from being replaced, and is
// longer than anybody's holidays and than an API server is away. Five minutes: an
// API server that has not seen a change of its configurations for that long has
// a watch that is broken, which client-go notices and mends within at most two
// (its idle timeouts of HTTP/2, and its retries). A day: as long as any replica
// may go on without reading its Secret again, which it does every 30 s.
func DefaultTimes() Times {
	return Times{Authority: 365 * 24 * time.Hour, Leaf: 30 * 24 * time.Hour, Overlap: 5 * time.Minute, Retire: 24 * time.Hour}
}

// due is when a certificate made at that time, and good until then, is replaced.
func due(made, until time.Time) time.Time { return made.Add(until.Sub(made) * 2 / 3) }

// lookEvery is how often the Secret is read again without being told of a
// change: often enough for the shortest of the times, and else every 30 s.
func (t Times) lookEvery() time.Duration {
	const usual, parts = 30 * time.Second, 10
	return max(min(usual, t.Authority/parts, t.Leaf/parts, t.Overlap/parts, t.Retire/parts), minLook)
}

// minLook keeps a mistake in the times from asking the API server without end.
const minLook = 100 * time.Millisecond

// hosts are the names and addresses by which the API server reaches the webhook,
// split as certificates have them.
func hosts(names []string) (dns []string, addresses []net.IP) {
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
			continue
		}
		dns = append(dns, name)
	}
	return dns, addresses
}
