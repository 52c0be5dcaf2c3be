// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// maxSignatures is how many signatures of one form are tried.
	maxSignatures = 64
	// maxReferrerPages bounds how far a list of referrers is followed; a
	// registry puts far more than 8 on a page (distribution-spec, "Listing
	// Referrers").
	maxReferrerPages = 8

	// bundleType is the beginning of the media types of sigstore bundles, of
	// all their versions and both spellings.
	bundleType = "application/vnd.dev.sigstore.bundle"
	// emptyType is the media type of a config that is none (OCI image-spec,
	// "Guidance for an Empty Descriptor"). Registries that mistake the config's
	// type for the artifact's list bundles under it.
	emptyType = "application/vnd.oci.empty.v1+json"
)

// Signature is one signature beside an image, in cosign's first form: a layer
// of the manifest under the tag sha256-<hex>.sig. Nothing of it is verified.
type Signature struct {
	UntrustedPayload     []byte
	UntrustedAnnotations map[string]string
}

// Signatures reads the signatures under the image's .sig tag, one after the
// other. An error in the sequence says that one could not be read, or that it
// is unknown whether there are more.
func (c *Client) Signatures(ctx context.Context, image policy.Image) iter.Seq2[Signature, error] {
	const what = "signature manifest"
	access, err := c.access(ctx, image)
	if err != nil {
		return nothing[Signature](err)
	}
	var layers descriptors
	err = access.manifest(ctx, signatureTag(image.Digest), what, func(untrustedBody []byte) error {
		var found manifest
		if err := json.Unmarshal(untrustedBody, &found); err != nil {
			return garbageError(access.host(), what)
		}
		layers = found.Layers.first(maxSignatures)
		return nil
	})
	if isNotFound(err) {
		return nothing[Signature](nil)
	}
	if err != nil {
		return nothing[Signature](err)
	}
	read := func(ctx context.Context, layer descriptor) (Signature, bool, error) {
		payload, err := access.bounded(ctx, layer, "signature")
		return Signature{UntrustedPayload: payload, UntrustedAnnotations: layer.Annotations}, true, err
	}
	return stream[Signature]{layers, access.host(), c.places.of(access.host()), read}.all(ctx)
}

// Bundles reads the sigstore bundles that refer to the image, as JSON, one
// after the other. Which of them are signatures only their verified contents
// tell. Errors are as in Signatures.
func (c *Client) Bundles(ctx context.Context, image policy.Image) iter.Seq2[[]byte, error] {
	access, err := c.access(ctx, image)
	if err != nil {
		return nothing[[]byte](err)
	}
	referrers, err := access.referrers(ctx, image.Digest)
	if err != nil {
		return nothing[[]byte](err)
	}
	return access.bundles(ctx, referrers)
}

// Recheck is asked before an image is refused because nothing vouches for it.
// It reports whether the image itself can be read and is what its digest says;
// and if only memory said that its host has no referrers API, it asks the API
// after all: somebody else's missing repository on the same host may have
// answered like a missing API.
func (c *Client) Recheck(ctx context.Context, image policy.Image) iter.Seq2[[]byte, error] {
	access, err := c.access(ctx, image)
	if err != nil {
		return nothing[[]byte](err)
	}
	if err := access.readable(ctx, image.Digest); err != nil {
		return nothing[[]byte](err)
	}
	if !c.referrers.has(access.host()) {
		return nothing[[]byte](nil)
	}
	referrers, err := access.referrersByAPI(ctx, image.Digest)
	if isNotFound(err) {
		return nothing[[]byte](nil)
	}
	if err != nil {
		return nothing[[]byte](err)
	}
	c.referrers.forget(access.host())
	return access.bundles(ctx, referrers)
}

func (a *access) bundles(ctx context.Context, referrers descriptors) iter.Seq2[[]byte, error] {
	sortBundles(referrers.items)
	return stream[[]byte]{referrers.first(maxSignatures), a.host(), a.client.places.of(a.host()), a.bundle}.all(ctx)
}

// sortBundles puts those first that are called bundles, so that others cannot
// take their places. No referrer is left out for what it is called.
func sortBundles(referrers []descriptor) {
	slices.SortStableFunc(referrers, func(a, b descriptor) int { return bundleRank(a) - bundleRank(b) })
}

func bundleRank(d descriptor) int {
	switch {
	case strings.HasPrefix(d.ArtifactType, bundleType):
		return 0
	case d.ArtifactType == emptyType, d.ArtifactType == "":
		return 1
	default:
		return 2
	}
}

// bundle reads one referrer; false means that it is no bundle.
func (a *access) bundle(ctx context.Context, referrer descriptor) ([]byte, bool, error) {
	digest, err := checkedDigest(a.host(), referrer.UntrustedDigest)
	if err != nil {
		return nil, false, err
	}
	const what = "referrer"
	var layers []descriptor
	err = a.manifest(ctx, digest, what, func(untrustedBody []byte) error {
		if digestOf(untrustedBody) != digest {
			return garbageError(a.host(), what)
		}
		var found manifest
		if err := json.Unmarshal(untrustedBody, &found); err == nil { // what cannot be read is no bundle
			layers = found.Layers.first(2).items
		}
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	if len(layers) != 1 || !strings.HasPrefix(layers[0].MediaType, bundleType) {
		return nil, false, nil
	}
	bundle, err := a.bounded(ctx, layers[0], "signature bundle")
	return bundle, true, err
}

// bounded reads a layer of the size that a signature may have.
func (a *access) bounded(ctx context.Context, layer descriptor, what string) ([]byte, error) {
	if layer.Size > maxSignature {
		return nil, limitError(a.host(), what, maxSignature)
	}
	return a.blob(ctx, layer.UntrustedDigest, what, maxSignature)
}

// signatureTag is the tag of an image's signatures (cosign, "Signature
// Specification", "Storage").
func signatureTag(digest string) string { return referrersTag(digest) + ".sig" }

// referrersTag is where referrers are listed by registries without the API
// (distribution-spec, "Referrers Tag Schema").
func referrersTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// referrers lists what refers to a digest, by the API or, where a registry does
// not have it, by the tag.
func (a *access) referrers(ctx context.Context, digest string) (descriptors, error) {
	if !a.client.referrers.has(a.host()) {
		found, err := a.referrersByAPI(ctx, digest)
		if !isNotFound(err) {
			return found, err
		}
		a.client.referrers.remember(a.host())
	}
	const what = "referrers tag"
	var found descriptors
	_, err := a.do(ctx, request{
		method: http.MethodGet, path: "manifests/" + referrersTag(digest), accept: string(types.OCIImageIndex), what: what, limit: maxManifest,
		take: a.index(&found, what),
	})
	if isNotFound(err) {
		return descriptors{}, nil
	}
	return found, err
}

func (a *access) referrersByAPI(ctx context.Context, digest string) (descriptors, error) {
	const what = "list of referrers"
	var found descriptors
	next := "referrers/" + digest
	for range maxReferrerPages {
		var page descriptors
		got, err := a.do(ctx, request{
			method: http.MethodGet, path: next, accept: string(types.OCIImageIndex), what: what, limit: maxManifest, take: a.index(&page, what),
		})
		if err != nil {
			return descriptors{}, err
		}
		found.items, found.more = append(found.items, page.items...), found.more || page.more
		var further bool
		next, further = nextPage(got)
		if next == "" || len(found.items) > maxSignatures {
			found.more = found.more || further
			return found, nil
		}
	}
	found.more = true
	return found, nil
}

// index takes a list of referrers: so many that it is known whether there are
// more than will be tried.
func (a *access) index(into *descriptors, what string) func(untrustedBody []byte) error {
	return func(untrustedBody []byte) error {
		var read struct {
			MediaType string      `json:"mediaType"`
			Manifests descriptors `json:"manifests"`
		}
		if err := json.Unmarshal(untrustedBody, &read); err != nil || read.MediaType != "" && read.MediaType != string(types.OCIImageIndex) {
			return garbageError(a.host(), what)
		}
		sortBundles(read.Manifests.items)
		*into = read.Manifests.first(maxSignatures + 1)
		return nil
	}
}

// nextPage reads the Link header of a list (RFC 8288, section 3). further says
// that there is a next page; the address is empty if that is on another host,
// which is not followed.
func nextPage(got answer) (next string, further bool) {
	for _, field := range got.header.Values("Link") {
		for link := range strings.SplitSeq(field, "<") {
			untrustedTarget, parameters, ok := strings.Cut(link, ">")
			if ok && strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
				return sameHost(got.url, untrustedTarget), true
			}
		}
	}
	return "", false
}

// sameHost resolves a target against an address, and is empty if it leads to
// another host.
func sameHost(address, untrustedTarget string) string {
	base, err := url.Parse(address)
	if err != nil {
		return ""
	}
	next, err := base.Parse(untrustedTarget)
	if err != nil || next.Host != base.Host {
		return ""
	}
	next.Scheme = base.Scheme
	next.User = nil
	return next.String()
}
