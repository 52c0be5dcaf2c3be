// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func equal(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// write makes one configuration what is wanted, and returns it as it is stored.
// there is what was read, nil if nothing.
func (a *Armer) write(ctx context.Context, wanted, there *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	kind, name := wanted.GetKind(), wanted.GetName()
	stored, err := a.apply(ctx, wanted, there)
	if err != nil {
		return there, fmt.Errorf("applying %s %q: %w", kind, name, err)
	}
	if !a.same(wanted, stored) {
		// Somebody added what an apply leaves alone, because it was never ours.
		replaced := a.replace(wanted, stored)
		if err := a.o.Client.Update(ctx, replaced, client.FieldOwner(owner)); err != nil {
			return stored, fmt.Errorf("replacing %s %q: %w", kind, name, err)
		}
		stored = replaced
	}
	if there == nil || stored.GetResourceVersion() != there.GetResourceVersion() {
		logr.FromContextOrDiscard(ctx).Info("wrote a webhook configuration", "kind", kind, "name", name)
	}
	if !a.same(wanted, stored) {
		return stored, fmt.Errorf("%s %q is not stored as it was written", kind, name)
	}
	return stored, nil
}

// apply returns what is stored after it. Authorities that somebody else wrote are
// applied as they were read: what was ours until now would be taken away else.
func (a *Armer) apply(ctx context.Context, wanted, there *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	applied := wanted.DeepCopy()
	// One that was read is changed only if it is still the one: a replica that led
	// until a moment ago must not undo what the next one wrote, and nobody what the
	// authorities have become meanwhile.
	if there != nil {
		applied.SetResourceVersion(there.GetResourceVersion())
	}
	err := a.o.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner(owner), client.ForceOwnership)
	if apierrors.IsInvalid(err) && there != nil && !a.same(wanted, there) {
		// Of a webhook that is wanted no more an apply leaves the authorities, if
		// somebody else has applied them, and they alone are no webhook.
		return there, nil
	}
	if err != nil {
		return nil, err
	}
	stored := newObject(wanted.GetKind(), wanted.GetName())
	if err := a.o.Client.Get(ctx, client.ObjectKeyFromObject(wanted), stored); err != nil {
		return nil, fmt.Errorf("reading it again: %w", err)
	}
	return stored, nil
}

// same reports whether what is stored has the webhooks that are wanted, and
// nothing else. Authorities that are somebody else's may be any.
func (a *Armer) same(wanted, stored *unstructured.Unstructured) bool {
	if a.o.Injected {
		wanted, stored = wanted.DeepCopy(), stored.DeepCopy()
		withoutBundles(wanted)
		withoutBundles(stored)
	}
	return equal(webhooks(wanted), webhooks(stored))
}

func withoutBundles(o *unstructured.Unstructured) {
	for _, w := range webhooks(o) {
		setBundle(w, nil)
	}
}

// replace is what is stored with the webhooks that are wanted. An update, unlike an
// apply, has to say what somebody else wrote, too.
func (a *Armer) replace(wanted, stored *unstructured.Unstructured) *unstructured.Unstructured {
	known := byName(stored)
	list := []any{}
	for _, w := range webhooks(wanted.DeepCopy()) {
		if a.o.Injected {
			setBundle(w, caBundle(known[nameOf(w)]))
		}
		list = append(list, w)
	}
	replaced := stored.DeepCopy()
	replaced.Object["webhooks"] = list
	return replaced
}
