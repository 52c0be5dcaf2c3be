// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

// TestWatchFails: the log is told once that changes are found late, and again
// after a watch that did not fail.
func TestWatchFails(t *testing.T) {
	t.Parallel()
	var lines []string
	logging := logr.NewContext(t.Context(), funcr.New(func(_, line string) { lines = append(lines, line) }, funcr.Options{}))
	over, cancel := context.WithCancel(logging)
	cancel()
	var failure error
	c := interceptor.NewClient(fake.NewClientBuilder().Build(), interceptor.Funcs{
		Watch: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) (watch.Interface, error) {
			events := watch.NewFakeWithOptions(watch.FakeOptions{ChannelSize: 1})
			events.Modify(&corev1.Secret{})
			events.Stop()
			return events, failure
		},
	})
	changed := make(chan struct{}, 1)
	w := newWatched(corev1.SchemeGroupVersion.WithKind("SecretList"), "own", "certificates", changed)
	for i, step := range []struct {
		ctx   context.Context
		err   error
		lines int
	}{
		{over, errors.New("it ends"), 0},
		{logging, errors.New("no right to watch"), 1},
		{logging, errors.New("no right to watch"), 1},
		{logging, nil, 1},
		{logging, errors.New("no right to watch"), 2},
	} {
		failure = step.err
		w.follow(step.ctx, c)
		if len(lines) != step.lines {
			t.Errorf("%d: logged %q", i, lines)
		}
	}
	if text := strings.Join(lines, "\n"); !strings.Contains(text, `"error"="no right to watch" "kind"="Secret" "namespace"="own" "name"="certificates"`) {
		t.Errorf("logged %s", text)
	}
	if len(changed) != 1 {
		t.Error("nobody was told of the change")
	}
}
