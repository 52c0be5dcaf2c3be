// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/registry/credential"
)

// FuzzNextPage: wherever a Link header leads, it leads to the host and scheme
// of the list, and brings no credentials of its own.
func FuzzNextPage(f *testing.F) {
	for _, link := range []string{
		`</v2/a/referrers/b?n=2>; rel="next"`, `<?n=2>; rel=next`, `<>; rel="next"`, `<//evil.example/x>; rel="next"`,
		`<http://user:pw@registry.example/x>; rel="next"`, `<mailto:x>; rel="next"`, `<http://[::1>; rel="next"`,
		`<a>; rel="prev", <b>; rel="next"`, `<<<>>>; rel="next"`, `<\\evil.example\x>; rel="next"`, "<\t/x>; rel=next",
		`<http:///x>; rel="next"`, `<http:registry.example>; rel="next"`, `<#x>; rel="next"`, ``, `<`, `rel=next`,
	} {
		f.Add(link)
	}
	base := url.URL{Scheme: "https", Host: "registry.example:5000", Path: "/v2/acme/app/referrers/sha256:x"}
	f.Fuzz(func(t *testing.T, link string) {
		next, further := nextPage(answer{header: http.Header{"Link": {link}}, url: base.String()})
		if next == "" {
			return
		}
		if !further {
			t.Errorf("nextPage(%q) = %q and no further page", link, next)
		}
		request, err := http.NewRequest(http.MethodGet, next, nil)
		if err != nil {
			return // is not sent
		}
		if got := request.URL; got.Host != base.Host || got.Scheme != base.Scheme || got.User != nil {
			t.Errorf("nextPage(%q) = %q, which leads elsewhere", link, next)
		}
	})
}

var plainDigest = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// FuzzDescriptors: any list is read or refused, is bounded, and of its digests
// only those that are one become part of an address.
func FuzzDescriptors(f *testing.F) {
	for _, body := range []string{
		`{"manifests":[{"digest":"sha256:` + strings.Repeat("ab12", 16) + `","artifactType":"x","size":1}]}`,
		`{"manifests":[{"digest":"../../x"},null,{}]}`, `{"manifests":null}`, `{"manifests":{}}`, `{"manifests":[1]}`,
		`{"mediaType":"x","manifests":[]}`, `null`, `[]`, `{`, `{"manifests":[{"size":1e99}]}`, `{"Manifests":[{}],"manifests":[{}]}`,
		`{"layers":[{"annotations":{"a":"b"}}]}`, `{"layers":[{"annotations":{"a":1}}]}`,
	} {
		f.Add([]byte(body))
	}
	a, err := (&Client{}).accessWith(f.Context(), credential.Ring{}, "registry.example/acme/app", terms{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var found descriptors
		err := a.index(&found, "list")(body)
		list := found.items
		if err != nil && len(list) != 0 {
			t.Errorf("%d descriptors and error %v", len(list), err)
		}
		var m manifest
		if json.Unmarshal(body, &m) == nil {
			list = append(list, m.Layers.items...)
		}
		for _, d := range list {
			got, err := checkedDigest(a.host, d.UntrustedDigest)
			if err == nil && (!plainDigest.MatchString(got) || got != d.UntrustedDigest) {
				t.Errorf("checkedDigest(%q) = %q", d.UntrustedDigest, got)
			}
		}
	})
}

// FuzzKeptSignatures: any list is read or refused, is bounded, and of what it holds
// only what is in the known form is a signature.
func FuzzKeptSignatures(f *testing.F) {
	for _, body := range []string{
		`{"signatures":[{"schemaVersion":2,"name":"sha256:ab@x","type":"atomic","content":"MQ=="}]}`, `{"signatures":null}`,
		`{"signatures":[null,{},{"schemaVersion":2}]}`, `{"signatures":{}}`, `null`, `[]`, `{`, `{"signatures":[{"content":"!"}]}`,
		`{"signatures":[{"schemaVersion":1,"type":"atomic","content":"MQ=="},{"schemaVersion":2,"type":"x","content":"MQ=="}]}`,
		`{"Signatures":[{"SchemaVersion":2,"Type":"atomic"}],"signatures":[]}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		found, err := keptIn(body)
		if err != nil && (len(found.items) != 0 || found.more) {
			t.Errorf("%d signatures and error %v", len(found.items), err)
		}
		if len(found.items) > maxSignatures {
			t.Errorf("%d signatures, want at most %d", len(found.items), maxSignatures)
		}
		for _, one := range found.items {
			if one.Version != 2 || one.Type != "atomic" || len(one.Untrusted) > len(body) {
				t.Errorf("a signature of version %d and type %q with %d bytes", one.Version, one.Type, len(one.Untrusted))
			}
		}
	})
}

// FuzzLookasideAddresses: whatever repository is asked for, it is asked for below
// the lookaside, and under its own name.
func FuzzLookasideAddresses(f *testing.F) {
	digest := "sha256:" + strings.Repeat("ab12", 16)
	for _, repository := range []string{
		"acme/app", "", "..", "../x", "a/../../x", "a/./b", "a//b", "/a", "a/", "a?b", "a#b", "a%2e%2e/b", "%2e%2e/x", "a\\..\\b", "a b", "a;b", "a:b@c",
		"http://x/y", "é", "a\x00b", "a\nb", "\xff", "+",
	} {
		f.Add("https://user:pw@sigs.example:8443/a%2Fb//c?d=e#f", repository, digest, 7)
		f.Add("http://sigs.example", repository, digest, 1)
		f.Add("file:///var/lib/sigs/", repository, digest, 64)
	}
	f.Add("https:x", "a", digest, 1)
	f.Add("https:///x", "a", digest, 1)
	f.Add("https://sigs.example/x/../y", "a", "sha256:../x", 1)
	f.Fuzz(func(t *testing.T, lookaside, repository, digest string, n int) {
		base, err := url.Parse(lookaside)
		if err != nil || !slices.Contains([]string{"http", "https", "file"}, base.Scheme) {
			return // is not asked
		}
		below, err := shelfBelow(base, repository, digest)
		if err != nil {
			return
		}
		if !plainDigest.MatchString(digest) || repository == "" || strings.Contains("/"+repository+"/", "/../") {
			t.Errorf("%q of %q has an address", digest, repository)
		}
		address := numbered(below, n)
		request, err := http.NewRequest(http.MethodGet, address.String(), nil)
		if err != nil {
			return // is not sent
		}
		want := fmt.Sprintf("%s/%s@%s/signature-%d", strings.TrimRight(base.Path, "/"), repository, strings.Replace(digest, ":", "=", 1), n)
		got := request.URL
		if got.Host != strings.TrimSuffix(base.Host, ":") || got.Scheme != base.Scheme || got.User != nil || got.Path != want || got.RawQuery != base.RawQuery || got.Fragment != "" {
			t.Errorf("%q of %q in %q is asked for at %q", digest, repository, lookaside, got)
		}
	})
}

// A list that is within its bound of bytes stays within one of memory.
func TestListedIsBounded(t *testing.T) {
	for name, entry := range map[string]string{"empty": "{}", "annotated": `{"annotations":{"":""}}`} {
		t.Run(name, func(t *testing.T) {
			body := `{"layers":[` + strings.Repeat(entry+",", maxManifest/(len(entry)+1)-10) + entry + `]}`
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			var m manifest
			if err := json.Unmarshal([]byte(body), &m); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			if !m.Layers.more || len(m.Layers.items) != maxListed {
				t.Errorf("%d entries, more %t; want %d and more", len(m.Layers.items), m.Layers.more, maxListed)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 64<<20 {
				t.Errorf("%d MiB for %d MiB of JSON", grown>>20, len(body)>>20)
			}
		})
	}
	t.Run("of a key that comes twice the last counts", func(t *testing.T) {
		var m manifest
		if err := json.Unmarshal([]byte(`{"layers":[{},{}],"layers":[{}]}`), &m); err != nil || len(m.Layers.items) != 1 {
			t.Errorf("%d entries, %v; want 1", len(m.Layers.items), err)
		}
	})
}
