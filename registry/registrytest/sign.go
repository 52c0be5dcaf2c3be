// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/mutate"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/payload"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// SignPredicateType is the predicateType of the statement in a bundle that is a signature, as cosign 3 writes it.
const SignPredicateType = "https://sigstore.dev/cosign/sign/v1"

// payloadType is the type of the DSSE envelope in every bundle of cosign.
const payloadType = "application/vnd.in-toto+json"

// Attestation says something about an image; it does not sign it.
type Attestation struct {
	PredicateType string // in the signed statement
	Predicate     any    // encoded as a JSON object
	// Annotated is what the annotation dev.sigstore.bundle.predicateType says, which nobody signs. Empty: the
	// truth.
	Annotated string
}

// SignLegacy signs the image's digest as cosign 2 does and adds the signature to those under its ".sig" tag.
// Annotations are "key=value", as after cosign's -a. It returns the ".sig" manifest.
func (r *Registry) SignLegacy(tb TB, image Image, key *Key, annotations ...string) Image {
	tb.Helper()
	return r.attachLegacy(tb, image, newSignature(tb, r.digest(tb, image), key, annotations))
}

// SignBundle signs the image's digest as cosign 3 does and attaches the bundle to it as a referrer.
// Annotations are "key=value", as after cosign's -a.
func (r *Registry) SignBundle(tb TB, image Image, key *Key, annotations ...string) {
	tb.Helper()
	r.attachBundle(tb, image, newSignatureBundle(tb, image, key, annotations), SignPredicateType)
}

// AttestBundle attaches an attestation as cosign 3 does. Only its signed predicateType tells it from what
// SignBundle attaches.
func (r *Registry) AttestBundle(tb TB, image Image, key *Key, attestation Attestation) {
	tb.Helper()
	predicate := &structpb.Struct{}
	raw, err := json.Marshal(attestation.Predicate)
	if err != nil {
		tb.Fatalf("encoding a predicate: %v", err)
	}
	if attestation.Predicate != nil {
		if err := protojson.Unmarshal(raw, predicate); err != nil {
			tb.Fatalf("encoding a predicate: %v", err)
		}
	}
	statement := &intoto.Statement{
		Type:          "https://in-toto.io/Statement/v0.1", // cosign 3 still writes attestations in the old version
		Subject:       []*intoto.ResourceDescriptor{{Name: image.Name(), Digest: digestSet(tb, image)}},
		PredicateType: attestation.PredicateType,
		Predicate:     predicate,
	}
	annotated := attestation.Annotated
	if annotated == "" {
		annotated = attestation.PredicateType
	}
	r.attachBundle(tb, image, newBundle(tb, statement, key), annotated)
}

// newSignature makes one layer of a ".sig" manifest.
func newSignature(tb TB, digest name.Digest, key *Key, annotations []string) oci.Signature {
	tb.Helper()
	content, err := payload.Cosign{Image: digest, Annotations: parseAnnotations(tb, annotations)}.MarshalJSON()
	if err != nil {
		tb.Fatalf("encoding a payload: %v", err)
	}
	signed, err := key.signer(tb).SignMessage(bytes.NewReader(content))
	if err != nil {
		tb.Fatalf("signing %q: %v", digest, err)
	}
	return newLegacyLayer(tb, content, base64.StdEncoding.EncodeToString(signed))
}

func newLegacyLayer(tb TB, content []byte, b64Signature string) oci.Signature {
	tb.Helper()
	layer, err := static.NewSignature(content, b64Signature)
	if err != nil {
		tb.Fatalf("making a signature layer: %v", err)
	}
	return layer
}

// attachLegacy adds layers to the image's ".sig" manifest, which it makes if there is none.
func (r *Registry) attachLegacy(tb TB, image Image, layers ...oci.Signature) Image {
	tb.Helper()
	base, err := ociremote.SignedUnknown(r.digest(tb, image), r.cosignOption()).Signatures()
	if err != nil {
		tb.Fatalf("reading the signatures of %q: %v", image.ByDigest(), err)
	}
	return r.writeLegacy(tb, image, base, layers)
}

// writeLegacy makes the image's ".sig" manifest hold those of base and the layers.
func (r *Registry) writeLegacy(tb TB, image Image, base oci.Signatures, layers []oci.Signature) Image {
	tb.Helper()
	signatures, err := mutate.AppendSignatures(base, false, layers...)
	if err != nil {
		tb.Fatalf("adding signatures to %q: %v", image.ByDigest(), err)
	}
	return r.Push(tb, image.Repository+":"+image.SignatureTag(), signatures)
}

// newSignatureBundle makes a bundle that signs the image's digest.
func newSignatureBundle(tb TB, image Image, key *Key, annotations []string) []byte {
	tb.Helper()
	annotated, err := structpb.NewStruct(parseAnnotations(tb, annotations))
	if err != nil {
		tb.Fatalf("encoding annotations: %v", err)
	}
	return newBundle(tb, &intoto.Statement{
		Type:          intoto.StatementTypeUri,
		Subject:       []*intoto.ResourceDescriptor{{Digest: digestSet(tb, image), Annotations: annotated}},
		PredicateType: SignPredicateType,
		Predicate:     &structpb.Struct{},
	}, key)
}

// newBundle signs the statement and returns the bundle's JSON.
func newBundle(tb TB, statement *intoto.Statement, key *Key) []byte {
	tb.Helper()
	content, err := protojson.Marshal(statement)
	if err != nil {
		tb.Fatalf("encoding a statement: %v", err)
	}
	envelope := &sign.DSSEData{Data: content, PayloadType: payloadType}
	bundle, err := sign.Bundle(envelope, keypair{key: key, signer: key.signer(tb)}, sign.BundleOptions{})
	if err != nil {
		tb.Fatalf("signing a bundle: %v", err)
	}
	raw, err := protojson.Marshal(bundle)
	if err != nil {
		tb.Fatalf("encoding a bundle: %v", err)
	}
	return raw
}

// attachBundle makes bundle, which may be any bytes, a referrer of the image.
func (r *Registry) attachBundle(tb TB, image Image, bundle []byte, annotated string) {
	tb.Helper()
	err := ociremote.WriteAttestationNewBundleFormat(r.digest(tb, image), bundle, annotated, r.cosignOption())
	if err != nil {
		tb.Fatalf("attaching a bundle to %q: %v", image.ByDigest(), err)
	}
}

// cosignOption makes cosign's packages use the back door.
func (r *Registry) cosignOption() ociremote.Option {
	return ociremote.WithRemoteOptions(r.BackDoor())
}

func (r *Registry) digest(tb TB, image Image) name.Digest {
	tb.Helper()
	digest, err := name.NewDigest(image.ByDigest(), name.Insecure)
	if err != nil {
		tb.Fatalf("parsing image %q: %v", image.ByDigest(), err)
	}
	return digest
}

// digestSet returns the image's digest as an in-toto statement writes it.
func digestSet(tb TB, image Image) map[string]string {
	tb.Helper()
	algorithm, hex, ok := strings.Cut(image.Digest, ":")
	if !ok {
		tb.Fatalf("parsing digest %q: no colon", image.Digest)
	}
	return map[string]string{algorithm: hex}
}

// parseAnnotations returns nil for none: cosign then writes "optional":null.
func parseAnnotations(tb TB, annotations []string) map[string]any {
	tb.Helper()
	var parsed map[string]any
	for _, annotation := range annotations {
		key, value, ok := strings.Cut(annotation, "=")
		if !ok {
			tb.Fatalf("parsing annotation %q: want key=value", annotation)
		}
		if parsed == nil {
			parsed = map[string]any{}
		}
		parsed[key] = value
	}
	return parsed
}
