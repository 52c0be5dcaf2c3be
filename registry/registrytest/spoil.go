// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/empty"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
)

// bundlePrefix starts the media type of every version of a sigstore bundle.
const bundlePrefix = "application/vnd.dev.sigstore.bundle"

// TamperLegacy gives each of the image's ".sig" payloads an annotation that was not signed. They still name
// the image's digest and the signatures stay as they were.
func (r *Registry) TamperLegacy(tb TB, image Image) {
	tb.Helper()
	layers := r.legacyLayers(tb, image)
	tampered := make([]oci.Signature, 0, len(layers))
	for _, layer := range layers {
		content, err := layer.Payload()
		if err != nil {
			tb.Fatalf("reading a payload: %v", err)
		}
		var parsed payload.SimpleContainerImage
		if err := json.Unmarshal(content, &parsed); err != nil {
			tb.Fatalf("parsing a payload: %v", err)
		}
		parsed.Optional = map[string]any{"tampered": "yes"}
		if content, err = json.Marshal(parsed); err != nil {
			tb.Fatalf("encoding a payload: %v", err)
		}
		b64Signature, err := layer.Base64Signature()
		if err != nil {
			tb.Fatalf("reading a signature: %v", err)
		}
		tampered = append(tampered, newLegacyLayer(tb, content, b64Signature))
	}
	r.writeLegacy(tb, image, empty.Signatures(), tampered)
}

// CopyLegacy puts the ".sig" manifest of one image under the ".sig" tag of another, in the same repository or
// another one: signatures that verify, over another digest.
func (r *Registry) CopyLegacy(tb TB, from, to Image) {
	tb.Helper()
	r.writeLegacy(tb, to, empty.Signatures(), r.legacyLayers(tb, from))
}

// EmptyLegacy makes the image's ".sig" manifest one without layers.
func (r *Registry) EmptyLegacy(tb TB, image Image) {
	tb.Helper()
	r.writeLegacy(tb, image, empty.Signatures(), nil)
}

// GarbageLegacy adds two layers to the image's ".sig" manifest: payloads that are no JSON, the one with an
// annotation that is not base64, the other with base64 of nothing.
func (r *Registry) GarbageLegacy(tb TB, image Image) {
	tb.Helper()
	r.attachLegacy(tb, image,
		newLegacyLayer(tb, []byte("\x00\xff not a payload"), "?? not base64 ??"),
		newLegacyLayer(tb, []byte(`{"critical":`), "AAAA"))
}

// DeepLegacy adds a signature by key to the image's ".sig" manifest, over a payload that names the image's digest and
// is nested depth deep. Nothing else is wrong.
func (r *Registry) DeepLegacy(tb TB, image Image, key *Key, depth int) {
	tb.Helper()
	content := fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":{"deep":%s}}`, image.Name(), image.Digest, nested(depth))
	signed, err := key.signer(tb).SignMessage(bytes.NewReader(content))
	if err != nil {
		tb.Fatalf("signing %q: %v", image.ByDigest(), err)
	}
	r.attachLegacy(tb, image, newLegacyLayer(tb, content, base64.StdEncoding.EncodeToString(signed)))
}

// nested is a JSON list of a list of a list.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

// FloodLegacy adds n well-formed signatures of the image by a key that nobody knows to its ".sig" manifest.
// A good signature made before stands before them, one made after stands last.
func (r *Registry) FloodLegacy(tb TB, image Image, n int) {
	tb.Helper()
	key := NewKey(tb, ECDSAP256)
	layers := make([]oci.Signature, 0, n)
	for i := range n {
		layers = append(layers, newSignature(tb, r.digest(tb, image), key, []string{fmt.Sprintf("flood=%d", i)}))
	}
	r.attachLegacy(tb, image, layers...)
}

// OversizedLegacy adds a signature by key whose payload has more than size bytes; nothing else is wrong.
func (r *Registry) OversizedLegacy(tb TB, image Image, key *Key, size int) {
	tb.Helper()
	r.SignLegacy(tb, image, key, "pad="+strings.Repeat("a", size))
}

// FloodAttestations adds n well-formed attestations of the image by a key that nobody knows to its ".att" manifest.
// A good one made before stands before them, one made after stands last.
func (r *Registry) FloodAttestations(tb TB, image Image, n int) {
	tb.Helper()
	key := NewKey(tb, ECDSAP256)
	layers := make([]oci.Signature, 0, n)
	for i := range n {
		envelope := NewEnvelope(tb, image, key, Attestation{PredicateType: "https://example.com/flood", Predicate: map[string]any{"flood": i}})
		layers = append(layers, newAttestationLayer(tb, envelope, "https://example.com/flood"))
	}
	r.attach(tb, image, image.AttestationTag(), layers...)
}

// CopyAttestations puts the ".att" manifest of one image under the ".att" tag of another: envelopes that verify, about
// another digest.
func (r *Registry) CopyAttestations(tb TB, from, to Image) {
	tb.Helper()
	r.writeLayers(tb, to, to.AttestationTag(), empty.Signatures(), r.layers(tb, from, from.AttestationTag()))
}

// CopyBundles attaches the bundles of one image to another: signatures that verify, over another digest.
func (r *Registry) CopyBundles(tb TB, from, to Image) {
	tb.Helper()
	for _, bundle := range r.bundles(tb, from) {
		r.attachBundle(tb, to, bundle.raw, bundle.annotated)
	}
}

// TamperBundles gives the statement in each of the image's bundles a predicate that was not signed and removes
// the originals. They still name the image's digest and the signatures stay as they were. It is for
// images whose referrers are all bundles: the tag schema's index is made anew.
func (r *Registry) TamperBundles(tb TB, image Image) {
	tb.Helper()
	bundles := r.bundles(tb, image)
	for _, original := range bundles {
		r.Delete(tb, original.manifest)
	}
	// Without the referrers API the index under the tag would still list the originals.
	r.manifest(http.MethodDelete, image.kept(), image.ReferrersTag(), nil)
	for _, original := range bundles {
		r.attachBundle(tb, image, tamperBundle(tb, original.raw), original.annotated)
	}
}

func tamperBundle(tb TB, raw []byte) []byte {
	tb.Helper()
	bundle := &protobundle.Bundle{}
	if err := protojson.Unmarshal(raw, bundle); err != nil {
		tb.Fatalf("parsing a bundle: %v", err)
	}
	envelope := bundle.GetDsseEnvelope()
	statement := map[string]any{}
	if err := json.Unmarshal(envelope.GetPayload(), &statement); err != nil {
		tb.Fatalf("parsing a statement: %v", err)
	}
	statement["predicate"] = map[string]any{"tampered": "yes"}
	content, err := json.Marshal(statement)
	if err != nil {
		tb.Fatalf("encoding a statement: %v", err)
	}
	envelope.Payload = content
	if raw, err = protojson.Marshal(bundle); err != nil {
		tb.Fatalf("encoding a bundle: %v", err)
	}
	return raw
}

// BrokenBundle attaches a bundle to the image whose JSON is cut short.
func (r *Registry) BrokenBundle(tb TB, image Image) {
	tb.Helper()
	bundle := newSignatureBundle(tb, image, NewKey(tb, ECDSAP256), nil)
	r.attachBundle(tb, image, bundle[:len(bundle)/2], SignPredicateType)
}

// DeepBundle attaches a bundle by key to the image in which something that nobody signs is nested depth deep.
func (r *Registry) DeepBundle(tb TB, image Image, key *Key, depth int) {
	tb.Helper()
	bundle := newSignatureBundle(tb, image, key, nil)
	bundle = append(bytes.TrimSuffix(bundle, []byte("}")), `,"deep":`+nested(depth)+"}"...)
	r.attachBundle(tb, image, bundle, SignPredicateType)
}

// FloodBundles attaches n well-formed bundles that sign the image by a key that nobody knows.
func (r *Registry) FloodBundles(tb TB, image Image, n int) {
	tb.Helper()
	key := NewKey(tb, ECDSAP256)
	for i := range n {
		r.SignBundle(tb, image, key, fmt.Sprintf("flood=%d", i))
	}
}

// OversizedBundle attaches a bundle signed by key of more than size bytes; nothing else is wrong.
func (r *Registry) OversizedBundle(tb TB, image Image, key *Key, size int) {
	tb.Helper()
	r.SignBundle(tb, image, key, "pad="+strings.Repeat("a", size))
}

func (r *Registry) legacyLayers(tb TB, image Image) []oci.Signature {
	tb.Helper()
	return r.layers(tb, image, image.SignatureTag())
}

// layers returns what is under a tag in the image's place.
func (r *Registry) layers(tb TB, image Image, tag string) []oci.Signature {
	tb.Helper()
	found, err := ociremote.Signatures(r.inPlace(tb, image).Tag(tag), r.cosignOption())
	if err != nil {
		tb.Fatalf("reading %q of %q: %v", tag, image.kept(), err)
	}
	layers, err := found.Get()
	if err != nil {
		tb.Fatalf("reading %q of %q: %v", tag, image.kept(), err)
	}
	if len(layers) == 0 {
		tb.Fatalf("reading %q of %q: there is nothing", tag, image.kept())
	}
	return layers
}

// attached is a bundle in the registry.
type attached struct {
	manifest  Image
	raw       []byte
	annotated string // what its manifest says the predicateType is
}

// bundles returns the image's bundles in the order of their digests.
func (r *Registry) bundles(tb TB, image Image) []attached {
	tb.Helper()
	index, err := ociremote.Referrers(r.inPlace(tb, image).Digest(image.Digest), "", r.cosignOption())
	if err != nil {
		tb.Fatalf("reading the referrers of %q: %v", image.ByDigest(), err)
	}
	var found []attached
	for _, descriptor := range index.Manifests {
		referrer := Image{Registry: image.Registry, Repository: image.kept(), Digest: descriptor.Digest.String()}
		if bundle, ok := r.readBundle(tb, referrer); ok {
			found = append(found, bundle)
		}
	}
	if len(found) == 0 {
		tb.Fatalf("reading the bundles of %q: there are none", image.ByDigest())
	}
	slices.SortFunc(found, func(a, b attached) int { return strings.Compare(a.manifest.Digest, b.manifest.Digest) })
	return found
}

// readBundle reports false for a referrer that is something else.
func (r *Registry) readBundle(tb TB, referrer Image) (attached, bool) {
	tb.Helper()
	image, err := remote.Image(r.digest(tb, referrer), r.BackDoor())
	if err != nil {
		tb.Fatalf("reading referrer %q: %v", referrer.ByDigest(), err)
	}
	manifest, err := image.Manifest()
	if err != nil {
		tb.Fatalf("reading referrer %q: %v", referrer.ByDigest(), err)
	}
	if len(manifest.Layers) != 1 || !strings.HasPrefix(string(manifest.Layers[0].MediaType), bundlePrefix) {
		return attached{}, false
	}
	raw := readLayer(tb, image, manifest.Layers[0].Digest)
	return attached{
		manifest: referrer, raw: raw, annotated: manifest.Annotations["dev.sigstore.bundle.predicateType"],
	}, true
}

func readLayer(tb TB, image v1.Image, digest v1.Hash) []byte {
	tb.Helper()
	layer, err := image.LayerByDigest(digest)
	if err != nil {
		tb.Fatalf("reading layer %q: %v", digest, err)
	}
	content, err := layer.Compressed()
	if err != nil {
		tb.Fatalf("reading layer %q: %v", digest, err)
	}
	defer content.Close()
	raw, err := io.ReadAll(content)
	if err != nil {
		tb.Fatalf("reading layer %q: %v", digest, err)
	}
	return raw
}
