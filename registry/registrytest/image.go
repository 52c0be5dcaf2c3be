// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image names a manifest in a registry: of an image, an index or an artifact.
type Image struct {
	Registry   string // "127.0.0.1:41234"
	Repository string // "acme/app"
	Tag        string // "v1"; may be empty
	Digest     string // "sha256:…"
	Place      Place  // where its signatures and attestations are
}

// Index is an image index with the images it lists, in its order; those have no tag.
type Index struct {
	Image
	Manifests []Image
}

// Name returns "host/repository".
func (i Image) Name() string { return i.Registry + "/" + i.Repository }

// ByTag returns "host/repository:tag", without ":tag" when there is none.
func (i Image) ByTag() string {
	if i.Tag == "" {
		return i.Name()
	}
	return i.Name() + ":" + i.Tag
}

// ByDigest returns "host/repository@sha256:…".
func (i Image) ByDigest() string { return i.Name() + "@" + i.Digest }

// ByBoth returns "host/repository:tag@sha256:…".
func (i Image) ByBoth() string { return i.ByTag() + "@" + i.Digest }

// String returns what ByTag does.
func (i Image) String() string { return i.ByTag() }

// SignatureTag returns the tag under which cosign 2 keeps the image's signatures: "sha256-<hex>.sig".
func (i Image) SignatureTag() string { return i.Place.TagPrefix + i.ReferrersTag() + ".sig" }

// AttestationTag returns the tag under which cosign 2 keeps the image's attestations: "sha256-<hex>.att".
func (i Image) AttestationTag() string { return i.Place.TagPrefix + i.ReferrersTag() + ".att" }

// ReferrersTag returns the tag of the image's referrers where there is no referrers API: "sha256-<hex>" (OCI
// distribution specification, "referrers tag schema").
func (i Image) ReferrersTag() string { return strings.Replace(i.Digest, ":", "-", 1) }

// PushImage pushes a small image for linux/amd64 as written, "acme/app:v1" ("acme/app" is "acme/app:latest").
// Each call for one name makes another image; the same calls make the same images in every registry and run.
func (r *Registry) PushImage(tb TB, written string) Image {
	tb.Helper()
	return r.Push(tb, written, r.newImage(tb, written, "linux/amd64"))
}

// PushIndex pushes an index of small images, one for each platform ("linux/arm64/v8"); without any for
// linux/amd64 and linux/arm64.
func (r *Registry) PushIndex(tb TB, written string, platforms ...string) Index {
	tb.Helper()
	if len(platforms) == 0 {
		platforms = []string{"linux/amd64", "linux/arm64"}
	}
	content := v1.ImageIndex(empty.Index)
	digests := make([]string, 0, len(platforms))
	for _, platform := range platforms {
		image := r.newImage(tb, written, platform)
		content = mutate.AppendManifests(content, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: parsePlatform(tb, platform)},
		})
		digests = append(digests, digestOf(tb, image))
	}
	index := Index{Image: r.Push(tb, written, content)}
	for _, digest := range digests {
		index.Manifests = append(index.Manifests,
			Image{Registry: index.Registry, Repository: index.Repository, Digest: digest})
	}
	return index
}

// Push pushes any content as written: a v1.Image or v1.ImageIndex with all it holds, else a manifest alone.
func (r *Registry) Push(tb TB, written string, content remote.Taggable) Image {
	tb.Helper()
	tag := r.parse(tb, written)
	var err error
	switch content := content.(type) {
	case v1.ImageIndex:
		err = remote.WriteIndex(tag, content, r.BackDoor())
	case v1.Image:
		err = remote.Write(tag, content, r.BackDoor())
	default:
		err = remote.Put(tag, content, r.BackDoor())
	}
	if err != nil {
		tb.Fatalf("pushing %q: %v", written, err)
	}
	return Image{
		Registry: r.Host(), Repository: tag.RepositoryStr(), Tag: tag.TagStr(), Digest: digestOf(tb, content),
	}
}

// Tag makes the tag point at the digest, which must be in the repository, and returns the image it names now.
func (r *Registry) Tag(tb TB, repository, tag, digest string) Image {
	tb.Helper()
	if err := r.retag(repository, tag, digest); err != nil {
		tb.Fatalf("%v", err)
	}
	return Image{Registry: r.Host(), Repository: repository, Tag: tag, Digest: digest}
}

// Delete removes the image's manifest by digest and, if it has one, by tag. Other tags of it stay.
func (r *Registry) Delete(tb TB, image Image) {
	tb.Helper()
	for _, target := range []string{image.Tag, image.Digest} {
		if target == "" {
			continue
		}
		if a := r.manifest(http.MethodDelete, image.Repository, target, nil); a.status != http.StatusAccepted {
			tb.Fatalf("deleting %q of %q: status %d", target, image.Repository, a.status)
		}
	}
}

// retag is Tag for callers that run in the server and so must not end a test.
func (r *Registry) retag(repository, tag, digest string) error {
	got := r.manifest(http.MethodGet, repository, digest, nil)
	if got.status != http.StatusOK {
		return fmt.Errorf("moving tag %q: reading %q of %q: status %d", tag, digest, repository, got.status)
	}
	put := r.manifest(http.MethodPut, repository, tag, got)
	if put.status != http.StatusCreated {
		return fmt.Errorf("moving tag %q of %q: status %d", tag, repository, put.status)
	}
	return nil
}

// manifest asks the contents themselves; body, if not nil, is sent with its content type.
func (r *Registry) manifest(method, repository, target string, body *answer) *answer {
	req := &http.Request{
		Method: method, URL: &url.URL{Scheme: "http", Host: r.Host(), Path: "/v2/" + repository + "/manifests/" + target},
		Header: http.Header{}, Body: http.NoBody,
	}
	if body != nil {
		req.Body = io.NopCloser(&body.body)
		req.Header.Set("Content-Type", body.header.Get("Content-Type"))
	}
	return capture(r.content, req)
}

// newImage makes an image whose content depends on the name, the platform and how often it was asked for.
func (r *Registry) newImage(tb TB, written, platform string) v1.Image {
	tb.Helper()
	written = strings.TrimPrefix(written, r.Host()+"/") // the port differs from run to run
	r.mu.Lock()
	r.pushed[written]++
	count := r.pushed[written]
	r.mu.Unlock()

	p := parsePlatform(tb, platform)
	base := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	base = mutate.ConfigMediaType(base, types.OCIConfigJSON)
	base, err := mutate.ConfigFile(base, &v1.ConfigFile{
		Architecture: p.Architecture, OS: p.OS, Variant: p.Variant, RootFS: v1.RootFS{Type: "layers"},
	})
	if err != nil {
		tb.Fatalf("making an image for %q: %v", written, err)
	}
	content := fmt.Sprintf("%s %s, image %d\n", written, platform, count)
	image, err := mutate.AppendLayers(base, newLayer(tb, content))
	if err != nil {
		tb.Fatalf("making an image for %q: %v", written, err)
	}
	return image
}

// newLayer makes a layer that a container runtime can unpack: a tar of one file.
func newLayer(tb TB, content string) v1.Layer {
	tb.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	header := &tar.Header{Name: "content.txt", Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0)}
	if err := w.WriteHeader(header); err != nil {
		tb.Fatalf("making a layer: %v", err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		tb.Fatalf("making a layer: %v", err)
	}
	if err := w.Close(); err != nil {
		tb.Fatalf("making a layer: %v", err)
	}
	return static.NewLayer(archive.Bytes(), types.OCIUncompressedLayer)
}

func parsePlatform(tb TB, platform string) *v1.Platform {
	tb.Helper()
	p, err := v1.ParsePlatform(platform)
	if err != nil {
		tb.Fatalf("parsing platform %q: %v", platform, err)
	}
	return p
}

// parse reads "acme/app:v1", also with this registry's host before it.
func (r *Registry) parse(tb TB, written string) name.Tag {
	tb.Helper()
	tag, err := name.NewTag(r.Host()+"/"+strings.TrimPrefix(written, r.Host()+"/"), name.Insecure)
	if err != nil {
		tb.Fatalf("parsing image %q: %v", written, err)
	}
	return tag
}

func digestOf(tb TB, content remote.Taggable) string {
	tb.Helper()
	raw, err := content.RawManifest()
	if err != nil {
		tb.Fatalf("reading a manifest: %v", err)
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		tb.Fatalf("hashing a manifest: %v", err)
	}
	return digest.String()
}
