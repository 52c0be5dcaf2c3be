// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containerstest

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"

	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// The annotations of a sigstore attachment.
const (
	SignatureAnnotation   = "dev.cosignproject.cosign/signature"
	BundleAnnotation      = "dev.sigstore.cosign/bundle"
	CertificateAnnotation = "dev.sigstore.cosign/certificate"
	ChainAnnotation       = "dev.sigstore.cosign/chain"
)

// AttachmentType is the media type of an attachment that is a signature.
const AttachmentType = "application/vnd.dev.cosign.simplesigning.v1+json"

// Sigstore signs with attachments. Many tests may use one at the same time.
type Sigstore struct {
	*cosigntest.Sigstore
	tb TB
}

// NewSigstore makes one.
func NewSigstore(tb TB) *Sigstore {
	tb.Helper()
	return &Sigstore{cosigntest.New(tb), tb}
}

// Rekor is the public key of the transparency log, as rekorPublicKeyData has it.
func (s *Sigstore) Rekor() []byte {
	s.tb.Helper()
	for _, log := range s.RekorLogs() {
		der, err := x509.MarshalPKIXPublicKey(log.PublicKey)
		must(s.tb, err)
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	s.tb.Fatalf("a Sigstore without a log")
	return nil
}

// CA is the root certificate of the authority, as fulcio.caData has it.
func (s *Sigstore) CA() []byte { return certificatePEM(s.Root) }

// NewKey makes a key that is in no certificate.
func NewKey(tb TB) *cosigntest.Leaf {
	tb.Helper()
	return &cosigntest.Leaf{Key: cosigntest.NewKey(tb)}
}

// Attachment is a layer of a .sig manifest.
type Attachment struct {
	Payload     []byte
	Annotations map[string]string
}

// Sign signs a claim. logged says that the log vouches for it.
func (s *Sigstore) Sign(by *cosigntest.Leaf, claim Claim, logged bool) Attachment {
	s.tb.Helper()
	payload, annotations := s.Layer(by, claim.Cosign(s.tb), nil, cosigntest.Vouching{Log: logged})
	return Attachment{payload, annotations}
}

// Push adds the attachment to those of an image.
func (a Attachment) Push(tb TB, r *registrytest.Registry, image registrytest.Image) {
	tb.Helper()
	r.PushSignatureLayer(tb, image, a.Payload, a.Annotations)
}

// File is the attachment as a lookaside server has it.
func (a Attachment) File(tb TB) []byte {
	tb.Helper()
	raw, err := json.Marshal(map[string]any{
		"mimeType": AttachmentType, "payload": a.Payload, "annotations": a.Annotations,
	})
	must(tb, err)
	return append([]byte("\x00sigstore-json\n"), raw...)
}

func certificatePEM(certificate *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw})
}
