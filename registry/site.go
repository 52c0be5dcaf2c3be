// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

// site is where the credentials for one registry may be shown: at hosts of the
// same registrable domain, so that a registry cannot have them sent to somebody
// else by naming him as its token service or redirecting there.
type site struct {
	registry string
	// realms are the canonical hosts of token services elsewhere.
	realms []string
}

func (s site) includes(host string) bool {
	return s.own(host) || slices.Contains(s.realms, reference.CanonicalHost(host))
}

// own reports whether a host is of the registry's own site, realms aside.
func (s site) own(host string) bool { return siteOf(host) == siteOf(s.registry) }

// refusal says why credentials were not sent to a host of another site.
func (s site) refusal(host string) *Error {
	return &Error{
		Reason: policy.ReasonUnauthorized,
		Message: fmt.Sprintf("%s wants its credentials shown at %s, which is another site: not done; for a token service realms will allow it",
			s.registry, clipped(host)),
	}
}

// siteOf names the site of a host: its registrable domain, or the host itself
// where there is none to know: addresses, suffixes that nobody lists, and the
// suffixes themselves. The port does not count: token services are often
// another port of the registry's host.
//
// All of Docker Hub's names, its token service among them, are below docker.io.
func siteOf(host string) string {
	name := strings.TrimSuffix(strings.ToLower((&url.URL{Host: host}).Hostname()), ".")
	if address, err := netip.ParseAddr(name); err == nil {
		return address.Unmap().String()
	}
	// The list holds ASCII alone. What is not would be read once more on its
	// way to the resolver.
	if strings.ContainsFunc(name, func(r rune) bool { return r > '~' }) {
		return name
	}
	// A listed suffix is a top-level domain's, or has a dot (package publicsuffix).
	if suffix, icann := publicsuffix.PublicSuffix(name); !icann && !strings.Contains(suffix, ".") {
		return name
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(name); err == nil {
		return domain
	}
	return name
}

// clipped is a host that somebody else named, as it may stand in a message.
func clipped(untrustedHost string) string {
	const longest = 255 // of a name (RFC 1035, section 2.3.4)
	if len(untrustedHost) > longest {
		untrustedHost = untrustedHost[:longest] + "…"
	}
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, untrustedHost)
}
