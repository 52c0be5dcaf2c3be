// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"strings"
	"testing"
)

func TestSite(t *testing.T) {
	for registry, test := range map[string]struct{ same, other string }{
		"registry.example.com": {
			same:  "registry.example.com auth.example.com example.com AUTH.Example.COM auth.example.com:8443 a.b.example.com auth.example.com.",
			other: "example.org example.com.evil.org evilexample.com com auth.example.com@evil.org xn--exmple-cua.com 10.0.0.1 auth.example.com%2eevil.org",
		},
		"registry.example.com:5000": {same: "auth.example.com registry.example.com:5001", other: "example.org:5000"},
		"docker.io": {
			same:  "docker.io index.docker.io registry-1.docker.io auth.docker.io",
			other: "docker.com production.cloudflare.docker.com auth.docker.io.evil.org",
		},
		"registry.gitlab.com":             {same: "gitlab.com", other: "gitlab.io"},
		"registry.acme.co.uk":             {same: "auth.acme.co.uk", other: "evil.co.uk co.uk"},
		"acme.github.io":                  {same: "acme.github.io auth.acme.github.io", other: "evil.github.io github.io"},
		"github.io":                       {same: "github.io", other: "acme.github.io"},
		"co.uk":                           {same: "co.uk", other: "acme.co.uk"},
		"registry.corp":                   {same: "registry.corp registry.corp:5001", other: "auth.corp corp"},
		"registry.ns.svc.cluster.local":   {same: "registry.ns.svc.cluster.local:5001", other: "evil.ns.svc.cluster.local auth.other.svc.cluster.local"},
		"localhost:5000":                  {same: "localhost", other: "auth.localhost 127.0.0.1"},
		"10.0.0.1:5000":                   {same: "10.0.0.1 10.0.0.1:443 [::ffff:10.0.0.1]:5000", other: "10.0.0.2 110.0.0.1 0.0.1 10.1"},
		"[2001:db8::1]:5000":              {same: "[2001:db8:0::1] [2001:DB8::1]:1", other: "[2001:db8::2] [2001:db8::1%25eth0]"},
		"x.azurecr.io":                    {same: "x.azurecr.io", other: "x.azurecr.io.attacker.com"},
		"xn--bcher-kva.example.com":       {same: "auth.example.com", other: "auth.example。com auth.ｅxample.com"},
		"registry.example.com.":           {same: "auth.example.com", other: "com."},
		"registry..example.com":           {same: "registry..example.com", other: "evil..com"},
		strings.Repeat("a.", 100) + "com": {same: "a.com", other: "b.com"},
	} {
		for want, hosts := range map[bool]string{true: test.same, false: test.other} {
			for host := range strings.FieldsSeq(hosts) {
				if got := (site{registry: registry}).includes(host); got != want {
					t.Errorf("the site of %s includes %s = %t, want %t", registry, host, got, want)
				}
			}
		}
	}
	withRealms := site{registry: "registry.example.com", realms: []string{"login.example.org"}}
	for host, want := range map[string]bool{"login.example.org": true, "LOGIN.example.org:443": true, "login.example.org:8443": false, "example.org": false} {
		if got := withRealms.includes(host); got != want {
			t.Errorf("with realms includes %s = %t, want %t", host, got, want)
		}
	}
}
