// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package credential_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-dev/pratique/registry/credential"
)

// one is a Config of one credential for a.io.
func one(t *testing.T, user string) credential.Config {
	t.Helper()
	return parse(t, auths(entry("a.io", user)))
}

func source(found credential.Found) *credential.Source {
	return credential.NewSource(func(context.Context) (credential.Found, error) { return found, nil })
}

// The order of spec section 6: the object's own, the ImageConfig's, the
// ServiceAccount's, and what is not in the cluster.
func TestSourceOrder(t *testing.T) {
	t.Parallel()
	s := source(credential.Found{
		Configs: []credential.Config{one(t, "pod"), one(t, "pod2")}, Last: []credential.Config{one(t, "account")},
	}).Then(one(t, "user"))
	for range 2 { // what one image's rule brings is not another's
		ring, err := s.Ring(t.Context(), one(t, "rule"))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pod", "pod2", "rule", "account", "user"}, users(t.Context(), ring, "a.io/x")); diff != "" {
			t.Errorf("tried (-want +got):\n%s", diff)
		}
		if ring, err = s.Ring(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"pod", "pod2", "account", "user"}, users(t.Context(), ring, "a.io/x")); diff != "" {
			t.Errorf("tried (-want +got):\n%s", diff)
		}
	}
}

// The bounds hold for all Secrets together, wherever they are named.
func TestSourceBounds(t *testing.T) {
	t.Parallel()
	many := func(n int, of string) (configs []credential.Config) {
		for i := range n {
			configs = append(configs, one(t, fmt.Sprintf("%s%d", of, i)))
		}
		return configs
	}
	s := source(credential.Found{Configs: many(7, "pod"), Last: many(8, "account")})
	ring, err := s.Ring(t.Context(), one(t, "rule"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pod0", "pod1", "pod2", "pod3", "pod4", "pod5", "pod6", "rule"}
	for range 2 {
		if diff := cmp.Diff(want, users(t.Context(), ring, "a.io/x")); diff != "" {
			t.Errorf("tried (-want +got):\n%s", diff)
		}
	}
	if diff := cmp.Diff([]string{"more than 8 credentials for a.io: the first 8 are tried"}, s.Warnings()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if _, err := s.Ring(t.Context(), many(2, "rule")...); err == nil || !strings.Contains(err.Error(), "17 pull secrets") {
		t.Errorf("17 Secrets: %v", err)
	}
	// A rule that brings none does not count.
	if _, err := source(credential.Found{Configs: many(16, "pod")}).Ring(t.Context(), credential.Config{}); err != nil {
		t.Errorf("16 Secrets and a rule without: %v", err)
	}
	// Exactly eight are not too many.
	eight := source(credential.Found{Configs: many(8, "pod"), Last: many(8, "pod")})
	if ring, err = eight.Ring(t.Context()); err != nil || len(ring.For(t.Context(), "a.io/x")) != 8 || len(eight.Warnings()) > 0 {
		t.Errorf("%d credentials, %v, warnings %q", len(ring.For(t.Context(), "a.io/x")), err, eight.Warnings())
	}
}

// Outside of Secrets it is asked for what a request is about, and nothing is
// remembered: who answers does that.
func TestChain(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	s := credential.None().Then(credential.FromChain(func(_ context.Context, host, path string) (authn.AuthConfig, error) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, host+" "+path)
		switch host {
		case "a.io":
			return authn.AuthConfig{Username: "helped", Password: password}, nil
		case "broken.io":
			return authn.AuthConfig{}, errors.New("the helper failed")
		default:
			return authn.AuthConfig{}, nil
		}
	}))
	identifier := credential.NewIdentifier([]byte("0123456789abcdef"))
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			ring, err := s.Ring(t.Context(), one(t, "rule"))
			if err != nil {
				t.Error(err)
				return
			}
			if diff := cmp.Diff([]string{"rule", "helped"}, users(t.Context(), ring, "a.io/x/y")); diff != "" {
				t.Errorf("tried (-want +got):\n%s", diff)
			}
			for _, repository := range []string{"b.io/x", "broken.io/x"} {
				if got := identifier.Identify(t.Context(), ring, repository); got != credential.Anonymous {
					t.Errorf("%s: identity %q", repository, got)
				}
			}
		})
	}
	group.Wait()
	slices.Sort(asked)
	if diff := cmp.Diff([]string{"a.io x/y", "b.io x", "broken.io x"}, slices.Compact(slices.Clone(asked))); diff != "" || len(asked) != 3*8 {
		t.Errorf("asked %d times for (-want +got):\n%s", len(asked), diff)
	}
	if diff := cmp.Diff([]string{"no credential for broken.io: the helper failed"}, s.Warnings()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

// What is in no Secret does not count as one.
func TestChainIsNoSecret(t *testing.T) {
	t.Parallel()
	chain := credential.FromChain(func(context.Context, string, string) (authn.AuthConfig, error) {
		return authn.AuthConfig{Username: "helped", Password: password}, nil
	})
	sixteen := make([]credential.Config, credential.MaxSecrets)
	for i := range sixteen {
		sixteen[i] = parse(t, auths(entry("b.io", fmt.Sprint("u", i))))
	}
	s := source(credential.Found{Configs: sixteen}).Then(chain)
	ring, err := s.Ring(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"helped"}, users(t.Context(), ring, "a.io/x")); diff != "" {
		t.Errorf("tried (-want +got):\n%s", diff)
	}
	if _, err := s.Ring(t.Context(), parse(t, auths(entry("b.io", "another"))), chain); err == nil || !strings.Contains(err.Error(), "17 pull secrets") {
		t.Errorf("17 Secrets: %v", err)
	}
	if _, err := s.Ring(t.Context(), sixteen[0], chain); err != nil {
		t.Errorf("one of them twice: %v", err)
	}
}

// Both types of Secrets, each under its own key.
func TestParseSecret(t *testing.T) {
	t.Parallel()
	const old, current = `{"https://a.io/v1/":{"auth":"dTpzM2NyZXQ=","email":"u@a.io"}}`, `{"auths":{"a.io":{"auth":"dTpzM2NyZXQ="}}}`
	for name, test := range map[string]struct {
		kind, key, content string
		users              []string
		fails              string
	}{
		"current":             {credential.TypeDockerConfigJSON, credential.KeyDockerConfigJSON, current, []string{"u"}, ""},
		"old":                 {credential.TypeDockercfg, credential.KeyDockercfg, old, []string{"u"}, ""},
		"old, nothing in it":  {credential.TypeDockercfg, credential.KeyDockercfg, `{}`, nil, ""},
		"old, null":           {credential.TypeDockercfg, credential.KeyDockercfg, `null`, nil, ""},
		"old in current":      {credential.TypeDockerConfigJSON, credential.KeyDockerConfigJSON, old, nil, ""},
		"current in old":      {credential.TypeDockercfg, credential.KeyDockercfg, current, nil, ""},
		"current's key":       {credential.TypeDockercfg, credential.KeyDockerConfigJSON, old, nil, `it has no key ".dockercfg"`},
		"old's key":           {credential.TypeDockerConfigJSON, credential.KeyDockercfg, current, nil, `it has no key ".dockerconfigjson"`},
		"old, a list":         {credential.TypeDockercfg, credential.KeyDockercfg, `["s3cret"]`, nil, "malformed JSON"},
		"old, bad base64":     {credential.TypeDockercfg, credential.KeyDockercfg, `{"a.io":{"auth":"s3cret!"}}`, nil, "malformed JSON"},
		"old, no host":        {credential.TypeDockercfg, credential.KeyDockercfg, `{"https://":{"username":"u","password":"s3cret"}}`, nil, "no host"},
		"old, cut off":        {credential.TypeDockercfg, credential.KeyDockercfg, `{"a.io":{"username":"u","password":"s3cret`, nil, "malformed JSON"},
		"current, not an obj": {credential.TypeDockerConfigJSON, credential.KeyDockerConfigJSON, `"s3cret"`, nil, "malformed JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, err := credential.ParseSecret(test.kind, map[string][]byte{test.key: []byte(test.content)})
			if (err != nil) != (test.fails != "") || err != nil && (!strings.Contains(err.Error(), test.fails) || strings.Contains(err.Error(), "s3cret")) {
				t.Fatalf("error %v, want %q", err, test.fails)
			}
			if diff := cmp.Diff(test.users, users(t.Context(), credential.NewRing(config), "a.io/x")); diff != "" {
				t.Errorf("credentials (-want +got):\n%s", diff)
			}
		})
	}
}
