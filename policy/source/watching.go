// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// watching is one kind that is read for as long as it is served. It has a cache of
// its own, which goes with it.
type watching struct {
	gvk    schema.GroupVersionKind
	cache  cache.Cache
	cancel context.CancelFunc
	// before is the version that was read until now, for as long as this one is
	// not read.
	before *watching
	read   bool
	err    error // why it could not be read the last time, if so
}

// latest is what was read last, nil if nothing was.
func (w *watching) latest() *watching {
	for w != nil && !w.read {
		w = w.before
	}
	return w
}

// why is why it is not read.
func (w *watching) why() error {
	if w == nil || w.err == nil {
		return errUnread
	}
	return w.err
}

// stop ends it. What has read it last may still be in force.
func (w *watching) stop() {
	for ; w != nil; w = w.before {
		w.cancel()
	}
}

// watch begins to read a kind: the follower's own, or Secrets. The lock is held.
func (f *follower) watch(ctx context.Context, gvk schema.GroupVersionKind, resource string) (*watching, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{gvk: gvk, cancel: cancel}
	if err := f.open(ctx, w, resource); err != nil {
		cancel()
		return nil, fmt.Errorf("watching %s: %w", gvk.GroupKind(), err)
	}
	f.running.Go(func() { _ = w.cache.Start(ctx) }) // it ends with ctx, and then only
	f.running.Go(func() {
		if !w.cache.WaitForCacheSync(ctx) {
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		w.read, w.err = true, nil
		w.before.stop()
		w.before = nil
		f.tellRead()
		f.changed()
	})
	return w, nil
}

func (f *follower) open(ctx context.Context, w *watching, resource string) (err error) {
	// How the API server calls it was just told: it need not be asked again.
	mapper := meta.NewDefaultRESTMapper(nil)
	failed := f.api.failed
	options := cache.Options{
		HTTPClient: f.api.http, Mapper: mapper, DefaultTransform: cache.TransformStripManagedFields(),
		DefaultWatchErrorHandler: func(ctx context.Context, r *toolscache.Reflector, err error) {
			f.notRead(w, err)
			failed(ctx, r, err)
		},
	}
	var object client.Object
	scope, differ := meta.RESTScopeRoot, respecified
	if w.gvk.Group == corev1.GroupName {
		// Whoever needs one says why it is not there.
		failed = toolscache.DefaultWatchErrorHandler
		object, scope, differ = &corev1.Secret{}, meta.RESTScopeNamespace, rewritten
		if w.gvk.Kind == kindConfigMap {
			object = &corev1.ConfigMap{}
		}
		options.DefaultNamespaces = map[string]cache.Config{f.namespace: {}}
	} else {
		other := &unstructured.Unstructured{}
		other.SetGroupVersionKind(w.gvk)
		object = other
	}
	plural := w.gvk.GroupVersion().WithResource(resource)
	mapper.AddSpecific(w.gvk, plural, plural, scope)
	if w.cache, err = cache.New(f.api.config, options); err != nil {
		return fmt.Errorf("making a cache: %w", err)
	}
	informer, err := w.cache.GetInformer(ctx, object, cache.BlockUntilSynced(false))
	if err != nil {
		return err
	}
	changed := func() {
		f.mu.Lock()
		read := w.read
		f.mu.Unlock()
		if read { // before, what there is comes bit by bit
			f.changed()
		}
	}
	_, err = informer.AddEventHandler(handler(differ, changed))
	return err
}

// notRead notes why something cannot be read.
func (f *follower) notRead(w *watching, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !w.read {
		w.err = err
		f.tellRead()
		// Whoever needs a Secret from there can say more now.
		f.changed()
	}
}
