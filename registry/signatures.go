// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// maxSignatures is how many signatures of one form are tried, or referrers;
	// maxAttestations is how many layers under an .att tag.
	maxSignatures   = 64
	maxAttestations = 32
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

// Signature is one signature or attestation beside an image, in cosign's first
// form: a layer of the manifest under the tag sha256-<hex>.sig or .att. Nothing
// of it is verified.
type Signature struct {
	// UntrustedPayload is what is signed; of an attestation it is the DSSE
	// envelope.
	UntrustedPayload     []byte
	UntrustedAnnotations map[string]string
	// UntrustedMediaType is the layer's.
	UntrustedMediaType string
}

// form is what lies under one of cosign's tags (cosign, "Signature
// Specification", "Storage").
type form struct {
	suffix string // of the tag
	what   string // one is, for people
	most   int    // that are tried
	limit  int64  // of each, in bytes
	// only is the media type that their manifest must have, if any will not do.
	only types.MediaType
}

var (
	signatureForm   = form{suffix: ".sig", what: "signature", most: maxSignatures, limit: maxSignature}
	attestationForm = form{suffix: ".att", what: "attestation", most: maxAttestations, limit: maxAttestation}
	// attachmentForm is what nodes read of signatures: those that cosign writes with
	// COSIGN_DOCKER_MEDIA_TYPES=1 they refuse.
	attachmentForm = form{suffix: ".sig", what: "signature", most: maxSignatures, limit: maxSignature, only: types.OCIManifestSchema1}
)

// Signatures reads the signatures under the image's .sig tag, one after the
// other. An error in the sequence says that one could not be read, or that it
// is unknown whether there are more. Whoever looks at one must not ask for
// others meanwhile.
func (c *Client) Signatures(ctx context.Context, image policy.Image) iter.Seq2[Signature, error] {
	return c.layers(ctx, image, signatureForm)
}

// Attestations reads the attestations under the image's .att tag, as Signatures
// does the signatures.
func (c *Client) Attestations(ctx context.Context, image policy.Image) iter.Seq2[Signature, error] {
	return c.layers(ctx, image, attestationForm)
}

// Attachments reads the layers under the image's .sig tag as Signatures does, if
// their manifest is one that nodes read as well: that of an OCI image.
func (c *Client) Attachments(ctx context.Context, image policy.Image) iter.Seq2[Signature, error] {
	return c.layers(ctx, image, attachmentForm)
}

func (c *Client) layers(ctx context.Context, image policy.Image, f form) iter.Seq2[Signature, error] {
	what := f.what + " manifest"
	access, err := c.access(ctx, image)
	if err != nil {
		return nothing[Signature](err)
	}
	tag, err := access.tagOf(image, f.suffix)
	if err != nil {
		return nothing[Signature](err)
	}
	var layers descriptors
	var mediaType string
	got, err := access.manifest(ctx, tag, what, func(untrustedBody []byte) error {
		var found manifest
		if err := json.Unmarshal(untrustedBody, &found); err != nil {
			return garbageError(access.host, what)
		}
		layers, mediaType = found.Layers.first(f.most), found.UntrustedMediaType
		return nil
	})
	if isNotFound(err) {
		return nothing[Signature](nil)
	}
	if err == nil {
		err = f.refuses(access.host, got.header.Get("Content-Type"), mediaType)
	}
	if err != nil {
		return nothing[Signature](err)
	}
	return stream[Signature]{
		from: layers, most: f.most, what: f.what + "s", host: access.host, places: c.places.of(access.host),
		read: func(ctx context.Context, layer descriptor) fetched[Signature] {
			return as(access.content(ctx, layer, f), func(payload []byte) Signature {
				return Signature{UntrustedPayload: payload, UntrustedAnnotations: layer.Annotations, UntrustedMediaType: layer.MediaType}
			})
		},
	}.all(ctx)
}

// refuses is why a manifest is not read whose answer has one media type, and which
// says another, or none, of itself.
func (f form) refuses(host, untrustedAnswered, untrustedOwn string) error {
	if f.only == "" {
		return nil
	}
	untrusted, _, err := mime.ParseMediaType(untrustedAnswered)
	switch {
	case err != nil:
		untrusted = untrustedAnswered
	case untrusted == string(f.only) && untrustedOwn != "":
		untrusted = untrustedOwn
	}
	if untrusted == string(f.only) {
		return nil
	}
	return &Error{
		Reason: policy.ReasonUnexpected,
		Message: fmt.Sprintf("%s sent %s manifest of the media type %+.64q; only one of %s is read, as on nodes",
			host, article(f.what), untrusted, f.only),
	}
}

// tagOf is the tag of what belongs to an image. The prefix comes from an
// ImageConfig, and is held against what a tag may be: it becomes part of an
// address.
func (a *access) tagOf(image policy.Image, suffix string) (string, error) {
	tag := image.TagPrefix + referrersTag(image.Digest) + suffix
	if image.TagPrefix == "" {
		return tag, nil
	}
	if parsed, err := name.NewTag(a.repository+":"+tag, name.StrictValidation); err != nil || parsed.TagStr() != tag {
		return "", &Error{
			Reason:  policy.ReasonNotReady,
			Message: fmt.Sprintf("%s is not asked: with the tagPrefix %q there is no valid tag", a.host, image.TagPrefix),
		}
	}
	return tag, nil
}

// Bundles reads the sigstore bundles that refer to the image, as JSON, one
// after the other. Which of them are signatures, and which attestations, only
// their verified contents tell; attestations says that the latter are wanted,
// which may be larger. Errors are as in Signatures.
func (c *Client) Bundles(ctx context.Context, image policy.Image, attestations bool) iter.Seq2[[]byte, error] {
	access, err := c.access(ctx, image)
	if err != nil {
		return nothing[[]byte](err)
	}
	referrers, err := access.referrers(ctx, image.Digest)
	if err != nil {
		return nothing[[]byte](err)
	}
	return access.bundles(ctx, referrers, attestations)
}

// Recheck is asked before an image is refused because nothing vouches for it.
// It reports whether the image itself can be read and is what its digest says,
// unless it is one whose signatures alone are there; and if only memory said
// that its host has no referrers API, it asks the API after all: somebody
// else's missing repository on the same host may have answered like a missing
// API.
func (c *Client) Recheck(ctx context.Context, image policy.Image, attestations bool) iter.Seq2[[]byte, error] {
	access, err := c.access(ctx, image)
	if err != nil {
		return nothing[[]byte](err)
	}
	if !image.Apart {
		if err := access.readable(ctx, image.Digest); err != nil {
			return nothing[[]byte](err)
		}
	}
	if !c.referrers.has(access.host) {
		return nothing[[]byte](nil)
	}
	referrers, err := access.referrersByAPI(ctx, image.Digest)
	if isNotFound(err) {
		return nothing[[]byte](nil)
	}
	if err != nil {
		return nothing[[]byte](err)
	}
	c.referrers.forget(access.host)
	return access.bundles(ctx, referrers, attestations)
}

func (a *access) bundles(ctx context.Context, referrers descriptors, attestations bool) iter.Seq2[[]byte, error] {
	f := form{what: "signature bundle", limit: maxSignature}
	if attestations {
		f = form{what: "sigstore bundle", limit: maxAttestation}
	}
	sortBundles(referrers.items)
	return stream[[]byte]{
		from: referrers.first(maxSignatures), most: maxSignatures, what: "signatures or other referrers",
		host: a.host, places: a.client.places.of(a.host),
		read: func(ctx context.Context, referrer descriptor) fetched[[]byte] {
			layer, ok, err := a.bundle(ctx, referrer)
			if err != nil || !ok {
				return fetched[[]byte]{err: err}
			}
			return a.content(ctx, layer, f)
		},
	}.all(ctx)
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

// bundle finds the bundle in one referrer; false means that it is none.
func (a *access) bundle(ctx context.Context, referrer descriptor) (descriptor, bool, error) {
	digest, err := checkedDigest(a.host, referrer.UntrustedDigest)
	if err != nil {
		return descriptor{}, false, err
	}
	const what = "referrer"
	var layers []descriptor
	_, err = a.manifest(ctx, digest, what, func(untrustedBody []byte) error {
		if digestOf(untrustedBody) != digest {
			return garbageError(a.host, what)
		}
		var found manifest
		if err := json.Unmarshal(untrustedBody, &found); err == nil { // what cannot be read is no bundle
			layers = found.Layers.first(2).items
		}
		return nil
	})
	if err != nil || len(layers) != 1 || !strings.HasPrefix(layers[0].MediaType, bundleType) {
		return descriptor{}, false, err
	}
	return layers[0], true, nil
}

// content reads a layer of the size that its form may have, or puts that off. What
// has more bytes than its descriptor says is not waited for.
func (a *access) content(ctx context.Context, layer descriptor, f form) fetched[[]byte] {
	switch {
	case layer.Size > f.limit:
		return fetched[[]byte]{err: limitError(a.host, f.what, f.limit)}
	case layer.Size > maxSignature:
		return fetched[[]byte]{late: func(ctx context.Context, keep func(back func())) ([]byte, error) {
			return a.blob(ctx, layer.UntrustedDigest, request{what: f.what, limit: f.limit, keep: keep})
		}}
	}
	blob, err := a.blob(ctx, layer.UntrustedDigest, request{what: f.what, limit: maxSignature})
	return fetched[[]byte]{item: blob, ok: err == nil, err: err}
}

// referrersTag is where referrers are listed by registries without the API
// (distribution-spec, "Referrers Tag Schema").
func referrersTag(digest string) string { return strings.Replace(digest, ":", "-", 1) }

// referrers lists what refers to a digest, by the API or, where a registry does
// not have it, by the tag.
func (a *access) referrers(ctx context.Context, digest string) (descriptors, error) {
	if !a.client.referrers.has(a.host) {
		found, err := a.referrersByAPI(ctx, digest)
		if !isNotFound(err) {
			return found, err
		}
		a.client.referrers.remember(a.host)
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
			return garbageError(a.host, what)
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
