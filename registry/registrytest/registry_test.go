// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// bound ends a request of these tests that should have ended by itself.
const bound = 10 * time.Second

type reply struct {
	Status      int
	Digest      string
	ContentType string
	Location    string
	Body        string
	Err         error
}

// ask makes one request without following redirects and reads at most limit bytes of its answer.
func ask(t *testing.T, method, url string, limit int64) reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bound)
	defer cancel()
	return askContext(ctx, t, method, url, limit)
}

func askContext(ctx context.Context, t *testing.T, method, url string, limit int64) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return reply{Err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, limit))
	return reply{
		Status: resp.StatusCode, Digest: resp.Header.Get("Docker-Content-Digest"),
		ContentType: resp.Header.Get("Content-Type"), Location: resp.Header.Get("Location"),
		Body: string(body), Err: err,
	}
}

func manifestURL(image registrytest.Image, target string) string {
	return "http://" + image.Registry + "/v2/" + image.Repository + "/manifests/" + target
}

func TestReferencesOfImages(t *testing.T) {
	i := registrytest.Image{Registry: "127.0.0.1:5000", Repository: "acme/app", Tag: "v1", Digest: "sha256:ab"}
	untagged := i
	untagged.Tag = ""
	equal(t, "names", []string{i.Name(), i.ByTag(), i.ByDigest(), i.ByBoth(), i.String(), untagged.ByTag(), untagged.ByBoth()},
		[]string{
			"127.0.0.1:5000/acme/app", "127.0.0.1:5000/acme/app:v1", "127.0.0.1:5000/acme/app@sha256:ab",
			"127.0.0.1:5000/acme/app:v1@sha256:ab", "127.0.0.1:5000/acme/app:v1",
			"127.0.0.1:5000/acme/app", "127.0.0.1:5000/acme/app@sha256:ab",
		})
	equal(t, "tags", []string{i.SignatureTag(), i.ReferrersTag()}, []string{"sha256-ab.sig", "sha256-ab"})
}

func TestContentIsDistinctAndRepeatable(t *testing.T) {
	push := func() []string {
		r := registrytest.New(t)
		index := r.PushIndex(t, "acme/app:v1", "linux/amd64", "linux/arm64/v8")
		return []string{
			r.PushImage(t, "acme/app:v1").Digest, r.PushImage(t, r.Host()+"/acme/app:v1").Digest, r.PushImage(t, "acme/app").Digest,
			index.Digest, index.Manifests[0].Digest, index.Manifests[1].Digest,
		}
	}
	first := push()
	equal(t, "the same calls again", push(), first)
	seen := map[string]bool{}
	for _, digest := range first {
		seen[digest] = true
	}
	equal(t, "different images", len(seen), len(first))
}

func TestContentIsServed(t *testing.T) {
	r := registrytest.New(t)
	index := r.PushIndex(t, "acme/app")
	equal(t, "tag", index.Tag, "latest")
	ref, err := name.ParseReference(index.ByTag())
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := got.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	platforms := make([]string, 0, len(manifest.Manifests))
	for i, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
		equal(t, "digest", index.Manifests[i].Digest, descriptor.Digest.String())
	}
	equal(t, "platforms", platforms, []string{"linux/amd64", "linux/arm64"})

	a, b := r.PushImage(t, "acme/moving:v1"), r.PushImage(t, "acme/moving:v2")
	equal(t, "moved", r.Tag(t, "acme/moving", "v1", b.Digest),
		registrytest.Image{Registry: r.Host(), Repository: "acme/moving", Tag: "v1", Digest: b.Digest})
	equal(t, "the tag's digest now", ask(t, "HEAD", manifestURL(a, "v1"), 0).Digest, b.Digest)
	equal(t, "the old digest still", ask(t, "HEAD", manifestURL(a, a.Digest), 0).Status, http.StatusOK)
	r.Delete(t, b)
	equal(t, "a deleted digest", ask(t, "GET", manifestURL(b, b.Digest), 1<<20).Status, http.StatusNotFound)
	equal(t, "a deleted tag", ask(t, "GET", manifestURL(b, "v2"), 1<<20).Status, http.StatusNotFound)
}

func TestRecorder(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	r.SignBundle(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	equal(t, "what went by the back door", len(r.Requests()), 0)

	ref, err := name.ParseReference(image.ByTag())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := remote.Head(ref); err != nil {
		t.Fatal(err)
	}
	ask(t, "GET", manifestURL(image, "absent")+"?a=b", 1<<10)
	lines := func(requests []registrytest.Request) (lines []string) {
		for _, request := range requests {
			lines = append(lines, request.String())
		}
		return lines
	}
	equal(t, "requests", lines(r.Requests()), []string{
		"GET /v2/ 200", "HEAD /v2/acme/app/manifests/v1 200", "GET /v2/acme/app/manifests/absent 404",
	})
	equal(t, "counted", lines(r.Counted()), lines(r.Requests())[1:])
	last := r.Requests()[2]
	equal(t, "host and query", []string{last.Host, last.Query}, []string{r.Host(), "a=b"})
	equal(t, "depth", registrytest.Depth(r.Requests()), 3)
	r.Reset()
	equal(t, "after Reset", len(r.Requests()), 0)
}

func TestDepth(t *testing.T) {
	at := func(began, answered int) registrytest.Request {
		epoch := time.Unix(1, 0)
		return registrytest.Request{
			Began: epoch.Add(time.Duration(began) * time.Second), Answered: epoch.Add(time.Duration(answered) * time.Second),
		}
	}
	tests := map[string]struct {
		requests []registrytest.Request
		want     int
	}{
		"none":                         {nil, 0},
		"at once":                      {[]registrytest.Request{at(0, 3), at(1, 4), at(2, 5)}, 1},
		"one after another":            {[]registrytest.Request{at(0, 1), at(1, 2), at(3, 4)}, 3},
		"a long one beside two others": {[]registrytest.Request{at(0, 9), at(0, 1), at(2, 3)}, 2},
		"one that still runs":          {[]registrytest.Request{at(0, 1), {Began: time.Unix(9, 0)}}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { equal(t, "depth", registrytest.Depth(test.requests), test.want) })
	}
}

func TestBehaviours(t *testing.T) {
	const mib = 1 << 20
	tests := map[string]struct {
		behaviour func(r *registrytest.Registry, image registrytest.Image) registrytest.Behaviour
		check     func(t *testing.T, got, usual reply)
	}{
		"status": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.Status(429)
			},
			func(t *testing.T, got, _ reply) {
				equal(t, "status", got.Status, 429)
				equal(t, "code", strings.Contains(got.Body, `"TOOMANYREQUESTS"`), true)
			},
		},
		"garbage": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour { return registrytest.Garbage() },
			func(t *testing.T, got, _ reply) {
				equal(t, "status", got.Status, 200)
				equal(t, "content type", got.ContentType, "application/vnd.oci.image.manifest.v1+json")
				equal(t, "JSON", strings.HasPrefix(got.Body, "{"), false)
			},
		},
		"wrong digest": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.WrongDigest("sha256:" + strings.Repeat("0", 64))
			},
			func(t *testing.T, got, usual reply) {
				equal(t, "digest", got.Digest, "sha256:"+strings.Repeat("0", 64))
				equal(t, "body", got.Body, usual.Body)
			},
		},
		"no digest": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.WrongDigest("")
			},
			func(t *testing.T, got, usual reply) {
				equal(t, "digest", got.Digest, "")
				equal(t, "body", got.Body, usual.Body)
			},
		},
		"endless": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour { return registrytest.Endless() },
			func(t *testing.T, got, _ reply) {
				equal(t, "length of what was read", len(got.Body), 8*mib)
				equal(t, "error", got.Err, nil)
			},
		},
		"oversized": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.Oversized(5*mib + 1)
			},
			func(t *testing.T, got, _ reply) {
				equal(t, "length", len(got.Body), 5*mib+1)
				equal(t, "end", strings.HasSuffix(got.Body, `a"}}`), true)
			},
		},
		"reset": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.ResetMidBody()
			},
			func(t *testing.T, got, usual reply) {
				if !errors.Is(got.Err, syscall.ECONNRESET) {
					t.Errorf("got error %v, want a reset connection", got.Err)
				}
				equal(t, "all of it came", got.Body == usual.Body, false)
			},
		},
		"redirect": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.Redirect("http://127.0.0.2:1/")
			},
			func(t *testing.T, got, _ reply) {
				equal(t, "status", got.Status, http.StatusTemporaryRedirect)
				equal(t, "location", got.Location, "http://127.0.0.2:1/v2/acme/app/manifests/v1")
			},
		},
		"slow drip": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.SlowDrip(10 * time.Microsecond)
			},
			func(t *testing.T, got, usual reply) {
				equal(t, "reply", got.Body, usual.Body)
				equal(t, "digest", got.Digest, usual.Digest)
			},
		},
		"delay": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.Delay(time.Millisecond)
			},
			func(t *testing.T, got, usual reply) { equal(t, "reply", got, usual) },
		},
		"challenge": {
			func(*registrytest.Registry, registrytest.Image) registrytest.Behaviour {
				return registrytest.Challenge(`Basic realm="x"`)
			},
			func(t *testing.T, got, _ reply) { equal(t, "status", got.Status, 401) },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			usual := ask(t, "GET", manifestURL(image, "v1"), mib)
			equal(t, "usual status", usual.Status, 200)
			remove := r.Fault(registrytest.Manifest("acme/app:v1"), test.behaviour(r, image))
			test.check(t, ask(t, "GET", manifestURL(image, "v1"), 8*mib), usual)
			equal(t, "what does not match", ask(t, "GET", manifestURL(image, image.Digest), mib), usual)
			remove()
			equal(t, "after removal", ask(t, "GET", manifestURL(image, "v1"), mib), usual)
		})
	}
}

func TestHangEndsWithItsClient(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Any(), registrytest.Hang())
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	got := askContext(ctx, t, "GET", manifestURL(image, "v1"), 1)
	if !errors.Is(got.Err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want the deadline", got.Err)
	}
	for deadline := time.Now().Add(bound); r.Requests()[0].Answered.IsZero(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request still hangs although its client is gone")
		}
	}
	equal(t, "status", r.Requests()[0].Status, 0)

	done := make(chan error, 1)
	go func() { done <- ask(t, "GET", manifestURL(image, "v1"), 1).Err }()
	for deadline := time.Now().Add(bound); len(r.Requests()) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the second request did not come")
		}
	}
	began := time.Now()
	r.Close()
	if err := <-done; err == nil || time.Since(began) > bound/2 {
		t.Errorf("Close: got error %v after %v, want one at once", err, time.Since(began))
	}
}

func TestHoldLetsGo(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	release := make(chan struct{})
	r.Fault(registrytest.Any(), registrytest.Hold(release))
	done := make(chan reply, 1)
	go func() { done <- ask(t, "HEAD", manifestURL(image, "v1"), 1) }()
	select {
	case got := <-done:
		t.Fatalf("got %v before the release", got)
	case <-time.After(20 * time.Millisecond):
	}
	close(release)
	equal(t, "digest", (<-done).Digest, image.Digest)
}

func TestMovingTags(t *testing.T) {
	tests := map[string]struct {
		behaviour func(r *registrytest.Registry, a, b registrytest.Image) registrytest.Behaviour
		want      string // which image each of four requests sees
	}{
		"sequence": {func(_ *registrytest.Registry, a, b registrytest.Image) registrytest.Behaviour {
			return registrytest.Sequence(a, b)
		}, "abbb"},
		"flip-flop": {func(_ *registrytest.Registry, a, b registrytest.Image) registrytest.Behaviour {
			return registrytest.FlipFlop(a, b)
		}, "abab"},
		"moved after two": {func(r *registrytest.Registry, a, b registrytest.Image) registrytest.Behaviour {
			return r.MoveTagAfter(2, a, b.Digest)
		}, "aabb"},
		"moved before": {func(r *registrytest.Registry, a, b registrytest.Image) registrytest.Behaviour {
			return r.MoveTagAfter(0, a, b.Digest)
		}, "bbbb"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			a, b := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "acme/app:v2")
			r.Fault(registrytest.Manifest(a.ByTag()), test.behaviour(r, a, b))
			names, got := map[string]string{a.Digest: "a", b.Digest: "b"}, ""
			for _, method := range []string{"HEAD", "GET", "HEAD", "GET"} {
				got += names[ask(t, method, manifestURL(a, "v1"), 1<<20).Digest]
			}
			equal(t, "images seen", got, test.want)
		})
	}
	t.Run("to what is not there", func(t *testing.T) {
		r := registrytest.New(t)
		a := r.PushImage(t, "acme/app:v1")
		r.Fault(registrytest.Any(), r.MoveTagAfter(1, a, "sha256:"+strings.Repeat("0", 64)))
		got := ask(t, "GET", manifestURL(a, "v1"), 1<<10)
		equal(t, "status", got.Status, http.StatusNotImplemented)
	})
}

func TestMatch(t *testing.T) {
	image := registrytest.Image{Registry: "127.0.0.1:5000", Repository: "acme/app", Tag: "v1", Digest: "sha256:ab"}
	req := func(method, path string) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:5000"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	tests := map[string]struct {
		match         registrytest.Match
		matches, none []string // GET paths
	}{
		"tag":          {registrytest.Manifest("acme/app:v1"), []string{"/v2/acme/app/manifests/v1"}, []string{"/v2/acme/app/manifests/v2", "/v2/x/acme/app/manifests/v1", "/v2/acme/app/blobs/v1", "/v2/"}},
		"with host":    {registrytest.Manifest(image.ByTag()), []string{"/v2/acme/app/manifests/v1"}, []string{"/v2/acme/app/manifests/sha256:ab"}},
		"with both":    {registrytest.Manifest(image.ByBoth()), []string{"/v2/acme/app/manifests/sha256:ab"}, []string{"/v2/acme/app/manifests/v1"}},
		"repository":   {registrytest.Manifest(image.Name()), []string{"/v2/acme/app/manifests/v1", "/v2/acme/app/manifests/sha256:ab"}, []string{"/v2/acme/apps/manifests/v1"}},
		"blob":         {registrytest.Blob("acme/app@sha256:ab"), []string{"/v2/acme/app/blobs/sha256:ab"}, []string{"/v2/acme/app/blobs/sha256:cd", "/v2/acme/app/manifests/sha256:ab"}},
		"blobs":        {registrytest.Blob("acme/app"), []string{"/v2/acme/app/blobs/sha256:ab"}, []string{"/v2/acme/app/manifests/v1"}},
		"signature":    {registrytest.Signature(image), []string{"/v2/acme/app/manifests/sha256-ab.sig"}, []string{"/v2/acme/app/manifests/sha256-ab"}},
		"referrers":    {registrytest.Referrers(image), []string{"/v2/acme/app/referrers/sha256:ab", "/v2/acme/app/manifests/sha256-ab"}, []string{"/v2/acme/app/referrers/sha256:cd"}},
		"ping":         {registrytest.Ping(), []string{"/v2/"}, []string{"/v2/acme/app/manifests/v1"}},
		"any":          {registrytest.Any(), []string{"/v2/", "/x"}, nil},
		"and, not, or": {registrytest.Manifest("acme/app").And(registrytest.Manifest("acme/app:v1").Not()).Or(registrytest.Ping()), []string{"/v2/", "/v2/acme/app/manifests/v2"}, []string{"/v2/acme/app/manifests/v1"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			for _, path := range test.matches {
				equal(t, path, test.match(req("GET", path)), true)
			}
			for _, path := range test.none {
				equal(t, path, test.match(req("GET", path)), false)
			}
		})
	}
	put := req("PUT", "/v2/acme/app/manifests/v1")
	equal(t, "a push", registrytest.Manifest("acme/app:v1")(put), false)
	equal(t, "a push by method", registrytest.Method("PUT")(put), true)

	count := func(m registrytest.Match) (got []bool) {
		for range 3 {
			m(put) // does not match and must not count
			got = append(got, m(req("GET", "/v2/acme/app/manifests/v1")))
		}
		return got
	}
	equal(t, "the first two", count(registrytest.First(2, registrytest.Manifest("acme/app"))), []bool{true, true, false})
	equal(t, "after the first two", count(registrytest.After(2, registrytest.Manifest("acme/app"))), []bool{false, false, true})
}

func TestFaultsCompose(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Any(), registrytest.Header("X-Order", "outer"))
	r.Fault(registrytest.Any(), registrytest.Header("X-Order", "inner"))
	r.Fault(registrytest.First(1, registrytest.Any()), registrytest.Status(500))
	r.Fault(registrytest.Any(), registrytest.WrongDigest("sha256:00"))
	equal(t, "first", ask(t, "GET", manifestURL(image, "v1"), 1<<20).Status, 500)
	second := ask(t, "GET", manifestURL(image, "v1"), 1<<20)
	equal(t, "second", []any{second.Status, second.Digest}, []any{200, "sha256:00"})

	resp, err := http.DefaultTransport.RoundTrip(mustRequest(t, manifestURL(image, "v1")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	equal(t, "outermost", resp.Header.Get("X-Order"), "outer")
}

func mustRequest(t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
