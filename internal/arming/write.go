// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func equal(a, b any) bool { return equality.Semantic.DeepEqual(a, b) }

// write makes one configuration what is wanted, and returns it as it is stored.
// there is what was read, nil if nothing.
func (a *Armer) write(ctx context.Context, wanted, there *unstructured.Unstructured) (*unstructured.Unstructured, error) {
	applied := wanted.DeepCopy()
	if a.o.Injected {
		withoutBundles(applied)
	}
	// One that was read is changed only if it is still the one: a replica that led
	// until a moment ago must not undo what the next one wrote.
	before := ""
	if there != nil {
		before = there.GetResourceVersion()
		applied.SetResourceVersion(before)
	}
	kind, name := wanted.GetKind(), wanted.GetName()
	if err := a.o.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), client.FieldOwner(owner), client.ForceOwnership); err != nil {
		return there, fmt.Errorf("applying %s %q: %w", kind, name, err)
	}
	stored := newObject(kind, name)
	if err := a.o.Client.Get(ctx, client.ObjectKey{Name: name}, stored); err != nil {
		return there, fmt.Errorf("reading %s %q: %w", kind, name, err)
	}
	if !a.same(wanted, stored) {
		// Somebody added what an apply leaves alone, because it was never ours.
		a.replace(wanted, stored)
		if err := a.o.Client.Update(ctx, stored, client.FieldOwner(owner)); err != nil {
			return stored, fmt.Errorf("replacing %s %q: %w", kind, name, err)
		}
	}
	if after := stored.GetResourceVersion(); after != before {
		logr.FromContextOrDiscard(ctx).Info("wrote a webhook configuration", "kind", kind, "name", name)
	}
	if !a.same(wanted, stored) {
		return stored, fmt.Errorf("%s %q is not stored as it was written", kind, name)
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

// replace makes the webhooks those that are wanted. An update, unlike an apply,
// has to say what somebody else wrote, too.
func (a *Armer) replace(wanted, stored *unstructured.Unstructured) {
	known := bundles(stored)
	list := []any{}
	for _, w := range webhooks(wanted.DeepCopy()) {
		if name, _ := w["name"].(string); a.o.Injected {
			setBundle(w, known[name])
		}
		list = append(list, w)
	}
	stored.Object["webhooks"] = list
}
