// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// settled is how long both configurations must have been gone: a replica that
	// had looked for the marker just before it came may still be writing one, which
	// it takes away itself when it looks again.
	settled = 3 * time.Second
	// switchEvery is how often is looked whether what was asked for is so.
	switchEvery = 250 * time.Millisecond
)

// Switch turns the webhook off and on for the whole cluster, whether or not a
// replica is alive.
type Switch struct {
	Client client.Client
	// Name is that of both configurations, Namespace is Pratique's own.
	Name, Namespace string
	// Deployment is what owns the marker, so that it does not outlive an
	// installation; "" for none.
	Deployment string
}

// Off leaves the marker, by which no replica arms again, and takes both
// configurations away. ownerErr is why the marker belongs to nobody; nil if that
// is not so, or wanted.
func (s Switch) Off(ctx context.Context) (ownerErr, err error) {
	metadata := map[string]any{
		"namespace": s.Namespace, "name": Marker,
		"labels": map[string]any{"app.kubernetes.io/managed-by": "pratique"},
	}
	if s.Deployment != "" {
		deployment := &metav1.PartialObjectMetadata{}
		deployment.APIVersion, deployment.Kind = "apps/v1", "Deployment"
		// In an emergency it must not matter.
		if ownerErr = s.Client.Get(ctx, client.ObjectKey{Namespace: s.Namespace, Name: s.Deployment}, deployment); ownerErr == nil {
			metadata["ownerReferences"] = []any{map[string]any{
				"apiVersion": deployment.APIVersion, "kind": deployment.Kind, "name": deployment.Name, "uid": string(deployment.UID),
			}}
		}
	}
	marker := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}}
	err = s.Client.Apply(ctx, client.ApplyConfigurationFromUnstructured(marker), client.FieldOwner(owner), client.ForceOwnership)
	if err != nil {
		return ownerErr, fmt.Errorf("making ConfigMap %s/%s: %w", s.Namespace, Marker, err)
	}
	return ownerErr, remove(ctx, s.Client, s.Name)
}

// Gone waits until both configurations are gone, and stay so. It reports whether
// that came before ctx ended.
func (s Switch) Gone(ctx context.Context) (bool, error) {
	var since time.Time
	return s.await(ctx, func(there pair) (bool, error) {
		if there != (pair{}) {
			since = time.Time{}
			return false, remove(ctx, s.Client, s.Name)
		}
		if since.IsZero() {
			since = time.Now()
		}
		return time.Since(since) >= settled, nil
	})
}

// On takes the marker away: the elected replica arms as soon as one answers.
func (s Switch) On(ctx context.Context) error {
	marker := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: Marker}}
	if err := s.Client.Delete(ctx, marker); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("deleting ConfigMap %s/%s: %w", s.Namespace, Marker, err)
	}
	return nil
}

// Armed waits until both configurations are in force. It reports whether that
// came before ctx ended.
func (s Switch) Armed(ctx context.Context) (bool, error) {
	return s.await(ctx, func(there pair) (bool, error) { return there.state() == armed, nil })
}

func (s Switch) await(ctx context.Context, reached func(pair) (bool, error)) (bool, error) {
	ticker := time.NewTicker(switchEvery)
	defer ticker.Stop()
	for {
		there, err := read(ctx, s.Client, s.Name)
		done := false
		if err == nil {
			done, err = reached(there)
		}
		switch {
		case over(ctx):
			return false, nil
		case err != nil:
			return false, err
		case done:
			return true, nil
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// over reports whether ctx has ended, or is about to: a client that is out of
// time says so a little before, and in words of its own.
func over(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && !time.Now().Before(deadline)
}
