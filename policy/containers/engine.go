// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/url"
	"slices"

	"go.podman.io/image/v5/signature"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/registry"
)

// Engine names this engine in messages and metrics.
const Engine = "ContainersPolicy"

// Source reads images and what is said of them. All of it is untrusted, but for
// what its digest proves.
type Source interface {
	// Manifest reads the manifest of image.Digest, and is sure that it is.
	Manifest(ctx context.Context, image policy.Image) ([]byte, error)
	// Attachments lists the layers under the image's .sig tag. An error in the
	// sequence says that one could not be read, or that it is unknown whether
	// there are more.
	Attachments(ctx context.Context, image policy.Image) iter.Seq2[registry.Signature, error]
	// SimpleSignatures lists the signatures of the digest that the registry keeps
	// itself; or, where it does not do that, those below the lookaside, nil for
	// none. Errors are as in Attachments.
	SimpleSignatures(ctx context.Context, image policy.Image, lookaside *url.URL) iter.Seq2[registry.SimpleSignature, error]
}

var _ Source = (*registry.Client)(nil)

// Options are what verifiers work with.
type Options struct {
	Source     Source
	Registries *config.Registries
	// Attached says that sigstore attachments are looked for where Registries do
	// not say whether to. The library's own default is not to.
	Attached bool
}

// Compile makes a verification of a list of requirements. Files that they name
// are read once, now. The error says which requirement cannot be used, and why.
func Compile(o Options, requirements []json.RawMessage, read func(path string) ([]byte, error)) (*policy.Verification, error) {
	return compile(o, requirements, read, false)
}

// compile is Compile; byDigest says that the image's tag does not count even
// where it is known to.
func compile(o Options, written []json.RawMessage, read func(path string) ([]byte, error), byDigest bool) (*policy.Verification, error) {
	if len(written) == 0 {
		return nil, &mistake{
			message: "there are no requirements",
			hint:    `an empty list is no policy: write {"type": "reject"}, or {"type": "insecureAcceptAnything"} to accept every image`,
		}
	}
	v := &Verifier{source: o.Source, registries: o.Registries, attached: o.Attached, byDigest: byDigest, room: diskRoom}
	var rewritten []json.RawMessage
	for i, raw := range written {
		r, err := readRequirement(raw, read)
		if err != nil {
			return nil, within(fmt.Sprintf("requirements[%d]", i), err)
		}
		r.place = i
		v.requirements = append(v.requirements, r)
		rewritten = append(rewritten, r.rewritten)
	}
	// Only what the library itself made of the whole list is judged by.
	list, err := parse(rewritten)
	if err != nil {
		return nil, fmt.Errorf("reading the requirements with their keys: %w", err)
	}
	v.list = list
	verification := &policy.Verification{Engine: Engine, Hash: v.hash(rewritten)}
	if verification.Fixed = v.fixed(); verification.Fixed != nil {
		return verification, nil
	}
	if o.Source == nil {
		return nil, errors.New("there is nothing to read signatures from")
	}
	verification.Verifier = v
	verification.ByReference = !byDigest &&
		(o.Registries.ByReference() || slices.ContainsFunc(v.requirements, (*requirement).readsTag))
	return verification, nil
}

// parse reads requirements as the library does: strictly.
func parse(list []json.RawMessage) (signature.PolicyRequirements, error) {
	document, err := json.Marshal(map[string]any{"default": list})
	if err != nil {
		return nil, fmt.Errorf("it is no JSON: %w", err)
	}
	read, err := signature.NewPolicyFromBytes(document)
	if err != nil {
		return nil, err
	}
	return read.Default, nil
}

// fixed is the verdict if it does not depend on the image, as all requirements
// have to be met; nil if it does.
func (v *Verifier) fixed() *policy.Verdict {
	for _, r := range v.requirements {
		if r.kind == kindReject {
			rejected := policy.Refused(policy.ReasonStatic, "%s: refuses every image", r)
			return &rejected
		}
	}
	if slices.ContainsFunc(v.requirements, (*requirement).isSigned) {
		return nil
	}
	return &policy.Verdict{
		Outcome: policy.Accepted, Reason: policy.ReasonStatic, Signer: v.requirements[0].String(),
		Message: fmt.Sprintf("%s: accepts every image", v.requirements[0]),
	}
}

// hashed begins what verifications are identified by. Another number says that
// verdicts of before do not count any more.
const hashed = "policy/containers 1"

// hash identifies what verdicts rest on: the requirements with their keys, and
// where signatures are looked for.
func (v *Verifier) hash(rewritten []json.RawMessage) [sha256.Size]byte {
	h := sha256.New()
	part := func(b []byte) {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b)))) // so that no two lists of parts are the same bytes
		h.Write(b)
	}
	part([]byte(hashed))
	for _, one := range rewritten {
		part(one)
	}
	part(fmt.Appendf(nil, "attached %t, by digest %t", v.attached, v.byDigest))
	registries := v.registries.Hash()
	part(registries[:])
	return [sha256.Size]byte(h.Sum(nil))
}
