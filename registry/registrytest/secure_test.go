// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestWithTLS(t *testing.T) {
	authority := registrytest.NewAuthority(t)
	r := registrytest.New(t, registrytest.WithTLS(authority), registrytest.WithTokenAuth("user", "s3cret"))
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: authority.Pool()}}
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(mustRequest(t, "https://"+r.Host()+"/v2/"))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	equal(t, "status", response.StatusCode, http.StatusUnauthorized)
	if got, want := response.Header.Get("WWW-Authenticate"), `realm="https://`+r.Host()+`/token"`; !strings.Contains(got, want) {
		t.Errorf("challenge %q, want %q in it", got, want)
	}
	if response, err := (&http.Transport{}).RoundTrip(mustRequest(t, "https://"+r.Host()+"/v2/")); err == nil {
		_ = response.Body.Close()
		t.Error("a client that does not know the certificate was answered")
	}
	equal(t, "requests", len(r.Requests()), 1)
}

// What is deep is else as it should be: near the surface it verifies.
func TestDeep(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for depth, good := range map[int]int{1: 1, 100_000: 0} {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.DeepLegacy(t, image, key, depth)
		equal(t, "payloads", legacy(t, image, verifier(t, key, crypto.SHA256), nil), count{1, good})
		r.DeepBundle(t, image, key, depth)
		for _, bundle := range referrerBundles(t, image) {
			var read any
			err := json.Unmarshal(bundle, &read)
			equal(t, "bundles that can be read", err == nil, good == 1)
			equal(t, "deep", bytes.Count(bundle, []byte("[")) >= depth, true)
		}
	}
}
