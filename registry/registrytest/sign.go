// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v2/pkg/oci"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
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
	// Annotated is what the annotation dev.sigstore.bundle.predicateType of a bundle, or predicateType of a layer,
	// says, which nobody signs. Empty: the truth.
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

// AttestLegacy attests something of the image as cosign 2 does and adds the envelope to those under its ".att" tag. It
// returns the ".att" manifest.
func (r *Registry) AttestLegacy(tb TB, image Image, key *Key, attestation Attestation) Image {
	tb.Helper()
	layer := newAttestationLayer(tb, NewEnvelope(tb, image, key, attestation), attestation.annotated())
	return r.attach(tb, image, image.AttestationTag(), layer)
}

// AttestBundle attaches an attestation as cosign 3 does. Only its signed predicateType tells it from what
// SignBundle attaches.
func (r *Registry) AttestBundle(tb TB, image Image, key *Key, attestation Attestation) {
	tb.Helper()
	r.attachBundle(tb, image, newBundle(tb, newStatement(tb, image, attestation), key), attestation.annotated())
}

// NewEnvelope makes the DSSE envelope that AttestLegacy adds, and adds it nowhere.
func NewEnvelope(tb TB, image Image, key *Key, attestation Attestation) []byte {
	tb.Helper()
	content, err := protojson.Marshal(newStatement(tb, image, attestation))
	if err != nil {
		tb.Fatalf("encoding a statement: %v", err)
	}
	envelope, err := dsse.WrapSigner(key.signer(tb), payloadType).SignMessage(bytes.NewReader(content))
	if err != nil {
		tb.Fatalf("signing a statement about %q: %v", image.ByDigest(), err)
	}
	return envelope
}

// NewBundle makes the bundle that AttestBundle attaches, and attaches it to nothing.
func NewBundle(tb TB, image Image, key *Key, attestation Attestation) []byte {
	tb.Helper()
	return newBundle(tb, newStatement(tb, image, attestation), key)
}

func newStatement(tb TB, image Image, attestation Attestation) *intoto.Statement {
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
	return &intoto.Statement{
		Type:          "https://in-toto.io/Statement/v0.1", // cosign 3 still writes attestations in the old version
		Subject:       []*intoto.ResourceDescriptor{{Name: image.Name(), Digest: digestSet(tb, image)}},
		PredicateType: attestation.PredicateType,
		Predicate:     predicate,
	}
}

// annotated is what the manifest says of the attestation.
func (a Attestation) annotated() string { return cmp.Or(a.Annotated, a.PredicateType) }

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
