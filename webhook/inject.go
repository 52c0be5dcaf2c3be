// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"slices"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// pullSecretsPointer is where a Pod names its pull secrets.
const pullSecretsPointer = "/spec/imagePullSecrets" //nolint:gosec // a place, no secret

// inject adds the pull secrets of the rules that were selected for a new Pod's
// images to it, each once and after its own. The API server lets nobody add any
// later (spec section 7).
func (r *response) inject(asked *request, s subject, ns policy.Namespace, decisions []policy.Decision) {
	if asked.Operation != admissionv1.Create || asked.SubResource != "" {
		return
	}
	var names []string
	for _, d := range decisions {
		if d.Authentication == nil {
			continue
		}
		own := d.Authentication.Authentication
		inject := own.Inject
		// There is no copy of a secret that is not there.
		if inject != nil && own.Problem == "" && inject.Into(ns) && !slices.Contains(s.found.PullSecrets, inject.Secret) {
			names = append(names, inject.Secret)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 0 {
		return
	}
	if s.found.Listed+len(names) > credential.MaxSecrets {
		r.warnings = append(r.warnings, fmt.Sprintf("spec.imagePullSecrets: not given %q: there would be more than %d", names, credential.MaxSecrets))
		return
	}
	r.injected = len(names)
	r.patch = appendPullSecrets(r.patch, s.found.Listed > 0, names)
}

// appendPullSecrets adds secrets to a patch: at the end of their list if it has
// any elements, or else as the list.
func appendPullSecrets(patch []byte, toList bool, names []string) []byte {
	open := func() {
		if patch == nil {
			patch = append(patch, '[')
		} else {
			patch[len(patch)-1] = ','
		}
	}
	element := func(name string) {
		patch = append(patch, `{"name":`...)
		patch = appendString(patch, name)
		patch = append(patch, '}')
	}
	if toList {
		for _, name := range names {
			open()
			patch = append(patch, `{"op":"add","path":"`+pullSecretsPointer+`/-","value":`...)
			element(name)
			patch = append(patch, '}', ']')
		}
		return patch
	}
	open()
	patch = append(patch, `{"op":"add","path":"`+pullSecretsPointer+`","value":[`...)
	for i, name := range names {
		if i > 0 {
			patch = append(patch, ',')
		}
		element(name)
	}
	return append(patch, ']', '}', ']')
}

// expected are the pull secrets of an object that Pratique puts into its
// namespace, perhaps in a moment.
func expected(q policy.Question, named []string) []string {
	var names []string
	for _, rule := range q.Set.Injecting() {
		inject := rule.Authentication.Inject
		if slices.Contains(named, inject.Secret) && inject.Into(q.Namespace) {
			names = append(names, inject.Secret)
		}
	}
	return names
}
