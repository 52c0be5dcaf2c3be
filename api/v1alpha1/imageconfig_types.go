// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Types of the conditions in an ImageConfig's status.
const (
	// ConditionReady is True when the ImageConfig is compiled and in force as
	// it is written. When it is False the images it selects for verification
	// are Inconclusive, and the message says what to mend. (A pull secret that
	// is missing makes it False too, but the images are still examined.)
	ConditionReady = "Ready"
	// ConditionPullSecretsCopied is True when every namespace that inject selects
	// has its copy of the pull secret. It is there only with inject.
	ConditionPullSecretsCopied = "PullSecretsCopied"
)

// Reasons of the condition Ready.
const (
	// ReasonCompiled goes with True: compiled, keys parsed, secrets found.
	ReasonCompiled = "Compiled"
	// ReasonInvalid goes with False: unknown or contradictory fields, a key
	// that cannot be parsed, a bad regular expression.
	ReasonInvalid = "Invalid"
	// ReasonNotSupported goes with False: a field whose behaviour this version
	// of Pratique does not have yet.
	ReasonNotSupported = "NotSupported"
	// ReasonSecretNotFound goes with False: a Secret that it names does not
	// exist in Pratique's namespace.
	ReasonSecretNotFound = "SecretNotFound"
	// ReasonSecretInvalid goes with False: a Secret that it names lacks the
	// key, has the wrong type, or holds what cannot be parsed.
	ReasonSecretInvalid = "SecretInvalid"
	// ReasonConfigMapNotFound goes with False: a ConfigMap that it names does
	// not exist in Pratique's namespace.
	ReasonConfigMapNotFound = "ConfigMapNotFound"
	// ReasonConfigMapInvalid goes with False: a ConfigMap that it names lacks
	// the key, or holds what cannot be parsed.
	ReasonConfigMapInvalid = "ConfigMapInvalid"
	// ReasonReadFailed goes with False: a Secret or ConfigMap that it names
	// could not be read for another reason than that it does not exist.
	ReasonReadFailed = "ReadFailed"
	// ReasonPending goes with False: what it rests on is being fetched, a key of
	// a key service or the public trust root.
	ReasonPending = "Pending"
	// ReasonInjectionOff goes with False: it asks for inject, which the server is
	// not allowed to do anywhere.
	ReasonInjectionOff = "InjectionOff"
	// ReasonConflict goes with False: its rewriteImage makes names that a
	// rewriteImage would rewrite again.
	ReasonConflict = "Conflict"
)

// ImageConfig says, for the images whose references begin as it names: where
// they are pulled from and with which credentials, what they are rewritten to,
// and what must have signed them. It governs Pods as well as packages.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=imageconfigs,shortName=pic,categories=pratique
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Mode",type=string,JSONPath=`.spec.mode`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
type ImageConfig struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the object's standard metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`

	// spec says which images the ImageConfig governs, and how.
	// +required
	Spec ImageConfigSpec `json:"spec"`

	// status says whether the ImageConfig is in force. Pratique writes it.
	// +optional
	Status ImageConfigStatus `json:"status,omitzero"`
}

// ImageConfigList is a list of ImageConfigs.
//
// +kubebuilder:object:root=true
type ImageConfigList struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is the list's standard metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitzero"`

	// items are the ImageConfigs.
	Items []ImageConfig `json:"items"`
}

// ImageConfigSpec says which images an ImageConfig governs, and how. Its
// sections are chosen one by one: of the ImageConfigs that have a section, the
// one with the longest matching prefix provides it.
//
// +kubebuilder:pruning:PreserveUnknownFields
type ImageConfigSpec struct {
	// matchImages lists which images the ImageConfig governs: those that any
	// of the entries matches.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	MatchImages []ImageMatch `json:"matchImages"`

	// namespaceSelector limits the ImageConfig to objects in the namespaces
	// whose labels it selects. Absent or empty: all namespaces. Objects that
	// are in no namespace are always governed.
	// +optional
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`

	// mode says what becomes of an image that fails. Enforce: its admission is
	// denied. Audit: it is admitted with a warning, and neither pinned nor
	// rewritten.
	// +optional
	// +kubebuilder:default=Enforce
	Mode Mode `json:"mode,omitempty"`

	// registry says how the images' registry is reached.
	// +optional
	Registry *Registry `json:"registry,omitempty"`

	// rewriteImage says where the images are found instead. It comes before
	// everything else: all other sections judge the rewritten name.
	// +optional
	RewriteImage *RewriteImage `json:"rewriteImage,omitempty"`

	// verification says what must have signed the images.
	// +optional
	Verification *Verification `json:"verification,omitempty"`
}

// Mode says whether a verdict denies or only warns.
//
// +kubebuilder:validation:Enum=Enforce;Audit
type Mode string

// The modes of an ImageConfig.
const (
	ModeEnforce Mode = "Enforce" // the default
	ModeAudit   Mode = "Audit"
)

// MatchType says how an image is compared with an ImageMatch.
//
// +kubebuilder:validation:Enum=Prefix
type MatchType string

// MatchPrefix compares the beginning of the canonical reference. The default,
// and so far the only one.
const MatchPrefix MatchType = "Prefix"

// ImageMatch selects images by their reference.
//
// +kubebuilder:pruning:PreserveUnknownFields
type ImageMatch struct {
	// type says how images are compared.
	// +optional
	// +kubebuilder:default=Prefix
	Type MatchType `json:"type,omitempty"`

	// prefix is the beginning of the references that are selected, host first:
	// registry.example.com/team/. It is compared with the canonical reference.
	// Without a slash it is a whole host; after the host it is plain text, so
	// that one meant for everything under a path ends in a slash. It may reach
	// into the tag, or name one whole digest.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._:/@\[\]-]*$`
	// +kubebuilder:validation:XValidation:rule="!self.contains('://')",message="a prefix has no scheme: write the host first, without https://"
	// +kubebuilder:validation:XValidation:rule="self.contains('://') || (!self.startsWith('/') && !self.contains('//'))",message="a prefix has no empty component: a host comes first, and one slash at a time"
	// +kubebuilder:validation:XValidation:rule="self.contains('/') || self.contains('.') || self.contains(':') || self == 'localhost' || size(self) == 0",message="a prefix without a slash is a whole host, which this is not: write registry.example.com, or docker.io/library/NAME for an image"
	// +kubebuilder:validation:XValidation:rule="!self.contains('@') || self.matches('^[^@]+/[^@:]+@sha256:[0-9a-f]{64}$')",message="a digest in a prefix must be whole, and without a tag before it: REPOSITORY@sha256: and 64 lower-case hexadecimal digits"
	Prefix string `json:"prefix"`
}

// ImageConfigStatus says whether an ImageConfig is in force.
type ImageConfigStatus struct {
	// conditions holds the condition Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
