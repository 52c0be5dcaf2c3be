// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// throughProxy makes all but what noProxy says go through the proxy.
func throughProxy(t *testing.T, proxy *registrytest.Proxy, noProxy string) {
	t.Helper()
	for name, value := range map[string]string{
		"HTTPS_PROXY": "http://" + proxy.Host(), "HTTP_PROXY": "http://" + proxy.Host(), "NO_PROXY": noProxy, "REQUEST_METHOD": "",
	} {
		t.Setenv(name, value)
		t.Setenv(strings.ToLower(name), "")
	}
}

// A proxy is dialled where nothing else may be, and names that do not resolve
// here do there.
func TestProxy(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	server, address := overTLS(t, r)
	_, port, _ := net.SplitHostPort(address)
	host := "example.com:" + port
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	for name, test := range map[string]struct {
		names   map[string]string
		api     []string
		noProxy string
		allow   []netip.Prefix
		sent    bool
		says    string
	}{
		"a name that does not resolve here":  {sent: true},
		"one that does":                      {names: map[string]string{"example.com": "192.0.2.1"}, sent: true},
		"one that resolves to this node":     {names: map[string]string{"example.com": "127.0.0.1"}, says: "127.0.0.1"},
		"to the metadata service":            {names: map[string]string{"example.com": "169.254.169.254"}, says: "169.254.169.254"},
		"to that of another kind":            {names: map[string]string{"example.com": "fd00:ec2::254"}, says: "fd00:ec2::254"},
		"to the API server":                  {names: map[string]string{"example.com": "192.0.2.1"}, api: []string{"192.0.2.1"}, says: "192.0.2.1"},
		"to this node, which is allowed":     {names: map[string]string{"example.com": "127.0.0.1"}, allow: []netip.Prefix{loopback}, sent: true},
		"one that no proxy is for":           {names: map[string]string{"example.com": "127.0.0.1"}, noProxy: "example.com", says: "127.0.0.1"},
		"one that no proxy is for, far away": {noProxy: "example.com", says: "does not resolve"},
	} {
		t.Run(name, func(t *testing.T) {
			r.Reset()
			proxy := registrytest.NewProxy(t, map[string]string{host: address})
			throughProxy(t, proxy, test.noProxy)
			client := newNamedClient(t, registry.Options{RootCAs: roots, APIServer: test.api, AllowCIDRs: test.allow}, test.names)
			got, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", image.Digest))
			if test.sent {
				if err != nil || got.Digest != image.Digest {
					t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
				}
				if diff := cmp.Diff([]string{"CONNECT " + host}, proxy.Targets()); diff != "" {
					t.Errorf("what the proxy was asked (-want +got):\n%s", diff)
				}
				return
			}
			wantError(t, err, policy.ReasonUnreachable, test.says)
			if got := proxy.Targets(); len(got) != 0 || len(r.Requests()) != 0 {
				t.Errorf("the proxy was asked %v, the registry %v; want nothing", got, lines(r.Requests()))
			}
		})
	}
}

// Refused literals are not sent to a proxy, whoever names them and however.
func TestProxyIsNotSentLiterals(t *testing.T) {
	for _, literal := range []string{
		"169.254.169.254", "100.100.100.200", "168.63.129.16", "10.9.8.7", "[fd00:ec2::254]", "[::ffff:169.254.169.254]",
		"[64:ff9b::a9fe:a9fe]", "2852039166", "0xa9fea9fe", "169.254.43518", "0251.0376.0251.0376", "169.254.169.254.", "metadata.localhost",
	} {
		t.Run(literal, func(t *testing.T) {
			inner := registrytest.New(t)
			inner.PushImage(t, "acme/app:v1")
			r := registrytest.New(t)
			r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+literal+":80"))
			host := at("registry.example.com", r)
			proxy := registrytest.NewProxy(t, map[string]string{host: r.Host(), literal + ":80": inner.Host(), literal: inner.Host()})
			throughProxy(t, proxy, "")
			client := newNamedClient(t, registry.Options{
				Insecure: []string{host, literal, literal + ":80"}, DenyCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
			}, nil)
			_, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", ""))
			wantError(t, err, policy.ReasonUnreachable, strings.Trim(strings.TrimSuffix(literal, "."), "[]"))
			for _, target := range proxy.Targets() {
				if !strings.Contains(target, host) {
					t.Errorf("the proxy was asked %q", target)
				}
			}
			if n := len(inner.Requests()); n != 0 {
				t.Errorf("%d requests arrived, want none", n)
			}
		})
	}
}

// The proxy's address is allowed as the proxy's and as nothing else.
func TestProxyIsNoRegistry(t *testing.T) {
	r := registrytest.New(t) // stands where the proxy is said to be
	r.PushImage(t, "acme/app:v1")
	host := at("registry.example.com", r)
	t.Setenv("HTTP_PROXY", "http://"+r.Host())
	t.Setenv("HTTPS_PROXY", "http://"+r.Host())
	t.Setenv("NO_PROXY", "registry.example.com")
	for _, image := range []string{host, r.Host()} {
		client := newNamedClient(t, registry.Options{Insecure: []string{image}}, map[string]string{"registry.example.com": "127.0.0.1"})
		_, err := client.Resolve(t.Context(), asked(t, image+"/acme/app:v1", ""))
		wantError(t, err, policy.ReasonUnreachable, "127.0.0.1")
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests arrived, want none: %v", n, lines(r.Requests()))
	}
}

// Docker Hub answers under several names. A credential for one is for all, and
// for its token service.
func TestDockerHub(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="http://auth.docker.io/token",service="registry.docker.io"`))
	routes := map[string]string{}
	for _, name := range []string{"docker.io", "index.docker.io", "registry-1.docker.io", "auth.docker.io"} {
		routes[name] = r.Host()
	}
	throughProxy(t, registrytest.NewProxy(t, routes), "")
	client := newNamedClient(t, registry.Options{Insecure: []string{"docker.io", "auth.docker.io"}}, nil)
	for _, scope := range []string{"https://index.docker.io/v1/", "docker.io", "registry-1.docker.io"} {
		r.Reset()
		got, err := client.Resolve(t.Context(), shown(t, "acme/app:v1", "", secret(scope, "user", "s3cret")))
		if err != nil || got.Digest != image.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
		}
	}
	passwords := map[string]bool{}
	r.ExpireTokens()
	if _, err := client.Resolve(t.Context(), shown(t, "acme/app:v1", "", secret("docker.io", "user", "s3cret"))); err != nil {
		t.Fatal(err)
	}
	for _, request := range r.Requests() {
		if userOf(request) != "" {
			passwords[request.Host] = true
		}
	}
	if diff := cmp.Diff(map[string]bool{"auth.docker.io": true}, passwords); diff != "" {
		t.Errorf("who saw the password (-want +got):\n%s", diff)
	}
}

// The API server's own addresses are no registry's, however they are named.
func TestAPIServer(t *testing.T) {
	names := map[string]string{"registry.example.com": "127.0.0.1", "kubernetes.example.com": "127.0.0.1", "other.example.com": "127.0.0.2"}
	for name, test := range map[string]struct {
		api     []string
		allow   netip.Prefix
		refused bool
	}{
		"an address":                  {api: []string{"192.0.2.7"}, refused: true},
		"an address as it is in URLs": {api: []string{"https://192.0.2.7:6443/x"}, refused: true},
		"with a port":                 {api: []string{"192.0.2.7:6443"}, refused: true},
		"mapped":                      {api: []string{"", "[::ffff:192.0.2.7]:443"}, refused: true},
		"by name":                     {api: []string{"https://kubernetes.example.com:6443"}, refused: true},
		"another":                     {api: []string{"", "192.0.2.8", "[2001:db8::1]:443", "2001:db8::1", "missing.example.com"}},
	} {
		t.Run(name, func(t *testing.T) {
			names := map[string]string{"registry.example.com": "192.0.2.7", "kubernetes.example.com": "192.0.2.7"}
			client := newNamedClient(t, registry.Options{APIServer: test.api}, names)
			ctx := within(t, 300*time.Millisecond)
			_, err := client.Resolve(ctx, asked(t, "registry.example.com/acme/app:v1", ""))
			if refused := strings.Contains(err.Error(), "--registry-allow-cidrs"); refused != test.refused {
				t.Errorf("refused = %t (%v), want %t", refused, err, test.refused)
			}
		})
	}
	t.Run("allowed", func(t *testing.T) {
		r := registrytest.New(t)
		r.PushImage(t, "acme/app:v1")
		host := at("registry.example.com", r)
		client := newNamedClient(t, registry.Options{
			APIServer: []string{"127.0.0.1"}, AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{host},
		}, names)
		if _, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", "")); err != nil {
			t.Errorf("Resolve: %v", err)
		}
	})
}
