// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pratique-dev/pratique/internal/arming"
	"github.com/pratique-dev/pratique/internal/certificate"
	"github.com/pratique-dev/pratique/policy/source"
)

// hooks keep what leads the API server to this webhook. Nil keeps nothing.
type hooks struct {
	client    client.WithWatch
	namespace string
	keeper    *certificate.Keeper // nil with --cert-dir
	armer     *arming.Armer
	watched   []*watched
}

// watched is one object, and whom a change of it concerns.
type watched struct {
	kind            schema.GroupVersionKind
	namespace, name string
	tell            []chan<- struct{}
	failed          bool // and the log was told so, once
}

func newWatched(kind schema.GroupVersionKind, namespace, name string, tell ...chan<- struct{}) *watched {
	return &watched{kind: kind, namespace: namespace, name: name, tell: tell}
}

// newHooks makes what keeps the webhook configurations, and the certificate if
// it is to be made here.
func newHooks(config *rest.Config, cluster *source.Cluster, leads func() bool, s settings) (*hooks, error) {
	if s.hooks == nil {
		return nil, nil //nolint:nilnil // its methods take nil for that
	}
	// Not from a cache: what is written depends on what was read.
	direct, err := client.NewWithWatch(config, client.Options{})
	if err != nil {
		return nil, fmt.Errorf("making a client for webhook configurations: %w", err)
	}
	h := &hooks{client: direct, namespace: s.namespace}
	forArmer, forKeeper := make(chan struct{}, 1), make(chan struct{}, 1)
	bundle := s.hooks.bundleFile
	if s.hooks.certSecret != "" {
		h.keeper = certificate.New(certificate.Options{
			Client: direct, Namespace: s.namespace, Name: s.hooks.certSecret, Hosts: s.hooks.hosts(s.namespace), Times: s.hooks.times(),
			Leads: leads, Changed: forKeeper, Now: time.Now,
			// The two need each other: who trusts must know before who signs.
			Carried: func(c *x509.Certificate) time.Time { return h.armer.Carried(c) },
		})
		bundle = h.keeper.Bundle
		s.metrics.Certificates(h.keeper.Ends)
		h.watched = append(h.watched, newWatched(corev1.SchemeGroupVersion.WithKind("SecretList"), s.namespace, s.hooks.certSecret, forKeeper, forArmer))
	}
	h.armer = arming.New(arming.Options{
		Client: direct, Name: s.hooks.name, Namespace: s.namespace, Owner: s.hooks.owner,
		Wanted: s.hooks.wanted(s.namespace), Bundle: bundle, Injected: s.hooks.injected(),
		Spare: func() (spare, known bool) {
			set := cluster.Set()
			return set != nil && !set.ReadsObjectsAnywhere(), set != nil
		},
		Answers: s.hooks.probe(s.namespace).Answers, Leads: leads, Changed: forArmer, Report: s.metrics.Armed(),
	})
	const group = "admissionregistration.k8s.io"
	for _, kind := range []string{"MutatingWebhookConfigurationList", "ValidatingWebhookConfigurationList"} {
		h.watched = append(h.watched, newWatched(schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind}, "", s.hooks.name, forArmer))
	}
	h.watched = append(h.watched, newWatched(corev1.SchemeGroupVersion.WithKind("ConfigMapList"), s.namespace, arming.Marker, forArmer))
	return h, nil
}

// start has everything kept until ctx ends.
func (h *hooks) start(ctx context.Context, group *errgroup.Group) {
	if h == nil {
		return
	}
	if h.keeper != nil {
		group.Go(func() error { return h.keeper.Run(ctx) })
	}
	group.Go(func() error { return h.armer.Run(ctx) })
	for _, w := range h.watched {
		group.Go(func() error {
			w.run(ctx, h.client)
			return nil
		})
	}
}

// ready reports also why there is no certificate to serve with.
func (h *hooks) ready(rules func() error) func() error {
	if h == nil || h.keeper == nil {
		return rules
	}
	return func() error { return errors.Join(rules(), h.keeper.Ready()) }
}

// certificate is what is served with; nil if that is in a folder.
func (h *hooks) certificate() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if h == nil || h.keeper == nil {
		return nil
	}
	return h.keeper.Certificate
}

// watchAgain is when a watch that ended is begun again: API servers end each
// after an hour at most. What changes meanwhile is found by who looks at the
// objects from time to time.
const watchAgain = time.Second

// run tells of changes until ctx ends.
func (w *watched) run(ctx context.Context, c client.WithWatch) {
	for ctx.Err() == nil {
		w.follow(ctx, c)
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// follow tells of changes until the watch ends. One by a name needs no right to
// see others of the kind.
func (w *watched) follow(ctx context.Context, c client.WithWatch) {
	list := &metav1.PartialObjectMetadataList{}
	list.SetGroupVersionKind(w.kind)
	watch, err := c.Watch(ctx, list, client.InNamespace(w.namespace), client.MatchingFields{"metadata.name": w.name})
	if err != nil {
		if !w.failed && ctx.Err() == nil {
			logr.FromContextOrDiscard(ctx).Error(err, "cannot watch: changes are found late, by looking from time to time",
				"kind", strings.TrimSuffix(w.kind.Kind, "List"), "namespace", w.namespace, "name", w.name)
			w.failed = true
		}
		return
	}
	defer watch.Stop()
	w.failed = false
	for range watch.ResultChan() {
		for _, to := range w.tell {
			select {
			case to <- struct{}{}:
			default: // one is on its way already
			}
		}
	}
}
