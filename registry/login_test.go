// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// at is a name with a registry's port.
func at(name string, r *registrytest.Registry) string {
	_, port, _ := net.SplitHostPort(r.Host())
	return name + ":" + port
}

// on matches the requests that were sent to a name.
func on(name string) registrytest.Match {
	return func(request *http.Request) bool { return strings.HasPrefix(request.Host, name+":") }
}

// namedClient is a client to which all these names are loopback, and are asked
// over plain HTTP.
func namedClient(t *testing.T, r *registrytest.Registry, names ...string) *registry.Client {
	t.Helper()
	o := registry.Options{AllowCIDRs: []netip.Prefix{loopback}}
	addresses := map[string]string{}
	for _, name := range names {
		o.Insecure = append(o.Insecure, at(name, r))
		addresses[name] = "127.0.0.1"
	}
	return newNamedClient(t, o, addresses)
}

// identity is a dockerconfigjson with one refresh token.
func identity(scope, token string) string {
	return `{"auths":{"` + scope + `":{"identitytoken":"` + token + `"}}}`
}

// shownAt lists the hosts that saw a credential, without ports.
func shownAt(r *registrytest.Registry) []string {
	var hosts []string
	for _, request := range r.Requests() {
		if request.Authorization != "" || request.Cookie != "" || request.Body != "" {
			host, _, _ := net.SplitHostPort(request.Host)
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

func wantShownAt(t *testing.T, r *registrytest.Registry, want ...string) {
	t.Helper()
	got := shownAt(r)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("credentials were shown at %v, want %v", got, want)
	}
}

// C27: passwords and refresh tokens go to token services of the registry's own
// site and to no others.
func TestRealms(t *testing.T) {
	for name, test := range map[string]struct {
		registry, realm string
		shown           bool
	}{
		"the registry itself":       {"registry.example.com", "registry.example.com", true},
		"the same site":             {"registry.example.com", "auth.example.com", true},
		"another site":              {"registry.example.com", "auth.example.org", false},
		"the name as a beginning":   {"registry.example.com", "registry.example.com.evil.org", false},
		"beside in a suffix":        {"registry.acme.co.uk", "auth.evil.co.uk", false},
		"beside in a private one":   {"acme.github.io", "evil.github.io", false},
		"beside in an unlisted":     {"registry.corp", "auth.corp", false},
		"the metadata service":      {"registry.example.com", "169.254.169.254", false},
		"an address":                {"registry.example.com", "127.0.0.1", false},
		"a cloud's, as a beginning": {"x.azurecr.io", "x.azurecr.io.attacker.com", false},
	} {
		for kind, of := range map[string]func(string) string{
			"password":      func(scope string) string { return secret(scope, "user", "s3cret") },
			"refresh token": func(scope string) string { return identity(scope, "s3cret") },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
				r.PushImage(t, "acme/app:v1")
				r.Fault(registrytest.Ping(), registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, at(test.realm, r))))
				host := at(test.registry, r)
				client := namedClient(t, r, test.registry, test.realm)
				_, err := client.Resolve(t.Context(), shown(t, host+"/acme/app:v1", "", of(host)))
				if !test.shown {
					wantShownAt(t, r)
					if err == nil {
						t.Fatal("no error")
					}
					if !strings.Contains(err.Error(), host) {
						t.Errorf("error = %v, want %s in it", err, host)
					}
					if _, err := netip.ParseAddr(test.realm); err != nil {
						wantSiteError(t, r, test.registry, test.realm, client, of(host))
					}
					return
				}
				want := []string{test.realm}
				if kind == "password" {
					if err != nil {
						t.Errorf("Resolve: %v", err)
					}
					if test.realm != test.registry {
						want = append(want, test.registry) // the token
					}
				}
				wantShownAt(t, r, want...)
			})
		}
	}
}

func wantSiteError(t *testing.T, r *registrytest.Registry, own, other string, client *registry.Client, secret string) {
	t.Helper()
	_, err := client.Resolve(t.Context(), shown(t, at(own, r)+"/acme/app:v1", "", secret))
	wantError(t, err, policy.ReasonUnauthorized, at(own, r))
	for _, part := range []string{at(other, r), "another site", "realms"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("message = %q, want %q in it", err, part)
		}
	}
}

// A token service elsewhere may be asked for what it gives to everybody: many
// registries hand out another one's images. It gets no secret, and the guard
// holds for it.
func TestAnonymousRealmOnAnotherSite(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Ping(), registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, at("auth.example.org", r))))
	r.Fault(path("/token"), registrytest.Body("application/json", `{"token":"for-all"}`))
	host := at("registry.example.com", r)
	client := namedClient(t, r, "registry.example.com", "auth.example.org")
	got, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", ""))
	if err != nil || got.Digest != image.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
	}
	wantShownAt(t, r, "registry.example.com")

	r.Reset()
	o := registry.Options{Insecure: []string{host, at("auth.example.org", r)}, AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	guarded := newNamedClient(t, o, map[string]string{"registry.example.com": "127.0.0.1", "auth.example.org": "127.0.0.2"})
	_, err = guarded.Resolve(t.Context(), asked(t, host+"/acme/app:v1", ""))
	wantError(t, err, policy.ReasonUnreachable, "127.0.0.2")
}

// C27, C28: whoever redirects does not take credentials along.
func TestRedirectsTakeNoCredentialsAlong(t *testing.T) {
	const own, other = "registry.example.com", "cdn.example.org"
	challenged := func(r *registrytest.Registry) registrytest.Behaviour {
		return registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, at(other, r)))
	}
	toOther := func(r *registrytest.Registry) registrytest.Behaviour {
		return registrytest.Redirect("http://" + at(other, r))
	}
	for name, test := range map[string]struct {
		secret string // of own; a password if it is empty
		order  func(*registrytest.Registry)
		err    policy.Reason
		shown  []string
	}{
		"of a manifest": {
			order: func(r *registrytest.Registry) {
				r.Fault(on(other), registrytest.Body("application/json", "{}"))
				r.Fault(registrytest.Manifest("acme/app"), toOther(r))
			},
			shown: []string{own},
		},
		"of a manifest, and a challenge there": {
			order: func(r *registrytest.Registry) {
				r.Fault(on(other).And(path("/token")), registrytest.Body("application/json", `{"token":"theirs"}`))
				r.Fault(on(other), challenged(r))
				r.Fault(registrytest.Manifest("acme/app"), toOther(r))
			},
			err: policy.ReasonUnauthorized, shown: []string{own},
		},
		"of the token request": {
			order: func(r *registrytest.Registry) { r.Fault(on(own).And(path("/token")), toOther(r)) },
			err:   policy.ReasonUnauthorized, shown: []string{own},
		},
		"of the request with the refresh token": {
			secret: "refresh",
			order:  func(r *registrytest.Registry) { r.Fault(on(own).And(path("/token")), toOther(r)) },
			err:    policy.ReasonUnauthorized, shown: []string{own},
		},
		"of the ping": {
			order: func(r *registrytest.Registry) {
				r.Fault(on(own).And(registrytest.Ping()), toOther(r))
			},
			err: policy.ReasonUnauthorized,
		},
		"to an address with a user": {
			order: func(r *registrytest.Registry) {
				r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://user:s3cret@"+at(other, r)))
			},
			err: policy.ReasonUnauthorized, shown: []string{own},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
			r.PushImage(t, "acme/app:v1")
			test.order(r)
			host := at(own, r)
			credential := secret(host, "user", "s3cret")
			if test.secret != "" {
				credential = identity(host, test.secret)
			}
			_, err := namedClient(t, r, own, other).Resolve(t.Context(), shown(t, host+"/acme/app:v1", "", credential))
			if test.err != "" {
				wantError(t, err, test.err, host)
			} else if err != nil {
				t.Errorf("Resolve: %v", err)
			}
			wantShownAt(t, r, test.shown...)
		})
	}
}

// A registry that leads on to another one, which wants a token that everybody
// gets.
func TestRedirectToAnotherRegistryAnonymously(t *testing.T) {
	const own, other = "registry.example.com", "registry.example.org"
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(path("/token"), registrytest.Body("application/json", `{"token":"for-all"}`))
	realm := func(host string) registrytest.Behaviour {
		return registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, at(host, r)))
	}
	bearing := registrytest.Match(func(request *http.Request) bool { return request.Header.Get("Authorization") != "" })
	r.Fault(registrytest.Ping(), realm(own))
	r.Fault(on(own).And(bearing), registrytest.Redirect("http://"+at(other, r)))
	r.Fault(on(other).And(bearing.Or(path("/token")).Not()), realm(other))
	got, err := namedClient(t, r, own, other).Resolve(t.Context(), asked(t, at(own, r)+"/acme/app:v1", ""))
	if err != nil || got.Digest != image.Digest {
		t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
	}
}

// Blobs lie on other hosts, which need no credentials and get none.
func TestBlobsElsewhere(t *testing.T) {
	const own, cdn = "registry.example.com", "cdn.example.org"
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	anonymous := func(request *http.Request) bool { return request.Header.Get("Authorization") == "" }
	r.Fault(on(own).And(anonymous), registrytest.Challenge(`Basic realm="registry"`))
	r.Fault(on(own).And(registrytest.Blob("acme/app")), registrytest.Redirect("http://"+at(cdn, r)))
	host := at(own, r)
	client := namedClient(t, r, own, cdn)
	batch, err := gather(client.Signatures(t.Context(), shown(t, host+"/acme/app:v1", image.Digest, secret(host, "user", "s3cret"))))
	if err != nil || len(batch) != 1 {
		t.Errorf("Signatures = %d, %v; want 1", len(batch), err)
	}
	wantShownAt(t, r, own)
}

// What began over HTTPS stays there, also where the admin allows plain HTTP
// for the host that it leads to.
func TestNoDowngrade(t *testing.T) {
	for name, order := range map[string]func(r *registrytest.Registry, plain string){
		"redirect to http": func(r *registrytest.Registry, plain string) {
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+plain))
		},
		"redirect to https that would become http": func(r *registrytest.Registry, plain string) {
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("https://"+plain))
		},
		"redirect of the ping": func(r *registrytest.Registry, plain string) {
			r.Fault(registrytest.Ping(), registrytest.Redirect("http://"+plain))
		},
		"realm that would become http": func(r *registrytest.Registry, plain string) {
			r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="https://`+plain+`/token"`))
		},
		"realm over http": func(r *registrytest.Registry, plain string) {
			r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="http://`+plain+`/token"`))
		},
	} {
		for who, secrets := range map[string]func(string) []string{
			"anonymous":         func(string) []string { return nil },
			"with a credential": func(host string) []string { return []string{secret(host, "user", "s3cret")} },
		} {
			t.Run(name+" "+who, func(t *testing.T) {
				plain := registrytest.New(t)
				plain.PushImage(t, "acme/app:v1")
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				order(r, at("auth.example.com", plain))
				server, address := overTLS(t, r)
				roots := x509.NewCertPool()
				roots.AddCert(server.Certificate())
				_, port, _ := net.SplitHostPort(address)
				host := "example.com:" + port
				client := newNamedClient(t, registry.Options{
					AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{at("auth.example.com", plain)}, RootCAs: roots,
				}, map[string]string{"example.com": "127.0.0.1", "auth.example.com": "127.0.0.1"})
				_, err := client.Resolve(t.Context(), asked(t, host+"/acme/app:v1", image.Digest, secrets(host)...))
				wantError(t, err, policy.ReasonUnreachable, host)
				if n := len(plain.Requests()); n != 0 {
					t.Errorf("%d requests arrived, want none: %v", n, lines(plain.Requests()))
				}
			})
		}
	}
}

// Pings and token requests are redirected as often as everything else.
func TestRedirectLimitOfLogins(t *testing.T) {
	for what, match := range map[string]registrytest.Match{"ping": registrytest.Ping(), "token": path("/token")} {
		for hops, followed := range map[int]bool{5: true, 6: false, 1000: false} {
			t.Run(fmt.Sprintf("%s %d", what, hops), func(t *testing.T) {
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				r.Fault(registrytest.First(hops, match), registrytest.Redirect("http://"+r.Host()))
				r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="http://`+r.Host()+`/token"`))
				r.Fault(path("/token"), registrytest.Body("application/json", `{"token":"for-all"}`))
				_, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
				if followed {
					if err != nil {
						t.Errorf("Resolve: %v", err)
					}
					return
				}
				wantError(t, err, policy.ReasonLimit, r.Host())
				asked := 0
				for _, request := range r.Requests() {
					if match(&http.Request{URL: mustParse(t, request.Path)}) {
						asked++
					}
				}
				if asked != 6 {
					t.Errorf("%d requests, want 6: %v", asked, lines(r.Requests()))
				}
			})
		}
	}
}

// A token is used until it expires, and then one request gets another for all.
func TestTokenIsRefreshedOnce(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	client, it := newClient(t, r), shownImage(t, image, secret(r.Host(), "user", "s3cret"))
	ask := func(n int) {
		t.Helper()
		var group sync.WaitGroup
		for range n {
			group.Go(func() {
				if got, err := client.Resolve(t.Context(), it); err != nil || got.Digest != image.Digest {
					t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
				}
			})
		}
		group.Wait()
	}
	tokens := func() (n int) {
		for _, request := range r.Requests() {
			if request.Path == "/token" {
				n++
			}
		}
		return n
	}
	ask(1)
	ask(16)
	if n := tokens(); n != 1 {
		t.Errorf("%d token requests before it expired, want 1", n)
	}
	r.ExpireTokens()
	r.Reset()
	// Some hear of it only when the others have a new one already.
	var heads atomic.Int64
	later := func(request *http.Request) bool { return request.Method == http.MethodHead && heads.Add(1)%2 == 0 }
	remove := r.Fault(later, registrytest.Delay(100*time.Millisecond))
	ask(16)
	remove()
	ask(1)
	if n := tokens(); n != 1 {
		t.Errorf("%d token requests after it expired, want 1: %v", n, lines(r.Requests()))
	}
	for _, request := range r.Requests() {
		if request.Path == "/v2/" {
			t.Errorf("logged in anew: %v", lines(r.Requests()))
		}
	}
}

// A registry that accepts no token is not asked for one without end.
func TestTokenThatNeverHelps(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Manifest("acme/app"), registrytest.Challenge(`Bearer realm="http://`+r.Host()+`/token",scope="repository:acme/app:pull"`))
	_, err := newClient(t, r).Resolve(t.Context(), shownImage(t, image, secret(r.Host(), "user", "s3cret")))
	wantError(t, err, policy.ReasonUnauthorized, r.Host())
	if n := len(r.Requests()); n != 5 {
		t.Errorf("%d requests, want the ping, two tokens and two tries: %v", n, lines(r.Requests()))
	}
}

func mustParse(t *testing.T, address string) *url.URL {
	t.Helper()
	parsed, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
