// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	kindMutating   = "MutatingWebhookConfiguration"
	kindValidating = "ValidatingWebhookConfiguration"
	// sleeping is the condition of a webhook that is not asked yet.
	sleeping = "waiting-for-authorities"
)

// pair is both configurations, first the mutating one; nil is one that is not
// there. They are objects without types because what is compared is what the API
// server stores: fields that this version does not know would be lost otherwise,
// and with them a way around the webhook.
type pair [2]*unstructured.Unstructured

func newObject(kind, name string) *unstructured.Unstructured {
	o := &unstructured.Unstructured{}
	o.SetGroupVersionKind(admissionregistrationv1.SchemeGroupVersion.WithKind(kind))
	o.SetName(name)
	return o
}

// read reads both.
func read(ctx context.Context, c client.Reader, name string) (pair, error) {
	var p pair
	for i, kind := range []string{kindMutating, kindValidating} {
		o := newObject(kind, name)
		err := c.Get(ctx, client.ObjectKey{Name: name}, o)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return p, fmt.Errorf("reading %s %q: %w", kind, name, err)
		}
		p[i] = o
	}
	return p, nil
}

// newPair makes both of what the API server's types hold, with what it writes
// itself where they hold nothing.
func newPair(m *admissionregistrationv1.MutatingWebhookConfiguration, v *admissionregistrationv1.ValidatingWebhookConfiguration) (pair, error) {
	var p pair
	for i, typed := range []client.Object{m, v} {
		content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
		if err != nil {
			return p, fmt.Errorf("encoding a webhook configuration: %w", err)
		}
		o := newObject([]string{kindMutating, kindValidating}[i], typed.GetName())
		for _, field := range []string{"labels", "annotations"} {
			if value, ok, _ := unstructured.NestedMap(content, "metadata", field); ok {
				_ = unstructured.SetNestedMap(o.Object, value, "metadata", field)
			}
		}
		webhooks, _ := content["webhooks"].([]any)
		for _, w := range webhooks {
			complete(w.(map[string]any), i == 0)
		}
		o.Object["webhooks"] = webhooks
		p[i] = o
	}
	return p, nil
}

// complete writes the defaults of the API server's, from
// https://pkg.go.dev/k8s.io/api/admissionregistration/v1, so that a field that is
// not mentioned is not anybody's to set.
func complete(w map[string]any, mutating bool) {
	defaults := map[string]any{
		"failurePolicy": "Fail", "matchPolicy": "Equivalent", "timeoutSeconds": int64(10),
		"namespaceSelector": map[string]any{}, "objectSelector": map[string]any{},
	}
	if mutating {
		defaults["reinvocationPolicy"] = "Never"
	}
	fill(w, defaults)
	if service, ok, _ := unstructured.NestedFieldNoCopy(w, "clientConfig", "service"); ok {
		fill(service, map[string]any{"port": int64(443)})
	}
	rules, _ := w["rules"].([]any)
	for _, rule := range rules {
		fill(rule, map[string]any{"scope": "*"})
	}
}

func fill(object any, defaults map[string]any) {
	fields, ok := object.(map[string]any)
	if !ok {
		return
	}
	for name, value := range defaults {
		if _, there := fields[name]; !there {
			fields[name] = value
		}
	}
}

// webhooks are those of one configuration.
func webhooks(o *unstructured.Unstructured) []map[string]any {
	if o == nil {
		return nil
	}
	list, _ := o.Object["webhooks"].([]any)
	var all []map[string]any
	for _, w := range list {
		if fields, ok := w.(map[string]any); ok {
			all = append(all, fields)
		}
	}
	return all
}

func nameOf(w map[string]any) string {
	name, _ := w["name"].(string)
	return name
}

// byName are those of one configuration, by their names, which are unique in it.
func byName(o *unstructured.Unstructured) map[string]map[string]any {
	all := map[string]map[string]any{}
	for _, w := range webhooks(o) {
		all[nameOf(w)] = w
	}
	return all
}

// awake are those of one configuration that the API server asks.
func awake(o *unstructured.Unstructured) map[string]map[string]any {
	all := byName(o)
	maps.DeleteFunc(all, func(_ string, w map[string]any) bool { return isAsleep(w) })
	return all
}

// clientConfig is where a webhook leads. It is never nil.
func clientConfig(w map[string]any) map[string]any {
	config, ok := w["clientConfig"].(map[string]any)
	if !ok {
		return map[string]any{}
	}
	return config
}

// caBundle are the authorities of a webhook.
func caBundle(w map[string]any) []byte {
	text, _ := clientConfig(w)["caBundle"].(string)
	bundle, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	return bundle
}

// state says what the API server does with both.
func (p pair) state() outcome {
	for _, o := range p {
		if o == nil || len(webhooks(o)) == 0 {
			return unarmed
		}
		if slices.ContainsFunc(webhooks(o), isAsleep) {
			return asleep
		}
	}
	return armed
}

// own says whose end is theirs.
func (p pair) own(references []metav1.OwnerReference) {
	for _, o := range p {
		o.SetOwnerReferences(references)
	}
}

// leaveBundles makes the authorities of each webhook those that it has: they are
// somebody else's to write.
func (p pair) leaveBundles(there pair) {
	for i := range p {
		known := byName(there[i])
		for _, w := range webhooks(p[i]) {
			setBundle(w, caBundle(known[nameOf(w)]))
		}
	}
}

// setBundle makes the authorities of a webhook these, or none.
func setBundle(w map[string]any, bundle []byte) {
	delete(clientConfig(w), "caBundle")
	if len(bundle) > 0 {
		clientConfig(w)["caBundle"] = base64.StdEncoding.EncodeToString(bundle)
	}
}

// sleep has a webhook not asked.
func sleep(w map[string]any) {
	w["matchConditions"] = []any{map[string]any{"name": sleeping, "expression": "false"}}
}

func isAsleep(w map[string]any) bool {
	conditions, _ := w["matchConditions"].([]any)
	for _, c := range conditions {
		if fields, ok := c.(map[string]any); ok && fields["name"] == sleeping {
			return true
		}
	}
	return false
}
