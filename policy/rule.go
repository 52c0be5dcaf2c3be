// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"crypto/sha256"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// Mode says what a verdict does.
type Mode string

// The modes of a rule and of the server.
const (
	Enforce Mode = "Enforce"
	Audit   Mode = "Audit"
)

// Rule is one ImageConfig, compiled. It does not change once it is in a [Set].
type Rule struct {
	Kind string // the kind it was compiled from, for people: ImageConfig
	Name string
	Mode Mode

	Prefixes []reference.Prefix
	// Everywhere says that what the rule selects cannot be read: it may be meant
	// for any image, and is selected for all.
	Everywhere bool
	// Namespaces selects the namespaces that the rule governs; nil is all.
	// Objects without a namespace are always governed.
	Namespaces labels.Selector

	// PullSecret is the rule's own credentials, nil if it brings none. A rule
	// whose secret cannot be read brings an empty one: it still is the rule
	// that is selected.
	PullSecret *credential.Config
	// Verification is what images have to satisfy, nil if the rule asks nothing.
	Verification *Verification
}

// Verification is the part of a rule that images have to satisfy.
type Verification struct {
	Engine string // names the engine in messages and metrics: Cosign
	// Fixed is the verdict of a rule that looks at no image: an authority that
	// always passes, or a rule that is not ready. It needs neither network nor
	// digest.
	Fixed *Verdict
	// Verifier examines an image, when Fixed is nil.
	Verifier Verifier
	// Hash identifies everything that the Verifier's verdicts rest on besides
	// the image: the rule as compiled, key material, trust roots.
	Hash [sha256.Size]byte
	// ByReference says that verdicts depend on the reference as judged, not on
	// repository and digest alone.
	ByReference bool
}

// NeedsDigest reports whether the rule looks at the image that a tag names.
func (v *Verification) NeedsDigest() bool { return v.Fixed == nil }

// Verifier examines images by one rule. It never returns Accepted unless
// everything the rule asks for was verified for exactly image.Digest. A context
// that ends makes it Inconclusive.
type Verifier interface {
	Verify(ctx context.Context, image Image) Verdict
}

// Image is one image to examine.
type Image struct {
	Reference reference.Reference
	Digest    string // the digest that runs, resolved once
	// Credentials is what the request may show to the registry.
	Credentials *credential.Source
	// PullSecret is the selected rule's own credentials, tried after them.
	PullSecret *credential.Config
}

// Ring returns all the credentials that the image may be asked for with.
func (i Image) Ring(ctx context.Context) (credential.Ring, error) {
	if i.PullSecret == nil {
		return i.Credentials.Ring(ctx)
	}
	return i.Credentials.Ring(ctx, *i.PullSecret)
}

// Namespace is the namespace of a request.
type Namespace struct {
	Name   string // empty for objects without one
	Labels labels.Set
	// Unreadable says that the labels could not be read. Rules with a
	// selector then count as selected, and their images are Inconclusive.
	Unreadable bool
}

// governs reports whether the rule applies in the namespace.
func (r *Rule) governs(ns Namespace) bool {
	if r.Namespaces == nil || ns.Name == "" || ns.Unreadable {
		return true
	}
	return r.Namespaces.Matches(ns.Labels)
}

// certain reports whether it is known that the rule applies, if it governs the
// namespace, and what it asks: one that is not ready might ask for anything.
func (r *Rule) certain(ns Namespace) bool {
	held := r.Verification.Fixed != nil && r.Verification.Fixed.Outcome == Inconclusive
	return !held && !r.uncertain(ns)
}

// uncertain reports whether it cannot be known that the rule applies.
func (r *Rule) uncertain(ns Namespace) bool {
	return r.Namespaces != nil && ns.Name != "" && ns.Unreadable
}
