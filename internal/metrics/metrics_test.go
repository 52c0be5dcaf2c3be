// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/internal/metrics"
)

// TestRegistryRequest: whatever registries answer, the labels stay few.
func TestRegistryRequest(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := metrics.New(registry, func(host string) bool { return host == "known.example" })
	for status := range 1000 {
		m.RegistryRequest("known.example", status, time.Second)
	}
	m.RegistryRequest("stranger.example", 200, time.Second)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		if family.GetName() != "pratique_registry_requests_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range metric.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			got[labels["host"]+" "+labels["code"]] = metric.GetCounter().GetValue()
		}
	}
	want := map[string]float64{
		"known.example none": 1, "known.example 200": 1, "known.example 401": 1, "known.example 403": 1,
		"known.example 404": 1, "known.example 429": 1, "known.example 1xx": 100, "known.example 2xx": 99,
		"known.example 3xx": 100, "known.example 4xx": 96, "known.example 5xx": 100, "known.example other": 499,
		"other 200": 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestContainersPolicy: good at first, then as it is told.
func TestContainersPolicy(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	reloaded := metrics.New(registry, func(string) bool { return false }).ContainersPolicy()
	check := func(good, failed float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			if !strings.HasPrefix(family.GetName(), "pratique_containers_") {
				continue
			}
			for _, metric := range family.GetMetric() {
				got[family.GetName()] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
			}
		}
		want := map[string]float64{"pratique_containers_policy_good": good, "pratique_containers_policy_reload_errors_total": failed}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	check(1, 0)
	reloaded(errors.New("bad"))
	reloaded(errors.New("worse"))
	check(0, 2)
	reloaded(nil)
	check(1, 2)
}
