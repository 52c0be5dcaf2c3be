// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Registry says how a registry is reached.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="!has(self.tls) || !has(self.insecurePlainHTTP) || !self.insecurePlainHTTP",message="tls contradicts insecurePlainHTTP: over plain HTTP nobody shows or checks a certificate"
type Registry struct {
	// authentication says with which credentials.
	// +optional
	Authentication *Authentication `json:"authentication,omitempty"`

	// tls says which certificates are trusted and shown.
	// +optional
	TLS *TLS `json:"tls,omitempty"`

	// insecurePlainHTTP allows plain HTTP, and to send credentials over it.
	// +optional
	InsecurePlainHTTP bool `json:"insecurePlainHTTP,omitempty"`
}

// CredentialProvider says whose credentials are used.
//
// +kubebuilder:validation:Enum=Generic;AWS;GCP;Azure
type CredentialProvider string

// The providers of credentials.
const (
	ProviderGeneric CredentialProvider = "Generic" // a pull secret; the default
	ProviderAWS     CredentialProvider = "AWS"
	ProviderGCP     CredentialProvider = "GCP"
	ProviderAzure   CredentialProvider = "Azure"
)

// Authentication says with which credentials a registry is asked.
//
// The default of provider is written into the object before the rules are
// evaluated; where the rules ask for it nevertheless, an object may come from
// a file.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="!has(self.provider) || self.provider == 'Generic' || !has(self.pullSecretRef)",message="pullSecretRef goes with provider Generic only: AWS, GCP and Azure use the cloud's own credentials"
// +kubebuilder:validation:XValidation:rule="has(self.pullSecretRef) || has(self.realms) || (has(self.provider) && self.provider != 'Generic')",message="authentication says nothing: give pullSecretRef, realms, or a provider other than Generic"
// +kubebuilder:validation:XValidation:rule="!has(self.inject) || has(self.pullSecretRef)",message="inject needs pullSecretRef: it is the secret that Pods are given"
type Authentication struct {
	// pullSecretRef names a Secret of type kubernetes.io/dockerconfigjson, or of
	// the older kubernetes.io/dockercfg.
	// +optional
	PullSecretRef *SecretReference `json:"pullSecretRef,omitempty"`

	// provider says whose credentials are used. Generic: those of
	// pullSecretRef. AWS, GCP, Azure: the cloud's own, of the identity that
	// Pratique runs under.
	// +optional
	// +kubebuilder:default=Generic
	Provider CredentialProvider `json:"provider,omitempty"`

	// realms lists the hosts, with their ports if any, of token services that
	// the registry's credentials may be sent to although they are on another
	// site than the registry.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Realms []Host `json:"realms,omitempty"`

	// inject has Pods get the pull secret too.
	// +optional
	Inject *Inject `json:"inject,omitempty"`
}

// Host is a host's name or address, with its port if it has one.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=259
// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?$')",message="write a host, or host:port: no scheme, no path"
type Host string

// Inject says where Pods are given the pull secret.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Inject struct {
	// namespaceSelector selects the namespaces that get a copy of the secret,
	// and whose Pods are given it. Absent: none. Empty: all.
	// +optional
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
}

// TLS says which certificates are trusted and shown.
//
// +kubebuilder:pruning:PreserveUnknownFields
type TLS struct {
	// certSecretRef names a Secret with ca.crt (authorities that are trusted
	// besides the system's), or tls.crt and tls.key (the client's
	// certificate), or all three. The keys caFile, certFile and keyFile are
	// read where those are absent.
	// +required
	CertSecretRef SecretReference `json:"certSecretRef"`
}

// RewriteTarget says whose view of an image a rewrite changes.
//
// +kubebuilder:validation:Enum=Pod;Lookup
type RewriteTarget string

// The targets of a rewrite.
const (
	RewritePod    RewriteTarget = "Pod" // the default
	RewriteLookup RewriteTarget = "Lookup"
)

// RewriteImage says where images are found instead.
//
// +kubebuilder:pruning:PreserveUnknownFields
type RewriteImage struct {
	// prefix takes the place of the prefix that matched.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._:/@\[\]-]*$`
	// +kubebuilder:validation:XValidation:rule="!self.contains('://')",message="a prefix has no scheme: write the host first, without https://"
	// +kubebuilder:validation:XValidation:rule="self.contains('://') || (!self.startsWith('/') && !self.contains('//'))",message="a prefix has no empty component: a host comes first, and one slash at a time"
	// +kubebuilder:validation:XValidation:rule="!self.contains('@')",message="an image is rewritten to another name, not to another digest: leave out @ and what follows"
	Prefix string `json:"prefix"`

	// target says what is rewritten. Pod: the Pod's own image. Lookup: only
	// where Pratique looks, for clusters whose nodes have mirrors.
	// +optional
	// +kubebuilder:default=Pod
	Target RewriteTarget `json:"target,omitempty"`
}
