// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// fetched is an answer as it came over the wire.
type fetched struct {
	status int
	header http.Header
	body   string
}

func fetch(t *testing.T, address string) fetched {
	t.Helper()
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(mustRequest(t, address))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fetched{response.StatusCode, response.Header, string(body)}
}

func TestHostileBehaviours(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	manifest := manifestURL(image, "v1")
	referrers := "http://" + r.Host() + "/v2/acme/app/referrers/" + image.Digest
	with := func(behaviour registrytest.Behaviour, address string) fetched {
		t.Helper()
		defer r.Fault(registrytest.Any(), behaviour)()
		return fetch(t, address)
	}
	got := with(registrytest.RetryAfter(429, "7"), manifest)
	equal(t, "status", got.status, http.StatusTooManyRequests)
	equal(t, "Retry-After", got.header.Get("Retry-After"), "7")

	swap := registrytest.ContentTypes("text/plain", "text/html")
	remove := r.Fault(registrytest.Any(), swap)
	for _, want := range []string{"text/plain", "text/html", "text/plain"} {
		equal(t, "Content-Type", fetch(t, manifest).header.Get("Content-Type"), want)
	}
	remove()

	got = with(registrytest.Bomb(1<<20), manifest)
	equal(t, "Content-Encoding", got.header.Get("Content-Encoding"), "gzip")
	equal(t, "small", len(got.body) < 1<<13, true)
	unpacked, err := gzip.NewReader(strings.NewReader(got.body))
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, unpacked)
	equal(t, "unpacked", n, 1<<20)
	equal(t, "error", err, nil)

	got = with(registrytest.SelfLink(), referrers+"?x=1")
	equal(t, "Link", got.header.Get("Link"), "</v2/acme/app/referrers/"+image.Digest+`?x=1>; rel="next"`)

	for address, list := range map[string]string{manifest: "layers", referrers: "manifests"} {
		got := with(registrytest.Crowd(1000), address)
		var read map[string]any
		if err := json.Unmarshal([]byte(got.body), &read); err != nil {
			t.Fatal(err)
		}
		equal(t, list, len(read[list].([]any)), 1000)
		got = with(registrytest.HostileDigests("../x"), address)
		equal(t, "the digest", strings.Contains(got.body, `"digest":"../x"`), true)
	}
}

func TestHugeLength(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.Fault(registrytest.Any(), registrytest.HugeLength(4<<30))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	response, err := http.DefaultTransport.RoundTrip(mustRequest(t, manifestURL(image, "v1")).WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	equal(t, "length", response.ContentLength, 4<<30)
	if _, err := io.Copy(io.Discard, response.Body); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("reading it: %v, want no end", err)
	}
}

func TestRecorderSeesForms(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	req := mustRequest(t, "http://"+r.Host()+"/token")
	req.Method, req.Body = http.MethodPost, io.NopCloser(strings.NewReader("refresh_token=x"))
	req.AddCookie(&http.Cookie{Name: "a", Value: "b"})
	response, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	got := r.Requests()[0]
	equal(t, "body", got.Body, "refresh_token=x")
	equal(t, "cookie", got.Cookie, "a=b")
}

func TestProxy(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	const name = "registry.example.com"
	proxy := registrytest.NewProxy(t, map[string]string{name: r.Host()})
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy.Host()})}
	defer transport.CloseIdleConnections()
	for host, want := range map[string]int{name: http.StatusOK, "other.example.com": http.StatusBadGateway} {
		response, err := transport.RoundTrip(mustRequest(t, "http://"+host+"/v2/acme/app/manifests/"+image.Digest))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		equal(t, host, response.StatusCode, want)
	}
	equal(t, "targets", len(proxy.Targets()), 2)
	equal(t, "requests", len(r.Requests()), 1)
}
