// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// soon is how long anything may take that is not to hang: far more than a busy
// machine needs, far less than the minute after which a hanging answer ends.
const soon = 20 * time.Second

// canary is what a hostile registry puts into everything it sends. No message
// may repeat it.
const canary = "c4n4ry"

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// newClient returns a client that may ask the registries on loopback.
func newClient(t *testing.T, registries ...*registrytest.Registry) *registry.Client {
	t.Helper()
	o := registry.Options{AllowCIDRs: []netip.Prefix{loopback}}
	for _, r := range registries {
		o.Insecure = append(o.Insecure, r.Host())
	}
	return newClientWith(t, o)
}

func newClientWith(t *testing.T, o registry.Options) *registry.Client {
	t.Helper()
	client, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// asked is an image to examine, shown with the credentials of these Secrets.
func asked(t *testing.T, written, digest string, secrets ...string) policy.Image {
	t.Helper()
	ref, err := reference.Parse(written)
	if err != nil {
		t.Fatal(err)
	}
	var found credential.Found
	for _, secret := range secrets {
		config, err := credential.Parse([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		found.Configs = append(found.Configs, config)
	}
	source := credential.NewSource(func(context.Context) (credential.Found, error) { return found, nil })
	return policy.Image{Reference: ref, Digest: digest, Credentials: source}
}

// shown is asked for an image whose ImageConfig says insecurePlainHTTP: its
// registry, which speaks plain HTTP, is shown the credentials for that.
func shown(t *testing.T, written, digest string, secrets ...string) policy.Image {
	t.Helper()
	image := asked(t, written, digest, secrets...)
	image.Transport = inClear()
	return image
}

func shownImage(t *testing.T, image registrytest.Image, secrets ...string) policy.Image {
	t.Helper()
	return shown(t, image.ByTag(), image.Digest, secrets...)
}

func askedImage(t *testing.T, image registrytest.Image, secrets ...string) policy.Image {
	t.Helper()
	return asked(t, image.ByTag(), image.Digest, secrets...)
}

// secret is a dockerconfigjson with one credential.
func secret(scope, user, password string) string {
	return `{"auths":{"` + scope + `":{"username":"` + user + `","password":"` + password + `"}}}`
}

// wantError holds err against a reason. Whatever went wrong, the message names
// the host, repeats nothing that was sent, and is one line.
func wantError(t *testing.T, err error, reason policy.Reason, host string) {
	t.Helper()
	var got *registry.Error
	if !errors.As(err, &got) {
		t.Fatalf("error = %v (%T), want a *registry.Error with reason %s", err, err, reason)
	}
	if got.Reason != reason {
		t.Errorf("reason = %s (%s), want %s", got.Reason, got.Message, reason)
	}
	want := policy.Inconclusive
	if reason == policy.ReasonDigestMismatch {
		want = policy.Rejected
	}
	verdict := policy.VerdictOf(err)
	if verdict.Outcome != want || verdict.Reason != got.Reason || verdict.Message != got.Message {
		t.Errorf("verdict = %+v, want %s for %s: %s", verdict, want, got.Reason, got.Message)
	}
	if !strings.Contains(got.Message, host) {
		t.Errorf("message = %q, want the host %s in it", got.Message, host)
	}
	if strings.Contains(got.Message, canary) || strings.ContainsAny(got.Message, "\r\n\x00\x1b") {
		t.Errorf("message = %q, want nothing of what was sent", got.Message)
	}
}

// inTime fails the test if what it defers came back late.
func inTime(t *testing.T, limit time.Duration) func() {
	t.Helper()
	began := time.Now()
	return func() {
		t.Helper()
		if took := time.Since(began); took > limit {
			t.Errorf("took %v, want at most %v", took, limit)
		}
	}
}

// within returns a context that ends after d.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// answer is a fault: a status, a body that may be of any length, and headers
// in pairs.
func answer(status int, body string, headers ...string) registrytest.Behaviour {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(headers); i += 2 {
				w.Header().Add(headers[i], headers[i+1])
			}
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body)) // the client may be gone
		})
	}
}

// hangUp breaks the connection instead of an answer.
func hangUp(http.Handler) http.Handler {
	return http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
}

// padded answers as usual with one byte more.
func padded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		_, _ = w.Write(append(captured(next, request), ' ')) // the client may be gone
	})
}

// captured is the body that is usually answered.
func captured(next http.Handler, request *http.Request) []byte {
	usual := httptest.NewRecorder()
	next.ServeHTTP(usual, request)
	return usual.Body.Bytes()
}

// lines shows requests as text, for messages and comparison.
func lines(requests []registrytest.Request) []string {
	var out []string
	for _, r := range requests {
		out = append(out, r.String())
	}
	return out
}

// inClear is what insecurePlainHTTP compiles to.
func inClear() *policy.Transport { return hashed(policy.Transport{PlainHTTP: true}) }

// hashed gives a transport the hash of its contents.
func hashed(transport policy.Transport) *policy.Transport {
	parts := fmt.Sprintf("%t %q %s", transport.PlainHTTP, transport.Authorities, transport.Unusable)
	if transport.Certificate != nil {
		parts += fmt.Sprintf(" %x", transport.Certificate.Certificate)
	}
	transport.Hash = sha256.Sum256([]byte(parts))
	return &transport
}
