// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// What follows is for whoever keeps copies of pull secrets in other namespaces.

// Changed tells that rules, Secrets of Pratique's own or namespaces changed. One
// reader gets each.
func (c *Cluster) Changed() <-chan struct{} { return c.told }

// OwnSecret reads a Secret of Pratique's own namespace from the cache; nil if
// there is none.
func (c *Cluster) OwnSecret(ctx context.Context, name string) (*corev1.Secret, error) {
	return c.ownSecret(ctx, name)
}

// Namespaces reads the labels of all namespaces that are not about to go, by
// name, from the cache.
func (c *Cluster) Namespaces(ctx context.Context) (map[string]labels.Set, error) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("NamespaceList"))
	if err := c.cache.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing namespaces: %w", err)
	}
	found := make(map[string]labels.Set, len(list.Items))
	for _, namespace := range list.Items {
		if namespace.DeletionTimestamp.IsZero() {
			found[namespace.Name] = namespace.Labels
		}
	}
	return found, nil
}

// ReportCopies has it written into the statuses what came of copying, by the
// ImageConfig's name.
func (c *Cluster) ReportCopies(results map[string]CopyResult) { c.statuses.publishCopies(results) }
