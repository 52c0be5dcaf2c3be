// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containerstest

import (
	"encoding/json"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// TB is what is needed of a test, or of what stands in for one.
type TB = registrytest.TB

// What signatures say that they are (containers-signature(5), and cosign's
// specification of signatures).
const (
	SimpleType = "atomic container signature"
	CosignType = "cosign container image signature"
)

// Claim is what a signature says of an image.
type Claim struct {
	Digest string
	// Reference is the name that the image is signed under: a tool that copies
	// images writes host/repository:tag, cosign only host/repository.
	Reference string
	// Type is what the signature says it is, if that is not what it should be.
	Type string
	// Optional is what else it says, which is not judged.
	Optional map[string]any
}

// Of is the claim that an image is a reference.
func Of(image registrytest.Image, reference string) Claim {
	return Claim{Digest: image.Digest, Reference: reference}
}

// Simple is the claim as a simple signature has it.
func (c Claim) Simple(tb TB) []byte {
	tb.Helper()
	return c.payload(tb, SimpleType)
}

// Cosign is the claim as a sigstore attachment has it.
func (c Claim) Cosign(tb TB) []byte {
	tb.Helper()
	return c.payload(tb, CosignType)
}

func (c Claim) payload(tb TB, usual string) []byte {
	tb.Helper()
	if c.Type == "" {
		c.Type = usual
	}
	if c.Optional == nil {
		c.Optional = map[string]any{} // a simple signature must have it
	}
	raw, err := json.Marshal(map[string]any{
		"critical": map[string]any{
			"type":     c.Type,
			"image":    map[string]any{"docker-manifest-digest": c.Digest},
			"identity": map[string]any{"docker-reference": c.Reference},
		},
		"optional": c.Optional,
	})
	must(tb, err)
	return raw
}

func must(tb TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("%v", err)
	}
}
