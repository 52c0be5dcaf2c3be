// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// C35: what a registry sends without end, or says that it will, costs what the
// bounds allow.
func TestHostileAnswers(t *testing.T) {
	hex := strings.Repeat("ab12", 16)
	hostile := registrytest.HostileDigests("", "sha256:", canary, "sha256:../../"+hex, "sha256:"+hex+"?"+canary, "sha256:"+hex+"/../x",
		"http://169.254.169.254/"+canary, "sha256:"+strings.ToUpper(hex), "sha512:"+hex+hex, "sha256:"+hex+"\r\nHost: evil", strings.Repeat("a", 1<<16))
	for name, test := range map[string]struct {
		fault    registrytest.Behaviour
		deadline time.Duration
		// What comes of .sig tags and of referrers.
		signatures, bundles policy.Reason
		requests            int // at most, of each
	}{
		"4 GiB promised":        {registrytest.HugeLength(4 << 30), soon, policy.ReasonLimit, policy.ReasonLimit, 1},
		"more promised":         {registrytest.HugeLength(1 << 20), 500 * time.Millisecond, policy.ReasonDeadline, policy.ReasonDeadline, 1},
		"64 MiB packed":         {registrytest.Bomb(64 << 20), soon, policy.ReasonUnexpected, policy.ReasonUnexpected, 1},
		"10,000 signatures":     {registrytest.Crowd(10_000), soon, policy.ReasonLimit, policy.ReasonLimit, 65},
		"digests that are none": {hostile, soon, policy.ReasonUnexpected, policy.ReasonUnexpected, 1},
		"pages in a circle":     {registrytest.SelfLink(), soon, "", policy.ReasonLimit, 8},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			if strings.HasSuffix(name, "promised") { // a body is promised where there is one
				key := registrytest.NewKey(t, registrytest.ECDSAP256)
				r.SignLegacy(t, image, key)
				r.SignBundle(t, image, key)
			}
			r.Fault(registrytest.Signature(image).Or(registrytest.Referrers(image)), test.fault)
			client, it := newClient(t, r), askedImage(t, image)
			for form, want := range map[string]policy.Reason{"Signatures": test.signatures, "Bundles": test.bundles} {
				r.Reset()
				n, err := forms(client)[form](within(t, test.deadline), it)
				if n != 0 {
					t.Errorf("%s: %d items, want none", form, n)
				}
				wantAtMost(t, err, want)
				if n := len(r.Counted()); n > test.requests {
					t.Errorf("%s: %d requests, want at most %d", form, n, test.requests)
				}
				for _, request := range r.Requests() {
					if strings.Contains(request.Path+request.Query, canary) || strings.Contains(request.Path, "..") {
						t.Errorf("what was sent became an address: %s", request)
					}
				}
			}
		})
	}
}

// What a registry calls its answers changes nothing: the digest says what they
// are.
func TestContentTypesAreNotBelieved(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r.SignLegacy(t, image, key)
	r.SignBundle(t, image, key)
	r.Fault(registrytest.Any(), registrytest.ContentTypes("text/html", "application/vnd.oci.image.index.v1+json",
		"application/vnd.docker.distribution.manifest.v1+prettyjws", "application/vnd.oci.image.manifest.v1+json"))
	client, it := newClient(t, r), askedImage(t, image)
	for range 4 {
		if got, err := client.Resolve(t.Context(), it); err != nil || got.Digest != image.Digest {
			t.Errorf("Resolve = %+v, %v; want %s", got, err, image.Digest)
		}
		for form, ask := range forms(client) {
			if n, err := ask(t.Context(), it); n != 1 || err != nil {
				t.Errorf("%s = %d, %v; want 1", form, n, err)
			}
		}
	}
}
