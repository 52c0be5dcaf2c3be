// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package credential_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-dev/pratique/registry/credential"
)

const password = "s3cret-p4ss"

func parse(t *testing.T, written string) credential.Config {
	t.Helper()
	config, err := credential.Parse([]byte(written))
	if err != nil {
		t.Fatalf("Parse(%s): %v", written, err)
	}
	return config
}

// entry is one member of auths.
func entry(scope, user string) string {
	return fmt.Sprintf(`%q:{"username":%q,"password":%q}`, scope, user, password)
}

func auths(entries ...string) string { return `{"auths":{` + strings.Join(entries, ",") + `}}` }

// users names those whose credentials are tried at a repository, in order.
func users(ctx context.Context, ring credential.Ring, repository string) []string {
	var out []string
	for _, auth := range ring.For(ctx, repository) {
		out = append(out, auth.Username)
	}
	return out
}

func TestParse(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte("user:" + password))
	for name, test := range map[string]struct {
		written string
		want    []authn.AuthConfig // at registry.example/acme/app
	}{
		"nothing":               {`{}`, nil},
		"null":                  {`null`, nil},
		"no auths":              {`{"auths":{}}`, nil},
		"null auths":            {`{"auths":null}`, nil},
		"user and password":     {auths(entry("registry.example", "user")), []authn.AuthConfig{{Username: "user", Password: password}}},
		"a colon in a password": {`{"auths":{"registry.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte("u:a:b")) + `"}}}`, []authn.AuthConfig{{Username: "u", Password: "a:b"}}},
		"auth":                  {`{"auths":{"registry.example":{"auth":"` + encoded + `"}}}`, []authn.AuthConfig{{Username: "user", Password: password}}},
		"identity token":        {`{"auths":{"registry.example":{"identitytoken":"t"}}}`, []authn.AuthConfig{{IdentityToken: "t"}}},
		"registry token":        {`{"auths":{"registry.example":{"registrytoken":"t"}}}`, []authn.AuthConfig{{RegistryToken: "t"}}},
		"what else is there":    {`{"credsStore":"x","HttpHeaders":{},"auths":{"registry.example":{"username":"user","password":"p","email":"e"}}}`, []authn.AuthConfig{{Username: "user", Password: "p"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got := credential.NewRing(parse(t, test.written)).For(t.Context(), "registry.example/acme/app")
			for i := range got {
				got[i].Auth = "" // another way to write the same
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("credentials (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for name, written := range map[string]string{
		"nothing":            ``,
		"words":              password,
		"cut short":          auths(entry("registry.example", "user"))[:40],
		"trailing":           auths() + password,
		"an array":           `[]`,
		"auths an array":     `{"auths":["` + password + `"]}`,
		"auths a word":       `{"auths":"` + password + `"}`,
		"credential a word":  `{"auths":{"registry.example":"` + password + `"}}`,
		"auth no base64":     `{"auths":{"registry.example":{"auth":"?` + password + `"}}}`,
		"auth no colon":      `{"auths":{"registry.example":{"auth":"` + base64.StdEncoding.EncodeToString([]byte(password)) + `"}}}`,
		"auth a number":      `{"auths":{"registry.example":{"auth":7}}}`,
		"password a list":    `{"auths":{"registry.example":{"username":"u","password":["` + password + `"]}}}`,
		"no host":            auths(entry("", "user")),
		"only a scheme":      auths(entry("https://", "user")),
		"only a path":        auths(entry("/acme", "user")),
		"good and a bad one": auths(entry("registry.example", "user"), entry("", "user")),
		"nested deep":        `{"auths":` + strings.Repeat("[", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			config, err := credential.Parse([]byte(written))
			if err == nil {
				t.Fatal("no error")
			}
			for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(password)), "registry.example"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error = %q, want nothing of what was read", err)
				}
			}
			if got := credential.NewRing(config).For(t.Context(), "registry.example/acme/app"); len(got) != 0 {
				t.Errorf("%d credentials beside an error", len(got))
			}
		})
	}
}

// Each key of auths with the repositories that it is, and is not, written for.
func TestScope(t *testing.T) {
	for key, test := range map[string]struct{ covers, not []string }{
		"registry1.com": {
			covers: []string{"registry1.com/app", "registry1.com/acme/app"},
			not: []string{
				"registry1.com.evil.io/app", "registry1.com:5000/app", "evil.io/registry1.com/app", "xregistry1.com/app",
				"sub.registry1.com/app", "registry1.co/app", "docker.io/library/app",
			},
		},
		"registry1.com:5000": {
			covers: []string{"registry1.com:5000/app"},
			not:    []string{"registry1.com/app", "registry1.com:50000/app", "registry1.com:500/app", "registry1.com:5001/app"},
		},
		"registry1.com:443":                   {covers: []string{"registry1.com/app"}, not: []string{"registry1.com:443/app"}},
		"REGISTRY1.com":                       {covers: []string{"registry1.com/app"}},
		"https://registry1.com":               {covers: []string{"registry1.com/app"}, not: []string{"registry1.com.evil.io/app"}},
		"http://registry1.com/":               {covers: []string{"registry1.com/app"}},
		"https://registry1.com/v1/":           {covers: []string{"registry1.com/app", "registry1.com/v1/app"}},
		"https://registry1.com/v2/":           {covers: []string{"registry1.com/app"}},
		"registry1.com/v1":                    {covers: []string{"registry1.com/app"}},
		"registry1.com/v2/acme":               {covers: []string{"registry1.com/acme/app"}, not: []string{"registry1.com/acme-evil/app", "registry1.com/app"}},
		"registry1.com/v20/app":               {covers: []string{"registry1.com/v20/app"}, not: []string{"registry1.com/0/app", "registry1.com/app"}},
		"registry1.com/acme":                  {covers: []string{"registry1.com/acme", "registry1.com/acme/app", "registry1.com/acme/a/b"}, not: []string{"registry1.com/acme-evil/app", "registry1.com/acm", "registry1.com/acmeapp", "registry1.com/other/acme/app", "registry1.com:5000/acme/app"}},
		"registry1.com/acme/":                 {covers: []string{"registry1.com/acme", "registry1.com/acme/app"}, not: []string{"registry1.com/acme-evil/app"}},
		"registry1.com/acme/app":              {covers: []string{"registry1.com/acme/app", "registry1.com/acme/app/debug"}, not: []string{"registry1.com/acme/app2", "registry1.com/acme"}},
		"https://index.docker.io/v1/":         {covers: []string{"docker.io/library/nginx", "docker.io/acme/app"}, not: []string{"index.docker.io.evil.io/x", "docker.io.evil.io/x"}},
		"docker.io":                           {covers: []string{"docker.io/library/nginx"}},
		"registry-1.docker.io":                {covers: []string{"docker.io/library/nginx"}},
		"https://registry-1.docker.io/v2/":    {covers: []string{"docker.io/library/nginx"}},
		"docker.io/acme":                      {covers: []string{"docker.io/acme/app"}, not: []string{"docker.io/acme2/app", "docker.io/library/nginx"}},
		"index.docker.io/v1/acme":             {covers: []string{"docker.io/acme/app"}, not: []string{"docker.io/library/nginx"}},
		"*.example.com":                       {covers: []string{"a.example.com/x", "b.example.com/x/y"}, not: []string{"example.com/x", "a.b.example.com/x", "a.example.com:5000/x", "a.example.com.evil.io/x", "a.example.org/x", "evil.io/x"}},
		"*.example.com:5000":                  {covers: []string{"a.example.com:5000/x"}, not: []string{"a.example.com/x", "a.example.com:50000/x"}},
		"https://*.Example.com:443/v2/acme":   {covers: []string{"a.example.com/acme/x"}, not: []string{"a.example.com/acme-evil/x", "a.example.com/x", "a.example.com:443/acme/x"}},
		"app*.example.com":                    {covers: []string{"app1.example.com/x", "app.example.com/x"}, not: []string{"xapp.example.com/x", "app.1.example.com/x"}},
		"*.dkr.ecr.*.amazonaws.com":           {covers: []string{"123.dkr.ecr.eu-west-1.amazonaws.com/x"}, not: []string{"123.dkr.ecr.amazonaws.com/x", "123.dkr.ecr.eu-west-1.amazonaws.com.evil.io/x"}},
		"*.com":                               {not: []string{"example.com/x", "a.example.com/x"}},
		"*.*":                                 {not: []string{"example.com/x"}},
		"*.*.com":                             {not: []string{"a.example.com/x"}},
		"a.*.com":                             {not: []string{"a.example.com/x"}},
		"a.example.*":                         {not: []string{"a.example.com/x"}},
		"*.0.0.1":                             {not: []string{"127.0.0.1/x", "127.0.0.1:5000/x"}},
		"*.0.0.1:5000":                        {not: []string{"127.0.0.1:5000/x"}},
		"*[.example.com":                      {not: []string{"a.example.com/x", "*[.example.com/x"}},
		"*.example.com.":                      {not: []string{"a.example.com/x"}},
		"*.docker.io":                         {covers: []string{"docker.io/library/nginx"}, not: []string{"docker.io.evil.io/x", "ghcr.io/x"}},
		"index.*.io":                          {not: []string{"docker.io/library/nginx"}},
		"registry1.com/v1/v2/acme":            {covers: []string{"registry1.com/v2/acme/app"}, not: []string{"registry1.com/acme/app"}},
		"*":                                   {not: []string{"registry1.com/x", "docker.io/library/x"}},
		"registry1.com/../evil":               {not: []string{"registry1.com/evil/x", "evil/x"}},
		"https://evil.io@registry1.com":       {not: []string{"registry1.com/x", "evil.io/x"}},
		"registry1.com@evil.io":               {not: []string{"registry1.com/x", "evil.io/x"}},
		"registry1.com?x":                     {not: []string{"registry1.com/x"}},
		"ftp://registry1.com":                 {not: []string{"registry1.com/x"}},
		" registry1.com":                      {not: []string{"registry1.com/x"}}, //nolint:gocritic // the space is the case
		"[::1]:5000":                          {covers: []string{"[::1]:5000/x"}, not: []string{"[::1]/x"}},
		"registry1.com.":                      {not: []string{"registry1.com/x"}},
		"https://registry1.com/v2/_catalog/x": {not: []string{"registry1.com/x"}},
	} {
		t.Run(key, func(t *testing.T) {
			ring := credential.NewRing(parse(t, auths(entry(key, "user"))))
			for want, repositories := range map[int][]string{1: test.covers, 0: test.not} {
				for _, repository := range repositories {
					if got := len(ring.For(t.Context(), repository)); got != want {
						t.Errorf("For(%q) = %d credentials, want %d", repository, got, want)
					}
				}
			}
		})
	}
}

func TestOrder(t *testing.T) {
	const at = "registry.example/acme/app"
	for name, test := range map[string]struct {
		secrets []string
		want    []string
	}{
		"none": {nil, nil},
		"the most specific of a Secret first": {
			[]string{auths(entry("registry.example", "host"), entry("registry.example/acme/app", "app"), entry("registry.example/acme", "path"))},
			[]string{"app", "path", "host"},
		},

		"Secrets in their order, whatever they say": {
			[]string{auths(entry("registry.example", "first")), auths(entry("registry.example/acme/app", "second"))},
			[]string{"first", "second"},
		},
		"the same credential once": {
			[]string{auths(entry("registry.example", "same")), auths(entry("registry.example", "other")), auths(entry("registry.example/acme", "same"))},
			[]string{"same", "other"},
		},
		"the less specific too, where the first is known already": {
			[]string{auths(entry("registry.example/acme", "same")), auths(entry("registry.example/acme", "same"), entry("registry.example", "wider"))},
			[]string{"same", "wider"},
		},
		"an empty one is none": {
			[]string{`{"auths":{"registry.example":{}}}`, auths(entry("registry.example", "yes"))},
			[]string{"yes"},
		},
		"others left out": {
			[]string{auths(entry("elsewhere.example", "no")), auths(entry("registry.example", "yes"), entry("elsewhere.example", "no"))},
			[]string{"yes"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			for range 10 { // maps have no order of their own
				var configs []credential.Config
				for _, secret := range test.secrets {
					configs = append(configs, parse(t, secret))
				}
				if diff := cmp.Diff(test.want, users(t.Context(), credential.NewRing(configs...), at)); diff != "" {
					t.Fatalf("tried (-want +got):\n%s", diff)
				}
			}
		})
	}
	t.Run("two keys of one scope", func(t *testing.T) {
		for range 20 { // and always the same one
			ring := credential.NewRing(parse(t, auths(entry("https://index.docker.io/v1/", "b"), entry("docker.io", "a"))))
			if diff := cmp.Diff([]string{"a", "b"}, users(t.Context(), ring, "docker.io/library/nginx")); diff != "" {
				t.Fatalf("tried (-want +got):\n%s", diff)
			}
		}
	})
	t.Run("patterns after names", func(t *testing.T) {
		ring := credential.NewRing(parse(t, auths(
			entry("*.*.example.org/acme/app", "two"), entry("*.a.example.org/acme", "one"), entry("b.a.example.org", "name"))))
		if diff := cmp.Diff([]string{"name", "one", "two"}, users(t.Context(), ring, "b.a.example.org/acme/app")); diff != "" {
			t.Errorf("tried (-want +got):\n%s", diff)
		}
	})
	t.Run("at most 8", func(t *testing.T) {
		var configs []credential.Config
		var want []string
		for i := range 20 {
			user := fmt.Sprintf("user%d", i)
			configs = append(configs, parse(t, auths(entry("registry.example", user))))
			if i < 8 {
				want = append(want, user)
			}
		}
		if diff := cmp.Diff(want, users(t.Context(), credential.NewRing(configs...), at)); diff != "" {
			t.Errorf("tried (-want +got):\n%s", diff)
		}
	})
	t.Run("the zero values", func(t *testing.T) {
		if got := (credential.Ring{}).For(t.Context(), at); len(got) != 0 {
			t.Errorf("%d credentials of nothing", len(got))
		}
		if got := credential.NewRing(credential.Config{}).For(t.Context(), at); len(got) != 0 {
			t.Errorf("%d credentials of an empty Secret", len(got))
		}
	})
}

func TestIdentify(t *testing.T) {
	const at = "registry.example/acme/app"
	identifier := credential.NewIdentifier([]byte("0123456789abcdef"))
	of := func(secrets ...string) credential.Identity {
		t.Helper()
		var configs []credential.Config
		for _, secret := range secrets {
			configs = append(configs, parse(t, secret))
		}
		return identifier.Identify(t.Context(), credential.NewRing(configs...), at)
	}
	one := func(user, pass string) string {
		return fmt.Sprintf(`{"auths":{"registry.example":{"username":%q,"password":%q}}}`, user, pass)
	}
	base := of(one("user", password))
	for name, other := range map[string]credential.Identity{
		"the same again":                  of(one("user", password)),
		"in two Secrets":                  of(one("user", password), one("user", password)),
		"beside one for another host":     of(one("user", password), auths(entry("elsewhere.example", "x"))),
		"under a path that covers":        of(auths(entry("registry.example/acme", "user"))),
		"under the host in another form":  of(auths(entry("https://REGISTRY.example:443/v2/", "user"))),
		"after an empty Secret":           of(`{}`, one("user", password)),
		"written with other JSON members": of(`{"credsStore":"x","auths":{"registry.example":{"password":"` + password + `","username":"user"}}}`),
	} {
		if other != base {
			t.Errorf("%s: another identity", name)
		}
	}
	seen := map[credential.Identity]string{base: "base"}
	for name, other := range map[string]credential.Identity{
		"anonymous":         of(),
		"another user":      of(one("user2", password)),
		"another password":  of(one("user", password+"x")),
		"the cut moved":     of(one("users", password[1:])),
		"the cut moved 2":   of(one("use", "r"+password)),
		"swapped":           of(one(password, "user")),
		"a token":           of(`{"auths":{"registry.example":{"identitytoken":"` + password + `"}}}`),
		"another token":     of(`{"auths":{"registry.example":{"registrytoken":"` + password + `"}}}`),
		"beside another":    of(auths(entry("registry.example/acme", "user"), entry("registry.example", "x"))),
		"one more":          of(one("user", password), one("user2", password)),
		"the other order":   of(one("user2", password), one("user", password)),
		"digits in a field": of(one("4:user", password)),
	} {
		if first, ok := seen[other]; ok {
			t.Errorf("%s has the identity of %s", name, first)
		}
		seen[other] = name
		if strings.Contains(string(other), password) || strings.Contains(string(other), "user") {
			t.Errorf("%s: the identity shows the credential", name)
		}
	}
	if got := of(); got != credential.Anonymous {
		t.Errorf("identity of none = %q, want %q", got, credential.Anonymous)
	}
	if got := of(auths(entry("elsewhere.example", "x"))); got != credential.Anonymous {
		t.Errorf("identity of none that matches = %q, want %q", got, credential.Anonymous)
	}
	ring := credential.NewRing(parse(t, one("user", password)))
	if credential.NewIdentifier([]byte("fedcba9876543210")).Identify(t.Context(), ring, at) == base {
		t.Error("another key, the same identity: it can be computed by anyone")
	}
}

func TestSource(t *testing.T) {
	found := credential.Found{
		Configs:  []credential.Config{parse(t, auths(entry("registry.example", "own")))},
		Warnings: []string{`secret "x" is missing`},
	}
	t.Run("loads when it is asked, and once", func(t *testing.T) {
		var loads atomic.Int32
		source := credential.NewSource(func(context.Context) (credential.Found, error) {
			loads.Add(1)
			return found, nil
		})
		if n := loads.Load(); n != 0 {
			t.Errorf("%d loads before it was asked", n)
		}
		if got := source.Warnings(); got != nil {
			t.Errorf("warnings before it was asked: %v", got)
		}
		more := parse(t, auths(entry("registry.example", "more")))
		var group sync.WaitGroup
		for range 16 {
			group.Go(func() {
				ring, err := source.Ring(t.Context(), more)
				if err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff([]string{"own", "more"}, users(t.Context(), ring, "registry.example/x")); diff != "" {
					t.Errorf("tried (-want +got):\n%s", diff)
				}
			})
		}
		group.Wait()
		ring, err := source.Ring(t.Context())
		if diff := cmp.Diff([]string{"own"}, users(t.Context(), ring, "registry.example/x")); err != nil || diff != "" {
			t.Errorf("without more: %v (-want +got):\n%s", err, diff)
		}
		if n := loads.Load(); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
		if diff := cmp.Diff(found.Warnings, source.Warnings()); diff != "" {
			t.Errorf("warnings (-want +got):\n%s", diff)
		}
	})
	t.Run("keeps an error", func(t *testing.T) {
		loads := 0
		source := credential.NewSource(func(context.Context) (credential.Found, error) {
			loads++
			return found, errors.New("malformed")
		})
		for range 2 {
			if ring, err := source.Ring(t.Context()); err == nil || len(ring.For(t.Context(), "registry.example/x")) != 0 {
				t.Errorf("Ring = %v, %v; want the error alone", ring, err)
			}
		}
		if loads != 1 {
			t.Errorf("%d loads, want 1", loads)
		}
	})
	t.Run("does not keep what a context ended", func(t *testing.T) {
		source := credential.NewSource(func(ctx context.Context) (credential.Found, error) {
			if err := ctx.Err(); err != nil {
				return credential.Found{}, err
			}
			return found, nil
		})
		over, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := source.Ring(over); !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v, want %v", err, context.Canceled)
		}
		ring, err := source.Ring(t.Context())
		if diff := cmp.Diff([]string{"own"}, users(t.Context(), ring, "registry.example/x")); err != nil || diff != "" {
			t.Errorf("afterwards: %v (-want +got):\n%s", err, diff)
		}
	})
	t.Run("none", func(t *testing.T) {
		source := credential.None()
		ring, err := source.Ring(t.Context())
		if err != nil || len(ring.For(t.Context(), "registry.example/x")) != 0 || len(source.Warnings()) != 0 {
			t.Errorf("None gives %v, %v, %v", ring, err, source.Warnings())
		}
	})
}

// FuzzParse: whatever a Secret holds, reading it ends without a panic and
// without a quotation, and nothing of it is shown to hosts and paths that only
// begin like one that it names.
func FuzzParse(f *testing.F) {
	f.Add([]byte(auths(entry("registry.example", "user"))), "registry.example/acme")
	f.Add([]byte(auths(entry("https://index.docker.io/v1/", "user"))), "docker.io/library/nginx")
	f.Add([]byte(auths(entry("registry.example/v2/acme", "user"))), "registry.example/acme")
	f.Add([]byte(`{"auths":{"a":{"auth":"?"}}}`), "a/b")
	f.Add([]byte(`{"auths":{"//":{}}}`), "/")
	f.Fuzz(func(t *testing.T, raw []byte, repository string) {
		if _, err := credential.ParseDockercfg(raw); err != nil && len(err.Error()) > 100 {
			t.Errorf("error of %d bytes: %q", len(err.Error()), err)
		}
		config, err := credential.Parse(raw)
		if err != nil {
			if text := err.Error(); len(text) > 100 {
				t.Errorf("error of %d bytes: %q", len(text), text)
			}
			return
		}
		var file struct {
			Auths map[string]any `json:"auths"`
		}
		if json.Unmarshal(raw, &file) != nil {
			t.Fatal("Parse accepts what is no JSON")
		}
		for key := range file.Auths {
			// A pattern is for hosts that are not known beforehand.
			if strings.Contains(strings.ToLower(key), "evil") || strings.Contains(key, "*") {
				return
			}
		}
		host, _, _ := strings.Cut(repository, "/")
		ring := credential.NewRing(config)
		for _, other := range []string{host + ".evil.example/x", host + ":evil/x", repository + "-evil", "evil." + repository} {
			if strings.Contains(host, "evil") || strings.HasSuffix(repository, "/") || host == repository {
				return
			}
			for _, auth := range ring.For(t.Context(), other) {
				// A key for the path above covers what is below it.
				if !strings.HasPrefix(other, host+"/") {
					t.Errorf("%q is shown to %q", auth.Username, other)
				}
			}
		}
	})
}
