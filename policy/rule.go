// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"crypto/sha256"
	"crypto/tls"

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
	// Kind is the kind it was compiled from, as people are told: ImageConfig. Rules
	// shadow only others of their kind.
	Kind string
	Name string
	Mode Mode

	// Prefixes are compared with the canonical form of references.
	Prefixes []reference.Prefix
	// Written are compared, byte by byte and besides, with references as they are
	// written.
	Written []string
	// Globs say which images are meant in the place of Prefixes, nil if these do.
	Globs *Globs
	// Scope says it as a containers-policy.json(5) does, nil if Prefixes or Globs do.
	Scope *Scope
	// Adds says that the rule shadows nothing: the rules of the next shorter
	// prefix come on top of it.
	Adds bool
	// Unread says that it cannot be read what the rule's ImageConfig says of
	// registries and pull secrets.
	Unread bool
	// Everywhere says that what the rule selects cannot be read: it may be meant
	// for any image, and is selected for all.
	Everywhere bool
	// Namespaces selects the namespaces that the rule governs; nil is all.
	// Objects without a namespace are always governed.
	Namespaces labels.Selector

	// Authentication says with which credentials images are read, nil if the
	// rule says nothing of it. A rule whose secret cannot be read brings none:
	// it still is the rule that is selected.
	Authentication *Authentication
	// Transport says how registries are reached, nil if the rule says nothing of it.
	Transport *Transport
	// Rewrite says under which other name images are found, nil if under their own.
	Rewrite *Rewrite
	// Verification is what images have to satisfy, nil if the rule asks nothing.
	Verification *Verification
}

// Authentication is the part of a rule that says with which credentials images
// are read.
type Authentication struct {
	// Credentials are the rule's own: those of its pull secret, or of the cloud.
	Credentials credential.Config
	// Problem is why the rule brings none of its own although it should, for
	// messages.
	Problem string
	// Realms are the hosts of token services on another site than the registry
	// that credentials may be sent to.
	Realms []string
	// Inject says which Pods are given the pull secret, nil for none.
	Inject *Inject
}

// Inject is the pull secret that Pods are given.
type Inject struct {
	Secret     string
	Namespaces labels.Selector // whose Pods; never nil
	// Within holds the names of the namespaces that copies may be written to;
	// nil is all.
	Within map[string]bool
	// Except is Pratique's own namespace, where the secret itself is.
	Except string
}

// Into reports whether the Pods of a namespace are given the secret. Where it is
// not known whether they are to have it, they are not.
func (i *Inject) Into(ns Namespace) bool {
	return ns.Name != "" && ns.Name != i.Except && !ns.Unreadable &&
		(i.Within == nil || i.Within[ns.Name]) && i.Namespaces.Matches(ns.Labels)
}

// Transport is the part of a rule that says how registries are reached.
type Transport struct {
	// Unusable says why it is not known how, if so. Nobody is asked then.
	Unusable string
	// Authorities are trusted besides the server's own, in PEM form.
	Authorities []byte
	// Certificate is shown to the registry, nil for none.
	Certificate *tls.Certificate
	// PlainHTTP says that the registry is asked over HTTP, and shown credentials.
	PlainHTTP bool
	// Hash identifies all of it: what one way led to says nothing of another.
	Hash [sha256.Size]byte
}

// Rewrite is the part of a rule that says where images are found instead.
type Rewrite struct {
	// To takes the place of the prefix that matched.
	To reference.Prefix
	// Lookup says that only Pratique looks there; what runs keeps its name.
	Lookup bool
	// Written, if not empty, takes the place of what matched in the reference as
	// it is written, and of what matched in its canonical form only where none
	// of the rule's Written did. To does not count then.
	Written string
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
	// ByReference says that verdicts depend on the tag by which the image is
	// judged, or on there being none, and not on repository and digest alone.
	ByReference bool
	// Object judges what the Verifier, or Fixed, accepts, nil for nobody.
	Object ObjectPolicy
	// Places is where the Verifier looks besides the image's own repository. An
	// Image that it is given has them, in this order, as Elsewhere.
	Places []Place
}

// Place is where an image's signatures and attestations may be.
type Place struct {
	// Repository holds them; the zero value is the image's own. What else the
	// reference has does not count.
	Repository reference.Reference
	// TagPrefix stands before the tags by which they are found.
	TagPrefix string
	// Credentials are tried first there.
	Credentials []credential.Config
	// PullSecrets are names of pull secrets in the namespace of the object that
	// has the image: they are used there in place of the object's own.
	PullSecrets []string
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
	// Authentication is the selected rule's, whose credentials are tried after
	// them; nil for none.
	Authentication *Authentication
	// Second is that of another kind's rule, whose credentials are tried last.
	Second *Authentication
	// Transport is the selected rule's; nil means the server's own.
	Transport *Transport

	// TagPrefix stands before the tags of signatures and attestations.
	TagPrefix string
	// First are credentials that are tried before all others.
	First []credential.Config
	// Elsewhere is the same image in the rule's further places: what is said of
	// the digest there counts as if it were said beside the image.
	Elsewhere []Image
	// Apart says that only signatures and attestations are in its repository:
	// the image itself need not be there.
	Apart bool
}

// Ring returns all the credentials that the image may be asked for with.
func (i Image) Ring(ctx context.Context) (credential.Ring, error) {
	var rules []credential.Config
	for _, a := range []*Authentication{i.Authentication, i.Second} {
		if a != nil {
			rules = append(rules, a.Credentials)
		}
	}
	return i.Credentials.RingAfter(ctx, i.First, rules...)
}

// Namespace is the namespace of a request.
type Namespace struct {
	Name   string // empty for objects without one
	Labels labels.Set
	// Unreadable says that the labels could not be read. Rules with a
	// selector then count as selected, and their images are Inconclusive.
	Unreadable bool
}

// mayRewrite reports whether the rule takes the place of others that rewrite. In
// Audit Pods are not rewritten: of such a rule it must be known that it is ready
// and applies.
func (r *Rule) mayRewrite(ns Namespace) bool {
	if r.Rewrite == nil {
		return r.held() && r.Mode != Audit
	}
	return r.Rewrite.Lookup || r.Mode != Audit || !r.uncertain(ns)
}

// governs reports whether the rule applies in the namespace.
func (r *Rule) governs(ns Namespace) bool {
	if r.Namespaces == nil || ns.Name == "" || ns.Unreadable {
		return true
	}
	return r.Namespaces.Matches(ns.Labels)
}

// held reports whether the rule is not ready, and therefore holds images back.
func (r *Rule) held() bool {
	return r.Verification != nil && r.Verification.Fixed != nil && r.Verification.Fixed.Outcome == Inconclusive
}

// certain reports whether it is known that the rule applies in the place of
// others, if it governs the namespace, and what it asks: one that is not ready
// might ask for anything.
func (r *Rule) certain(ns Namespace) bool {
	return !r.Adds && !r.held() && !r.uncertain(ns)
}

// uncertain reports whether it cannot be known that the rule applies.
func (r *Rule) uncertain(ns Namespace) bool {
	return r.Namespaces != nil && ns.Name != "" && ns.Unreadable
}
