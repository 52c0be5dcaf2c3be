// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// resolving is a client that trusts the authority; to it all these names are loopback.
func resolving(t *testing.T, a *registrytest.Authority, names ...string) *registry.Client {
	t.Helper()
	addresses := map[string]string{}
	for _, name := range names {
		addresses[name] = "127.0.0.1"
	}
	return newNamedClient(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, RootCAs: a.Pool()}, addresses)
}

// A credential is for the host and the path that it is written for, and not for
// what begins, ends or is spelled like them.
func TestLookAlikes(t *testing.T) {
	for name, test := range map[string]struct {
		scope, host, repository string // scope without the port
		shown                   bool
	}{
		"the host itself":            {"registry1.com", "registry1.com", "acme/app", true},
		"the path itself":            {"registry1.com/acme-co", "registry1.com", "acme-co/app", true},
		"the host as a beginning":    {"registry1.com", "registry1.com.evil.io", "acme/app", false},
		"the host as an end":         {"registry1.com", "evil-registry1.com", "acme/app", false},
		"a host below it":            {"registry1.com", "evil.registry1.com", "acme/app", false},
		"the host above it":          {"eu.registry1.com", "registry1.com", "acme/app", false},
		"a cloud's as a beginning":   {"x.azurecr.io", "x.azurecr.io.attacker.com", "acme/app", false},
		"another of the same cloud":  {"x.azurecr.io", "y.azurecr.io", "acme/app", false},
		"the path as a beginning":    {"registry1.com/acme-co", "registry1.com", "acme-co-evil/app", false},
		"the path further down":      {"registry1.com/acme-co", "registry1.com", "evil/acme-co/app", false},
		"the path on another host":   {"registry1.com/acme-co", "registry1.com.evil.io", "acme-co/app", false},
		"the host as another's path": {"registry1.com", "evil.io", "registry1.com/app", false},
	} {
		for scheme, with := range authSchemes {
			t.Run(name+", "+scheme, func(t *testing.T) {
				t.Parallel()
				a := registrytest.NewAuthority(t)
				r := registrytest.New(t, registrytest.WithTLS(a, test.host), with("user", "s3cret"))
				image := r.PushImage(t, test.repository+":v1")
				host, path, _ := strings.Cut(test.scope, "/")
				it := asked(t, at(test.host, r)+"/"+test.repository+":v1", "", secret(strings.TrimSuffix(at(host, r)+"/"+path, "/"), "user", "s3cret"))
				got, err := resolving(t, a, test.host).Resolve(t.Context(), it)
				if test.shown {
					if err != nil || got.Digest != image.Digest {
						t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
					}
					wantShownAt(t, r, test.host)
					return
				}
				wantError(t, err, policy.ReasonUnauthorized, at(test.host, r))
				wantShownAt(t, r)
				if len(r.Requests()) == 0 {
					t.Error("the registry was never asked")
				}
			})
		}
	}
}

// Who redirects a request with a credential, to wherever he likes, and asks for
// the credential there, does not get it.
func TestRedirectsThatAsk(t *testing.T) {
	const own, elsewhere = "registry.example.com", "cdn.example.org"
	whats := map[string]registrytest.Match{
		"tag": registrytest.Method(http.MethodHead), "manifest": registrytest.Manifest("acme/app").And(registrytest.Method(http.MethodGet)),
		"blob": registrytest.Blob("acme/app"),
	}
	for where, base := range map[string]func(tls, plain *registrytest.Registry) string{
		"to another host": func(tls, _ *registrytest.Registry) string { return "https://" + at(elsewhere, tls) },
		"to another port": func(tls, _ *registrytest.Registry) string { return "https://" + at(own, tls) },
		"to plain HTTP":   func(_, plain *registrytest.Registry) string { return "http://" + at(own, plain) },
	} {
		for what, match := range whats {
			for scheme, with := range authSchemes {
				t.Run(what+" "+where+", "+scheme, func(t *testing.T) {
					t.Parallel()
					a := registrytest.NewAuthority(t)
					r := registrytest.New(t, registrytest.WithTLS(a, own), with("user", "s3cret"))
					image := r.PushImage(t, "acme/app:v1")
					r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
					// They would take the credential, and know the same contents.
					others := []*registrytest.Registry{
						registrytest.New(t, registrytest.WithTLS(a, own, elsewhere), with("user", "s3cret")), registrytest.New(t, with("user", "s3cret")),
					}
					r.Fault(match, registrytest.Redirect(base(others[0], others[1])))
					it := asked(t, at(own, r)+"/acme/app:v1", image.Digest, secret(at(own, r), "user", "s3cret"))
					client := resolving(t, a, own, elsewhere)
					var err error
					if what == "tag" {
						_, err = client.Resolve(t.Context(), it)
					} else {
						_, err = gather(client.Signatures(t.Context(), it))
					}
					if err == nil {
						t.Error("no error")
					}
					wantShownAt(t, r, own)
					for _, other := range others {
						wantShownAt(t, other)
					}
					if visited := len(others[0].Requests()) > 0; visited == (where == "to plain HTTP") {
						t.Errorf("the other host was asked: %t", visited)
					}
					if n := len(others[1].Requests()); n != 0 {
						t.Errorf("%d requests over plain HTTP", n)
					}
				})
			}
		}
	}
}

// A token service of the registry's own site may send those who ask it
// elsewhere, but not with what they brought.
func TestRealmsThatRedirect(t *testing.T) {
	const own, elsewhere = "registry.example.com", "auth.example.org"
	for where, base := range map[string]func(tls, plain *registrytest.Registry) string{
		"to another site":         func(tls, _ *registrytest.Registry) string { return "https://" + at(elsewhere, tls) },
		"to plain HTTP":           func(_, plain *registrytest.Registry) string { return "http://" + at(own, plain) },
		"to a refused address":    func(*registrytest.Registry, *registrytest.Registry) string { return "https://169.254.169.254" },
		"to one over plain HTTP":  func(*registrytest.Registry, *registrytest.Registry) string { return "http://169.254.169.254" },
		"to an address of a name": func(tls, _ *registrytest.Registry) string { return "https://127.0.0.1:" + port(tls) },
	} {
		for kind, of := range map[string]func(string) string{
			"password":      func(scope string) string { return secret(scope, "user", "s3cret") },
			"refresh token": func(scope string) string { return identity(scope, "s3cret") },
		} {
			t.Run(where+", "+kind, func(t *testing.T) {
				t.Parallel()
				a := registrytest.NewAuthority(t)
				r := registrytest.New(t, registrytest.WithTLS(a, own), registrytest.WithTokenAuth("user", "s3cret"))
				r.PushImage(t, "acme/app:v1")
				others := []*registrytest.Registry{registrytest.New(t, registrytest.WithTLS(a, own, elsewhere)), registrytest.New(t)}
				r.Fault(path("/token"), registrytest.Redirect(base(others[0], others[1])))
				host := at(own, r)
				_, err := resolving(t, a, own, elsewhere).Resolve(within(t, soon), asked(t, host+"/acme/app:v1", "", of(host)))
				if err == nil {
					t.Fatal("no error")
				}
				wantShownAt(t, r, own)
				for _, other := range others {
					wantShownAt(t, other)
				}
				if strings.Contains(err.Error(), "s3cret") {
					t.Errorf("message = %q, want no password in it", err)
				}
			})
		}
	}
}

func port(r *registrytest.Registry) string {
	_, port, _ := net.SplitHostPort(r.Host())
	return port
}

// trap counts the connections to an address that nobody may dial.
type trap struct {
	host    string
	entered atomic.Int64
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	made := &trap{host: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			made.entered.Add(1)
			_ = conn.Close()
		}
	}()
	return made
}

// Whoever names a refused address, and however: not even a connection is made.
func TestRefusedAddressesAreNotDialled(t *testing.T) {
	for name, order := range map[string]func(r *registrytest.Registry, trap string) (image string){
		"image":             func(_ *registrytest.Registry, trap string) string { return trap },
		"image, by a name":  func(_ *registrytest.Registry, trap string) string { return asNamed("inner.example.com", trap) },
		"image, mapped":     func(_ *registrytest.Registry, trap string) string { return asNamed("[::ffff:7f00:1]", trap) },
		"image, unspecific": func(_ *registrytest.Registry, trap string) string { return asNamed("0.0.0.0", trap) },
		"redirect": func(r *registrytest.Registry, trap string) string {
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("https://"+trap))
			return ""
		},
		"redirect of the login": func(r *registrytest.Registry, trap string) string {
			r.Fault(registrytest.Ping(), registrytest.Redirect("https://"+asNamed("inner.example.com", trap)))
			return ""
		},
		"realm": func(r *registrytest.Registry, trap string) string {
			r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="https://`+asNamed("inner.example.com", trap)+`/token"`))
			return ""
		},
		"redirect of the realm": func(r *registrytest.Registry, trap string) string {
			r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="https://`+r.Host()+`/token"`))
			r.Fault(path("/token"), registrytest.Redirect("https://"+asNamed("inner.example.com", trap)))
			return ""
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, trap := registrytest.NewAuthority(t), newTrap(t)
			r := registrytest.New(t, registrytest.WithTLS(a, "registry.example.com"), registrytest.WithAddress("127.0.0.2:0"))
			image := r.PushImage(t, "acme/app:v1")
			host := at("registry.example.com", r)
			if other := order(r, trap.host); other != "" {
				host = other
			}
			client := newNamedClient(t, registry.Options{RootCAs: a.Pool(), AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}},
				map[string]string{"registry.example.com": "127.0.0.2", "inner.example.com": "127.0.0.1"})
			_, err := client.Resolve(within(t, soon), asked(t, host+"/acme/app:v1", image.Digest))
			wantError(t, err, policy.ReasonUnreachable, "")
			if n := trap.entered.Load(); n != 0 {
				t.Errorf("%d connections", n)
			}
		})
	}
}

// asNamed is another name for the host of an address.
func asNamed(name, address string) string {
	_, port, _ := net.SplitHostPort(address)
	return name + ":" + port
}

// A registry at an IPv6 address is one like others. The proxy leads there.
func TestIPv6(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	const host = "[2001:db8::1]:5000"
	proxy := registrytest.NewProxy(t, map[string]string{host: r.Host()})
	throughProxy(t, proxy, "")
	client := newNamedClient(t, registry.Options{Insecure: []string{host}}, nil)
	for _, written := range []string{host, "[2001:DB8:0::1]:5000"} {
		got, err := client.Resolve(t.Context(), asked(t, written+"/acme/app:v1", ""))
		if err != nil || got.Digest != image.Digest {
			t.Errorf("%s: Resolve = %+v, %v; want %s", written, got, err, image.Digest)
		}
	}
}

// A packed answer is not unpacked wherever it comes from: what is read of it is
// within the bound of what was asked for, and is none of that.
func TestPackedAnswers(t *testing.T) {
	for name, match := range map[string]registrytest.Match{
		"blob": registrytest.Blob("acme/app"), "signatures": registrytest.Method(http.MethodGet).And(registrytest.Manifest("acme/app")),
		"token": path("/token"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want := policy.ReasonUnexpected
			if name == "token" {
				want = policy.ReasonUnreachable // the login came to nothing
			}
			a := registrytest.NewAuthority(t)
			r := registrytest.New(t, registrytest.WithTLS(a, "registry.example.com"), registrytest.WithTokenAuth("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
			r.Fault(match, registrytest.Bomb(64<<20))
			host := at("registry.example.com", r)
			it := asked(t, host+"/acme/app:v1", image.Digest, secret(host, "user", "s3cret"))
			batch, err := gather(resolving(t, a, "registry.example.com").Signatures(within(t, soon), it))
			if len(batch) != 0 {
				t.Errorf("%d signatures, want none", len(batch))
			}
			// Unpacked it would be a bound that was reached.
			wantError(t, err, want, host)
		})
	}
}

// However many wait for one registry, another one is asked as if they did not.
func TestSlowHostSlowsOnlyItself(t *testing.T) {
	t.Parallel()
	slow, other := registrytest.New(t), registrytest.New(t)
	image := other.PushImage(t, "acme/app:v1")
	slow.Fault(registrytest.Method(http.MethodHead), registrytest.WrongDigest(""))
	slow.Fault(registrytest.Any(), registrytest.SlowDrip(time.Second))
	client := newClient(t, slow, other)
	ctx := within(t, 5*time.Minute)
	var hanging, ended atomic.Int64
	for i := range 50 {
		it := askedImage(t, slow.PushImage(t, fmt.Sprintf("acme/app-%d:v1", i)))
		go func() {
			hanging.Add(1)
			_, _ = client.Resolve(ctx, it) // it is over when the test is
			ended.Add(1)
		}()
	}
	dripping := func() (n int) {
		for _, request := range slow.Requests() {
			if request.Method == http.MethodGet && request.Path != "/v2/" {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(soon); dripping() < 16; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of them ask", dripping())
		}
	}
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if got, err := client.Resolve(within(t, soon), askedImage(t, image)); err != nil || got.Digest != image.Digest {
				t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
			}
		})
	}
	group.Wait()
	if n := ended.Load(); n != 0 {
		t.Errorf("%d of those that wait were answered before", n)
	}
	if n := dripping(); n > 32 {
		t.Errorf("%d requests are under way at one host, want at most 32", n)
	}
}

// When a name resolves again its registry is asked again, without a restart.
func TestNamesComeBack(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	host := at("registry.example.com", r)
	client := newNamedClient(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{host}},
		map[string]string{"registry.example.com": "none 127.0.0.1"})
	_, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", ""))
	wantError(t, err, policy.ReasonUnreachable, host)
	if !strings.Contains(err.Error(), "does not resolve") {
		t.Errorf("message = %q, want what is wrong", err)
	}
	if got, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", "")); err != nil || got.Digest != image.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
	}
}
