// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	"encoding/json"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ImageConfig is Crossplane's: cluster-scoped, and without a status.
type ImageConfig struct {
	metav1.TypeMeta
	metav1.ObjectMeta

	Spec ImageConfigSpec
}

// ImageConfigSpec says what holds for the images that one of MatchImages selects.
type ImageConfigSpec struct {
	MatchImages  []ImageMatch  `json:"matchImages"`
	Registry     *Registry     `json:"registry,omitempty"`
	Verification *Verification `json:"verification,omitempty"`
	RewriteImage *RewriteImage `json:"rewriteImage,omitempty"`
	// Runtime says with what packages run. It is no concern of Pratique's,
	// whatever newer versions have in it.
	Runtime json.RawMessage `json:"runtime,omitempty"`
}

// MatchPrefix is the only way to match images, and the default.
const MatchPrefix = "Prefix"

// ImageMatch selects images.
type ImageMatch struct {
	Type string `json:"type,omitempty"`
	// Prefix is compared with a reference as it is written. One that is empty
	// matches nothing.
	Prefix string `json:"prefix"`
}

// Registry says how images are pulled.
type Registry struct {
	Authentication *Authentication `json:"authentication,omitempty"`
}

// Authentication names a pull secret in Crossplane's namespace. Without a name
// it says nothing.
type Authentication struct {
	PullSecretRef LocalObjectReference `json:"pullSecretRef"`
}

// LocalObjectReference names an object in Crossplane's namespace.
type LocalObjectReference struct {
	Name string `json:"name,omitempty"`
}

// RewriteImage says under which name images are found: Prefix takes the place of
// the one that matched.
type RewriteImage struct {
	Prefix string `json:"prefix"`
}

// ProviderCosign is the only provider of verification.
const ProviderCosign = "Cosign"

// Verification says what images have to satisfy.
type Verification struct {
	Provider string  `json:"provider"`
	Cosign   *Cosign `json:"cosign,omitempty"`
}

// Cosign lists who may have signed: any one of them is enough.
type Cosign struct {
	Authorities []Authority `json:"authorities"`
}

// Authority is who may have signed: by a key, or without one.
type Authority struct {
	Name    string   `json:"name"`
	Key     *Key     `json:"key,omitempty"`
	Keyless *Keyless `json:"keyless,omitempty"`
	// Attestations, if there are any, are what is asked for in the place of a
	// signature: any one of them is enough.
	Attestations []Attestation `json:"attestations,omitempty"`
}

// Key is a public key in a Secret of Crossplane's namespace.
type Key struct {
	SecretRef SecretKeyReference `json:"secretRef"`
	// HashAlgorithm is sha224, sha256 (the default), sha384 or sha512, in any case
	// and with space around it.
	HashAlgorithm string `json:"hashAlgorithm,omitempty"`
}

// SecretKeyReference names a key of a Secret.
type SecretKeyReference struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

// Keyless asks for a certificate of one of several identities.
type Keyless struct {
	Identities        []Identity `json:"identities"`
	InsecureIgnoreSCT bool       `json:"insecureIgnoreSCT,omitempty"`
}

// Identity is who a certificate was issued to and by whom that was vouched for.
// Of each pair the expression counts if both are given.
type Identity struct {
	Issuer        string `json:"issuer,omitempty"`
	Subject       string `json:"subject,omitempty"`
	IssuerRegExp  string `json:"issuerRegExp,omitempty"`
	SubjectRegExp string `json:"subjectRegExp,omitempty"`
}

// Attestation is a statement about the image.
type Attestation struct {
	Name string `json:"name"`
	// PredicateType is a URI, or one of cosign's short names.
	PredicateType string `json:"predicateType"`
}
