// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"bytes"
	"context"
	"strings"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// copyTo makes the Secret of a place a copy, if it may be one. Whatever is
// written depends on the UID and resourceVersion that were read: a Secret that
// somebody put there, or whose label somebody took away, in between is safe.
func (c *Copier) copyTo(ctx context.Context, at place, from origin) outcome {
	there := &corev1.Secret{}
	err := c.o.Client.Get(ctx, client.ObjectKey{Namespace: at.namespace, Name: at.name}, there)
	if apierrors.IsNotFound(err) {
		return c.create(ctx, at, from)
	}
	if err != nil {
		return outcomeOf(err)
	}
	switch {
	case !c.ours(there):
		return outcome{kind: foreign}
	case c.same(there, at, from):
		return outcome{kind: copied}
	case !there.DeletionTimestamp.IsZero():
		return outcome{kind: raced} // made anew once it is gone
	case there.Type != from.kind, there.Immutable != nil && *there.Immutable:
		if o := c.remove(ctx, there); o.kind != copied {
			return o
		}
		return c.create(ctx, at, from)
	}
	c.fill(there, at, from)
	return c.write(ctx, at, func() error { return c.o.Client.Update(ctx, there) })
}

// ours reports whether a Secret is a copy that is ours to write. One that says
// that it comes from elsewhere is another installation's; where that is not said
// any more, the label counts.
func (c *Copier) ours(secret client.Object) bool {
	from := secret.GetAnnotations()[annotationFrom]
	return secret.GetLabels()[labelCopy] == valueCopy && (from == "" || strings.HasPrefix(from, c.o.Namespace+"/"))
}

// same reports whether a Secret of ours is a copy as it should be. Others may
// put labels and annotations of their own on it.
func (c *Copier) same(there *corev1.Secret, at place, from origin) bool {
	return there.DeletionTimestamp.IsZero() &&
		there.Type == from.kind && len(there.Data) == 1 && bytes.Equal(there.Data[from.key], from.value) &&
		there.Labels[labelManagedBy] == valueManagedBy &&
		there.Annotations[annotationFrom] == c.o.Namespace+"/"+at.name
}

// fill makes a Secret a copy: of what is in the source it has the credentials
// alone.
func (c *Copier) fill(secret *corev1.Secret, at place, from origin) {
	secret.Type = from.kind
	secret.Data = map[string][]byte{from.key: from.value}
	metav1.SetMetaDataLabel(&secret.ObjectMeta, labelManagedBy, valueManagedBy)
	metav1.SetMetaDataLabel(&secret.ObjectMeta, labelCopy, valueCopy)
	metav1.SetMetaDataAnnotation(&secret.ObjectMeta, annotationFrom, c.o.Namespace+"/"+at.name)
}

func (c *Copier) create(ctx context.Context, at place, from origin) outcome {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: at.namespace, Name: at.name}}
	c.fill(secret, at, from)
	return c.write(ctx, at, func() error { return c.o.Client.Create(ctx, secret) })
}

// remove removes a Secret that is ours, if it is still the one that was read.
func (c *Copier) remove(ctx context.Context, secret client.Object) outcome {
	uid, version := secret.GetUID(), secret.GetResourceVersion()
	gone := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Namespace: secret.GetNamespace(), Name: secret.GetName(),
	}}
	return c.write(ctx, place{gone.Namespace, gone.Name}, func() error {
		err := c.o.Client.Delete(ctx, gone, client.Preconditions{UID: &uid, ResourceVersion: &version})
		return client.IgnoreNotFound(err)
	})
}

// write writes, unless another replica leads by now.
func (c *Copier) write(ctx context.Context, at place, do func() error) outcome {
	if !c.o.Leads() {
		return outcome{kind: raced}
	}
	o := outcomeOf(do())
	if o.kind == copied {
		logr.FromContextOrDiscard(ctx).V(1).Info("wrote a copy of a pull secret",
			"namespace", at.namespace, "secret", at.name)
	}
	return o
}
