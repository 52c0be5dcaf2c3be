// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// in is a date as registries write it, at least that far away.
func in(d time.Duration) string {
	return time.Now().Add(d + time.Second).UTC().Format(http.TimeFormat)
}

func TestRetry(t *testing.T) {
	for name, test := range map[string]struct {
		match    registrytest.Match // of what goes wrong
		fault    registrytest.Behaviour
		deadline time.Duration
		requests int // that match
		err      policy.Reason
		atLeast  time.Duration
		soon     bool // it must not be waited at all
	}{
		"429, later": {
			match: registrytest.First(2, registrytest.Method("HEAD")), fault: registrytest.RetryAfter(429, "0"), requests: 3,
		},
		"503, later": {
			match: registrytest.First(1, registrytest.Method("HEAD")), fault: registrytest.RetryAfter(503, "0"), requests: 2,
		},
		"as many seconds as it says": {
			match: registrytest.First(1, registrytest.Method("HEAD")), fault: registrytest.RetryAfter(429, "1"),
			requests: 2, atLeast: time.Second,
		},
		"when it says": {
			match: registrytest.First(1, registrytest.Method("HEAD")), fault: registrytest.RetryAfter(503, in(4*time.Second)),
			requests: 2, atLeast: time.Second,
		},
		"a date that is over": {
			match: registrytest.First(1, registrytest.Method("HEAD")), fault: registrytest.RetryAfter(503, in(-time.Hour)), requests: 2,
		},
		"not for ever": {
			match: registrytest.Method("HEAD"), fault: registrytest.RetryAfter(429, "0"), requests: 4, err: policy.ReasonRateLimited,
		},
		"not past the deadline": {
			match: registrytest.Method("HEAD"), fault: registrytest.RetryAfter(429, "6"), deadline: 5 * time.Second,
			requests: 1, err: policy.ReasonRateLimited, soon: true,
		},
		"not past the deadline by a date": {
			match: registrytest.Method("HEAD"), fault: registrytest.RetryAfter(503, in(time.Hour)), deadline: 5 * time.Second,
			requests: 1, err: policy.ReasonRegistryError, soon: true,
		},
		"not the login past the deadline": {
			match: registrytest.Ping(), fault: registrytest.RetryAfter(429, "6"), deadline: 5 * time.Second,
			requests: 1, err: policy.ReasonRateLimited, soon: true,
		},
		"not without its word": {
			match: registrytest.Method("HEAD"), fault: registrytest.Status(503), requests: 1, err: policy.ReasonRegistryError,
		},
		"not at a word that is none": {
			match: registrytest.Method("HEAD"), fault: registrytest.RetryAfter(503, "-1 "+canary), requests: 1, err: policy.ReasonRegistryError,
		},
		"not at a number beyond numbers": {
			match: registrytest.Method("HEAD"), fault: registrytest.RetryAfter(503, "99999999999999999999"), requests: 1, err: policy.ReasonRegistryError,
		},
		"not another status": {
			match: registrytest.Method("HEAD"), fault: registrytest.RetryAfter(500, "0"), requests: 1, err: policy.ReasonRegistryError,
		},
		"a login": {
			match: registrytest.First(2, registrytest.Ping()), fault: registrytest.RetryAfter(503, "0"), requests: 3,
		},
		"a login, not for ever": {
			match: registrytest.Ping(), fault: registrytest.RetryAfter(503, "0"), requests: 4, err: policy.ReasonRegistryError,
		},
		"a token": {
			match: registrytest.First(2, path("/token")), fault: registrytest.RetryAfter(429, "0"), requests: 3,
		},
		"a connection that breaks": {match: registrytest.First(1, registrytest.Ping()), fault: hangUp, requests: 2},
		"one that always does": {
			match: registrytest.Ping(), fault: hangUp, requests: 4, err: policy.ReasonUnreachable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			asked := 0
			r.Fault(test.match, test.fault)
			ctx, began := t.Context(), time.Now()
			if test.deadline > 0 {
				ctx = within(t, test.deadline)
			}
			_, err := newClient(t, r).Resolve(ctx, shownImage(t, image, secret(r.Host(), "user", "s3cret")))
			took := time.Since(began)
			if test.err != "" {
				wantError(t, err, test.err, r.Host())
			} else if err != nil {
				t.Errorf("Resolve: %v", err)
			}
			kind := map[string]int{}
			for _, request := range r.Requests() {
				kind[request.Method+" "+request.Path]++
			}
			for _, n := range kind {
				asked = max(asked, n)
			}
			if asked != test.requests {
				t.Errorf("%d of the same request, want %d: %v", asked, test.requests, lines(r.Requests()))
			}
			if took < test.atLeast {
				t.Errorf("took %v, want at least %v", took, test.atLeast)
			}
			if test.soon && took > test.deadline/2 {
				t.Errorf("took %v, want an answer at once", took)
			}
		})
	}
}

// Layers above one another do not multiply: one request has its retries once,
// whatever it consists of.
func TestRetriesAreCountedTogether(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	later := registrytest.RetryAfter(503, "0")
	r.Fault(registrytest.First(2, registrytest.Ping()), later)
	r.Fault(registrytest.First(1, path("/token")), later)
	r.Fault(registrytest.First(1, registrytest.Method("HEAD")), later)
	client, it := newClient(t, r), shownImage(t, image, secret(r.Host(), "user", "s3cret"))
	_, err := client.Resolve(t.Context(), it)
	wantError(t, err, policy.ReasonRegistryError, r.Host())
	if n := len(r.Requests()); n != 3+2+1 {
		t.Errorf("%d requests, want three pings, two for a token and a HEAD: %v", n, lines(r.Requests()))
	}
	if _, err := client.Resolve(t.Context(), it); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

// What breaks off in the middle is read again from its beginning, and what is
// no question is not sent again.
func TestRetryMidBody(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	r.Fault(registrytest.First(1, registrytest.Signature(image)), registrytest.ResetMidBody())
	r.Fault(registrytest.First(1, registrytest.Blob("acme/app")), registrytest.ResetMidBody())
	batch, err := gather(newClient(t, r).Signatures(t.Context(), askedImage(t, image)))
	if err != nil || len(batch) != 1 {
		t.Errorf("Signatures = %d, %v; want 1", len(batch), err)
	}
	if n := len(r.Counted()); n != 4 {
		t.Errorf("%d requests, want two for the manifest and two for the payload: %v", n, lines(r.Counted()))
	}
}

func TestNoRetryOfRefreshTokens(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(path("/token"), registrytest.RetryAfter(503, "0"))
	_, err := newClient(t, r).Resolve(t.Context(), shownImage(t, image, identity(r.Host(), "refresh")))
	wantError(t, err, policy.ReasonRegistryError, r.Host())
	posted := 0
	for _, request := range r.Requests() {
		if request.Method == http.MethodPost {
			posted++
		}
	}
	if posted != 1 {
		t.Errorf("sent %d times, want once: %v", posted, lines(r.Requests()))
	}
}
