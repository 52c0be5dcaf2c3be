// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"go.podman.io/image/v5/directory"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"github.com/pratique-dev/pratique/policy"
)

// claim is a manifest with its signatures as the library sees it: read from a
// folder, and called by the name that the image is judged by.
type claim struct {
	image types.UnparsedImage
	// simple are the signatures of the form of GPG; annotations are those of the
	// others.
	simple      [][]byte
	annotations []map[string]string
}

// judge asks the library whether a manifest meets the requirements. The folder
// that it reads from is gone before it answers.
func (v *Verifier) judge(ctx context.Context, as identity, digest string, e *evidence) policy.Verdict {
	back, err := e.room.judge(ctx, e.host)
	if err != nil {
		return policy.VerdictOf(err)
	}
	defer back()
	c, err := claimed(ctx, as, digest, e)
	if err != nil {
		return policy.VerdictOf(err)
	}
	refusal := v.allows(ctx, v.list, c.image)
	if refusal == nil {
		return policy.Verdict{
			Outcome: policy.Accepted, Reason: policy.ReasonVerified, Signer: v.signer(),
			Message: "signatures verified: " + v.signer(), Expires: v.expires(time.Now(), c),
		}
	}
	// What was not read might have been what is asked for.
	if err := cmp.Or(e.err(), ctx.Err()); err != nil {
		return policy.VerdictOf(err)
	}
	return v.explain(ctx, as, e, c, refusal)
}

// allows reports why the library does not let an image run by requirements; nil
// if it does. On this way the library logs for debugging alone, which its logger
// leaves out by default; signedBaseLayer, over which it complains, is not compiled.
func (v *Verifier) allows(ctx context.Context, list signature.PolicyRequirements, what types.UnparsedImage) error {
	decides, err := signature.NewPolicyContext(&signature.Policy{Default: list})
	if err != nil {
		return err
	}
	// Verifiers are made of lists that ask for signatures.
	decides.RequireSignatureVerification(true)
	allowed, err := decides.IsRunningImageAllowed(ctx, what)
	if err == nil && !allowed {
		err = errors.New("it is not allowed")
	}
	if destroyed := decides.Destroy(); err == nil {
		err = destroyed
	}
	return err
}

// claimed reads a manifest and its signatures by the library. All of it is in
// memory then: what the library says afterwards is about what they say.
func claimed(ctx context.Context, as identity, hash string, e *evidence) (c *claim, err error) {
	d := digest.Digest(hash)
	signatures := e.signatures()
	folder, err := layout(d.Encoded(), e.manifest.untrusted[0], signatures)
	if folder != "" {
		defer func() { err = errors.Join(err, removed(folder)) }()
	}
	if err != nil {
		return nil, err
	}
	at, err := directory.NewReference(folder)
	if err != nil {
		return nil, onDisk(err)
	}
	source, err := at.NewImageSource(ctx, nil)
	if err != nil {
		return nil, onDisk(err)
	}
	defer source.Close()
	read := image.UnparsedInstance(source, &d)
	if _, _, err := read.Manifest(ctx); err != nil {
		return nil, unreadableLayout(err, "its manifest is not what its digest says, as the library reads it")
	}
	all, err := read.UntrustedSignatures(ctx)
	if err != nil {
		return nil, unreadableLayout(err, fmt.Sprintf("of the %d signatures that were found one is in no form that can be read%s", len(signatures), e.blame()))
	}
	c = &claim{image: image.UnparsedInstanceWithReference(read, as)}
	for _, one := range all {
		// The library's types for these have no name outside of it.
		switch one := any(one).(type) {
		case interface{ UntrustedSignature() []byte }:
			c.simple = append(c.simple, one.UntrustedSignature())
		case interface{ UntrustedAnnotations() map[string]string }:
			c.annotations = append(c.annotations, one.UntrustedAnnotations())
		}
	}
	return c, nil
}

// unreadableLayout says why what was written to a folder cannot be read from it:
// the disk fails, or what was written is at fault. The library's words name the
// folder.
func unreadableLayout(err error, fault string) error {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return onDisk(err)
	}
	return policy.Undecided(policy.ReasonUnexpected, "%s", fault).Err()
}

// removed removes a folder. One that stays would fill the disk in time.
func removed(folder string) error {
	if err := os.RemoveAll(folder); err != nil {
		return onDisk(err)
	}
	return nil
}

// signer names the requirements that were met.
func (v *Verifier) signer() string {
	var by []string
	for _, r := range v.requirements {
		if r.isSigned() {
			by = append(by, r.String())
		}
	}
	return strings.Join(by, ", ")
}

// The annotations that certificates are in (cosign, "Signature Specification").
const (
	certificateAnnotation = "dev.sigstore.cosign/certificate"
	chainAnnotation       = "dev.sigstore.cosign/chain"
)

// expires is the first time to come at which something ends that the verdict may
// rest on: a key, a signature, a certificate that is judged at the present time.
// It does not matter which of them it does rest on: earlier is safe.
func (v *Verifier) expires(now time.Time, c *claim) time.Time {
	var first time.Time
	for _, r := range v.requirements {
		for _, at := range append(r.endsOf(c), r.ends...) {
			if at.After(now) && (first.IsZero() || at.Before(first)) {
				first = at
			}
		}
	}
	return first
}

// endsOf lists when signatures end that a requirement may rest on.
func (r *requirement) endsOf(c *claim) (ends []time.Time) {
	if r.kind == kindSignedBy {
		for _, one := range c.simple {
			ends = append(ends, signatureEnd(one, r.keyring))
		}
	}
	if !r.pki {
		return ends
	}
	for _, one := range c.annotations {
		for _, name := range []string{certificateAnnotation, chainAnnotation} {
			untrusted, err := cryptoutils.UnmarshalCertificatesFromPEM([]byte(one[name]))
			if err != nil {
				continue // then the verdict does not rest on it
			}
			for _, certificate := range untrusted {
				ends = append(ends, certificate.NotAfter)
			}
		}
	}
	return ends
}
