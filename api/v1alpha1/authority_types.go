// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Authority is one party that can vouch for an image, by a key, by the
// identity of a short-lived certificate, or without looking. Everything else
// in it asks for more.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="[has(self.key), has(self.keyless), has(self.static)].filter(given, given).size() == 1",message="an authority has exactly one of key, keyless and static"
// +kubebuilder:validation:XValidation:rule="!has(self.static) || !(has(self.ctlog) || has(self.rfc3161timestamp) || has(self.attestations) || has(self.source) || has(self.annotations))",message="static looks at no signature: ctlog, rfc3161timestamp, attestations, source and annotations do not go with it"
type Authority struct {
	// name is the authority's name in messages.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^\\\\PC*$')",message="a name has no control characters"
	Name string `json:"name"`

	// key asks for a signature made with a key.
	// +optional
	Key *Key `json:"key,omitempty"`

	// keyless asks for a signature made with a short-lived certificate of one
	// of several identities.
	// +optional
	Keyless *Keyless `json:"keyless,omitempty"`

	// static accepts or refuses without looking at signatures.
	// +optional
	Static *Static `json:"static,omitempty"`

	// ctlog asks for an entry in a transparency log.
	// +optional
	CTLog *TransparencyLog `json:"ctlog,omitempty"`

	// rfc3161timestamp asks for a signed timestamp (RFC 3161).
	// +optional
	RFC3161Timestamp *RFC3161Timestamp `json:"rfc3161timestamp,omitempty"`

	// attestations lists statements about the image that must all be there,
	// signed by this authority.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Attestations []Attestation `json:"attestations,omitempty"`

	// source lists where signatures and attestations are, when they are not
	// beside the image.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=8
	Sources []Source `json:"source,omitempty"`

	// annotations must all be in what was signed, with exactly these values.
	// +optional
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=64
	Annotations map[string]string `json:"annotations,omitempty"`
}

// HashAlgorithm is a hash that signatures are made over.
//
// +kubebuilder:validation:Enum=sha224;sha256;sha384;sha512
type HashAlgorithm string

// The hashes that signatures are made over.
const (
	SHA224 HashAlgorithm = "sha224"
	SHA256 HashAlgorithm = "sha256" // the default
	SHA384 HashAlgorithm = "sha384"
	SHA512 HashAlgorithm = "sha512"
)

// Key names a public key: written out, in a Secret, or with a key service.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="[has(self.data), has(self.secretRef), has(self.kms)].filter(given, given).size() == 1",message="a key has exactly one of data, secretRef and kms"
// +kubebuilder:validation:XValidation:rule="!has(self.data) || !self.data.contains('PRIVATE KEY-----')",message="data is a private key: keep it secret, and give the public one"
// +kubebuilder:validation:XValidation:rule="!has(self.data) || self.data.contains('PRIVATE KEY-----') || self.data.contains('-----BEGIN PUBLIC KEY-----') || self.data.contains('-----BEGIN RSA PUBLIC KEY-----')",message="data is no public key in PEM: expected a block -----BEGIN PUBLIC KEY-----"
type Key struct {
	// data is the public key in PEM.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8192
	Data string `json:"data,omitempty"`

	// secretRef names the key of a Secret that holds the public key in PEM.
	// +optional
	SecretRef *SecretKeyReference `json:"secretRef,omitempty"`

	// kms is the reference of a key with a key service: awskms://, azurekms://,
	// gcpkms:// or hashivault://, as cosign writes them; or k8s://NAMESPACE/NAME
	// for a Secret with the public key under cosign.pub.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="self.matches('^(awskms|azurekms|gcpkms|hashivault|k8s)://[!-~]+$')",message="a key service's reference begins with awskms://, azurekms://, gcpkms://, hashivault:// or k8s://"
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('k8s://') || self.matches('^k8s://[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",message="write the Secret as k8s://NAMESPACE/NAME"
	KMS string `json:"kms,omitempty"`

	// hashAlgorithm is the hash that signatures are made over. An Ed25519 key
	// has its own.
	// +optional
	// +kubebuilder:default=sha256
	HashAlgorithm HashAlgorithm `json:"hashAlgorithm,omitempty"`
}

// Keyless asks for a short-lived certificate of one of several identities.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Keyless struct {
	// identities lists who may have signed. One that fits is enough.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Identities []Identity `json:"identities"`

	// trustRootRef names the trust root whose certificate authorities and
	// certificate logs are believed. Absent: the server's, by default that of
	// the public Sigstore.
	// +optional
	TrustRootRef *TrustRootReference `json:"trustRootRef,omitempty"`

	// insecureIgnoreSCT accepts certificates that are in no certificate log.
	// +optional
	InsecureIgnoreSCT bool `json:"insecureIgnoreSCT,omitempty"`
}

// RegularExpression is in the syntax of RE2, and must match a whole value.
//
// The rule evaluates to true with every expression that can be compiled; the
// others make the evaluation itself fail, with the compiler's own message.
//
// +kubebuilder:validation:MinLength=1
// +kubebuilder:validation:MaxLength=1024
// +kubebuilder:validation:XValidation:rule="'x'.matches(self) in [true, false]"
type RegularExpression string

// Identity is who a certificate was issued to, and by whom that was vouched
// for. Both must fit.
//
// Of a pair, not both: the one that asks for less would decide.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="has(self.issuer) != has(self.issuerRegExp)",message="an identity has exactly one of issuer and issuerRegExp"
// +kubebuilder:validation:XValidation:rule="has(self.subject) != has(self.subjectRegExp)",message="an identity has exactly one of subject and subjectRegExp"
type Identity struct {
	// issuer is the OpenID Connect issuer, exactly.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Issuer string `json:"issuer,omitempty"`

	// issuerRegExp is an expression that must match the whole issuer.
	// +optional
	IssuerRegExp RegularExpression `json:"issuerRegExp,omitempty"`

	// subject is the certificate's subject (an e-mail address, a URI), exactly.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Subject string `json:"subject,omitempty"`

	// subjectRegExp is an expression that must match the whole subject.
	// +optional
	SubjectRegExp RegularExpression `json:"subjectRegExp,omitempty"`
}

// StaticAction says what a static authority does.
//
// +kubebuilder:validation:Enum=pass;fail
type StaticAction string

// What a static authority does.
const (
	StaticPass StaticAction = "pass"
	StaticFail StaticAction = "fail"
)

// Static accepts or refuses without looking at signatures.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Static struct {
	// action is pass or fail.
	// +required
	Action StaticAction `json:"action"`
}

// TransparencyLog asks for an entry in a transparency log.
//
// +kubebuilder:pruning:PreserveUnknownFields
type TransparencyLog struct {
	// url is the address by which the trust root names the log. Absent: any log
	// of the trust root will do. No log is asked: entries come with signatures.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^https?://[!-~]+$')",message="write a URL that begins with https:// or http://"
	URL string `json:"url,omitempty"`

	// trustRootRef names the trust root whose logs are believed. Absent: the
	// server's, by default that of the public Sigstore.
	// +optional
	TrustRootRef *TrustRootReference `json:"trustRootRef,omitempty"`
}

// RFC3161Timestamp asks for a signed timestamp (RFC 3161).
//
// +kubebuilder:pruning:PreserveUnknownFields
type RFC3161Timestamp struct {
	// trustRootRef names the trust root whose timestamp authorities are
	// believed.
	// +required
	TrustRootRef TrustRootReference `json:"trustRootRef"`
}

// Source is a place where signatures and attestations are.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="has(self.oci) || has(self.tagPrefix) || has(self.signaturePullSecrets)",message="a source says nothing: give oci, tagPrefix or signaturePullSecrets"
type Source struct {
	// oci is the repository that holds them. Absent: the image's own.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self.matches('^([A-Za-z0-9._-]+|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?(/[a-z0-9._-]+)*$')",message="write a repository: host/path, without scheme, tag or digest"
	OCI string `json:"oci,omitempty"`

	// tagPrefix stands before the tags by which they are found.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=53
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`
	TagPrefix string `json:"tagPrefix,omitempty"`

	// signaturePullSecrets names the Secrets with the credentials for it, of
	// type kubernetes.io/dockerconfigjson.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	SignaturePullSecrets []SecretReference `json:"signaturePullSecrets,omitempty"`
}

// Attestation asks for a signed statement about an image.
//
// +kubebuilder:pruning:PreserveUnknownFields
type Attestation struct {
	// name is the attestation's name in messages.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:XValidation:rule="self.matches('^\\\\PC*$')",message="a name has no control characters"
	Name string `json:"name"`

	// predicateType is the type of the statement's predicate: a URI, or one of
	// cosign's short names.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	PredicateType string `json:"predicateType"`

	// policy is what the statement must fulfil besides.
	// +optional
	Policy *AttestationPolicy `json:"policy,omitempty"`
}

// PolicyType is the language of an AttestationPolicy.
//
// +kubebuilder:validation:Enum=cue;rego;cel
type PolicyType string

// The languages of an AttestationPolicy.
const (
	PolicyCUE  PolicyType = "cue"
	PolicyRego PolicyType = "rego"
	PolicyCEL  PolicyType = "cel"
)

// AttestationPolicy is what a signed statement must fulfil.
//
// +kubebuilder:pruning:PreserveUnknownFields
// +kubebuilder:validation:XValidation:rule="has(self.data) != has(self.configMapRef)",message="a policy has exactly one of data and configMapRef"
type AttestationPolicy struct {
	// type is the language the policy is written in.
	// +required
	Type PolicyType `json:"type"`

	// data is the policy itself.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=65536
	Data string `json:"data,omitempty"`

	// configMapRef names the key of a ConfigMap that holds the policy.
	// +optional
	ConfigMapRef *ConfigMapKeyReference `json:"configMapRef,omitempty"`
}
