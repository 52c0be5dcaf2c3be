// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"k8s.io/apimachinery/pkg/runtime"
)

// VerificationProvider says what judges signatures.
//
// +kubebuilder:validation:Enum=Cosign;ContainersPolicy
type VerificationProvider string

// The providers of verification.
const (
	ProviderCosign           VerificationProvider = "Cosign"
	ProviderContainersPolicy VerificationProvider = "ContainersPolicy"
)

// Verification says what must have signed an image.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="self.provider != 'Cosign' || has(self.cosign)",message="provider Cosign needs cosign"
// +kubebuilder:validation:XValidation:rule="self.provider != 'Cosign' || !has(self.containersPolicy)",message="provider Cosign does not read containersPolicy: choose one"
// +kubebuilder:validation:XValidation:rule="self.provider != 'ContainersPolicy' || has(self.containersPolicy)",message="provider ContainersPolicy needs containersPolicy"
// +kubebuilder:validation:XValidation:rule="self.provider != 'ContainersPolicy' || !has(self.cosign)",message="provider ContainersPolicy does not read cosign: choose one"
type Verification struct {
	// provider says what judges: Cosign the signatures of Sigstore's cosign,
	// ContainersPolicy the requirements of a containers-policy.json(5).
	// +required
	Provider VerificationProvider `json:"provider"`

	// cosign is for the provider Cosign.
	// +optional
	Cosign *Cosign `json:"cosign,omitempty"`

	// containersPolicy is for the provider ContainersPolicy.
	// +optional
	ContainersPolicy *ContainersPolicy `json:"containersPolicy,omitempty"`

	// bundle says what is asked of an imgpkg bundle.
	// +optional
	Bundle *Bundle `json:"bundle,omitempty"`
}

// NestedPolicy says whether the images that a bundle locks are verified.
//
// +kubebuilder:validation:Enum=Verify;Ignore
type NestedPolicy string

// What is asked of the images that a bundle locks.
const (
	NestedVerify NestedPolicy = "Verify"
	NestedIgnore NestedPolicy = "Ignore" // the default
)

// Bundle says what is asked of an imgpkg bundle.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Bundle struct {
	// nested says whether the images that the bundle locks are verified too.
	// +optional
	// +kubebuilder:default=Ignore
	Nested NestedPolicy `json:"nested,omitempty"`
}

// ContainersPolicy holds requirements as a containers-policy.json(5) has them.
//
// +kubebuilder:pruning:PreserveUnknownFields
type ContainersPolicy struct {
	// requirements is a list of policy requirements, all of which must accept:
	// objects with a type, as in the scopes of a containers-policy.json(5).
	// Their fields are not in this schema; they are read strictly by the
	// package that judges by them.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:XPreserveUnknownFields
	Requirements []runtime.RawExtension `json:"requirements"`
}

// Cosign says which of several authorities must have signed.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Cosign struct {
	// authorities lists who can vouch for an image. One that does is enough.
	// +required
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Authorities []Authority `json:"authorities"`
}
