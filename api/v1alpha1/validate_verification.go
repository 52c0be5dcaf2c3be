// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// The bounds of the schema's verification; doc.go says where they come from.
const (
	maxAuthorities  = 32
	maxIdentities   = 32
	maxAttestations = 16
	maxSources      = 8
	maxPullSecrets  = 16
	maxAnnotations  = 64
	maxDisplayName  = 128
	maxTagPrefix    = 53
	maxKeyData      = 8192
	maxURI          = 1024
	maxURL          = 2048
	maxPolicy       = 65536
)

func (v *validator) verification(s *Verification, path *field.Path) {
	if s == nil {
		return
	}
	oneOf(v, s.Provider, path.Child("provider"), ProviderCosign, ProviderContainersPolicy)
	cosign, policy := s.Provider == ProviderCosign, s.Provider == ProviderContainersPolicy
	v.rule(!cosign || s.Cosign != nil, path, "", "provider Cosign needs cosign")
	v.rule(!cosign || s.ContainersPolicy == nil, path, "", "provider Cosign does not read containersPolicy: choose one")
	v.rule(!policy || s.ContainersPolicy != nil, path, "", "provider ContainersPolicy needs containersPolicy")
	v.rule(!policy || s.Cosign == nil, path, "", "provider ContainersPolicy does not read cosign: choose one")
	if s.Cosign != nil {
		v.authorities(s.Cosign.Authorities, path.Child("cosign", "authorities"))
	}
	if s.ContainersPolicy != nil {
		at := path.Child("containersPolicy", "requirements")
		count(v, s.ContainersPolicy.Requirements, at, maxRequirements)
		for i, r := range s.ContainersPolicy.Requirements {
			v.rule(bytes.HasPrefix(bytes.TrimSpace(r.Raw), []byte("{")), at.Index(i), string(r.Raw), "must be of type object")
		}
	}
	if s.Bundle != nil {
		oneOf(v, s.Bundle.Nested, path.Child("bundle", "nested"), NestedVerify, NestedIgnore)
	}
}

func (v *validator) authorities(list []Authority, path *field.Path) {
	count(v, list, path, maxAuthorities)
	unique(v, list, path, func(a Authority) string { return a.Name })
	for i := range list {
		v.authority(&list[i], path.Index(i))
	}
}

func (v *validator) authority(a *Authority, path *field.Path) {
	v.displayName(a.Name, path.Child("name"))
	v.rule(exactlyOne(a.Key != nil, a.Keyless != nil, a.Static != nil), path, a.Name,
		"an authority has exactly one of key, keyless and static")
	if a.Static != nil {
		oneOf(v, a.Static.Action, path.Child("static", "action"), StaticPass, StaticFail)
		v.rule(a.CTLog == nil && a.RFC3161Timestamp == nil && a.Attestations == nil && a.Sources == nil && a.Annotations == nil, path, a.Name,
			"static looks at no signature: ctlog, rfc3161timestamp, attestations, source and annotations do not go with it")
	}
	v.key(a.Key, path.Child("key"))
	v.keyless(a.Keyless, path.Child("keyless"))
	if a.CTLog != nil {
		at := path.Child("ctlog", "url")
		v.textIfAny(a.CTLog.URL, at, maxURL)
		v.rule(a.CTLog.URL == "" || httpURL.MatchString(a.CTLog.URL), at, a.CTLog.URL,
			"write a URL that begins with https:// or http://")
		v.trustRoot(a.CTLog.TrustRootRef, path.Child("ctlog", "trustRootRef"))
	}
	if a.RFC3161Timestamp != nil {
		v.trustRoot(&a.RFC3161Timestamp.TrustRootRef, path.Child("rfc3161timestamp", "trustRootRef"))
	}
	v.attestations(a.Attestations, path.Child("attestations"))
	v.sources(a.Sources, path.Child("source"))
	v.annotations(a.Annotations, path.Child("annotations"))
}

func (v *validator) annotations(annotations map[string]string, path *field.Path) {
	n := len(annotations)
	v.rule(annotations == nil || n > 0, path, n, "should have at least 1 properties")
	if n > maxAnnotations {
		v.errs = append(v.errs, field.TooMany(path, n, maxAnnotations))
	}
}

// displayName reports a name that cannot be printed in a message.
func (v *validator) displayName(name string, path *field.Path) {
	v.text(name, path, maxDisplayName)
	v.rule(printable.MatchString(name), path, name, "a name has no control characters")
}

func (v *validator) key(k *Key, path *field.Path) {
	if k == nil {
		return
	}
	v.rule(exactlyOne(k.Data != "", k.SecretRef != nil, k.KMS != ""), path, "", "a key has exactly one of data, secretRef and kms")
	oneOf(v, k.HashAlgorithm, path.Child("hashAlgorithm"), SHA224, SHA256, SHA384, SHA512)
	v.keyData(k.Data, path.Child("data"))
	if k.SecretRef != nil {
		v.objectName(k.SecretRef.Name, path.Child("secretRef", "name"))
		v.dataKey(k.SecretRef.Key, path.Child("secretRef", "key"))
	}
	if k.KMS != "" {
		v.textIfAny(k.KMS, path.Child("kms"), maxURI)
		v.rule(keyService.MatchString(k.KMS), path.Child("kms"), k.KMS,
			"a key service's reference begins with awskms://, azurekms://, gcpkms://, hashivault:// or k8s://")
		v.rule(!strings.HasPrefix(k.KMS, "k8s://") || keySecret.MatchString(k.KMS), path.Child("kms"), k.KMS,
			"write the Secret as k8s://NAMESPACE/NAME")
	}
}

// keyData never repeats the value: it may be a private key.
func (v *validator) keyData(data string, path *field.Path) {
	v.textIfAny(data, path, maxKeyData)
	switch {
	case data == "":
	case strings.Contains(data, "PRIVATE KEY-----"):
		v.rule(false, path, "", "data is a private key: keep it secret, and give the public one")
	case !strings.Contains(data, "-----BEGIN PUBLIC KEY-----") && !strings.Contains(data, "-----BEGIN RSA PUBLIC KEY-----"):
		v.rule(false, path, "", "data is no public key in PEM: expected a block -----BEGIN PUBLIC KEY-----")
	}
}

func (v *validator) keyless(k *Keyless, path *field.Path) {
	if k == nil {
		return
	}
	v.trustRoot(k.TrustRootRef, path.Child("trustRootRef"))
	count(v, k.Identities, path.Child("identities"), maxIdentities)
	for i, id := range k.Identities {
		at := path.Child("identities").Index(i)
		v.rule(exactlyOne(id.Issuer != "", id.IssuerRegExp != ""), at, "", "an identity has exactly one of issuer and issuerRegExp")
		v.rule(exactlyOne(id.Subject != "", id.SubjectRegExp != ""), at, "", "an identity has exactly one of subject and subjectRegExp")
		v.textIfAny(id.Issuer, at.Child("issuer"), maxURI)
		v.textIfAny(id.Subject, at.Child("subject"), maxURI)
		v.regularExpression(id.IssuerRegExp, at.Child("issuerRegExp"))
		v.regularExpression(id.SubjectRegExp, at.Child("subjectRegExp"))
	}
}

func (v *validator) regularExpression(expression RegularExpression, path *field.Path) {
	v.textIfAny(string(expression), path, maxURI)
	if _, err := regexp.Compile(string(expression)); err != nil {
		v.rule(false, path, expression, err.Error())
	}
}

func (v *validator) trustRoot(r *TrustRootReference, path *field.Path) {
	if r == nil {
		return
	}
	oneOf(v, r.Kind, path.Child("kind"), TrustRootConfigMap, TrustRootSecret)
	v.objectName(r.Name, path.Child("name"))
	v.dataKey(r.Key, path.Child("key"))
}

func (v *validator) attestations(list []Attestation, path *field.Path) {
	countIfAny(v, list, path, maxAttestations)
	unique(v, list, path, func(a Attestation) string { return a.Name })
	for i, a := range list {
		at := path.Index(i)
		v.displayName(a.Name, at.Child("name"))
		v.text(a.PredicateType, at.Child("predicateType"), maxURI)
		if p := a.Policy; p != nil {
			at = at.Child("policy")
			oneOf(v, p.Type, at.Child("type"), PolicyCUE, PolicyRego, PolicyCEL)
			v.rule(exactlyOne(p.Data != "", p.ConfigMapRef != nil), at, "", "a policy has exactly one of data and configMapRef")
			v.textIfAny(p.Data, at.Child("data"), maxPolicy)
			if p.ConfigMapRef != nil {
				v.objectName(p.ConfigMapRef.Name, at.Child("configMapRef", "name"))
				v.dataKey(p.ConfigMapRef.Key, at.Child("configMapRef", "key"))
			}
		}
	}
}

func (v *validator) sources(list []Source, path *field.Path) {
	countIfAny(v, list, path, maxSources)
	for i, s := range list {
		at := path.Index(i)
		v.rule(s.OCI != "" || s.TagPrefix != "" || s.SignaturePullSecrets != nil, at, "",
			"a source says nothing: give oci, tagPrefix or signaturePullSecrets")
		v.textIfAny(s.OCI, at.Child("oci"), maxPrefix)
		v.rule(s.OCI == "" || repositoryText.MatchString(s.OCI), at.Child("oci"), s.OCI,
			"write a repository: host/path, without scheme, tag or digest")
		v.textIfAny(s.TagPrefix, at.Child("tagPrefix"), maxTagPrefix)
		v.rule(s.TagPrefix == "" || tagText.MatchString(s.TagPrefix), at.Child("tagPrefix"), s.TagPrefix,
			fmt.Sprintf("should match '%s'", `^[A-Za-z0-9_][A-Za-z0-9_.-]*$`))
		secrets := at.Child("signaturePullSecrets")
		countIfAny(v, s.SignaturePullSecrets, secrets, maxPullSecrets)
		unique(v, s.SignaturePullSecrets, secrets, func(r SecretReference) string { return string(r.Name) })
		for j, r := range s.SignaturePullSecrets {
			v.objectName(r.Name, secrets.Index(j).Child("name"))
		}
	}
}

// exactlyOne tells whether one and only one is given.
func exactlyOne(given ...bool) bool {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	return n == 1
}
