// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/policy"
)

// Engine times what an engine does. It belongs behind the cache: what is held is
// not verified, and costs nothing more.
func (m *Metrics) Engine(next policy.Engine) policy.Engine {
	return timedEngine{next, m.stages[stageVerify]}
}

// Resolver times what a resolver does. It belongs behind the cache, too.
func (m *Metrics) Resolver(next policy.Resolver) policy.Resolver {
	return timedResolver{next, m.stages[stageResolve]}
}

type timedEngine struct {
	next policy.Engine
	took prometheus.Observer
}

// Verify implements [policy.Engine].
func (t timedEngine) Verify(ctx context.Context, rule *policy.Rule, image policy.Image) policy.Verdict {
	defer observe(t.took, time.Now())
	return t.next.Verify(ctx, rule, image)
}

type timedResolver struct {
	next policy.Resolver
	took prometheus.Observer
}

// Resolve implements [policy.Resolver].
func (t timedResolver) Resolve(ctx context.Context, image policy.Image) (policy.Resolution, error) {
	defer observe(t.took, time.Now())
	return t.next.Resolve(ctx, image)
}

func observe(took prometheus.Observer, since time.Time) { took.Observe(time.Since(since).Seconds()) }
