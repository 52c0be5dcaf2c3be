// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/pratique-dev/pratique/policy"
)

// signaturePredicate is the type of the statements by which cosign 3 signs
// images. A statement of any other type says something else about them.
const signaturePredicate = "https://sigstore.dev/cosign/sign/v1"

// sealed is a sigstore bundle: a statement about the image, its signature, and
// what vouches for that.
type sealed struct {
	bundle *bundle.Bundle
	// claimed is what the statement says it is. It only sorts: what counts is the
	// statement that was verified.
	claimed string
	digest  []byte // the image's
	// said is the statement, once somebody asked: it may be large, and each
	// authority asks.
	said func() (*statement, error)
}

// newSealed reads a bundle. One without a statement vouches for nothing here:
// cosign signs no image so.
func newSealed(untrusted, digest []byte) (*sealed, error) {
	if countValues(untrusted) > maxParts {
		return nil, policy.Undecided(policy.ReasonLimit, "a bundle has more than %d parts", maxParts).Err()
	}
	var message protobundle.Bundle
	if err := protojson.Unmarshal(untrusted, &message); err != nil {
		return nil, fmt.Errorf("reading a bundle: %w", err)
	}
	if err := checkMaterial(message.GetVerificationMaterial()); err != nil {
		return nil, err
	}
	b, err := bundle.NewBundle(&message)
	if err != nil {
		return nil, fmt.Errorf("reading a bundle: %w", err)
	}
	envelope, err := b.Envelope()
	if err != nil {
		return nil, fmt.Errorf("reading a bundle: %w", err)
	}
	payload, err := envelope.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("reading a bundle's statement: %w", err)
	}
	if countValues(payload) > maxValues {
		return nil, policy.Undecided(policy.ReasonLimit, "a statement has more than %d values", maxValues).Err()
	}
	var untrustedStatement struct {
		PredicateType string `json:"predicateType"`
	}
	if err := json.Unmarshal(payload, &untrustedStatement); err != nil {
		return nil, fmt.Errorf("reading a bundle's statement: %w", err)
	}
	return &sealed{
		bundle: b, claimed: untrustedStatement.PredicateType, digest: digest,
		said: sync.OnceValues(func() (*statement, error) { return newStatement(envelope) }),
	}, nil
}

// The libraries verify what stands in log entries and in timestamps by the keys
// that are named there, before they know whether to trust those. An RSA key of
// 256 KiB takes them a minute, and the time grows with the square: within these
// bounds it is below a second.
const (
	// maxLogged is how large the entries of one piece of evidence may be
	// together. One has some 5 KiB, most of which is a certificate.
	maxLogged = 16 << 10
	// maxStamped is how large its timestamps may be. One has some 6 KiB if all
	// certificates of its authority are in it.
	maxStamped = 12 << 10
)

// maxValues is about how many values a statement in a bundle may have. Whoever
// has any identity at all can have one verified, and sigstore-go then makes 150
// bytes of each value, before it can be told that the identity is none that
// counts. The largest that are real, of 4 MiB, have half as many.
const maxValues = 1 << 18

const (
	// maxParts is about how many values a bundle may have around its statement,
	// which is one of them. Reading one makes some 200 bytes of each, so that 4 MiB
	// of empty ones would take 240 MiB. A real one has a hundred.
	maxParts = 1 << 12
	// maxEnvelope is the same of an attestation's envelope: a real one has six.
	// Each signature in it is tried with the whole statement, and nothing ends
	// that, so that 4 MiB of them would take minutes.
	maxEnvelope = 1 << 6
)

// countValues counts what separates the values of a JSON text, which is never
// less than their number.
func countValues(text []byte) int {
	return bytes.Count(text, []byte(",")) + bytes.Count(text, []byte("[")) + bytes.Count(text, []byte("{"))
}

// checkMaterial refuses what would take long to read.
func checkMaterial(untrusted *protobundle.VerificationMaterial) error {
	logged, stamped := 0, 0
	for _, entry := range untrusted.GetTlogEntries() {
		// A checkpoint is verified line by line, as many as there are.
		logged += len(entry.GetCanonicalizedBody()) + len(entry.GetInclusionProof().GetCheckpoint().GetEnvelope())
	}
	for _, stamp := range untrusted.GetTimestampVerificationData().GetRfc3161Timestamps() {
		stamped += len(stamp.GetSignedTimestamp())
	}
	return checkSizes(logged, stamped)
}

func checkSizes(logged, stamped int) error {
	switch {
	case logged > maxLogged:
		return policy.Undecided(policy.ReasonLimit, "a signature has log entries of more than %d bytes", maxLogged).Err()
	case stamped > maxStamped:
		return policy.Undecided(policy.ReasonLimit, "a signature has timestamps of more than %d bytes", maxStamped).Err()
	default:
		return nil
	}
}

// signedBy implements [evidence].
func (s *sealed) signedBy(_ context.Context, verifier signature.Verifier) error {
	alone, err := verify.NewVerifier(keyMaterial{key: verifier}, verify.WithNoObserverTimestamps())
	if err != nil {
		return fmt.Errorf("preparing the verifier of bundles: %w", err)
	}
	if _, err := alone.Verify(s.bundle, verify.NewPolicy(s.artifact(), verify.WithKey())); err != nil {
		return errSignature
	}
	return nil
}

// vouched implements [evidence].
func (s *sealed) vouched(_ context.Context, t *terms, k *key) (*x509.Certificate, error) {
	if !t.keyless {
		verifier, err := t.keyBundle(k)
		if err != nil {
			return nil, err
		}
		if _, err := verifier.Verify(s.bundle, verify.NewPolicy(s.artifact(), verify.WithKey())); err != nil {
			return nil, t.shorten(err)
		}
		return nil, nil
	}
	content, err := s.bundle.VerificationContent()
	if err != nil || content.Certificate() == nil {
		return nil, errNoIdentity
	}
	var failure error
	for _, way := range t.bundles {
		// Whom the certificate names is for the caller to match: nothing is
		// accepted by [evidence.vouched] alone.
		result, err := way.Verify(s.bundle, verify.NewPolicy(s.artifact(), verify.WithoutIdentitiesUnsafe()))
		if err == nil && result.Signature != nil && result.Signature.Certificate != nil {
			return content.Certificate(), nil
		}
		if err == nil {
			return nil, errNoIdentity
		}
		failure = nearer(failure, t.shorten(err))
	}
	return nil, failure
}

// artifact asks for a statement about the image.
func (s *sealed) artifact() verify.ArtifactPolicyOption {
	return verify.WithArtifactDigest(sha256Name, s.digest)
}

// untrustedType implements [attesting].
func (s *sealed) untrustedType() string { return s.claimed }

// statement implements [attesting].
func (s *sealed) statement() (*statement, error) { return s.said() }

// keyMaterial is a trust root with one key, which is trusted whatever hint a
// bundle gives of its own.
type keyMaterial struct {
	root.TrustedMaterial // nil if nothing else is asked for

	key signature.Verifier
}

// PublicKeyVerifier implements [root.TrustedMaterial]. The key has no period in
// which alone it is valid.
func (m keyMaterial) PublicKeyVerifier(string) (root.TimeConstrainedVerifier, error) {
	if m.key == nil {
		return nil, errors.New("no key")
	}
	return root.NewExpiringKey(m.key, time.Time{}, time.Time{}), nil
}
