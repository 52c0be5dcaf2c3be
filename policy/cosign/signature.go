// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	ocisignature "github.com/sigstore/cosign/v2/pkg/oci/signature"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

const (
	// The annotations of a layer (cosign, "Signature Specification",
	// "Properties").
	signatureAnnotation   = "dev.cosignproject.cosign/signature"
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	chainAnnotation       = "dev.sigstore.cosign/chain"
)

// layer is a signature under a .sig tag, or an attestation under a .att tag: a
// payload, and annotations that nobody signed.
type layer struct {
	untrusted   registry.Signature
	attestation bool
	// bare has the payload and its signature, and nothing else.
	bare oci.Signature
}

// newLayer takes a layer as it was found.
func newLayer(found registry.Signature, attestation bool) (*layer, error) {
	l := &layer{untrusted: found, attestation: attestation}
	var err error
	if attestation && countValues(found.UntrustedPayload) > maxEnvelope {
		return nil, policy.Undecided(policy.ReasonLimit, "an attestation's envelope has more than %d parts", maxEnvelope).Err()
	}
	if attestation {
		// The signature is in the envelope.
		l.bare, err = static.NewAttestation(found.UntrustedPayload)
	} else {
		l.bare, err = static.NewSignature(found.UntrustedPayload, found.UntrustedAnnotations[signatureAnnotation])
	}
	if err != nil {
		return nil, fmt.Errorf("taking a layer: %w", err)
	}
	return l, l.checkSizes()
}

// checkSizes refuses what would take long to read. What cannot be read at all is
// not there where it is asked for.
func (l *layer) checkSizes() error {
	untrusted := l.annotated(true)
	logged, stamped := 0, 0
	if entry, err := untrusted.Bundle(); err == nil && entry != nil {
		body, _ := entry.Payload.Body.(string)
		logged = base64.StdEncoding.DecodedLen(len(body))
	}
	if stamp, err := untrusted.RFC3161Timestamp(); err == nil && stamp != nil {
		stamped = len(stamp.SignedRFC3161Timestamp)
	}
	return checkSizes(logged, stamped)
}

// signedBy implements [evidence].
func (l *layer) signedBy(ctx context.Context, verifier signature.Verifier) error {
	var err error
	if l.attestation {
		_, err = cosign.VerifyBlobAttestation(ctx, l.bare, v1.Hash{}, byKey(verifier))
	} else {
		_, err = cosign.VerifyBlobSignature(ctx, l.bare, byKey(verifier))
	}
	if err != nil {
		return errSignature
	}
	return nil
}

// vouched implements [evidence].
func (l *layer) vouched(ctx context.Context, t *terms, k *key) (*x509.Certificate, error) {
	sig := l.annotated(t.keyless)
	if !t.keyless {
		if err := l.signedBy(ctx, k.verifier); err != nil {
			return nil, err
		}
		_, err := t.times(sig, k.verifier)
		return nil, err
	}
	certificate, err := l.certificate()
	if err != nil {
		return nil, err
	}
	handleOtherName(certificate)
	times, err := t.times(sig, nil)
	if err != nil {
		return nil, err
	}
	// Its key is used last: until it is vouched for it may be one that is made to
	// be slow.
	if err := t.certified(certificate, times); err != nil {
		return nil, err
	}
	verifier, err := signature.LoadVerifier(certificate.PublicKey, crypto.SHA256)
	if err != nil {
		return nil, errCertificate
	}
	return certificate, l.signedBy(ctx, verifier)
}

// certificate reads the certificate of a layer. Cosign's own function panics
// where there is none in what is said to be one.
func (l *layer) certificate() (*x509.Certificate, error) {
	found, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(l.untrusted.UntrustedAnnotations[certificateAnnotation]))
	if err != nil || len(found) == 0 {
		return nil, errNoIdentity
	}
	return found[0], nil
}

// annotated is the layer with what cosign reads of its annotations: of a
// signature by a key, nothing that is about certificates.
func (l *layer) annotated(certificates bool) oci.Signature {
	annotations := maps.Clone(l.untrusted.UntrustedAnnotations)
	if annotations == nil {
		annotations = map[string]string{}
	}
	if !certificates {
		delete(annotations, certificateAnnotation)
		delete(annotations, chainAnnotation)
	}
	if l.attestation {
		// It would be taken for the signature, whose log entry and timestamp are
		// then looked for.
		annotations[signatureAnnotation] = ""
	}
	return ocisignature.New(l.bare, v1.Descriptor{Annotations: annotations})
}

// certified verifies that the trust root vouches for a certificate at each of
// the times: for all of its chain, and that it is in a certificate log. Without
// a time nothing holds: what has no time is not verified now instead.
func (t *terms) certified(certificate *x509.Certificate, times []time.Time) error {
	if len(times) == 0 {
		return errNoTime
	}
	for _, at := range times {
		chains, err := verify.VerifyLeafCertificate(at, certificate, t.material)
		if err != nil && !during(at, certificate.NotBefore, certificate.NotAfter) {
			return errExpired
		}
		if err != nil {
			return errCertificate
		}
		if t.unlogged {
			continue
		}
		if err := verify.VerifySignedCertificateTimestamp(chains, 1, t.material); err != nil {
			return errNoSCT
		}
	}
	return nil
}

// times verifies the log entry and the signed timestamp that are asked for, and
// returns when the signature was there. Without either being asked for, those
// of a certificate are looked for, and one is enough; key is nil for
// certificates.
func (t *terms) times(sig oci.Signature, key signature.Verifier) ([]time.Time, error) {
	var times []time.Time
	if t.log {
		at, err := t.logged(sig, key)
		if err != nil {
			return nil, err
		}
		times = append(times, at)
	}
	if t.timestamp {
		at, err := t.stamped(sig)
		if err != nil {
			return nil, err
		}
		times = append(times, at)
	}
	if len(times) > 0 || !t.keyless {
		return times, nil
	}
	at, err := t.logged(sig, key)
	if err != nil {
		at, err = t.stamped(sig)
	}
	if err != nil {
		return nil, errNoTime
	}
	return []time.Time{at}, nil
}

// logged verifies that a log promised to include exactly this signature, by this
// key or certificate, over this payload, and returns when.
func (t *terms) logged(sig oci.Signature, key signature.Verifier) (time.Time, error) {
	entry, err := sig.Bundle()
	if err != nil || entry == nil {
		return time.Time{}, errNoLog
	}
	if _, ok := entry.Payload.Body.(string); !ok {
		return time.Time{}, errNoLog // cosign takes it for granted
	}
	held, err := cosign.VerifyBundle(sig, &cosign.CheckOpts{SigVerifier: key, TrustedMaterial: t.material, Offline: true})
	if err != nil || !held {
		return time.Time{}, errNoLog
	}
	return time.Unix(entry.Payload.IntegratedTime, 0), nil
}

// stamped verifies that a timestamp authority saw this signature, and returns
// when.
func (t *terms) stamped(sig oci.Signature) (time.Time, error) {
	stamp, err := sig.RFC3161Timestamp()
	if err != nil || stamp == nil {
		return time.Time{}, errNoTimestamp
	}
	over, err := stampedBytes(sig)
	if err != nil {
		return time.Time{}, errNoTimestamp
	}
	// Not by cosign's own function, which panics where no timestamp holds.
	found, err := verify.VerifySignedTimestampWithThreshold(&stampedSignature{stamp: stamp.SignedRFC3161Timestamp, over: over}, t.material, 1)
	if err != nil || len(found) == 0 {
		return time.Time{}, errNoTimestamp
	}
	return found[0].Time, nil
}

// stampedBytes is what cosign has timestamps made over: a signature, or all of
// an attestation's envelope.
func stampedBytes(sig oci.Signature) ([]byte, error) {
	encoded, err := sig.Base64Signature()
	if err != nil {
		return nil, err
	}
	if encoded == "" {
		return sig.Payload()
	}
	return base64.StdEncoding.DecodeString(encoded)
}

// stampedSignature is a signature with a timestamp, as sigstore-go takes them.
type stampedSignature struct {
	verify.BaseSignedEntity

	stamp, over []byte
}

// Timestamps implements [verify.SignedTimestampProvider].
func (s *stampedSignature) Timestamps() ([][]byte, error) { return [][]byte{s.stamp}, nil }

// SignatureContent implements [verify.SignatureProvider].
func (s *stampedSignature) SignatureContent() (verify.SignatureContent, error) {
	return bundle.NewMessageSignature(nil, "", s.over), nil
}

// handleOtherName says that a subject of a form of Sigstore's own is understood,
// as sigstore-go says of bundles: crypto/x509 refuses what it does not know and
// what is critical. Subjects are read by sigstore's own reader.
func handleOtherName(certificate *x509.Certificate) {
	certificate.UnhandledCriticalExtensions = slices.DeleteFunc(certificate.UnhandledCriticalExtensions, cryptoutils.SANOID.Equal)
}

// claims implements [signing].
func (l *layer) claims(digest v1.Hash, a *authority) (said [sha256.Size]byte, err error) {
	if err := cosign.SimpleClaimVerifier(l.bare, digest, nil); err != nil {
		return said, missed(nearImage, "%s signed something else than this image", a.whose())
	}
	wanted := map[string]any{}
	for name, value := range a.Annotations {
		wanted[name] = value
	}
	if err := cosign.SimpleClaimVerifier(l.bare, digest, wanted); err != nil {
		return said, missingAnnotations(a)
	}
	return sha256.Sum256(l.untrusted.UntrustedPayload), nil
}

// untrustedType implements [attesting]: the annotation that tells it is not
// always there.
func (l *layer) untrustedType() string { return "" }

// statement implements [attesting].
func (l *layer) statement() (*statement, error) {
	var envelope bundle.Envelope
	if err := json.Unmarshal(l.untrusted.UntrustedPayload, &envelope); err != nil || envelope.Envelope == nil {
		return nil, errors.New("not an envelope")
	}
	return newStatement(&envelope)
}
