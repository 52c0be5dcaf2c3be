// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

// A way is kept while it is taken, and leaves no connection behind.
func TestWays(t *testing.T) {
	t.Parallel()
	closed := make(chan struct{})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(closed)
		}
	}
	server.Start()
	defer server.Close()
	ways, err := newWays(Options{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	one, other := &policy.Transport{Hash: [32]byte{1}}, &policy.Transport{Hash: [32]byte{2}}
	taken, err := ways.of(one)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := ways.of(&policy.Transport{Hash: one.Hash}); again != taken {
		t.Error("the same transport, two ways")
	}
	if another, _ := ways.of(other); another == taken || another == ways.own {
		t.Error("another transport, the same way")
	}
	if own, _ := ways.of(nil); own != ways.own {
		t.Error("no transport, and not the server's own way")
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := carrier{taken, site{registry: request.URL.Host}}.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	ways.others.Invalidate(one.Hash)
	select {
	case <-closed:
	case <-time.After(20 * time.Second): // far more than a busy machine needs
		t.Error("its connection stayed open")
	}
}

// Whatever the library does with a credential that it should not have been
// given, it is not sent over plain HTTP.
func TestLoginKeepsCredentialsOffPlainHTTP(t *testing.T) {
	t.Parallel()
	ways, err := newWays(Options{Insecure: []string{"registry.example.com", "auth.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, plainHTTP := range []bool{false, true} {
		for _, host := range []string{"registry.example.com", "auth.example.com"} {
			l := &login{
				site: site{registry: "registry.example.com"}, own: "registry.example.com", secret: true,
				terms: terms{way: ways.own, plainHTTP: plainHTTP},
			}
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/token", nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.permits(request); err != nil {
				t.Errorf("%s without a credential: %v", host, err)
			}
			request.Header.Set("Authorization", "Basic x")
			err = l.permits(request)
			if refused := hasReason(err, policy.ReasonUnauthorized); refused == plainHTTP || err != nil && !refused {
				t.Errorf("%s with a credential, insecurePlainHTTP %t: %v", host, plainHTTP, err)
			}
		}
	}
}
