// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

func TestAskedUntil(t *testing.T) {
	t.Parallel()
	if until, ok := policy.AskedUntil(policy.KeepDeadline(t.Context())); ok {
		t.Errorf("without a deadline: %v", until)
	}
	near, far := time.Now().Add(time.Minute), time.Now().Add(time.Hour)
	bounded := func(ctx context.Context, by time.Time) context.Context {
		ctx, cancel := context.WithDeadline(ctx, by)
		t.Cleanup(cancel)
		return ctx
	}
	for name, c := range map[string]struct {
		ctx  context.Context
		want time.Time
	}{
		"its own":             {bounded(t.Context(), near), near},
		"kept":                {context.WithoutCancel(policy.KeepDeadline(bounded(t.Context(), near))), near},
		"kept before a far":   {bounded(context.WithoutCancel(policy.KeepDeadline(bounded(t.Context(), near))), far), near},
		"kept after a near":   {bounded(context.WithoutCancel(policy.KeepDeadline(bounded(t.Context(), far))), near), near},
		"kept twice":          {context.WithoutCancel(policy.KeepDeadline(bounded(policy.KeepDeadline(bounded(t.Context(), near)), far))), near},
		"kept, by the nearer": {policy.KeepDeadline(bounded(policy.KeepDeadline(bounded(t.Context(), far)), near)), near},
	} {
		if got, ok := policy.AskedUntil(c.ctx); !ok || !got.Equal(c.want) {
			t.Errorf("%s: %v, %t; want %v", name, got, ok, c.want)
		}
	}
}
