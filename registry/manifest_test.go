// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestManifest(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.WithBasicAuth("user", "s3cret"))
	index := r.PushIndex(t, "acme/index:v1")
	large, ok := mutate.Annotations(empty.Image, map[string]string{"pad": strings.Repeat("x", 3<<20)}).(v1.Image)
	if !ok {
		t.Fatal("an image with an annotation is none")
	}
	client := newClient(t, r)
	for name, image := range map[string]registrytest.Image{
		"an image": r.PushImage(t, "acme/app:v1"), "an index": index.Image, "one of its images": index.Manifests[0],
		"a large one": r.Push(t, "acme/large:v1", large),
	} {
		it := shown(t, image.ByDigest(), image.Digest, secret(r.Host(), "user", "wrong"), secret(r.Host(), "user", "s3cret"))
		got, err := client.Manifest(t.Context(), it)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if digest, _, err := v1.SHA256(strings.NewReader(string(got))); err != nil || digest.String() != image.Digest {
			t.Errorf("%s: bytes of the digest %s, %v; want %s", name, digest, err, image.Digest)
		}
		if slack := cap(got) - len(got); slack > 256<<10 {
			t.Errorf("%s: %d bytes are kept in %d", name, len(got), cap(got))
		}
	}
}

func TestManifestFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  policy.Reason
	}{
		"404":                {registrytest.Status(404), policy.ReasonNotFound},
		"401":                {registrytest.Status(401), policy.ReasonUnauthorized},
		"403":                {registrytest.Status(403), policy.ReasonUnauthorized},
		"429":                {registrytest.Status(429), policy.ReasonRateLimited},
		"500":                {registrytest.Status(500), policy.ReasonRegistryError},
		"a lost connection":  {hangUp, policy.ReasonUnreachable},
		"another image":      {answer(200, `{"schemaVersion":2}`+canary), policy.ReasonDigestMismatch},
		"nothing":            {answer(200, ""), policy.ReasonDigestMismatch},
		"one byte more":      {padded, policy.ReasonDigestMismatch},
		"5 MiB packed":       {registrytest.Bomb(5 << 20), policy.ReasonDigestMismatch},
		"as much as may be":  {registrytest.Oversized(4 << 20), policy.ReasonDigestMismatch},
		"one byte too many":  {registrytest.Oversized(4<<20 + 1), policy.ReasonLimit},
		"without end":        {registrytest.Endless(), policy.ReasonLimit},
		"more than promised": {registrytest.HugeLength(4 << 30), policy.ReasonLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Manifest(image.ByDigest()), test.fault)
			got, err := newClient(t, r).Manifest(within(t, soon), askedImage(t, image))
			if got != nil {
				t.Errorf("%d bytes beside an error", len(got))
			}
			wantError(t, err, test.want, r.Host())
		})
	}
}

// Digests come from manifests that nobody has verified yet: what is none does not
// become an address.
func TestNoDigestNoRequest(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	l := registrytest.NewLookaside(t)
	client := newClient(t, r)
	hex := strings.Repeat("ab12", 16)
	for _, digest := range []string{
		"", "v1", "sha256:" + canary, "sha256:" + hex + "/../../x", "sha256:" + hex + "?x", "sha512:" + hex + hex, "sha256:" + strings.ToUpper(hex),
	} {
		it := asked(t, image.ByTag(), digest)
		_, err := client.Manifest(t.Context(), it)
		wantError(t, err, policy.ReasonUnexpected, r.Host())
		_, err = gather(client.SimpleSignatures(t.Context(), it, lookasideAt(t, l)))
		wantError(t, err, policy.ReasonUnexpected, r.Host())
	}
	if n := len(r.Requests()) + len(l.Requests()); n != 0 {
		t.Errorf("%d requests, want none: %v %v", n, lines(r.Requests()), lines(l.Requests()))
	}
}

func TestAttachments(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	client, it := newClient(t, r), askedImage(t, image)
	none, err := gather(client.Attachments(t.Context(), it))
	if err != nil || len(none) != 0 {
		t.Errorf("%d attachments, %v; want none", len(none), err)
	}
	r.PushSignatureLayer(t, image, []byte("one"), map[string]string{"a": "b"})
	r.PushSignatureLayer(t, image, []byte("two"), nil)
	got, err := gather(client.Attachments(t.Context(), it))
	if err != nil {
		t.Fatal(err)
	}
	const layer = "application/vnd.dev.cosign.simplesigning.v1+json"
	want := []registry.Signature{
		{UntrustedPayload: []byte("one"), UntrustedAnnotations: map[string]string{"a": "b"}, UntrustedMediaType: layer},
		{UntrustedPayload: []byte("two"), UntrustedMediaType: layer},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attachments (-want +got):\n%s", diff)
	}
}

func TestAttachmentsAreBounded(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	many, large := r.PushImage(t, "acme/many:v1"), r.PushImage(t, "acme/large:v1")
	r.FloodLegacy(t, many, 65)
	r.PushSignatureLayer(t, large, make([]byte, 1<<20), nil)
	r.PushSignatureLayer(t, large, make([]byte, 1<<20+1), nil)
	client := newClient(t, r)
	got, err := gather(client.Attachments(t.Context(), askedImage(t, many)))
	if len(got) != 64 {
		t.Errorf("%d attachments, want 64", len(got))
	}
	wantError(t, err, policy.ReasonLimit, "more signatures than the 64")
	got, err = gather(client.Attachments(t.Context(), askedImage(t, large)))
	if len(got) != 1 {
		t.Errorf("%d attachments, want the one that is small enough", len(got))
	}
	wantError(t, err, policy.ReasonLimit, "1048576 bytes")
}

// A node reads attachments of OCI manifests alone, and goes by what the registry
// calls them as well as by what they call themselves.
func TestAttachmentsOfOtherTypes(t *testing.T) {
	t.Parallel()
	const (
		oci    = "application/vnd.oci.image.manifest.v1+json"
		docker = "application/vnd.docker.distribution.manifest.v2+json"
		index  = "application/vnd.oci.image.index.v1+json"
	)
	body := func(own any) string {
		manifest := map[string]any{"schemaVersion": 2, "layers": []any{}}
		if own != nil {
			manifest["mediaType"] = own
		}
		raw, err := json.Marshal(manifest)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	long := "x/" + strings.Repeat("y", 100)
	for name, test := range map[string]struct {
		answered string
		own      any
		says     string // empty: it is read
	}{
		"the same twice":          {oci, oci, ""},
		"not of itself":           {oci, nil, ""},
		"with a parameter":        {oci + "; charset=utf-8", oci, ""},
		"in other letters":        {"Application/VND.oci.image.manifest.v1+JSON", oci, ""},
		"Docker's twice":          {docker, docker, `"` + docker + `"`},
		"Docker's not of itself":  {docker, nil, `"` + docker + `"`},
		"Docker's of itself":      {oci, docker, `"` + docker + `"`},
		"Docker's as answered":    {docker, oci, `"` + docker + `"`},
		"an index":                {index, index, `"` + index + `"`},
		"of itself an index":      {oci, index, `"` + index + `"`},
		"none":                    {"", oci, `"text/plain"`},
		"what cannot be read":     {oci + ";;;=", oci, `type "` + oci + `;;;="`},
		"clipped":                 {long, oci, `"` + long[:64] + `"`},
		"clipped of itself":       {oci, long, `"` + long[:64] + `"`},
		"control characters":      {oci, "x\r\n\x1b[2J", `"x\r\n\x1b[2J"`},
		"text that turns around":  {oci, "\u202ex", `"\u202ex"`},
		"in other letters itself": {oci, strings.ToUpper(oci), `"` + strings.ToUpper(oci) + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			var headers []string
			if test.answered != "" {
				headers = []string{"Content-Type", test.answered}
			}
			r.Fault(registrytest.Signature(image), answer(200, body(test.own), headers...))
			client, it := newClient(t, r), askedImage(t, image)
			_, err := gather(client.Attachments(t.Context(), it))
			if test.says == "" {
				if err != nil {
					t.Errorf("Attachments: %v", err)
				}
			} else {
				wantError(t, err, policy.ReasonUnexpected, r.Host())
				if !strings.Contains(err.Error(), test.says) {
					t.Errorf("message = %q, want %s in it", err, test.says)
				}
			}
			if _, err := gather(client.Signatures(t.Context(), it)); err != nil {
				t.Errorf("Signatures: %v", err)
			}
		})
	}
}

// What cosign writes with COSIGN_DOCKER_MEDIA_TYPES=1 is no attachment, to the
// end of the registry's answer.
func TestDockerAttachments(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1").At(registrytest.Place{Docker: true})
	r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	client, it := newClient(t, r), askedImage(t, image)
	got, err := gather(client.Attachments(t.Context(), it))
	wantError(t, err, policy.ReasonUnexpected, `"application/vnd.docker.distribution.manifest.v2+json"`)
	if len(got) != 0 {
		t.Errorf("%d attachments, want none", len(got))
	}
	if got, err := gather(client.Signatures(t.Context(), it)); err != nil || len(got) != 1 {
		t.Errorf("%d signatures, %v; want 1", len(got), err)
	}
}
