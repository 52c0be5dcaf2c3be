// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"encoding/json"
	"maps"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/cosign/v2/pkg/oci"
	cosignmutate "github.com/sigstore/cosign/v2/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	cosignstatic "github.com/sigstore/cosign/v2/pkg/oci/static"
)

const (
	// envelopeType is the media type of a layer of an ".att" manifest.
	envelopeType = "application/vnd.dsse.envelope.v1+json"
	// bundleType is that of a bundle, and of the manifest that it is in.
	bundleType = bundlePrefix + ".v0.3+json"
	// emptyType is that of a config that is none.
	emptyType = "application/vnd.oci.empty.v1+json"
)

// Place is where and how signatures and attestations of an image are kept. The zero value is what cosign does when it
// is told nothing: beside the image, in OCI media types.
type Place struct {
	// Repository is what COSIGN_REPOSITORY says, without the host; empty is the image's own. For one in another registry
	// call that registry's methods, with the image of this one.
	Repository string
	// TagPrefix stands before the tags "sha256-<hex>.sig" and ".att". Referrers have no such tags.
	TagPrefix string
	// Docker makes new ".sig" and ".att" manifests those of Docker, as COSIGN_DOCKER_MEDIA_TYPES=1 does.
	Docker bool
}

// At returns the same image with another place: every method that writes, spoils or matches what belongs to an image
// then does so there.
func (i Image) At(place Place) Image {
	i.Place = place
	return i
}

// kept is the repository in which what belongs to the image is kept.
func (i Image) kept() string {
	if i.Place.Repository != "" {
		return i.Place.Repository
	}
	return i.Repository
}

// PushSignatureLayer adds a layer to the image's ".sig" manifest exactly as given, whatever the payload and the
// annotations are. It returns the ".sig" manifest.
func (r *Registry) PushSignatureLayer(tb TB, image Image, payload []byte, annotations map[string]string) Image {
	tb.Helper()
	return r.attach(tb, image, image.SignatureTag(), rawLayer{newLegacyLayer(tb, payload, ""), annotations})
}

// PushAttestationLayer adds a layer to the image's ".att" manifest exactly as given, whatever the envelope and the
// annotations are. It returns the ".att" manifest.
func (r *Registry) PushAttestationLayer(tb TB, image Image, envelope []byte, annotations map[string]string) Image {
	tb.Helper()
	return r.attach(tb, image, image.AttestationTag(), rawLayer{newAttestationLayer(tb, envelope, ""), annotations})
}

// PushBundle makes bundle, which may be any bytes, a referrer of the image. Its manifest does not say whether it is a
// signature or an attestation.
func (r *Registry) PushBundle(tb TB, image Image, bundle []byte) {
	tb.Helper()
	r.attachBundle(tb, image, bundle, "")
}

// rawLayer is a layer with annotations that cosign need not understand.
type rawLayer struct {
	layer
	annotations map[string]string
}

type layer = oci.Signature // which has a method of that name

// Annotations implements oci.Signature.
func (l rawLayer) Annotations() (map[string]string, error) { return maps.Clone(l.annotations), nil }

func newLegacyLayer(tb TB, content []byte, b64Signature string) oci.Signature {
	tb.Helper()
	layer, err := cosignstatic.NewSignature(content, b64Signature)
	if err != nil {
		tb.Fatalf("making a signature layer: %v", err)
	}
	return layer
}

func newAttestationLayer(tb TB, envelope []byte, annotated string) oci.Signature {
	tb.Helper()
	layer, err := cosignstatic.NewAttestation(envelope, cosignstatic.WithLayerMediaType(envelopeType),
		cosignstatic.WithAnnotations(map[string]string{"predicateType": annotated}))
	if err != nil {
		tb.Fatalf("making an attestation layer: %v", err)
	}
	return layer
}

// attachLegacy adds layers to the image's ".sig" manifest, which it makes if there is none.
func (r *Registry) attachLegacy(tb TB, image Image, layers ...oci.Signature) Image {
	tb.Helper()
	return r.attach(tb, image, image.SignatureTag(), layers...)
}

// attach adds layers to the manifest under a tag in the image's place, which it makes if there is none.
func (r *Registry) attach(tb TB, image Image, tag string, layers ...oci.Signature) Image {
	tb.Helper()
	base, err := ociremote.Signatures(r.inPlace(tb, image).Tag(tag), r.cosignOption())
	if err != nil {
		tb.Fatalf("reading %q of %q: %v", tag, image.kept(), err)
	}
	return r.writeLayers(tb, image, tag, base, layers)
}

// writeLegacy makes the image's ".sig" manifest hold those of base and the layers.
func (r *Registry) writeLegacy(tb TB, image Image, base oci.Signatures, layers []oci.Signature) {
	tb.Helper()
	r.writeLayers(tb, image, image.SignatureTag(), base, layers)
}

func (r *Registry) writeLayers(tb TB, image Image, tag string, base oci.Signatures, layers []oci.Signature) Image {
	tb.Helper()
	signatures, err := cosignmutate.AppendSignatures(base, false, layers...)
	if err != nil {
		tb.Fatalf("adding to %q of %q: %v", tag, image.kept(), err)
	}
	content := v1.Image(signatures)
	if image.Place.Docker {
		content = mutate.ConfigMediaType(mutate.MediaType(content, types.DockerManifestSchema2), types.DockerConfigJSON)
	}
	return r.Push(tb, image.kept()+":"+tag, content)
}

// attachBundle makes bundle, which may be any bytes, a referrer of the image.
func (r *Registry) attachBundle(tb TB, image Image, bundle []byte, annotated string) {
	tb.Helper()
	if image.kept() != image.Repository || image.Registry != r.Host() {
		r.attachAway(tb, image, bundle, annotated)
		return
	}
	err := ociremote.WriteAttestationNewBundleFormat(r.digest(tb, image), bundle, annotated, r.cosignOption())
	if err != nil {
		tb.Fatalf("attaching a bundle to %q: %v", image.ByDigest(), err)
	}
}

// attachAway is attachBundle where the image itself is not, which cosign 3 does and cosign 2's code cannot.
func (r *Registry) attachAway(tb TB, image Image, bundle []byte, annotated string) {
	tb.Helper()
	repository := r.inPlace(tb, image)
	subject, err := v1.NewHash(image.Digest)
	if err != nil {
		tb.Fatalf("parsing digest %q: %v", image.Digest, err)
	}
	config, only := static.NewLayer([]byte("{}"), emptyType), static.NewLayer(bundle, bundleType)
	manifest := v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, ArtifactType: bundleType,
		Config: r.pushLayer(tb, repository, config), Layers: []v1.Descriptor{r.pushLayer(tb, repository, only)},
		// Its size is not known here. Nobody asks for it: the digest says what it is.
		Subject: &v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: subject, Size: 1},
		Annotations: map[string]string{
			"dev.sigstore.bundle.content": "dsse-envelope", "dev.sigstore.bundle.predicateType": annotated,
		},
	}
	content := referrer{manifest}
	if err := remote.Put(repository.Digest(digestOf(tb, content)), content, r.BackDoor()); err != nil {
		tb.Fatalf("attaching a bundle to %q: %v", image.ByDigest(), err)
	}
}

func (r *Registry) pushLayer(tb TB, repository name.Repository, layer v1.Layer) v1.Descriptor {
	tb.Helper()
	described, err := partial.Descriptor(layer)
	if err != nil {
		tb.Fatalf("describing a layer: %v", err)
	}
	if err := remote.WriteLayer(repository, layer, r.BackDoor()); err != nil {
		tb.Fatalf("pushing a layer to %q: %v", repository, err)
	}
	return *described
}

// referrer is a manifest that can be pushed alone.
type referrer struct{ v1.Manifest }

// RawManifest implements remote.Taggable.
func (r referrer) RawManifest() ([]byte, error) { return json.Marshal(r.Manifest) }

// MediaType implements what remote.Put looks for.
func (r referrer) MediaType() (types.MediaType, error) { return r.Manifest.MediaType, nil }

// inPlace is the repository of the image's place in this registry.
func (r *Registry) inPlace(tb TB, image Image) name.Repository {
	tb.Helper()
	repository, err := name.NewRepository(r.Host()+"/"+image.kept(), name.Insecure)
	if err != nil {
		tb.Fatalf("parsing repository %q: %v", image.kept(), err)
	}
	return repository
}
