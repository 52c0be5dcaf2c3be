// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/internal/metrics"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
)

// values gathers what begins with one of the names: its value, or how many
// observations it has.
func values(t *testing.T, registry *prometheus.Registry, names ...string) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, name := range names {
			if !strings.HasPrefix(family.GetName(), name) {
				continue
			}
			for _, metric := range family.GetMetric() {
				key := family.GetName()
				for _, label := range metric.GetLabel() {
					key += fmt.Sprintf(" %s=%s", label.GetName(), label.GetValue())
				}
				got[key] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
			}
		}
	}
	return got
}

func newMetrics() (*prometheus.Registry, *metrics.Metrics) {
	registry := prometheus.NewRegistry()
	return registry, metrics.New(registry, func(string) bool { return false })
}

func want(t *testing.T, got, want map[string]float64) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestReviews: answers and refusals are counted by pass, and timed.
func TestReviews(t *testing.T) {
	t.Parallel()
	registry, m := newMetrics()
	m.Reviewed("validate", true, time.Millisecond, time.Second)
	m.Reviewed("validate", false, time.Millisecond, time.Second)
	m.Reviewed("mutate", true, time.Millisecond, time.Second)
	m.Reviewed("validate-imageconfig", false, time.Millisecond, time.Second)
	m.Refused("mutate", 400)
	want(t, values(t, registry, "pratique_review", "pratique_refused", "pratique_stage"), map[string]float64{
		"pratique_reviews_total allowed=true pass=validate": 1, "pratique_reviews_total allowed=false pass=validate": 1,
		"pratique_reviews_total allowed=true pass=mutate": 1, "pratique_reviews_total allowed=false pass=mutate": 0,
		"pratique_review_duration_seconds pass=mutate": 1, "pratique_review_duration_seconds pass=validate": 2,
		"pratique_refused_reviews_total code=400 pass=mutate": 1, "pratique_refused_reviews_total code=503 pass=mutate": 0,
		"pratique_refused_reviews_total code=503 pass=validate":         0,
		"pratique_reviews_total allowed=true pass=validate-imageconfig": 0, "pratique_reviews_total allowed=false pass=validate-imageconfig": 1,
		"pratique_review_duration_seconds pass=validate-imageconfig": 1, "pratique_refused_reviews_total code=503 pass=validate-imageconfig": 0,
		"pratique_stage_duration_seconds stage=read": 4, "pratique_stage_duration_seconds stage=resolve": 0,
		"pratique_stage_duration_seconds stage=verify": 0,
	})
}

// TestWarmAllocatesNothing: what a review that is answered from the cache has
// counted.
func TestWarmAllocatesNothing(t *testing.T) { //nolint:paralleltest // others' allocations would count
	_, m := newMetrics()
	found := policy.Finding{
		Rule: &policy.Rule{Verification: &policy.Verification{Engine: "Cosign"}}, Mode: policy.Enforce,
		Verdict: policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonVerified},
	}
	if n := testing.AllocsPerRun(100, func() {
		m.Reviewed("validate", true, time.Millisecond, time.Second)
		m.Found(found)
		m.CacheEvent(cache.NameVerdicts, cache.Hit)
	}); n != 0 {
		t.Errorf("%g allocations", n)
	}
}

func BenchmarkWarm(b *testing.B) {
	_, m := newMetrics()
	b.ReportAllocs()
	for b.Loop() {
		m.Reviewed("validate", true, time.Millisecond, time.Second)
	}
}

// behind is an engine and a resolver.
type behind struct{}

func (behind) Verify(context.Context, *policy.Rule, policy.Image) policy.Verdict {
	return policy.Refused(policy.ReasonNoSignature, "none")
}

func (behind) Resolve(context.Context, policy.Image) (policy.Resolution, error) {
	return policy.Resolution{Digest: "d"}, errors.New("and an error")
}

// TestStages: what is timed answers as it did.
func TestStages(t *testing.T) {
	t.Parallel()
	registry, m := newMetrics()
	if v := m.Engine(behind{}).Verify(t.Context(), nil, policy.Image{}); v.Reason != policy.ReasonNoSignature {
		t.Errorf("%+v", v)
	}
	for range 2 {
		if r, err := m.Resolver(behind{}).Resolve(t.Context(), policy.Image{}); r.Digest != "d" || err == nil {
			t.Errorf("%+v, %v", r, err)
		}
	}
	want(t, values(t, registry, "pratique_stage"), map[string]float64{
		"pratique_stage_duration_seconds stage=read": 0, "pratique_stage_duration_seconds stage=resolve": 2,
		"pratique_stage_duration_seconds stage=verify": 1,
	})
}

// TestState: what is asked for is as it is then.
func TestState(t *testing.T) {
	t.Parallel()
	registry, m := newMetrics()
	state, inFlight := errors.New("not yet"), 3
	ready := []bool{true, false, true}
	m.Ready(func() error { return state })
	m.InFlight(func() int { return inFlight })
	m.Build("v1", "abc", "go1")
	m.Rules(func(tally func(string, bool)) {
		for _, is := range ready {
			tally("ImageConfig", is)
		}
	})
	names := []string{"pratique_ready", "pratique_reviews_in", "pratique_build", "pratique_rules"}
	build := "pratique_build_info goversion=go1 revision=abc version=v1"
	want(t, values(t, registry, names...), map[string]float64{
		"pratique_ready": 0, "pratique_reviews_in_flight": 3, build: 1,
		"pratique_rules kind=ImageConfig ready=true": 2, "pratique_rules kind=ImageConfig ready=false": 1,
	})
	state, inFlight, ready = nil, 0, ready[:1]
	want(t, values(t, registry, names...), map[string]float64{
		"pratique_ready": 1, "pratique_reviews_in_flight": 0, build: 1,
		"pratique_rules kind=ImageConfig ready=true": 1, "pratique_rules kind=ImageConfig ready=false": 0,
	})
}
