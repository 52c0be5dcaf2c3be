// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const supports = "X-Registry-Supports-Signatures"

// keeping is a registry that keeps n signatures of an image itself, called 1, 2, ….
func keeping(t *testing.T, n int, options ...registrytest.Option) (*registrytest.Registry, registrytest.Image) {
	t.Helper()
	r := registrytest.New(t, options...)
	image := r.PushImage(t, "acme/app:v1")
	r.KeepSignatures()
	for i := range n {
		r.PutSignature(image.Repository, image.Digest, fmt.Append(nil, i+1))
	}
	return r, image
}

// numbers are the texts of as many signatures that a registry keeps.
func numbers(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%d, by the registry", i+1))
	}
	return out
}

func TestKeptSignatures(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"none": 0, "one": 1, "several": 3, "as many as are tried": 64, "one more": 65, "a hundred": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image := keeping(t, n)
			l := registrytest.NewLookaside(t)
			l.Put(image.Repository, image.Digest, []byte("beside"))
			got, err := gather(newClient(t, r).SimpleSignatures(within(t, soon), askedImage(t, image), lookasideAt(t, l)))
			if diff := cmp.Diff(numbers(min(n, 64)), texts(got)); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}
			if n <= 64 {
				wantAtMost(t, err, "")
			} else {
				wantError(t, err, policy.ReasonLimit, r.Host())
			}
			want := []string{"GET /extensions/v2/acme/app/signatures/" + image.Digest + " 200"}
			if diff := cmp.Diff(want, lines(r.Counted())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if len(l.Requests()) != 0 {
				t.Errorf("the lookaside is asked: %v", lines(l.Requests()))
			}
		})
	}
}

// Whoever does not say 1 when it is asked how to log in keeps none.
func TestRegistriesThatKeepNone(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]registrytest.Behaviour{
		"nothing": registrytest.Header(supports, ""), "another number": registrytest.Header(supports, "2"),
		"a word": registrytest.Header(supports, "true"), "more": registrytest.Header(supports, "1, 1"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image := keeping(t, 1)
			r.Fault(registrytest.Ping(), fault)
			l := registrytest.NewLookaside(t)
			l.Put(image.Repository, image.Digest, []byte("beside"))
			client, it := newClient(t, r), askedImage(t, image)
			wantTexts(t, client, it, lookasideAt(t, l), "beside")
			wantTexts(t, client, it, nil)
			if n := len(r.Counted()); n != 0 {
				t.Errorf("%d requests, want none but the login: %v", n, lines(r.Counted()))
			}
		})
	}
}

// It is the login that tells, however it goes on, and it is not forgotten.
func TestKeptSignaturesAndCredentials(t *testing.T) {
	t.Parallel()
	for scheme, with := range authSchemes {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			r, image := keeping(t, 2, with("good", "right"))
			it := shownImage(t, image, secret(r.Host(), "first", "wrong"), secret(r.Host(), "good", "right"), secret(r.Host(), "last", "unneeded"))
			client := newClient(t, r)
			wantTexts(t, client, it, nil, numbers(2)...)
			var order []string
			for _, request := range r.Requests() {
				if user := userOf(request); user != "" && (len(order) == 0 || order[len(order)-1] != user) {
					order = append(order, user)
				}
			}
			if got := strings.Join(order, " "); got != "first good" {
				t.Errorf("tried %q, want %q", got, "first good")
			}

			if _, err := client.Manifest(t.Context(), it); err != nil { // which proves who sees it
				t.Fatal(err)
			}
			r.Fault(registrytest.Ping(), registrytest.Status(500))
			r.Reset()
			wantTexts(t, client, it, nil, numbers(2)...)
			if n := len(r.Requests()); n != 1 {
				t.Errorf("%d requests, want the list alone: %v", n, lines(r.Requests()))
			}
		})
	}
	t.Run("none will do", func(t *testing.T) {
		t.Parallel()
		r, image := keeping(t, 2, registrytest.WithTokenAuth("good", "right"))
		l := registrytest.NewLookaside(t)
		it := shownImage(t, image, secret(r.Host(), "first", "wrong"), secret(r.Host(), "second", "wrong"))
		_, err := gather(newClient(t, r).SimpleSignatures(t.Context(), it, lookasideAt(t, l)))
		wantError(t, err, policy.ReasonUnauthorized, r.Host())
		if len(l.Requests()) != 0 {
			t.Error("the lookaside is asked although it is not known what the registry keeps")
		}
	})
}

// The answer that counts is the one to the ping; one to which a redirect leads is.
func TestWhereItIsSaidThatSignaturesAreKept(t *testing.T) {
	t.Parallel()
	says := registrytest.Header(supports, "1")
	for name, test := range map[string]struct {
		order func(r, other *registrytest.Registry)
		kept  bool
	}{
		"after a redirect": {kept: true, order: func(r, other *registrytest.Registry) {
			other.Fault(registrytest.Ping(), says)
			r.Fault(registrytest.Ping(), registrytest.Redirect("http://"+other.Host()))
		}},
		"before a redirect": {order: func(r, other *registrytest.Registry) {
			r.Fault(registrytest.Ping(), says)
			r.Fault(registrytest.Ping(), registrytest.Redirect("http://"+other.Host()))
		}},
		"on the second try": {kept: true, order: func(r, _ *registrytest.Registry) {
			r.Fault(registrytest.First(1, registrytest.Ping()), registrytest.RetryAfter(503, "0"))
			r.Fault(registrytest.Ping(), says)
		}},
		"on a try that failed": {order: func(r, _ *registrytest.Registry) {
			r.Fault(registrytest.First(1, registrytest.Ping()), answer(503, "", supports, "1", "Retry-After", "0"))
		}},
		"with a manifest": {order: func(r, _ *registrytest.Registry) { r.Fault(registrytest.Manifest("acme/app"), says) }},
		"with a token":    {order: func(r, _ *registrytest.Registry) { r.Fault(path("/token"), says) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
			other := registrytest.New(t, registrytest.WithAddress("127.0.0.1:0"))
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.KeptSignatures("acme/app"), registrytest.Body("application/json",
				`{"signatures":[{"schemaVersion":2,"type":"atomic","content":"MQ=="}]}`))
			test.order(r, other)
			client, it := newClient(t, r, other), shownImage(t, image, secret(r.Host(), "user", "s3cret"))
			if strings.HasSuffix(name, "redirect") { // whose challenge would be the other's
				it = askedImage(t, image)
			}
			if strings.HasSuffix(name, "manifest") {
				if _, err := client.Manifest(t.Context(), it); err != nil {
					t.Fatal(err)
				}
			}
			var want []string
			if test.kept {
				want = numbers(1)
			}
			wantTexts(t, client, it, nil, want...)
		})
	}
}

func TestKeptSignaturesFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault    registrytest.Behaviour
		want     policy.Reason
		deadline time.Duration
	}{
		"401":               {fault: registrytest.Status(401), want: policy.ReasonUnauthorized},
		"403":               {fault: registrytest.Status(403), want: policy.ReasonUnauthorized},
		"404":               {fault: registrytest.Status(404), want: policy.ReasonNotFound},
		"405":               {fault: registrytest.Status(405), want: policy.ReasonUnexpected},
		"429":               {fault: registrytest.Status(429), want: policy.ReasonRateLimited},
		"500":               {fault: registrytest.Status(500), want: policy.ReasonRegistryError},
		"a lost connection": {fault: hangUp, want: policy.ReasonUnreachable},
		"a reset":           {fault: registrytest.ResetMidBody(), want: policy.ReasonUnreachable},
		"too large":         {fault: registrytest.Oversized(8<<20 + 1), want: policy.ReasonLimit},
		"without end":       {fault: registrytest.Endless(), want: policy.ReasonLimit},
		"a huge length":     {fault: registrytest.HugeLength(4 << 30), want: policy.ReasonLimit},
		"packed":            {fault: registrytest.Bomb(9 << 20), want: policy.ReasonUnexpected},
		"no answer":         {fault: registrytest.Hang(), deadline: 300 * time.Millisecond, want: policy.ReasonDeadline},
		"a slow answer":     {fault: registrytest.SlowDrip(time.Minute), deadline: 300 * time.Millisecond, want: policy.ReasonDeadline},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image := keeping(t, 3)
			r.Fault(registrytest.KeptSignatures("acme/app"), test.fault)
			l := registrytest.NewLookaside(t)
			if test.deadline == 0 {
				test.deadline = soon
			}
			got, err := gather(newClient(t, r).SimpleSignatures(within(t, test.deadline), askedImage(t, image), lookasideAt(t, l)))
			wantError(t, err, test.want, r.Host())
			if len(got) != 0 || len(l.Requests()) != 0 {
				t.Errorf("%d signatures, and the lookaside was asked %v; want nothing", len(got), lines(l.Requests()))
			}
		})
	}
}

func TestKeptSignaturesHostileLists(t *testing.T) {
	t.Parallel()
	entry := func(version any, kind string, content any) string {
		raw, err := json.Marshal(map[string]any{"schemaVersion": version, "name": canary, "type": kind, "content": content})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	listed := func(entries ...string) string { return `{"signatures":[` + strings.Join(entries, ",") + `]}` }
	one := entry(2, "atomic", base64.StdEncoding.EncodeToString([]byte("1")))
	two := entry(2, "atomic", base64.StdEncoding.EncodeToString([]byte("2")))
	large := func(size int) string {
		return entry(2, "atomic", base64.StdEncoding.EncodeToString(make([]byte, size)))
	}
	others := strings.Repeat(entry(1, "atomic", "MQ==")+","+entry(2, "other", "MQ==")+",", 60)
	for name, test := range map[string]struct {
		body string
		want int
		err  policy.Reason
	}{
		"nothing":                         {"", 0, policy.ReasonUnexpected},
		"not JSON":                        {"\x00" + canary, 0, policy.ReasonUnexpected},
		"cut short":                       {listed(one)[:40], 0, policy.ReasonUnexpected},
		"more behind it":                  {listed(one) + canary, 0, policy.ReasonUnexpected},
		"a list":                          {"[" + one + "]", 0, policy.ReasonUnexpected},
		"a text as signatures":            {`{"signatures":"` + canary + `"}`, 0, policy.ReasonUnexpected},
		"an object as signatures":         {`{"signatures":{}}`, 0, policy.ReasonUnexpected},
		"nested deep":                     {`{"signatures":` + strings.Repeat("[", 1<<20), 0, policy.ReasonUnexpected},
		"a number as signature":           {listed(one, "7"), 0, policy.ReasonUnexpected},
		"contents that are not base64":    {listed(one, entry(2, "atomic", canary+"!")), 0, policy.ReasonUnexpected},
		"contents that are a number":      {listed(one, entry(2, "atomic", 7)), 0, policy.ReasonUnexpected},
		"a version that is text":          {listed(one, entry("2", "atomic", "MQ==")), 0, policy.ReasonUnexpected},
		"null":                            {"null", 0, ""},
		"an object":                       {"{}", 0, ""},
		"null as signatures":              {`{"signatures":null}`, 0, ""},
		"null as a signature":             {listed("null", one), 1, ""},
		"two":                             {listed(one, two), 2, ""},
		"another version":                 {listed(entry(1, "atomic", "MQ=="), one, entry(3, "atomic", "MQ==")), 1, ""},
		"another type":                    {listed(entry(2, "Atomic", "MQ=="), one, entry(2, "", "MQ=="), entry(2, "AtomicImageV1", "MQ==")), 1, ""},
		"no version and type":             {listed(`{"content":"MQ=="}`), 0, ""},
		"many that do not count":          {listed(others + one), 1, ""},
		"signatures twice":                {`{"signatures":[` + one + `],"signatures":[` + one + `,` + two + `]}`, 2, ""},
		"as large as may be":              {listed(large(1<<20), one), 2, ""},
		"one too large":                   {listed(one, large(1<<20+1), two), 2, policy.ReasonLimit},
		"as many as are tried, of more":   {listed(strings.Repeat(one+",", 64) + two), 64, policy.ReasonLimit},
		"as many as are tried":            {listed(others + strings.Repeat(one+",", 63) + one), 64, ""},
		"a million that say nothing":      {listed(strings.Repeat("{},", 1<<20) + one), 0, policy.ReasonLimit},
		"a million behind one":            {listed(one + strings.Repeat(",{}", 1<<20)), 1, policy.ReasonLimit},
		"nothing in contents":             {listed(entry(2, "atomic", nil)), 1, ""},
		"large ones to the bound":         {listed(large(1<<20), large(1<<20), large(1<<20), large(1<<20), large(1<<20)), 5, ""},
		"one that takes all there may be": {listed(large(6<<20 - 1<<10)), 0, policy.ReasonLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image := keeping(t, 0)
			r.Fault(registrytest.KeptSignatures("acme/app"), registrytest.Body("application/json", test.body))
			got, err := gather(newClient(t, r).SimpleSignatures(within(t, soon), askedImage(t, image), nil))
			if len(got) != test.want {
				t.Errorf("%d signatures, want %d", len(got), test.want)
			}
			for _, one := range got {
				if !one.ByRegistry {
					t.Error("a signature that is not the registry's own")
				}
			}
			if wantAtMost(t, err, test.err); err != nil && !strings.Contains(err.Error(), r.Host()) {
				t.Errorf("message = %q, want the host in it", err)
			}
		})
	}
}

// A list is no proof that a credential sees the repository: who gives everybody an
// empty one still has to say itself that something is not there.
func TestAnEmptyListProvesNothing(t *testing.T) {
	t.Parallel()
	r, image := keeping(t, 0, registrytest.WithBasicAuth("first", "a"), registrytest.WithBasicAuth("second", "b"))
	first := func(request *http.Request) bool {
		user, _, _ := request.BasicAuth()
		return user == "first"
	}
	r.Fault(registrytest.Manifest("acme/app").And(first), registrytest.Status(404))
	client, it := newClient(t, r), shownImage(t, image, secret(r.Host(), "first", "a"), secret(r.Host(), "second", "b"))
	wantTexts(t, client, it, nil)
	if _, err := client.Manifest(t.Context(), it); err != nil {
		t.Errorf("Manifest: %v", err)
	}
}

// Nobody is asked where the registry itself may not be.
func TestSimpleSignaturesOfWhatIsNotAsked(t *testing.T) {
	t.Parallel()
	r, image := keeping(t, 1)
	l := registrytest.NewLookaside(t)
	l.Put(image.Repository, image.Digest, []byte("beside"))
	client := newClientWith(t, registry.Options{Insecure: []string{r.Host()}, DenyCIDRs: []netip.Prefix{loopback}})
	_, err := gather(client.SimpleSignatures(t.Context(), askedImage(t, image), lookasideAt(t, l)))
	wantError(t, err, policy.ReasonUnreachable, "127.0.0.1")

	it := askedImage(t, image)
	it.Transport = &policy.Transport{Unusable: "its Secret is missing"}
	_, err = gather(newClient(t, r).SimpleSignatures(t.Context(), it, lookasideAt(t, l)))
	wantError(t, err, policy.ReasonNotReady, "its Secret is missing")
	if n := len(r.Requests()) + len(l.Requests()); n != 0 {
		t.Errorf("%d requests, want none", n)
	}
}
