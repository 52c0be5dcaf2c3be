// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Validate says what the schema of the CustomResourceDefinition refuses, in
// the same words, for objects that no API server has seen: those from files,
// and those stored while another version of the definition was installed. It
// wants the defaults set. Both are held to the same table (testdata).
//
// It parses no key and reads no Secret: who compiles the rule does.
func (c *ImageConfig) Validate() field.ErrorList {
	v := validator{}
	spec, path := &c.Spec, field.NewPath("spec")
	v.matchImages(spec.MatchImages, path.Child("matchImages"))
	v.selector(spec.NamespaceSelector, path.Child("namespaceSelector"))
	oneOf(&v, spec.Mode, path.Child("mode"), ModeEnforce, ModeAudit)
	v.registry(spec.Registry, path.Child("registry"))
	if r := spec.RewriteImage; r != nil {
		rewrite := path.Child("rewriteImage")
		v.prefix(r.Prefix, rewrite.Child("prefix"))
		v.rule(!strings.Contains(r.Prefix, "@"), rewrite.Child("prefix"), r.Prefix,
			"an image is rewritten to another name, not to another digest: leave out @ and what follows")
		oneOf(&v, r.Target, rewrite.Child("target"), RewritePod, RewriteLookup)
	}
	v.verification(spec.Verification, path.Child("verification"))
	return v.errs
}

// The bounds of the schema; doc.go says where they come from.
const (
	maxMatchImages  = 256
	maxPrefix       = 512
	maxRealms       = 16
	maxHost         = 259
	maxRequirements = 32
	maxSelector     = 64
	maxObjectName   = 253
)

// validator collects what is wrong.
type validator struct {
	errs field.ErrorList
}

// rule reports message about path unless it holds. An empty text for a value
// stands for none: the message is about structure, or must not repeat it.
func (v *validator) rule(holds bool, path *field.Path, value any, message string) {
	if holds {
		return
	}
	if value == "" {
		value = field.OmitValueType{}
	}
	v.errs = append(v.errs, field.Invalid(path, value, message))
}

// text reports a text that is longer than limit, in characters, or missing.
func (v *validator) text(value string, path *field.Path, limit int) {
	if value == "" {
		v.errs = append(v.errs, field.Required(path, ""))
	}
	v.textIfAny(value, path, limit)
}

// textIfAny reports a text that is longer than limit, in characters.
func (v *validator) textIfAny(value string, path *field.Path, limit int) {
	if len([]rune(value)) > limit {
		v.errs = append(v.errs, field.TooLong(path, "", limit))
	}
}

// oneOf reports a value that is none of those allowed.
func oneOf[T ~string](v *validator, value T, path *field.Path, allowed ...T) {
	if !slices.Contains(allowed, value) {
		v.errs = append(v.errs, field.NotSupported(path, value, allowed))
	}
}

// count reports a list that has no items, or too many.
func count[T any](v *validator, list []T, path *field.Path, limit int) {
	switch {
	case list == nil:
		v.errs = append(v.errs, field.Required(path, ""))
	case len(list) == 0:
		v.errs = append(v.errs, field.Invalid(path, len(list), "should have at least 1 items"))
	case len(list) > limit:
		v.errs = append(v.errs, field.TooMany(path, len(list), limit))
	}
}

// countIfAny reports a list that is written out but has no items, or too many.
// It may be absent.
func countIfAny[T any](v *validator, list []T, path *field.Path, limit int) {
	if list != nil {
		count(v, list, path, limit)
	}
}

// unique reports the second and every further item of the same key.
func unique[T any](v *validator, list []T, path *field.Path, key func(T) string) {
	seen := make(map[string]bool, len(list))
	for i, item := range list {
		if k := key(item); seen[k] {
			v.errs = append(v.errs, field.Duplicate(path.Index(i), k))
		} else {
			seen[k] = true
		}
	}
}

func (v *validator) matchImages(list []ImageMatch, path *field.Path) {
	count(v, list, path, maxMatchImages)
	for i, m := range list {
		at := path.Index(i)
		oneOf(v, m.Type, at.Child("type"), MatchPrefix)
		v.prefix(m.Prefix, at.Child("prefix"))
		v.rule(m.Prefix == "" || m.Prefix == "localhost" || strings.ContainsAny(m.Prefix, "/.:"), at.Child("prefix"), m.Prefix,
			"a prefix without a slash is a whole host, which this is not: write registry.example.com, or docker.io/library/NAME for an image")
		v.rule(!strings.Contains(m.Prefix, "@") || wholeDigest.MatchString(m.Prefix), at.Child("prefix"), m.Prefix,
			"a digest in a prefix must be whole, and without a tag before it: REPOSITORY@sha256: and 64 lower-case hexadecimal digits")
	}
}

// prefix reports what no prefix may be, neither one that is matched nor one
// that takes its place.
func (v *validator) prefix(prefix string, path *field.Path) {
	v.text(prefix, path, maxPrefix)
	v.rule(prefixText.MatchString(prefix), path, prefix, "should match '"+prefixText.String()+"'")
	if strings.Contains(prefix, "://") {
		v.rule(false, path, prefix, "a prefix has no scheme: write the host first, without https://")
		return
	}
	v.rule(!strings.HasPrefix(prefix, "/") && !strings.Contains(prefix, "//"), path, prefix,
		"a prefix has no empty component: a host comes first, and one slash at a time")
}

func (v *validator) selector(s *LabelSelector, at *field.Path) {
	if s == nil {
		return
	}
	if n := len(s.MatchLabels); n > maxSelector {
		v.errs = append(v.errs, field.TooMany(at.Child("matchLabels"), n, maxSelector))
	}
	path := at.Child("matchExpressions")
	if n := len(s.MatchExpressions); n > maxSelector {
		v.errs = append(v.errs, field.TooMany(path, n, maxSelector))
	}
	for i, r := range s.MatchExpressions {
		oneOf(v, r.Operator, path.Index(i).Child("operator"), metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn,
			metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)
		in := r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn
		exists := r.Operator == metav1.LabelSelectorOpExists || r.Operator == metav1.LabelSelectorOpDoesNotExist
		v.rule(!in || len(r.Values) > 0, path.Index(i), "", "operators In and NotIn need values")
		v.rule(!exists || len(r.Values) == 0, path.Index(i), "", "operators Exists and DoesNotExist have no values")
	}
	if _, err := s.AsSelector(); err != nil {
		v.rule(false, at, "", err.Error())
	}
}

func (v *validator) registry(r *Registry, path *field.Path) {
	if r == nil {
		return
	}
	v.rule(r.TLS == nil || !r.InsecurePlainHTTP, path, "",
		"tls contradicts insecurePlainHTTP: over plain HTTP nobody shows or checks a certificate")
	if r.TLS != nil {
		v.objectName(r.TLS.CertSecretRef.Name, path.Child("tls", "certSecretRef", "name"))
	}
	a, path := r.Authentication, path.Child("authentication")
	if a == nil {
		return
	}
	oneOf(v, a.Provider, path.Child("provider"), ProviderGeneric, ProviderAWS, ProviderGCP, ProviderAzure)
	v.rule(a.Provider == ProviderGeneric || a.PullSecretRef == nil, path, "",
		"pullSecretRef goes with provider Generic only: AWS, GCP and Azure use the cloud's own credentials")
	v.rule(a.PullSecretRef != nil || a.Realms != nil || a.Provider != ProviderGeneric, path, "",
		"authentication says nothing: give pullSecretRef, realms, or a provider other than Generic")
	v.rule(a.Inject == nil || a.PullSecretRef != nil, path, "",
		"inject needs pullSecretRef: it is the secret that Pods are given")
	if a.PullSecretRef != nil {
		v.objectName(a.PullSecretRef.Name, path.Child("pullSecretRef", "name"))
	}
	if a.Inject != nil {
		v.selector(a.Inject.NamespaceSelector, path.Child("inject", "namespaceSelector"))
	}
	v.realms(a.Realms, path.Child("realms"))
}

func (v *validator) realms(realms []Host, path *field.Path) {
	countIfAny(v, realms, path, maxRealms)
	unique(v, realms, path, func(h Host) string { return string(h) })
	for i, h := range realms {
		v.text(string(h), path.Index(i), maxHost)
		v.rule(hostText.MatchString(string(h)),
			path.Index(i), h, "write a host, or host:port: no scheme, no path")
	}
}

// objectName reports what is no name of a Secret or ConfigMap.
func (v *validator) objectName(name ObjectName, path *field.Path) {
	v.text(string(name), path, maxObjectName)
	if problems := validation.IsDNS1123Subdomain(string(name)); name != "" && problems != nil {
		v.rule(false, path, name, strings.Join(problems, "; "))
	}
}

// dataKey reports what is no key in the data of a Secret or ConfigMap.
func (v *validator) dataKey(key DataKey, path *field.Path) {
	v.text(string(key), path, maxObjectName)
	if problems := validation.IsConfigMapKey(string(key)); key != "" && problems != nil {
		v.rule(false, path, key, strings.Join(problems, "; "))
	}
}

// What texts look like, as the schema says it too.
var (
	wholeDigest    = regexp.MustCompile(`^[^@]+/[^@:]+@sha256:[0-9a-f]{64}$`)
	prefixText     = regexp.MustCompile(`^[A-Za-z0-9._:/@\[\]-]*$`)
	hostText       = regexp.MustCompile(`^([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$`)
	httpURL        = regexp.MustCompile(`^https?://[!-~]+$`)
	printable      = regexp.MustCompile(`^\PC*$`)
	keyService     = regexp.MustCompile(`^(awskms|azurekms|gcpkms|hashivault|k8s)://[!-~]+$`)
	keySecret      = regexp.MustCompile(`^k8s://[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-.a-z0-9]*[a-z0-9])?$`)
	repositoryText = regexp.MustCompile(`^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[a-z0-9._-]+)*$`)
	tagText        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)
)
