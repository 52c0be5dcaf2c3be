// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func path(p string) registrytest.Match {
	return func(r *http.Request) bool { return r.URL.Path == p }
}

var authSchemes = map[string]func(user, password string) registrytest.Option{
	"basic": registrytest.WithBasicAuth,
	"token": registrytest.WithTokenAuth,
}

func TestCredentialsInOrder(t *testing.T) {
	for scheme, with := range authSchemes {
		t.Run(scheme, func(t *testing.T) {
			r := registrytest.New(t, with("good", "right"))
			image := r.PushImage(t, "acme/app:v1")
			key := registrytest.NewKey(t, registrytest.ECDSAP256)
			for range 3 {
				r.SignLegacy(t, image, key)
			}
			it := shownImage(t, image,
				secret(r.Host(), "first", "wrong"),
				secret("elsewhere.example", "never", "shown"),
				secret(r.Host(), "good", "right"),
				secret(r.Host(), "last", "unneeded"))
			client := newClient(t, r)
			got, err := client.Resolve(t.Context(), it)
			if err != nil || got.Digest != image.Digest {
				t.Fatalf("Resolve = %+v, %v; want %s", got, err, image.Digest)
			}
			var order []string
			for _, request := range r.Requests() {
				if user := userOf(request); user != "" && (len(order) == 0 || order[len(order)-1] != user) {
					order = append(order, user)
				}
			}
			if got := strings.Join(order, " "); got != "first good" {
				t.Errorf("tried %q, want %q", got, "first good")
			}

			r.Reset()
			batch, err := gather(client.Signatures(t.Context(), it))
			if err != nil || len(batch) != 3 {
				t.Fatalf("Signatures = %d items, %v; want 3", len(batch), err)
			}
			refused := 0
			for _, request := range r.Requests() {
				if userOf(request) == "first" {
					refused++
				}
			}
			if refused > 1 {
				t.Errorf("the credential that does not work was shown %d times, want at most once: %v", refused, lines(r.Requests()))
			}
		})
	}
}

// userOf is who a request's Basic credentials name.
func userOf(r registrytest.Request) string {
	encoded, ok := strings.CutPrefix(r.Authorization, "Basic ")
	if !ok {
		return ""
	}
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return r.Authorization
	}
	user, _, _ := strings.Cut(string(raw), ":")
	return user
}

func TestCredentialsAllRefused(t *testing.T) {
	for scheme, with := range authSchemes {
		t.Run(scheme, func(t *testing.T) {
			r := registrytest.New(t, with("good", "right"))
			image := r.PushImage(t, "acme/app:v1")
			client := newClient(t, r)
			for name, secrets := range map[string][]string{
				"none":            nil,
				"wrong":           {secret(r.Host(), "good", "wr0ng")},
				"several":         {secret(r.Host(), "a", "wr0ng"), secret(r.Host(), "b", "wr0ng")},
				"for other hosts": {secret("elsewhere.example", "good", "right"), secret(r.Host()+"0", "good", "right")},
				"for other paths": {secret(r.Host()+"/acme/ap", "good", "right"), secret(r.Host()+"/other", "good", "right")},
			} {
				_, err := client.Resolve(t.Context(), shownImage(t, image, secrets...))
				wantError(t, err, policy.ReasonUnauthorized, r.Host())
				if err != nil && strings.Contains(err.Error(), "wr0ng") {
					t.Errorf("%s: message = %q, want no password in it", name, err)
				}
			}
		})
	}
}

// Registries hide behind 404 what a credential may not see. So the next one is
// tried, as the kubelet does, until one has seen the repository: from then on its
// 404 is an answer, and the others are not shown.
func TestCredentialsHiddenBehindNotFound(t *testing.T) {
	r := registrytest.New(t, registrytest.WithBasicAuth("first", "right"), registrytest.WithBasicAuth("second", "right"))
	image := r.PushImage(t, "acme/app:v1")
	hidden := func(q *http.Request) bool {
		user, _, _ := q.BasicAuth()
		return user == "first"
	}
	r.Fault(registrytest.Manifest("acme/app").And(hidden), registrytest.Status(404))
	client := newClient(t, r)
	secrets := []string{secret(r.Host(), "first", "right"), secret(r.Host(), "second", "right")}
	if got, err := client.Resolve(t.Context(), shownImage(t, image, secrets...)); err != nil || got.Digest != image.Digest {
		t.Fatalf("Resolve = %+v, %v; want what the second may see", got, err)
	}
	r.Reset()
	_, err := client.Resolve(t.Context(), shown(t, image.Name()+":missing", "", secrets...))
	wantError(t, err, policy.ReasonNotFound, r.Host())
	for _, request := range r.Requests() {
		if userOf(request) != "second" {
			t.Errorf("the one that sees nothing was shown again: %v", lines(r.Requests()))
		}
	}
}

// An answer other than 401, 403 and 404 ends the search: the next credential is
// not shown to a registry that did not ask for it.
func TestCredentialsStopAtAnAnswer(t *testing.T) {
	r := registrytest.New(t, registrytest.WithBasicAuth("first", "right"), registrytest.WithBasicAuth("second", "right"))
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Manifest("acme/app"), registrytest.Status(500))
	_, err := newClient(t, r).Resolve(t.Context(), shownImage(t, image, secret(r.Host(), "first", "right"), secret(r.Host(), "second", "right")))
	wantError(t, err, policy.ReasonRegistryError, r.Host())
	for _, request := range r.Requests() {
		if userOf(request) == "second" {
			t.Errorf("the second credential was shown: %v", lines(r.Requests()))
		}
	}
}

// The canary listens where credentials must not arrive.
func TestCredentialsStayAtTheirHost(t *testing.T) {
	for scheme, with := range authSchemes {
		t.Run(scheme+" after a redirect", func(t *testing.T) {
			other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
			other.PushImage(t, "acme/app:v1")
			r := registrytest.New(t, with("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Method("HEAD"), answer(200, ""))
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+other.Host()))
			got, err := newClient(t, r, other).Resolve(t.Context(), shownImage(t, image, secret(r.Host(), "user", "s3cret")))
			if err != nil || got.Digest != image.Digest {
				t.Errorf("Resolve = %+v, %v; want the redirect followed", got, err)
			}
			wantVisited(t, other, true)
		})
		t.Run(scheme+" after a redirect that asks for them", func(t *testing.T) {
			other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"), with("user", "s3cret"))
			r := registrytest.New(t, with("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Manifest("acme/app"), registrytest.Redirect("http://"+other.Host()))
			client, it := newClient(t, r, other), shownImage(t, image, secret(r.Host(), "user", "s3cret"))
			_, err := client.Resolve(t.Context(), it)
			wantError(t, err, policy.ReasonUnauthorized, r.Host())
			wantVisited(t, other, true)
		})
	}
	t.Run("another port", func(t *testing.T) {
		other := registrytest.New(t, registrytest.WithBasicAuth("user", "s3cret"))
		image := other.PushImage(t, "acme/app:v1")
		_, err := newClient(t, other).Resolve(t.Context(), shownImage(t, image,
			secret("127.0.0.1", "user", "s3cret"), secret("127.0.0.1:1", "user", "s3cret")))
		wantError(t, err, policy.ReasonUnauthorized, other.Host())
		wantVisited(t, other, true)
	})
	t.Run("a repository beside the path", func(t *testing.T) {
		r := registrytest.New(t, registrytest.WithBasicAuth("user", "s3cret"))
		evil := r.PushImage(t, "acme-evil/app:v1")
		good := r.PushImage(t, "acme/app:v1")
		client, acme := newClient(t, r), secret(r.Host()+"/acme", "user", "s3cret")
		_, err := client.Resolve(t.Context(), shownImage(t, evil, acme))
		wantError(t, err, policy.ReasonUnauthorized, r.Host())
		wantVisited(t, r, true)
		if _, err := client.Resolve(t.Context(), shownImage(t, good, acme)); err != nil {
			t.Errorf("Resolve below the path: %v", err)
		}
	})
	t.Run("a realm on an address", func(t *testing.T) {
		other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.Fault(registrytest.Any(), registrytest.Challenge(`Bearer realm="http://`+other.Host()+`/token"`))
		_, err := newClient(t, r, other).Resolve(t.Context(), shownImage(t, image, secret(r.Host(), "user", "s3cret")))
		wantError(t, err, policy.ReasonUnreachable, r.Host())
		wantVisited(t, other, false)
	})
}

// wantVisited checks that no credential arrived, and whether any request did.
func wantVisited(t *testing.T, r *registrytest.Registry, want bool) {
	t.Helper()
	requests := r.Requests()
	if got := len(requests) > 0; got != want {
		t.Errorf("visited = %t, want %t: %v", got, want, lines(requests))
	}
	for _, request := range requests {
		if request.Authorization != "" {
			t.Errorf("%s came with credentials: %q", request, request.Authorization)
		}
	}
}

// Requests of one client with other credentials share no login.
func TestCredentialsAreNotShared(t *testing.T) {
	for scheme, with := range authSchemes {
		t.Run(scheme, func(t *testing.T) {
			r := registrytest.New(t, with("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			client := newClient(t, r)
			if _, err := client.Resolve(t.Context(), shownImage(t, image, secret(r.Host(), "user", "s3cret"))); err != nil {
				t.Fatal(err)
			}
			_, err := client.Resolve(t.Context(), shownImage(t, image))
			wantError(t, err, policy.ReasonUnauthorized, r.Host())
			_, err = client.Resolve(t.Context(), shownImage(t, image, secret(r.Host(), "user", "other")))
			wantError(t, err, policy.ReasonUnauthorized, r.Host())
		})
	}
}

func TestIdentify(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	client := newClient(t, r)
	identify := func(secrets ...string) string {
		t.Helper()
		id, err := client.Identify(t.Context(), askedImage(t, image, secrets...))
		if err != nil {
			t.Fatal(err)
		}
		return string(id)
	}
	own := identify(secret(r.Host(), "user", "s3cret"))
	if strings.Contains(own, "s3cret") || own == "anonymous" {
		t.Errorf("identity = %q", own)
	}
	if got := identify(secret("elsewhere.example", "user", "s3cret")); got != "anonymous" {
		t.Errorf("identity with a credential for another host = %q, want anonymous", got)
	}
	if got := identify(secret(r.Host(), "user", "s3cret"), secret("elsewhere.example", "a", "b")); got != own {
		t.Errorf("a credential for another host changes the identity")
	}
	if identify(secret(r.Host(), "user", "other")) == own {
		t.Errorf("another password, the same identity")
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}
