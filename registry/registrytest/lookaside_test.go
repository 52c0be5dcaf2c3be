// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestLookaside(t *testing.T) {
	t.Parallel()
	l := registrytest.NewLookaside(t)
	l.Put("acme/app", "sha256:ab", []byte("one"))
	l.Put("acme/app", "sha256:ab", []byte("two"))
	l.Put("acme/other", "sha256:ab", []byte("another"))
	l.Put("acme/app", "sha256:cd", []byte("another"))
	for path, want := range map[string]fetched{
		"/acme/app@sha256=ab/signature-1": {status: 200, body: "one"},
		"/acme/app@sha256=ab/signature-2": {status: 200, body: "two"},
		"/acme/app@sha256=ab/signature-3": {status: 404},
		"/acme/app@sha256:ab/signature-1": {status: 404},
		"/acme/app@sha256=ab/signature-0": {status: 404},
		"/":                               {status: 404},
	} {
		got := fetch(t, l.URL()+path)
		equal(t, path+": status", got.status, want.status)
		if want.status == http.StatusOK {
			equal(t, path+": body", got.body, want.body)
		}
	}
	equal(t, "requests", len(l.Requests()), 6)
	l.Reset()

	remove := l.Fault(registrytest.Stored("acme/app", "sha256:ab", 2), registrytest.Status(500))
	equal(t, "the first", fetch(t, l.URL()+"/acme/app@sha256=ab/signature-1").status, http.StatusOK)
	equal(t, "the second", fetch(t, l.URL()+"/acme/app@sha256=ab/signature-2").status, http.StatusInternalServerError)
	remove()
	equal(t, "without the fault", fetch(t, l.URL()+"/acme/app@sha256=ab/signature-2").status, http.StatusOK)
	var got []string
	for _, request := range l.Requests() {
		got = append(got, request.String())
	}
	equal(t, "requests", strings.Join(got, "\n"), `GET /sigstore/acme/app@sha256=ab/signature-1 200
GET /sigstore/acme/app@sha256=ab/signature-2 500
GET /sigstore/acme/app@sha256=ab/signature-2 200`)
	if l.Close(); ask(t, "GET", l.URL(), 1).Err == nil {
		t.Error("it answers after it is closed")
	}
}

func TestLookasideOverTLS(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	l := registrytest.NewLookaside(t, registrytest.WithTLS(authority), registrytest.WithAddress("127.0.0.2:0"))
	equal(t, "address", l.URL(), "https://"+l.Host()+"/sigstore")
	equal(t, "host", strings.HasPrefix(l.Host(), "127.0.0.2:"), true)
}

func TestKeptSignatures(t *testing.T) {
	t.Parallel()
	const header = "X-Registry-Supports-Signatures"
	r := registrytest.New(t, registrytest.WithBasicAuth("user", "s3cret"))
	r.PutSignature("acme/app", "sha256:ab", []byte("one"))
	ping, with := "http://"+r.Host()+"/v2/", "http://user:s3cret@"+r.Host()
	list := "/extensions/v2/acme/app/signatures/sha256:ab"
	equal(t, "before: header", fetch(t, ping).header.Get(header), "")
	equal(t, "before: list", get(t, with+list).status, http.StatusNotFound)

	r.KeepSignatures()
	r.PutSignature("acme/app", "sha256:ab", []byte("two"))
	r.PutSignature("acme/app", "sha256:cd", []byte("another"))
	refused := fetch(t, ping)
	equal(t, "status without a password", refused.status, http.StatusUnauthorized)
	equal(t, "header without a password", refused.header.Get(header), "1")
	equal(t, "header with one", get(t, with+"/v2/").header.Get(header), "1")
	equal(t, "header of what is no ping", get(t, with+list).header.Get(header), "")
	equal(t, "list without a password", fetch(t, "http://"+r.Host()+list).status, http.StatusUnauthorized)

	var got struct {
		Signatures []struct {
			SchemaVersion int
			Name, Type    string
			Content       []byte
		}
	}
	if err := json.Unmarshal([]byte(get(t, with+list).body), &got); err != nil {
		t.Fatal(err)
	}
	equal(t, "signatures", len(got.Signatures), 2)
	for i, want := range []string{"one", "two"} {
		one := got.Signatures[i]
		equal(t, want+": version", one.SchemaVersion, 2)
		equal(t, want+": type", one.Type, "atomic")
		equal(t, want+": content", string(one.Content), want)
		equal(t, want+": name", strings.HasPrefix(one.Name, "sha256:ab@"), true)
	}
	equal(t, "names", got.Signatures[0].Name == got.Signatures[1].Name, false)

	r.Fault(registrytest.KeptSignatures("acme/app@sha256:ab"), registrytest.Status(405))
	equal(t, "with a fault", get(t, with+list).status, http.StatusMethodNotAllowed)
	equal(t, "of another digest", get(t, with+strings.Replace(list, ":ab", ":cd", 1)).status, http.StatusOK)
	equal(t, "no manifest", registrytest.Manifest("acme/app")(mustRequest(t, with+list)), false)
}

// get asks with the credentials of an address.
func get(t *testing.T, address string) fetched {
	t.Helper()
	response, err := http.DefaultClient.Do(mustRequest(t, address))
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
