// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestSignatures(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, test := range map[string]struct {
		prepare func(*testing.T, *registrytest.Registry, registrytest.Image)
		want    int
		err     policy.Reason // of the batch
	}{
		"none":    {prepare: func(*testing.T, *registrytest.Registry, registrytest.Image) {}},
		"no item": {prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) { r.EmptyLegacy(t, i) }},
		"one": {want: 1, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, key)
		}},
		"several": {want: 3, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			for range 3 {
				r.SignLegacy(t, i, key)
			}
		}},
		"as many as are tried": {want: 64, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 64)
		}},
		"one more than are tried": {want: 64, err: policy.ReasonLimit, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 65)
		}},
		"garbage, which is not judged here": {want: 3, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, key)
			r.GarbageLegacy(t, i)
		}},
		"a payload that is too large beside a good one": {want: 1, err: policy.ReasonLimit, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, key)
			r.OversizedLegacy(t, i, key, 1<<20)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			test.prepare(t, r, image)
			batch, err := gather(newClient(t, r).Signatures(t.Context(), askedImage(t, image)))
			if len(batch) != test.want {
				t.Errorf("%d signatures, want %d", len(batch), test.want)
			}
			wantAtMost(t, err, test.err)
		})
	}
}

// gather reads a sequence to its end: all that is in it, and the last error.
func gather[T any](sequence iter.Seq2[T, error]) (all []T, last error) {
	for item, err := range sequence {
		if err != nil {
			last = err
		} else {
			all = append(all, item)
		}
	}
	return all, last
}

// wantAtMost is wantError where no error may be right.
func wantAtMost(t *testing.T, err error, want policy.Reason) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("error = %v, want none", err)
	case want != "":
		wantError(t, err, want, "")
	}
}

// The order is that of the manifest: what is left out is what comes last.
func TestSignaturesKeepTheirOrder(t *testing.T) {
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.FloodLegacy(t, image, 70)
	batch, err := gather(newClient(t, r).Signatures(t.Context(), askedImage(t, image)))
	wantError(t, err, policy.ReasonLimit, "more signatures than the 64")
	if len(batch) != 64 {
		t.Errorf("%d signatures, want the first 64", len(batch))
	}
	for i, signature := range batch {
		if want := fmt.Sprintf(`"flood":"%d"`, i); !bytes.Contains(signature.UntrustedPayload, []byte(want)) {
			t.Errorf("signature %d = %s, want %s in it", i, signature.UntrustedPayload, want)
		}
		if signature.UntrustedAnnotations["dev.cosignproject.cosign/signature"] == "" {
			t.Errorf("signature %d has no signature", i)
		}
	}
	if n := len(r.Counted()); n != 65 {
		t.Errorf("%d requests, want the manifest and 64 payloads", n)
	}
}

// manifestOf is a .sig manifest with the layers as they are written.
func manifestOf(layers ...string) string {
	return `{"schemaVersion":2,"mediaType":"` + string(types.OCIManifestSchema1) + `","config":{},"layers":[` + strings.Join(layers, ",") + `]}`
}

func TestSignaturesHostileManifest(t *testing.T) {
	hex := strings.Repeat("ab12", 16)
	layer := func(digest string, size string) string {
		return `{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":` + digest + `,"size":` + size + `}`
	}
	for name, test := range map[string]struct {
		body     string
		err      policy.Reason
		requests int // that are allowed after the manifest
	}{
		"empty":               {body: "", err: policy.ReasonUnexpected},
		"not JSON":            {body: "\x00" + canary, err: policy.ReasonUnexpected},
		"cut short":           {body: manifestOf(layer(`"sha256:`+hex+`"`, "1"))[:100], err: policy.ReasonUnexpected},
		"an array":            {body: "[]", err: policy.ReasonUnexpected},
		"a string":            {body: `"` + canary + `"`, err: policy.ReasonUnexpected},
		"a number as layers":  {body: `{"layers":1}`, err: policy.ReasonUnexpected},
		"null":                {body: "null"},
		"an object":           {body: "{}"},
		"an index":            {body: `{"schemaVersion":2,"manifests":[{}]}`},
		"nested deep":         {body: `{"layers":` + strings.Repeat("[", 1<<20), err: policy.ReasonUnexpected},
		"digest that is none": {body: manifestOf(layer(`"../../`+canary+`"`, "1")), err: policy.ReasonUnexpected},
		"digest of a number":  {body: manifestOf(layer(`7`, "1")), err: policy.ReasonUnexpected},
		"no digest":           {body: manifestOf(`{"size":1}`), err: policy.ReasonUnexpected},
		"empty layer":         {body: manifestOf(`{}`), err: policy.ReasonUnexpected},
		"other algorithm":     {body: manifestOf(layer(`"sha512:`+hex+hex+`"`, "1")), err: policy.ReasonUnexpected},
		"too large":           {body: manifestOf(layer(`"sha256:`+hex+`"`, "1048577")), err: policy.ReasonLimit},
		"far too large":       {body: manifestOf(layer(`"sha256:`+hex+`"`, "9223372036854775807")), err: policy.ReasonLimit},
		"size beyond numbers": {body: manifestOf(layer(`"sha256:`+hex+`"`, "1e999")), err: policy.ReasonUnexpected},
		"negative size":       {body: manifestOf(layer(`"sha256:`+hex+`"`, "-1")), err: policy.ReasonNotFound, requests: 1},
		"no such blob":        {body: manifestOf(layer(`"sha256:`+hex+`"`, "1")), err: policy.ReasonNotFound, requests: 1},
		"one blob many times": {
			body: manifestOf(strings.Split(strings.Repeat(layer(`"sha256:`+hex+`"`, "1")+"\n", 10_000), "\n")[:10_000]...),
			err:  policy.ReasonLimit, requests: 64,
		},
		"a million layers": {body: manifestOf(strings.Repeat("{},", 1_000_000) + "{}"), err: policy.ReasonLimit},
		"trailing bytes":   {body: manifestOf() + canary, err: policy.ReasonUnexpected},
		"layers twice":     {body: `{"layers":[],"layers":{}}`, err: policy.ReasonUnexpected},
		"a null layer":     {body: manifestOf("null"), err: policy.ReasonUnexpected},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Signature(image), registrytest.Body(string(types.OCIManifestSchema1), test.body))
			batch, err := gather(newClient(t, r).Signatures(t.Context(), askedImage(t, image)))
			if len(batch) != 0 {
				t.Errorf("%d signatures, want none", len(batch))
			}
			wantAtMost(t, err, test.err)
			if n := len(r.Counted()); n > 1+test.requests {
				t.Errorf("%d requests, want at most %d: %v", n, 1+test.requests, lines(r.Counted()))
			}
			for _, request := range r.Requests() {
				if strings.Contains(request.Path, canary) || strings.Contains(request.Path, "..") {
					t.Errorf("what was sent became an address: %s", request)
				}
			}
		})
	}
}

// One payload that cannot be read does not hide the others, and is not hidden.
func TestSignaturesHostileBlob(t *testing.T) {
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  policy.Reason
	}{
		"404":           {registrytest.Status(404), policy.ReasonNotFound},
		"401":           {registrytest.Status(401), policy.ReasonUnauthorized},
		"429":           {registrytest.Status(429), policy.ReasonRateLimited},
		"500":           {registrytest.Status(500), policy.ReasonRegistryError},
		"another blob":  {answer(200, `{"critical":{}}`), policy.ReasonUnexpected},
		"an empty blob": {answer(200, ""), policy.ReasonUnexpected},
		"oversized":     {registrytest.Oversized(1<<20 + 1), policy.ReasonLimit},
		"without end":   {registrytest.Endless(), policy.ReasonLimit},
		"huge length":   {registrytest.Header("Content-Length", "99999999999"), policy.ReasonLimit},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			key := registrytest.NewKey(t, registrytest.ECDSAP256)
			for range 3 {
				r.SignLegacy(t, image, key)
			}
			r.Fault(registrytest.First(1, registrytest.Blob("acme/app")), test.fault)
			batch, err := gather(newClient(t, r).Signatures(t.Context(), askedImage(t, image)))
			if len(batch) != 2 {
				t.Errorf("%d signatures, want the 2 others", len(batch))
			}
			wantError(t, err, test.want, r.Host())
		})
	}
}

func TestRecheckReadsTheImage(t *testing.T) {
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  policy.Reason
	}{
		"there":           {},
		"404":             {registrytest.Status(404), policy.ReasonNotFound},
		"401":             {registrytest.Status(401), policy.ReasonUnauthorized},
		"500":             {registrytest.Status(500), policy.ReasonRegistryError},
		"another image":   {answer(200, `{"schemaVersion":2}`), policy.ReasonDigestMismatch},
		"nothing":         {answer(200, ""), policy.ReasonDigestMismatch},
		"one byte more":   {padded, policy.ReasonDigestMismatch},
		"a lying header":  {answer(200, canary, "Docker-Content-Digest", "sha256:"+strings.Repeat("0", 64)), policy.ReasonDigestMismatch},
		"signed JSON":     {answer(200, `{}`, "Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"), policy.ReasonDigestMismatch},
		"a header beside": {registrytest.WrongDigest(""), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			if test.fault != nil {
				r.Fault(registrytest.Manifest(image.ByDigest()), test.fault)
			}
			batch, err := gather(newClient(t, r).Recheck(t.Context(), askedImage(t, image), false))
			if len(batch) != 0 {
				t.Errorf("%d items, want none", len(batch))
			}
			switch {
			case test.want != "":
				wantError(t, err, test.want, r.Host())
			case err != nil:
				t.Errorf("error = %v, want none", err)
			}
		})
	}
}

// Many goroutines with one client: for the race detector, and for one login.
func TestConcurrentUse(t *testing.T) {
	r := registrytest.New(t, registrytest.WithTokenAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r.SignLegacy(t, image, key)
	r.SignBundle(t, image, key)
	client := newClient(t, r)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			it := shownImage(t, image, secret(r.Host(), "other", "wrong"), secret(r.Host(), "user", "s3cret"))
			if got, err := client.Resolve(t.Context(), it); err != nil || got.Digest != image.Digest {
				t.Errorf("Resolve = %+v, %v", got, err)
			}
			if batch, err := gather(client.Signatures(t.Context(), it)); err != nil || len(batch) != 1 {
				t.Errorf("Signatures = %d, %v", len(batch), err)
			}
			if batch, err := gather(client.Bundles(t.Context(), it, false)); err != nil || len(batch) != 1 {
				t.Errorf("Bundles = %d, %v", len(batch), err)
			}
			if _, err := gather(client.Recheck(t.Context(), it, false)); err != nil {
				t.Errorf("Recheck: %v", err)
			}
			if _, err := client.Identify(t.Context(), it); err != nil {
				t.Errorf("Identify: %v", err)
			}
		})
	}
	group.Wait()
	tokens := 0
	for _, request := range r.Requests() {
		if request.Path == "/token" && request.Status == 200 {
			tokens++
		}
	}
	if tokens != 1 {
		t.Errorf("%d tokens, want 1 for all", tokens)
	}
}
