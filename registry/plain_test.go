// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Plain HTTP is readable on the way. A host that the admin has asked over it is
// read as everybody may; what needs a credential says how to allow that.
func TestNoCredentialsOverPlainHTTP(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		options []registrytest.Option
		order   func(r *registrytest.Registry)
		refused policy.Reason
	}{
		"demanding nothing": {},
		"demanding basic":   {options: []registrytest.Option{registrytest.WithBasicAuth("user", "s3cret")}, refused: policy.ReasonUnauthorized},
		"demanding a token": {options: []registrytest.Option{registrytest.WithTokenAuth("user", "s3cret")}, refused: policy.ReasonUnauthorized},
		"a token for everybody": {order: func(r *registrytest.Registry) {
			r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="http://`+r.Host()+`/token",service="x"`))
			r.Fault(path("/token"), registrytest.Body("application/json", `{"token":"for-all"}`))
		}},
		"hiding": {order: func(r *registrytest.Registry) {
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Status(404))
		}, refused: policy.ReasonNotFound},
	} {
		for kind, of := range map[string]func(string) string{
			"password":      func(scope string) string { return secret(scope, "user", "s3cret") },
			"refresh token": func(scope string) string { return identity(scope, "s3cret") },
			"bearer token":  func(scope string) string { return `{"auths":{"` + scope + `":{"registrytoken":"s3cret"}}}` },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t, test.options...)
				image := r.PushImage(t, "acme/app:v1")
				if test.order != nil {
					test.order(r)
				}
				got, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image, of(r.Host())))
				if test.refused == "" {
					if err != nil || got.Digest != image.Digest {
						t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
					}
				} else {
					wantError(t, err, test.refused, r.Host())
					if !strings.Contains(err.Error(), "insecurePlainHTTP in an ImageConfig will allow it") {
						t.Errorf("message = %q, want what will allow it", err)
					}
				}
				if len(r.Requests()) == 0 {
					t.Error("nobody was asked")
				}
				for _, request := range r.Requests() {
					if authorization := request.Authorization; authorization != "" && authorization != "Bearer for-all" || request.Body != "" {
						t.Errorf("%s came with credentials: %q %q", request, authorization, request.Body)
					}
				}
			})
		}
	}
}

// insecurePlainHTTP is what allows it, for the image's own registry and whoever
// the admin has asked over plain HTTP on its site.
func TestInsecurePlainHTTP(t *testing.T) {
	t.Parallel()
	const own = "registry.example.com"
	for name, test := range map[string]struct {
		insecure []string // besides the registry, which is not in --insecure-registries
		order    func(r *registrytest.Registry)
		realms   []string
		says     string // empty: it works
		shown    []string
	}{
		"the registry": {order: func(r *registrytest.Registry) {}, shown: []string{own}},
		"a token service beside it": {
			order: tokenFrom("auth.example.com"), says: "--insecure-registries",
		},
		"a token service beside it that the admin lists": {
			insecure: []string{"auth.example.com"}, order: tokenFrom("auth.example.com"), shown: []string{own, "auth.example.com"},
		},
		"a token service of the rule": {
			order: tokenFrom("auth.example.org"), realms: []string{"auth.example.org"}, says: "--insecure-registries",
		},
		"a token service of the rule that the admin lists": {
			insecure: []string{"auth.example.org"}, realms: []string{"auth.example.org"}, order: tokenFrom("auth.example.org"),
			says: "over plain HTTP: not done",
		},
		"a token service elsewhere that the admin lists": {
			insecure: []string{"auth.example.org"}, order: tokenFrom("auth.example.org"), says: "another site",
		},
		"another port": {
			order: func(r *registrytest.Registry) {
				r.Fault(registrytest.Ping(), registrytest.Challenge(`Bearer realm="http://`+own+`:1/token"`))
			},
			says: own + ":1 would be asked over plain HTTP",
		},
		"redirected to another port": {
			order: func(r *registrytest.Registry) {
				r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+own+":1"))
			},
			says: own + ":1 would be asked over plain HTTP", shown: []string{own},
		},
		"redirected elsewhere": {
			order: func(r *registrytest.Registry) {
				r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+at("cdn.example.org", r)))
			},
			says: "would be asked over plain HTTP", shown: []string{own},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			test.order(r)
			o := registry.Options{AllowCIDRs: []netip.Prefix{loopback}}
			for _, name := range test.insecure {
				o.Insecure = append(o.Insecure, at(name, r))
			}
			client := newNamedClient(t, o, map[string]string{
				own: "127.0.0.1", "auth.example.com": "127.0.0.1", "auth.example.org": "127.0.0.1", "cdn.example.org": "127.0.0.1",
			})
			it := shown(t, at(own, r)+"/acme/app:v1", "", secret(at(own, r), "user", "s3cret"))
			it.Authentication = &policy.Authentication{}
			for _, realm := range test.realms {
				it.Authentication.Realms = append(it.Authentication.Realms, at(realm, r))
			}
			got, err := client.Resolve(t.Context(), it)
			switch {
			case test.says == "" && (err != nil || got.Digest != image.Digest):
				t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
			case test.says != "" && (err == nil || !strings.Contains(err.Error(), test.says)):
				t.Errorf("Resolve = %+v, %v; want %q in an error", got, err, test.says)
			}
			wantShownAt(t, r, test.shown...)
		})
	}
}

func tokenFrom(name string) func(*registrytest.Registry) {
	return func(r *registrytest.Registry) {
		r.Fault(registrytest.Ping(), registrytest.Challenge(fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, at(name, r))))
	}
}

// Another registry's insecurePlainHTTP says nothing of this one.
func TestInsecurePlainHTTPOfAnother(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	client := newClient(t)
	wantResolved(t, client, over(inClear(), askedImage(t, image)), image.Digest)
	wantUnreachable(t, client, askedImage(t, image), r, "--insecure-registries, or insecurePlainHTTP")
}

// C27: a token service on another site has to be in the rule's list, by its host
// and port, and over HTTPS. Then it gets what one on the registry's site does.
func TestRealmsOfRule(t *testing.T) {
	t.Parallel()
	const own, other = "registry.example.com", "login.example.org"
	authority := registrytest.NewAuthority(t)
	for name, test := range map[string]struct {
		realms func(port string) []string
		shown  bool
	}{
		"none":             {realms: func(string) []string { return nil }},
		"listed":           {realms: func(port string) []string { return []string{"a.example.net", other + ":" + port} }, shown: true},
		"without the port": {realms: func(string) []string { return []string{other} }},
		"another port":     {realms: func(string) []string { return []string{other + ":1"} }},
		"beside it":        {realms: func(port string) []string { return []string{"example.org:" + port, "a." + other + ":" + port} }},
	} {
		for kind, of := range map[string]func(string) string{
			"password":      func(scope string) string { return secret(scope, "user", "s3cret") },
			"refresh token": func(scope string) string { return identity(scope, "s3cret") },
		} {
			t.Run(name+", "+kind, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t, registrytest.WithTLS(authority, own, other))
				image := r.PushImage(t, "acme/app:v1")
				challenged(r, at(other, r))
				client := newNamedClient(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, RootCAs: authority.Pool()},
					map[string]string{own: "127.0.0.1", other: "127.0.0.1"})
				it := asked(t, at(own, r)+"/acme/app:v1", "", of(at(own, r)))
				_, port, _ := net.SplitHostPort(r.Host())
				it.Authentication = &policy.Authentication{Realms: test.realms(port)}
				if test.shown {
					wantResolved(t, client, it, image.Digest)
					wantShownAt(t, r, own, other)
					return
				}
				_, err := client.Resolve(t.Context(), it)
				wantError(t, err, policy.ReasonUnauthorized, at(own, r))
				if !strings.Contains(err.Error(), "realms") {
					t.Errorf("message = %q, want what will allow it", err)
				}
				wantShownAt(t, r)
			})
		}
	}
}

// Who is asked on another way, or may be sent elsewhere, shares nothing with
// others, whatever the credentials.
func TestIdentityOfTerms(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	client := newClient(t)
	for _, secrets := range [][]string{nil, {secret("registry.example.com", "user", "s3cret")}} {
		seen := map[string]string{}
		for name, change := range map[string]func(*policy.Image){
			"nothing":             func(*policy.Image) {},
			"plain HTTP":          func(i *policy.Image) { i.Transport = inClear() },
			"an authority":        func(i *policy.Image) { i.Transport = trusting(authority) },
			"another authority":   func(i *policy.Image) { i.Transport = trusting(registrytest.NewAuthority(t)) },
			"a certificate":       func(i *policy.Image) { i.Transport = showing(t, authority, authority.Client("a")) },
			"another certificate": func(i *policy.Image) { i.Transport = showing(t, authority, authority.Client("a")) },
			"a realm":             func(i *policy.Image) { i.Authentication = &policy.Authentication{Realms: []string{"a.example.org"}} },
			"another realm":       func(i *policy.Image) { i.Authentication = &policy.Authentication{Realms: []string{"b.example.org"}} },
			"plain HTTP and realm": func(i *policy.Image) {
				i.Transport, i.Authentication = inClear(), &policy.Authentication{Realms: []string{"a.example.org"}}
			},
		} {
			it := asked(t, "registry.example.com/acme/app:v1", "", secrets...)
			change(&it)
			got, err := client.Identify(t.Context(), it)
			if err != nil {
				t.Fatal(err)
			}
			if other, taken := seen[string(got)]; taken {
				t.Errorf("%s and %s have one identity", name, other)
			}
			seen[string(got)] = name
			if name == "nothing" && len(secrets) == 0 && got != "anonymous" {
				t.Errorf("identity = %q, want anonymous", got)
			}
		}
	}
	one, two := asked(t, "registry.example.com/acme/app:v1", ""), asked(t, "registry.example.com/acme/app:v1", "")
	one.Authentication = &policy.Authentication{Realms: []string{"a.example.org", "b.example.org"}}
	two.Authentication = &policy.Authentication{Realms: []string{"b.example.org", "a.example.org", "b.example.org"}}
	first, _ := client.Identify(t.Context(), one)
	second, _ := client.Identify(t.Context(), two)
	if first == "" || first != second {
		t.Errorf("identities %q and %q of the same realms", first, second)
	}
}
