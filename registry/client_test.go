// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestResolve(t *testing.T) {
	t.Run("by one HEAD request", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		got, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(policy.Resolution{Digest: image.Digest}, got); diff != "" {
			t.Errorf("resolution (-want +got):\n%s", diff)
		}
		want := []string{"HEAD /v2/acme/app/manifests/v1 200"}
		if diff := cmp.Diff(want, lines(r.Counted())); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
	t.Run("an index to the index", func(t *testing.T) {
		r := registrytest.New(t)
		index := r.PushIndex(t, "acme/app:v1")
		got, err := newClient(t, r).Resolve(t.Context(), askedImage(t, index.Image))
		if err != nil || got.Digest != index.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, index.Digest)
		}
	})
	t.Run("the tag and not the digest beside it", func(t *testing.T) {
		r := registrytest.New(t)
		old := r.PushImage(t, "acme/app:v1")
		moved := r.PushImage(t, "acme/app:v1")
		got, err := newClient(t, r).Resolve(t.Context(), asked(t, old.ByBoth(), old.Digest))
		if err != nil || got.Digest != moved.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, moved.Digest)
		}
	})
	t.Run("latest where nothing is written", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app")
		got, err := newClient(t, r).Resolve(t.Context(), asked(t, image.Name(), ""))
		if err != nil || got.Digest != image.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
		}
	})
	t.Run("by the body where the header is missing", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.Fault(registrytest.Manifest(image.ByTag()), registrytest.WrongDigest(""))
		got, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
		if err != nil || got.Digest != image.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
		}
		want := []string{"HEAD /v2/acme/app/manifests/v1 200", "GET /v2/acme/app/manifests/v1 200"}
		if diff := cmp.Diff(want, lines(r.Counted())); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// A digest that a registry sends ends up in references, messages and addresses.
func TestResolveHostileDigest(t *testing.T) {
	hex := strings.Repeat("ab12", 16)
	for name, digest := range map[string]string{
		"too short":         "sha256:ab12",
		"too long":          "sha256:" + hex + "0",
		"upper case":        "sha256:" + strings.ToUpper(hex),
		"other algorithm":   "sha512:" + hex + hex,
		"no algorithm":      hex,
		"a path":            "../../../v2/evil/app/manifests/sha256:" + hex,
		"a path behind":     "sha256:" + hex + "/../../evil",
		"a query behind":    "sha256:" + hex + "?x=" + canary,
		"an address":        "http://169.254.169.254/" + canary,
		"a second digest":   "sha256:" + hex + "@sha256:" + hex,
		"a tag before":      "v1@sha256:" + hex,
		"an escape":         "sha256:" + hex[:62] + "%61",
		"a tab":             "sha256:" + hex + "\tx",
		"words":             canary + " and more",
		"of the other kind": "sha256-" + hex,
		"very long":         "sha256:" + strings.Repeat("a", 32<<10),
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Method("HEAD"), answer(200, "", "Docker-Content-Digest", digest))
			got, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
			wantError(t, err, policy.ReasonUnexpected, r.Host())
			if got != (policy.Resolution{}) {
				t.Errorf("resolution = %+v, want none", got)
			}
			if n := len(r.Counted()); n != 1 {
				t.Errorf("%d requests, want 1: %v", n, lines(r.Counted()))
			}
		})
	}
}

// The table of spec section 4, "What the registry says".
func TestFailures(t *testing.T) {
	const body = `{"errors":[{"code":"X","message":"` + canary + `\u001b[2J"}]}`
	status := func(code int) registrytest.Behaviour {
		return answer(code, body, "Docker-Content-Digest", canary, "WWW-Authenticate", `Basic realm="`+canary+`"`)
	}
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  policy.Reason
		says  string
	}{
		"204":             {answer(204, ""), policy.ReasonUnexpected, "204"},
		"400":             {status(400), policy.ReasonUnexpected, "400"},
		"401":             {status(401), policy.ReasonUnauthorized, "401"},
		"403":             {status(403), policy.ReasonUnauthorized, "403"},
		"404":             {status(404), policy.ReasonNotFound, "404"},
		"408":             {status(408), policy.ReasonDeadline, "408"},
		"418":             {status(418), policy.ReasonUnexpected, "418"},
		"429":             {status(429), policy.ReasonRateLimited, "429"},
		"500":             {status(500), policy.ReasonRegistryError, "500"},
		"502":             {status(502), policy.ReasonRegistryError, "502"},
		"503":             {status(503), policy.ReasonRegistryError, "503"},
		"partial content": {status(206), policy.ReasonUnexpected, "206"},
		"connection lost": {hangUp, policy.ReasonUnreachable, "cannot be reached"},
		"reset mid body":  {registrytest.ResetMidBody(), policy.ReasonUnreachable, ""},
		"too large":       {registrytest.Oversized(4<<20 + 1), policy.ReasonLimit, "4194304"},
		"without end":     {registrytest.Endless(), policy.ReasonLimit, "4194304"},
		"no Location":     {answer(307, ""), policy.ReasonUnexpected, "307"},
		"bad Location":    {answer(307, "", "Location", "http://%zz"+canary), policy.ReasonUnreachable, ""},
		"ftp Location":    {answer(307, "", "Location", "ftp://"+canary+"/x"), policy.ReasonUnreachable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
			all := registrytest.Ping().Not()
			client, it := newClient(t, r), askedImage(t, image)

			// Every read of a manifest goes the same way; HEAD has no body.
			remove := r.Fault(all.And(registrytest.Method("GET")), test.fault)
			_, recheck := gather(client.Recheck(t.Context(), it, false))
			wantError(t, recheck, test.want, r.Host())
			if !strings.Contains(recheck.Error(), test.says) {
				t.Errorf("message = %q, want %q in it", recheck, test.says)
			}
			for form, ask := range forms(client) {
				if test.want == policy.ReasonNotFound {
					continue // means that there are none
				}
				if n, err := ask(t.Context(), it); n != 0 || err == nil {
					t.Errorf("%s: %d items and error %v, want none and an error", form, n, err)
				} else {
					wantError(t, err, test.want, r.Host())
				}
			}
			remove()

			// Resolve reads the body only when the header is missing.
			r.Fault(all.And(registrytest.Method("HEAD")), answer(200, ""))
			r.Fault(all, test.fault)
			got, err := client.Resolve(t.Context(), it)
			wantError(t, err, test.want, r.Host())
			if got != (policy.Resolution{}) {
				t.Errorf("resolution = %+v, want none", got)
			}
		})
	}
}

// forms are the two ways to look for signatures, as counts.
func forms(client *registry.Client) map[string]func(context.Context, policy.Image) (int, error) {
	return map[string]func(context.Context, policy.Image) (int, error){
		"Signatures": func(ctx context.Context, image policy.Image) (int, error) {
			batch, err := gather(client.Signatures(ctx, image))
			return len(batch), err
		},
		"Bundles": func(ctx context.Context, image policy.Image) (int, error) {
			batch, err := gather(client.Bundles(ctx, image, false))
			return len(batch), err
		},
	}
}

func TestHeadFailures(t *testing.T) {
	for code, want := range map[int]policy.Reason{
		401: policy.ReasonUnauthorized, 403: policy.ReasonUnauthorized, 404: policy.ReasonNotFound,
		408: policy.ReasonDeadline, 429: policy.ReasonRateLimited, 500: policy.ReasonRegistryError,
	} {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.Fault(registrytest.Method("HEAD"), registrytest.Status(code))
		_, err := newClient(t, r).Resolve(t.Context(), askedImage(t, image))
		wantError(t, err, want, r.Host())
		if n := len(r.Counted()); n != 1 {
			t.Errorf("%d: %d requests, want 1: a status is an answer", code, n)
		}
	}
}

// The login comes before everything: what goes wrong there says nothing about
// the image.
func TestLoginFailures(t *testing.T) {
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  policy.Reason
	}{
		"404":                 {answer(404, canary), policy.ReasonUnexpected},
		"403":                 {answer(403, canary), policy.ReasonUnauthorized},
		"429":                 {answer(429, canary), policy.ReasonRateLimited},
		"500":                 {answer(500, canary), policy.ReasonRegistryError},
		"lost":                {hangUp, policy.ReasonUnreachable},
		"no realm":            {registrytest.Challenge(`Bearer service="` + canary + `"`), policy.ReasonUnreachable},
		"realm on an address": {registrytest.Challenge(`Bearer realm="http://169.254.169.254/` + canary + `"`), policy.ReasonUnreachable},
		"realm that is none":  {registrytest.Challenge(`Bearer realm="%zz` + canary + `"`), policy.ReasonUnreachable},
		"file realm":          {registrytest.Challenge(`Bearer realm="file:///etc/` + canary + `"`), policy.ReasonUnreachable},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
			remove := r.Fault(registrytest.Ping(), test.fault)
			client, it := newClient(t, r), askedImage(t, image)
			_, err := client.Resolve(t.Context(), it)
			wantError(t, err, test.want, r.Host())
			for form, ask := range forms(client) {
				if n, err := ask(t.Context(), it); n != 0 || err == nil {
					t.Errorf("%s = %d items, error %v; want none and an error", form, n, err)
				}
			}
			if n := len(r.Counted()); n != 0 {
				t.Errorf("%d requests without a login, want none: %v", n, lines(r.Counted()))
			}
			remove()
			if _, err := client.Resolve(t.Context(), it); err != nil {
				t.Errorf("Resolve once the login works again: %v", err)
			}
		})
	}
}

// A token service that sends something else, or too much, is bounded and is
// not quoted.
func TestTokenFailures(t *testing.T) {
	for name, fault := range map[string]registrytest.Behaviour{
		"404":         answer(404, canary),
		"500":         answer(500, canary),
		"not JSON":    answer(200, canary),
		"no token":    answer(200, `{"`+canary+`":1}`),
		"without end": registrytest.Endless(),
		"lost":        hangUp,
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
			r.Fault(path("/token"), fault)
			client := newClient(t, r)
			it := shownImage(t, image, secret(r.Host(), "user", "s3cret"))
			_, err := client.Resolve(t.Context(), it)
			var got *registry.Error
			if !errors.As(err, &got) || got.Reason == policy.ReasonNotFound {
				t.Fatalf("error = %v, want a registry.Error that does not say the image is not there", err)
			}
			wantError(t, err, got.Reason, r.Host())
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("message = %q, want no password in it", err)
			}
			for form, ask := range forms(client) {
				if n, err := ask(t.Context(), it); n != 0 || err == nil {
					t.Errorf("%s = %d items, error %v; want none and an error", form, n, err)
				}
			}
		})
	}
}

// A registry that gives no answer costs what the caller allows and no more, in
// whichever exchange it stops.
func TestDeadline(t *testing.T) {
	for name, match := range map[string]registrytest.Match{
		"login":    registrytest.Ping(),
		"the rest": registrytest.Ping().Not(),
	} {
		for slow, behaviour := range map[string]registrytest.Behaviour{
			"hangs": registrytest.Hang(),
			"drips": registrytest.SlowDrip(100 * time.Millisecond),
		} {
			t.Run(name+" "+slow, func(t *testing.T) {
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
				r.SignBundle(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
				r.Fault(registrytest.Method("HEAD"), answer(200, ""))
				r.Fault(match, behaviour)
				// The login's usual answer has no body that could drip.
				r.Fault(registrytest.Ping(), answer(200, strings.Repeat(" ", 1<<10)))
				client, it := newClient(t, r), askedImage(t, image)
				done := inTime(t, 5*time.Second)
				ctx := within(t, 300*time.Millisecond)
				errs := make(chan error, 4)
				go func() { _, err := client.Resolve(ctx, it); errs <- err }()
				go func() { _, err := gather(client.Recheck(ctx, it, false)); errs <- err }()
				for _, ask := range forms(client) {
					go func() { _, err := ask(ctx, it); errs <- err }()
				}
				for range cap(errs) {
					wantError(t, <-errs, policy.ReasonDeadline, r.Host())
				}
				done()
			})
		}
	}
	t.Run("a context that is over", func(t *testing.T) {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := newClient(t, r).Resolve(ctx, askedImage(t, image))
		wantError(t, err, policy.ReasonDeadline, r.Host())
	})
}

// Whoever waits for somebody else's login is not failed by that one's end.
func TestLoginOutlivesItsRequest(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	release := make(chan struct{})
	r.Fault(registrytest.Ping(), registrytest.Hold(release))
	client, it := newClient(t, r), askedImage(t, image)
	_, err := client.Resolve(within(t, 100*time.Millisecond), it)
	wantError(t, err, policy.ReasonDeadline, r.Host())
	second := make(chan error, 1)
	go func() { _, err := client.Resolve(within(t, soon), it); second <- err }()
	time.Sleep(50 * time.Millisecond) // it may join the login or find it done: both are right
	close(release)
	if err := <-second; err != nil {
		t.Errorf("the second request: %v", err)
	}
	if n := len(r.Requests()) - len(r.Counted()); n != 1 {
		t.Errorf("%d logins, want 1: %v", n, lines(r.Requests()))
	}
}

func TestRegistryDown(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	client := newClient(t, r)
	if _, err := client.Resolve(t.Context(), askedImage(t, image)); err != nil {
		t.Fatal(err)
	}
	r.Close()
	for name, c := range map[string]*registry.Client{"logged in": client, "new": newClient(t, r)} {
		_, err := c.Resolve(t.Context(), askedImage(t, image))
		wantError(t, err, policy.ReasonUnreachable, r.Host())
		if !strings.Contains(err.Error(), "no connection") {
			t.Errorf("%s: message = %q, want the cause", name, err)
		}
	}
}

func TestCredentialsThatCannotBeRead(t *testing.T) {
	r := registrytest.New(t)
	image := askedImage(t, r.PushImage(t, "acme/app:v1"))
	image.Credentials = credential.NewSource(func(context.Context) (credential.Found, error) {
		return credential.Found{}, errors.New(`reading secret "pull": not a Docker configuration`)
	})
	client := newClient(t, r)
	for name, ask := range map[string]func() error{
		"Resolve":    func() error { _, err := client.Resolve(t.Context(), image); return err },
		"Signatures": func() error { _, err := gather(client.Signatures(t.Context(), image)); return err },
		"Bundles":    func() error { _, err := gather(client.Bundles(t.Context(), image, false)); return err },
		"Recheck":    func() error { _, err := gather(client.Recheck(t.Context(), image, false)); return err },
		"Identify":   func() error { _, err := client.Identify(t.Context(), image); return err },
	} {
		err := ask()
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		wantError(t, err, policy.ReasonCredentials, `secret "pull"`)
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests, want none: what may be shown is unknown", n)
	}
}
