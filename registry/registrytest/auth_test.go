// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestCredentials(t *testing.T) {
	schemes := map[string]func(user, password string) registrytest.Option{
		"Basic": registrytest.WithBasicAuth, "Bearer": registrytest.WithTokenAuth,
	}
	for scheme, with := range schemes {
		t.Run(scheme, func(t *testing.T) {
			r := registrytest.New(t, with("alice", "a"), with("bob", "b"))
			image := r.PushImage(t, "acme/app:v1") // the back door asks for nothing
			ref, err := name.ParseReference(image.ByTag())
			if err != nil {
				t.Fatal(err)
			}
			users := map[string]struct {
				auth authn.Authenticator
				good bool
			}{
				"alice":          {authn.FromConfig(authn.AuthConfig{Username: "alice", Password: "a"}), true},
				"bob":            {authn.FromConfig(authn.AuthConfig{Username: "bob", Password: "b"}), true},
				"wrong password": {authn.FromConfig(authn.AuthConfig{Username: "alice", Password: "b"}), false},
				"stranger":       {authn.FromConfig(authn.AuthConfig{Username: "eve"}), false},
				"anonymous":      {authn.Anonymous, false},
			}
			for user, test := range users {
				t.Run(user, func(t *testing.T) {
					r.Reset()
					_, err := remote.Get(ref, remote.WithAuth(test.auth))
					equal(t, "let in", err == nil, test.good)
					if !test.good {
						var answered *transport.Error
						if !errors.As(err, &answered) || answered.StatusCode != http.StatusUnauthorized {
							t.Errorf("got error %v, want status 401", err)
						}
						return
					}
					counted := r.Counted()
					equal(t, "counted requests", len(counted), 1)
					equal(t, "scheme", strings.HasPrefix(counted[0].Authorization, scheme+" "), true)
				})
			}
		})
	}
}

func TestTokenIsForOneRepository(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("alice", "a"))
	app, other := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "acme/other:v1")
	ref, err := name.ParseReference(app.ByTag())
	if err != nil {
		t.Fatal(err)
	}
	auth := authn.FromConfig(authn.AuthConfig{Username: "alice", Password: "a"})
	if _, err := remote.Head(ref, remote.WithAuth(auth)); err != nil {
		t.Fatal(err)
	}
	header := r.Counted()[0].Authorization
	for image, want := range map[registrytest.Image]int{app: http.StatusOK, other: http.StatusUnauthorized} {
		req := mustRequest(t, manifestURL(image, "v1"))
		req.Header.Set("Authorization", header)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		equal(t, image.Repository, resp.StatusCode, want)
	}
}
