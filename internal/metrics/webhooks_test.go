// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/internal/metrics"
)

// TestWebhooks: what is not known is not exported.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := metrics.New(registry, func(string) bool { return false })
	var leaf, authority time.Time
	m.Certificates(func() (time.Time, time.Time) { return leaf, authority })
	armed := m.Armed()
	want := func(want map[string]float64) {
		t.Helper()
		families, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			if !slices.Contains([]string{"pratique_certificate_expiry_timestamp_seconds", "pratique_webhooks_armed"}, family.GetName()) {
				continue
			}
			for _, metric := range family.GetMetric() {
				name := family.GetName()
				for _, label := range metric.GetLabel() {
					name += " " + label.GetName() + "=" + label.GetValue()
				}
				got[name] = metric.GetGauge().GetValue()
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	want(map[string]float64{})
	leaf = time.Unix(1000, 0)
	armed(true, false)
	want(map[string]float64{"pratique_certificate_expiry_timestamp_seconds what=leaf": 1000, "pratique_webhooks_armed": 0})
	authority = time.Unix(2000, 0)
	armed(true, true)
	want(map[string]float64{
		"pratique_certificate_expiry_timestamp_seconds what=leaf": 1000, "pratique_certificate_expiry_timestamp_seconds what=ca": 2000,
		"pratique_webhooks_armed": 1,
	})
	armed(false, false)
	leaf, authority = time.Time{}, time.Time{}
	want(map[string]float64{})
}
