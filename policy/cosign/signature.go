// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"encoding/hex"
	"fmt"
	"iter"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/cosign/v2/pkg/oci"
	"github.com/sigstore/cosign/v2/pkg/oci/static"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// signatureAnnotation holds a layer's signature (cosign, "Signature
	// Specification", "Properties").
	signatureAnnotation = "dev.cosignproject.cosign/signature"
	// signaturePredicate is the type of the statements by which cosign 3 signs
	// images. A statement of any other type says something else about them.
	signaturePredicate = "https://sigstore.dev/cosign/sign/v1"
	// sha256Name is the name of the digest in a statement (in-toto attestation,
	// "DigestSet").
	sha256Name = "sha256"
)

// claimError is what is wrong with a signature that the authority's key made.
type claimError struct{ message string }

func (e *claimError) Error() string { return e.message }

// verifyClaims is cosign's check of what a signature says, made recognisable.
func verifyClaims(sig oci.Signature, digest v1.Hash, annotations map[string]any) error {
	if err := cosign.SimpleClaimVerifier(sig, digest, nil); err != nil {
		return &claimError{"its key signed something else than this image"}
	}
	if err := cosign.SimpleClaimVerifier(sig, digest, annotations); err != nil {
		return missingAnnotations(annotations)
	}
	return nil
}

func missingAnnotations[V any](wanted map[string]V) error {
	var pairs []string
	for name, value := range wanted {
		pairs = append(pairs, fmt.Sprintf("%s=%v", name, value))
	}
	slices.Sort(pairs)
	return &claimError{fmt.Sprintf("no signature by its key has all the annotations %q", strings.Join(pairs, ","))}
}

// tallySignatures tries the signatures under the .sig tag.
func (v *Verifier) tallySignatures(ctx context.Context, image policy.Image) (t *tally) {
	t = newTally(len(v.authorities))
	defer t.recovered()
	digest, err := v1.NewHash(image.Digest)
	if err != nil {
		t.err = fmt.Errorf("reading the digest %q: %w", image.Digest, err)
		return t
	}
	for found, err := range v.source.Signatures(ctx, image) {
		if err != nil {
			t.failed(err)
			continue
		}
		t.signatures++
		sig, err := static.NewSignature(found.UntrustedPayload, found.UntrustedAnnotations[signatureAnnotation])
		if err != nil {
			continue
		}
		for i, a := range v.authorities {
			if a.legacy == nil {
				continue
			}
			_, err := cosign.VerifyImageSignature(ctx, sig, digest, a.legacy)
			if t.note(i, a, err) {
				return t
			}
		}
	}
	return t
}

// tallyBundles tries the sigstore bundles that a look-up finds.
func (v *Verifier) tallyBundles(ctx context.Context, image policy.Image,
	look func(context.Context, policy.Image) iter.Seq2[[]byte, error],
) (t *tally) {
	t = newTally(len(v.authorities))
	defer t.recovered()
	raw, err := hex.DecodeString(strings.TrimPrefix(image.Digest, sha256Name+":"))
	if err != nil {
		t.err = fmt.Errorf("reading the digest %q: %w", image.Digest, err)
		return t
	}
	policyOfKeys := verify.NewPolicy(verify.WithArtifactDigest(sha256Name, raw), verify.WithKey())
	for untrusted, err := range look(ctx, image) {
		// Reading the largest that is allowed can take half a second.
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			t.failed(err)
			continue
		}
		var b bundle.Bundle
		if err := b.UnmarshalJSON(untrusted); err != nil || !claimsToSign(&b) {
			t.others++
			continue
		}
		t.signatures++
		for i, a := range v.authorities {
			if a.bundle == nil || ctx.Err() != nil {
				continue
			}
			if t.note(i, a, a.verifyBundle(&b, policyOfKeys, hex.EncodeToString(raw))) {
				return t
			}
		}
	}
	t.failed(ctx.Err()) // not all were tried, then
	return t
}

// claimsToSign reports whether the unverified statement of a bundle is of the
// type of a signature. It only sorts: what counts is the verified statement.
func claimsToSign(b *bundle.Bundle) bool {
	content, err := b.SignatureContent()
	if err != nil || content.EnvelopeContent() == nil {
		return false
	}
	untrusted, err := content.EnvelopeContent().Statement()
	return err == nil && untrusted.GetPredicateType() == signaturePredicate
}

// verifyBundle accepts a bundle only if the key made it, over a statement that
// is a signature of this image with all the annotations.
func (a *authority) verifyBundle(b *bundle.Bundle, p verify.PolicyBuilder, digest string) error {
	result, err := a.bundle.Verify(b, p)
	if err != nil {
		return fmt.Errorf("verifying the bundle: %w", err)
	}
	if result.Statement.GetPredicateType() != signaturePredicate {
		return &claimError{"its key made an attestation, which is not a signature"}
	}
	for _, subject := range result.Statement.GetSubject() {
		if subject.GetDigest()[sha256Name] == digest && annotated(subject, a.Annotations) {
			return nil
		}
	}
	return missingAnnotations(a.Annotations)
}

func annotated(subject *intoto.ResourceDescriptor, wanted map[string]string) bool {
	have := subject.GetAnnotations().AsMap()
	for name, value := range wanted {
		if text, ok := have[name].(string); !ok || text != value {
			return false
		}
	}
	return true
}
