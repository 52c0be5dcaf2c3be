// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// trusting is a transport with one more authority.
func trusting(authority *registrytest.Authority) *policy.Transport {
	return hashed(policy.Transport{Authorities: authority.PEM()})
}

// showing is a transport with one more authority and a client's certificate.
func showing(t *testing.T, authority *registrytest.Authority, pair registrytest.Pair) *policy.Transport {
	t.Helper()
	certificate := pair.TLS(t)
	return hashed(policy.Transport{Authorities: authority.PEM(), Certificate: &certificate})
}

// over is an image that is asked for on a way.
func over(transport *policy.Transport, image policy.Image) policy.Image {
	image.Transport = transport
	return image
}

func wantResolved(t *testing.T, client *registry.Client, image policy.Image, digest string) {
	t.Helper()
	if got, err := client.Resolve(t.Context(), image); err != nil || got.Digest != digest {
		t.Errorf("Resolve = %+v, %v; want %s", got, err, digest)
	}
}

// wantUnreachable also holds that nothing was asked.
func wantUnreachable(t *testing.T, client *registry.Client, image policy.Image, r *registrytest.Registry, says string) {
	t.Helper()
	r.Reset()
	_, err := client.Resolve(t.Context(), image)
	wantError(t, err, policy.ReasonUnreachable, image.Reference.Host())
	if err != nil && !strings.Contains(err.Error(), says) {
		t.Errorf("message = %q, want %q in it", err, says)
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests arrived, want none: %v", n, lines(r.Requests()))
	}
}

// shownBy lists whose certificates came with the requests to a name, "" for none.
func shownBy(r *registrytest.Registry, name string) map[string]int {
	shown := map[string]int{}
	for _, request := range r.Requests() {
		if host, _, _ := net.SplitHostPort(request.Host); host == name {
			shown[request.Certificate]++
		}
	}
	return shown
}

// An authority of an image's own is one more: the server's is still trusted, and
// images without it do not trust it.
func TestAuthoritiesAreAdded(t *testing.T) {
	t.Parallel()
	servers, extra := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	known := registrytest.New(t, registrytest.WithTLS(servers))
	other := registrytest.New(t, registrytest.WithTLS(extra))
	one, two := known.PushImage(t, "acme/app:v1"), other.PushImage(t, "acme/app:v1")
	const unknown = "authority that is not trusted"
	for name, roots := range map[string]*x509.CertPool{"the server's": servers.Pool(), "the system's": nil} {
		t.Run(name, func(t *testing.T) {
			client := newClientWith(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, RootCAs: roots})
			wantUnreachable(t, client, askedImage(t, two), other, unknown)
			wantResolved(t, client, over(trusting(extra), askedImage(t, two)), two.Digest)
			wantUnreachable(t, client, askedImage(t, two), other, unknown)
			if roots == nil {
				wantUnreachable(t, client, over(trusting(extra), askedImage(t, one)), known, unknown)
				return
			}
			wantResolved(t, client, over(trusting(extra), askedImage(t, one)), one.Digest)
			wantResolved(t, client, askedImage(t, one), one.Digest)
		})
	}
}

func TestClientCertificate(t *testing.T) {
	t.Parallel()
	authority, stranger := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	for scheme, options := range map[string][]registrytest.Option{
		"alone": nil, "and basic": {registrytest.WithBasicAuth("user", "s3cret")}, "and token": {registrytest.WithTokenAuth("user", "s3cret")},
	} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, append(options, registrytest.WithTLS(authority), registrytest.WithClientCertificates(authority))...)
			image := r.PushImage(t, "acme/app:v1")
			client, it := newClient(t), askedImage(t, image, secret(r.Host(), "user", "s3cret"))
			wantUnreachable(t, client, over(trusting(authority), it), r, "")
			wantUnreachable(t, client, over(showing(t, authority, stranger.Client("stranger")), it), r, "")
			wantUnreachable(t, client, over(showing(t, authority, authority.ClientUntil("old", time.Now().Add(-time.Hour))), it), r, "")
			wantResolved(t, client, over(showing(t, authority, authority.Client("pratique")), it), image.Digest)
			if got := shownBy(r, "127.0.0.1"); got["pratique"] == 0 || len(got) != 1 {
				t.Errorf("certificates %v, want pratique's with every request", got)
			}
		})
	}
}

// The certificate goes where credentials go, and nowhere else: a registry cannot
// have it shown to somebody by leading there.
func TestClientCertificateStaysAtItsSite(t *testing.T) {
	t.Parallel()
	const own = "registry.example.com"
	authority := registrytest.NewAuthority(t)
	for name, test := range map[string]struct {
		other  string
		order  func(r *registrytest.Registry, other string)
		realms []string
		shown  bool
	}{
		"redirected to another site": {other: "cdn.example.org", order: redirected},
		"redirected on its site":     {other: "cdn.example.com", order: redirected, shown: true},
		"token service elsewhere":    {other: "auth.example.org", order: challenged},
		"token service on its site":  {other: "auth.example.com", order: challenged, shown: true},
		"token service of its rule":  {other: "auth.example.org", order: challenged, realms: []string{"auth.example.org"}, shown: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, registrytest.WithTLS(authority, own, test.other))
			image := r.PushImage(t, "acme/app:v1")
			test.order(r, at(test.other, r))
			client := newNamedClient(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}},
				map[string]string{own: "127.0.0.1", test.other: "127.0.0.1"})
			it := over(showing(t, authority, authority.Client("pratique")), asked(t, at(own, r)+"/acme/app:v1", ""))
			var realms []string
			for _, realm := range test.realms {
				realms = append(realms, at(realm, r))
			}
			it.Authentication = &policy.Authentication{Realms: realms}
			wantResolved(t, client, it, image.Digest)
			if got := shownBy(r, own); got["pratique"] == 0 || len(got) != 1 {
				t.Errorf("the registry saw certificates %v, want pratique's with every request", got)
			}
			want := map[bool]string{true: "pratique", false: ""}[test.shown]
			if got := shownBy(r, test.other); got[want] == 0 || len(got) != 1 {
				t.Errorf("%s saw certificates %v, want %q with every request", test.other, got, want)
			}
		})
	}
}

func redirected(r *registrytest.Registry, other string) {
	name, _, _ := net.SplitHostPort(other)
	r.Fault(registrytest.Manifest("acme/app").And(on(name).Not()), registrytest.Redirect("https://"+other))
}

func challenged(r *registrytest.Registry, other string) {
	r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="https://`+other+`/token",service="x"`))
	r.Fault(path("/token"), registrytest.Body("application/json", `{"token":"for-all"}`))
}

// What an ImageConfig says now is in force with the next request, and nothing
// that was connected under what it said before serves it.
func TestRotation(t *testing.T) {
	t.Parallel()
	before, after := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	r := registrytest.New(t, registrytest.WithTLS(before))
	image := r.PushImage(t, "acme/app:v1")
	client, it := newClient(t), askedImage(t, image)
	wantResolved(t, client, over(trusting(before), it), image.Digest)
	wantUnreachable(t, client, over(trusting(after), it), r, "authority that is not trusted")
	wantResolved(t, client, over(trusting(before), it), image.Digest)

	for _, name := range []string{"first", "second"} {
		r.Reset()
		wantResolved(t, client, over(showing(t, before, before.Client(name)), it), image.Digest)
		if got := shownBy(r, "127.0.0.1"); got[name] == 0 || len(got) != 1 {
			t.Errorf("certificates %v, want that of %s with every request", got, name)
		}
	}
}

// A certificate that is named is not forgotten about because the server's
// options say plain HTTP.
func TestTransportWinsOverInsecure(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	r := registrytest.New(t, registrytest.WithTLS(authority))
	image := r.PushImage(t, "acme/app:v1")
	client := newClient(t, r)
	wantResolved(t, client, over(trusting(authority), askedImage(t, image)), image.Digest)
	plain := registrytest.New(t)
	wantUnreachable(t, newClient(t, plain), over(trusting(authority), asked(t, plain.Host()+"/acme/app:v1", "")), plain, "plain HTTP")
}

// A rule that cannot be read as it is meant asks nobody.
func TestUnusableTransport(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	client := newClient(t, r)
	for name, transport := range map[string]*policy.Transport{
		"as compiled":       hashed(policy.Transport{Unusable: `secret "acme-tls" does not exist`}),
		"authorities":       hashed(policy.Transport{Authorities: []byte("-----BEGIN CERTIFICATE-----\n" + canary)}),
		"beside plain HTTP": hashed(policy.Transport{Unusable: "contradiction", PlainHTTP: true}),
	} {
		it := over(transport, askedImage(t, image))
		_, resolving := client.Resolve(t.Context(), it)
		_, identifying := client.Identify(t.Context(), it)
		_, rechecking := gather(client.Recheck(t.Context(), it, false))
		for _, err := range []error{resolving, identifying, rechecking} {
			if err == nil {
				t.Errorf("%s: no error", name)
				continue
			}
			wantError(t, err, policy.ReasonNotReady, r.Host())
			if !strings.Contains(err.Error(), transport.Unusable) {
				t.Errorf("message = %q, want %q in it", err, transport.Unusable)
			}
		}
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests arrived, want none: %v", n, lines(r.Requests()))
	}
}

// What an image's rule says is between us and its registry: a proxy that speaks
// TLS is shown no certificate of the rule's, nor trusted by it.
func TestProxyIsNotPartOfTheWay(t *testing.T) {
	servers, extra := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	r := registrytest.New(t, registrytest.WithTLS(extra, "registry.example.com"))
	image := r.PushImage(t, "acme/app:v1")
	host := at("registry.example.com", r)
	proxy := registrytest.NewProxy(t, map[string]string{host: r.Host()})
	for name, authority := range map[string]*registrytest.Authority{"the server's": servers, "the rule's": extra} {
		t.Run(name, func(t *testing.T) {
			r.Reset()
			front, shown := overTLSAlone(t, authority, proxy.Host())
			throughProxy(t, proxy, "")
			t.Setenv("HTTPS_PROXY", "https://"+front)
			client := newNamedClient(t, registry.Options{RootCAs: servers.Pool()}, nil)
			it := over(showing(t, extra, extra.Client("pratique")), asked(t, host+"/acme/app:v1", ""))
			if authority == extra {
				wantUnreachable(t, client, it, r, "")
				return
			}
			wantResolved(t, client, it, image.Digest)
			if got := <-shown; got != 0 {
				t.Errorf("the proxy was shown %d certificates, want none", got)
			}
			if got := shownBy(r, "registry.example.com"); got["pratique"] == 0 || len(got) != 1 {
				t.Errorf("the registry saw certificates %v, want pratique's with every request", got)
			}
		})
	}
}

// overTLSAlone puts TLS before an address, and tells how many certificates its
// first client has shown.
func overTLSAlone(t *testing.T, authority *registrytest.Authority, address string) (front string, shown <-chan int) {
	t.Helper()
	certificates := make(chan int, 1)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{authority.Server().TLS(t)}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go pass(t, conn.(*tls.Conn), address, certificates)
		}
	}()
	return listener.Addr().String(), certificates
}

// pass hands on what comes in to an address, and back.
func pass(t *testing.T, conn *tls.Conn, address string, certificates chan<- int) {
	defer conn.Close()
	if conn.HandshakeContext(t.Context()) != nil {
		return // who does not trust it is meant
	}
	select {
	case certificates <- len(conn.ConnectionState().PeerCertificates):
	default:
	}
	onward, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return
	}
	defer onward.Close()
	done := make(chan struct{}, 2)
	for to, from := range map[net.Conn]net.Conn{onward: conn, conn: onward} {
		go func() {
			_, _ = io.Copy(to, from) // whoever ends first ends both
			done <- struct{}{}
		}()
	}
	<-done
}
