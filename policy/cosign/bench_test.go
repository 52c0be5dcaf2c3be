// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"iter"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// benched is a source with what is benchmarked, and nothing else.
type benched struct {
	signatures, attestations []registry.Signature
	bundles                  [][]byte
}

func each[T any](all []T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, one := range all {
			if !yield(one, nil) {
				return
			}
		}
	}
}

func (b benched) Signatures(context.Context, policy.Image) iter.Seq2[registry.Signature, error] {
	return each(b.signatures)
}

func (b benched) Attestations(context.Context, policy.Image) iter.Seq2[registry.Signature, error] {
	return each(b.attestations)
}

func (b benched) Bundles(context.Context, policy.Image, bool) iter.Seq2[[]byte, error] {
	return each(b.bundles)
}

func (benched) Recheck(context.Context, policy.Image, bool) iter.Seq2[[]byte, error] {
	return each[[]byte](nil)
}

// What one verification costs beside fetching; the floor is one with nothing to
// verify.
func benchmark(b *testing.B, outcome policy.Outcome, make func(s *sigstore, image registrytest.Image) benched) {
	b.Helper()
	s := newSigstore(b)
	image := registrytest.Image{Registry: "a.io", Repository: "acme/app", Digest: "sha256:" + hash(nil)}
	v, err := cosign.New(cosign.Options{Source: make(s, image)}, []cosign.Authority{s.keyless()})
	must(b, err)
	asked := policy.Image{Digest: image.Digest}
	b.ReportAllocs()
	for b.Loop() {
		if got := v.Verify(b.Context(), asked); got.Outcome != outcome {
			b.Fatalf("%+v", got)
		}
	}
}

func BenchmarkFloor(b *testing.B) {
	benchmark(b, policy.Rejected, func(*sigstore, registrytest.Image) benched { return benched{} })
}

func BenchmarkKeylessSignature(b *testing.B) {
	benchmark(b, policy.Accepted, func(s *sigstore, image registrytest.Image) benched {
		payload, annotations := s.Layer(s.Leaf(issued{}), payloadOf(image, ""), nil, vouching{Log: true})
		return benched{signatures: []registry.Signature{{UntrustedPayload: payload, UntrustedAnnotations: annotations}}}
	})
}

func BenchmarkKeylessSignatureTimestamp(b *testing.B) {
	benchmark(b, policy.Accepted, func(s *sigstore, image registrytest.Image) benched {
		payload, annotations := s.Layer(s.Leaf(issued{}), payloadOf(image, ""), nil, vouching{Stamp: true})
		return benched{signatures: []registry.Signature{{UntrustedPayload: payload, UntrustedAnnotations: annotations}}}
	})
}

func BenchmarkKeylessBundle(b *testing.B) {
	benchmark(b, policy.Accepted, func(s *sigstore, image registrytest.Image) benched {
		made := s.Bundle(s.Leaf(issued{}), statement(image, registrytest.SignPredicateType, "{}"), vouching{Log: true})
		return benched{bundles: [][]byte{toJSON(b, made)}}
	})
}

func BenchmarkKeylessBundleTimestamp(b *testing.B) {
	benchmark(b, policy.Accepted, func(s *sigstore, image registrytest.Image) benched {
		made := s.Bundle(s.Leaf(issued{}), statement(image, registrytest.SignPredicateType, "{}"), vouching{Stamp: true})
		return benched{bundles: [][]byte{toJSON(b, made)}}
	})
}
