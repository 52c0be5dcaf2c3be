// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestEgress(t *testing.T) {
	one := netip.MustParsePrefix("127.0.0.1/32")
	for name, test := range map[string]struct {
		allow, deny []netip.Prefix
		host        func(string) string
		permitted   bool
	}{
		"refused by default":  {},
		"refused by name":     {host: asLocalhost},
		"allowed":             {allow: []netip.Prefix{one}, permitted: true},
		"allowed by name":     {allow: []netip.Prefix{loopback}, host: asLocalhost, permitted: true},
		"allowed, but denied": {allow: []netip.Prefix{loopback}, deny: []netip.Prefix{one}},
		"another one allowed": {allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			host := r.Host()
			if test.host != nil {
				host = test.host(host)
			}
			client := newClientWith(t, registry.Options{
				AllowCIDRs: test.allow, DenyCIDRs: test.deny, Insecure: []string{host},
			})
			_, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", image.Digest))
			if test.permitted {
				if err != nil {
					t.Errorf("Resolve: %v", err)
				}
				return
			}
			wantError(t, err, policy.ReasonUnreachable, "127.0.0.1")
			if !strings.Contains(err.Error(), "--registry-allow-cidrs") {
				t.Errorf("message = %q, want what to mend", err)
			}
			if n := len(r.Requests()); n != 0 {
				t.Errorf("%d requests arrived, want none", n)
			}
		})
	}
}

func asLocalhost(host string) string {
	_, port, _ := net.SplitHostPort(host)
	return "localhost:" + port
}

func TestEgressOfRedirects(t *testing.T) {
	for name, allow := range map[string]netip.Prefix{
		"refused":  netip.MustParsePrefix("127.0.0.1/32"),
		"followed": loopback,
	} {
		t.Run(name, func(t *testing.T) {
			inner := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
			inner.PushImage(t, "acme/app:v1")
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+inner.Host()))
			client := newClientWith(t, registry.Options{
				AllowCIDRs: []netip.Prefix{allow}, Insecure: []string{r.Host(), inner.Host()},
			})
			got, err := client.Resolve(t.Context(), askedImage(t, image))
			if allow == loopback {
				if err != nil || got.Digest != image.Digest {
					t.Errorf("Resolve = %+v, %v; want the redirect followed", got, err)
				}
				return
			}
			wantError(t, err, policy.ReasonUnreachable, "127.0.0.2")
			if n := len(inner.Requests()); n != 0 {
				t.Errorf("%d requests arrived, want none", n)
			}
		})
	}
}

// C29: names lead nowhere that addresses do not, and what a name meant a moment
// ago does not count.
func TestEgressOfNames(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1", "169.254.169.254", "100.100.100.200", "::1", "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "0.0.0.0",
	} {
		client := newNamedClient(t, registry.Options{}, map[string]string{"registry.example.com": address})
		_, err := client.Resolve(within(t, soon), asked(t, "registry.example.com/acme/app:v1", ""))
		wantError(t, err, policy.ReasonUnreachable, address)
	}
	r := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
	image := r.PushImage(t, "acme/app:v1")
	host := at("registry.example.com", r)
	inner := registrytest.New(t, registrytest.WithAddress(strings.Replace(r.Host(), "127.0.0.2", "127.0.0.1", 1)))
	r.Fault(registrytest.Any(), registrytest.Header("Connection", "close"))
	client := newNamedClient(t, registry.Options{
		AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}, Insecure: []string{host},
	}, map[string]string{"registry.example.com": "127.0.0.2 127.0.0.2 127.0.0.1"})
	if got, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", "")); err != nil || got.Digest != image.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
	}
	_, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", ""))
	wantError(t, err, policy.ReasonUnreachable, "127.0.0.1")
	if n := len(inner.Requests()); n != 0 {
		t.Errorf("%d requests arrived, want none: %v", n, lines(inner.Requests()))
	}
}

func TestPlainHTTP(t *testing.T) {
	t.Run("refused unless the admin allows it", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		_, err := newClient(t).Resolve(t.Context(), askedImage(t, image, secret(r.Host(), "user", "s3cret")))
		wantError(t, err, policy.ReasonUnreachable, r.Host())
		if !strings.Contains(err.Error(), "--insecure-registries") {
			t.Errorf("message = %q, want what to mend", err)
		}
		if n := len(r.Requests()); n != 0 {
			t.Errorf("%d requests arrived, want none: %v", n, lines(r.Requests()))
		}
	})
	t.Run("refused on another port of a host that has it", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		client := newClientWith(t, registry.Options{
			AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{"127.0.0.1", "127.0.0.1:1"},
		})
		_, err := client.Resolve(t.Context(), askedImage(t, image))
		wantError(t, err, policy.ReasonUnreachable, r.Host())
		if n := len(r.Requests()); n != 0 {
			t.Errorf("%d requests arrived, want none: %v", n, lines(r.Requests()))
		}
	})
	t.Run("refused after a redirect", func(t *testing.T) {
		plain := registrytest.New(t)
		plain.PushImage(t, "acme/app:v1")
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+plain.Host()))
		_, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
		wantError(t, err, policy.ReasonUnreachable, plain.Host())
		if n := len(plain.Requests()); n != 0 {
			t.Errorf("%d requests arrived, want none: %v", n, lines(plain.Requests()))
		}
	})
}

// overTLS puts a server with a certificate of its own before a registry.
func overTLS(t *testing.T, r *registrytest.Registry) (*httptest.Server, string) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		onward, err := http.NewRequestWithContext(request.Context(), request.Method, "http://"+r.Host()+request.URL.RequestURI(), nil)
		if err != nil {
			panic(err)
		}
		onward.Header = request.Header
		got, err := http.DefaultTransport.RoundTrip(onward)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer got.Body.Close()
		maps.Copy(w.Header(), got.Header)
		w.WriteHeader(got.StatusCode)
		_, _ = io.Copy(w, got.Body) // the client may be gone
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that do not trust it are meant
	server.StartTLS()
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	return server, at.Host
}

func TestTLS(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	server, host := overTLS(t, r)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	it := asked(t, host+"/acme/app:v1", image.Digest, secret(host, "user", "s3cret"))

	t.Run("a certificate that is trusted", func(t *testing.T) {
		client := newClientWith(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, RootCAs: roots})
		got, err := client.Resolve(t.Context(), it)
		if err != nil || got.Digest != image.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
		}
	})
	t.Run("a certificate that is not", func(t *testing.T) {
		r.Reset()
		client := newClientWith(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, RootCAs: x509.NewCertPool()})
		_, err := client.Resolve(t.Context(), it)
		wantError(t, err, policy.ReasonUnreachable, host)
		if n := len(r.Requests()); n != 0 {
			t.Errorf("%d requests arrived, want none", n)
		}
	})
	t.Run("a redirect down to plain HTTP", func(t *testing.T) {
		plain := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
		defer r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+plain.Host()))()
		client := newClientWith(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, RootCAs: roots})
		_, err := client.Resolve(t.Context(), it)
		wantError(t, err, policy.ReasonUnreachable, plain.Host())
		if strings.Contains(err.Error(), "--insecure-registries") {
			t.Errorf("message = %q, want no hint at what would not help", err)
		}
		if n := len(plain.Requests()); n != 0 {
			t.Errorf("%d requests arrived, want none", n)
		}
	})
}

func TestRedirectLimit(t *testing.T) {
	for hops, followed := range map[int]bool{1: true, 5: true, 6: false, 1000: false} {
		t.Run(fmt.Sprint(hops), func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.First(hops, registrytest.Manifest("acme/app")), registrytest.Redirect("http://"+r.Host()))
			got, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
			if followed {
				if err != nil || got.Digest != image.Digest {
					t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
				}
				return
			}
			wantError(t, err, policy.ReasonLimit, r.Host())
			if n := len(r.Counted()); n != 6 {
				t.Errorf("%d requests, want 6: %v", n, lines(r.Counted()))
			}
		})
	}
}

// A header beyond its bound is not read to its end.
func TestHeaderLimit(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Method("HEAD"), registrytest.Header("X-Pad", strings.Repeat("a", 128<<10)))
	_, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
	wantError(t, err, policy.ReasonUnreachable, r.Host())
}

// A compressed answer is not unpacked: its bound would be seen too late.
func TestNoCompression(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	var asked atomic.Bool
	r.Fault(func(request *http.Request) bool {
		if request.Header.Get("Accept-Encoding") != "" {
			asked.Store(true)
		}
		return false
	}, hangUp)
	_, _ = gather(newClient(t, r).Recheck(t.Context(), askedImage(t, image), false))
	if len(r.Counted()) == 0 || asked.Load() {
		t.Errorf("a compressed answer was asked for: %t (%d requests)", asked.Load(), len(r.Counted()))
	}
}

func TestObserve(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	var mu sync.Mutex
	seen := map[string]int{}
	client := newClientWith(t, registry.Options{
		AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{r.Host()},
		Observe: func(host string, status int, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			seen[fmt.Sprintf("%s %d", host, status)]++
			if took <= 0 {
				t.Errorf("a request took %s", took)
			}
		},
	})
	if _, err := client.Resolve(t.Context(), askedImage(t, image)); err != nil {
		t.Fatal(err)
	}
	r.Fault(registrytest.Method("HEAD"), hangUp)
	_, err := client.Resolve(t.Context(), askedImage(t, image))
	wantError(t, err, policy.ReasonUnreachable, r.Host())
	mu.Lock()
	defer mu.Unlock()
	if seen[r.Host()+" 200"] != 2 || seen[r.Host()+" 0"] == 0 {
		t.Errorf("observed %v, want the login and the HEAD with 200, and the lost one with 0", seen)
	}
}
