// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics counts for Prometheus. Every label takes its values from a
// list that no request can make longer.
package metrics

import (
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/reference"
)

// otherHost stands for every host that no rule names.
const otherHost = "other"

// Metrics counts. Make it with [New].
type Metrics struct {
	reviews    *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	verdicts   *prometheus.CounterVec
	cache      *prometheus.CounterVec
	registry   *prometheus.CounterVec
	knowsHost  func(string) bool
	registerer prometheus.Registerer
}

// New registers the metrics. knowsHost says which registries are named by
// rules; all others are counted as one.
func New(registerer prometheus.Registerer, knowsHost func(host string) bool) *Metrics {
	m := &Metrics{
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_reviews_total",
			Help: "AdmissionReviews answered, by pass (mutate, validate) and whether they were allowed.",
		}, []string{"pass", "allowed"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "pratique_review_duration_seconds",
			Help: "Time from an AdmissionReview to its answer, by pass.",
			// From a cached verdict to the longest that the API server waits.
			Buckets: []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30},
		}, []string{"pass"}),
		verdicts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_verdicts_total",
			Help: "Verdicts about images, by engine (empty for the server's own), mode, outcome and reason.",
		}, []string{"engine", "mode", "outcome", "reason"}),
		cache: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_cache_events_total",
			Help: "What happened to questions at a cache (verdicts, tags): hit, miss, shared, stale, evicted.",
		}, []string{"cache", "event"}),
		registry: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_registry_requests_total",
			Help: "Requests sent to registries, by host (other: named by no rule) and status or its class (none: no answer).",
		}, []string{"host", "code"}),
		knowsHost:  knowsHost,
		registerer: registerer,
	}
	registerer.MustRegister(m.reviews, m.duration, m.verdicts, m.cache, m.registry)
	return m
}

// Reviewed counts an answered AdmissionReview.
func (m *Metrics) Reviewed(pass string, allowed bool, elapsed time.Duration) {
	m.reviews.WithLabelValues(pass, strconv.FormatBool(allowed)).Inc()
	m.duration.WithLabelValues(pass).Observe(elapsed.Seconds())
}

// Found counts a verdict.
func (m *Metrics) Found(f policy.Finding) {
	engine := ""
	if f.Rule != nil && f.Rule.Verification != nil {
		engine = f.Rule.Verification.Engine
	}
	m.verdicts.WithLabelValues(engine, string(f.Mode), f.Verdict.Outcome.String(), string(f.Verdict.Reason)).Inc()
}

// CacheEvent counts what happened at a cache.
func (m *Metrics) CacheEvent(name string, event cache.Event) {
	m.cache.WithLabelValues(name, string(event)).Inc()
}

// RegistryRequest counts a request to a registry.
func (m *Metrics) RegistryRequest(host string, status int) {
	host = reference.CanonicalHost(host)
	if !m.knowsHost(host) {
		host = otherHost
	}
	m.registry.WithLabelValues(host, codeOf(status)).Inc()
}

// codeOf is the label of a status. A registry may send any number: only those
// that tell something of their own have a label of their own.
func codeOf(status int) string {
	switch {
	case status == 0:
		return "none"
	case slices.Contains([]int{200, 401, 403, 404, 429}, status):
		return strconv.Itoa(status)
	case status >= 100 && status < 600:
		return strconv.Itoa(status/100) + "xx"
	default:
		return "other"
	}
}

// ContainersPolicy registers what is told of the files of a policy.json. The
// function that it returns is told of each that cannot be put in force, and with
// nil when what is there can again.
func (m *Metrics) ContainersPolicy() (reloaded func(err error)) {
	failed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pratique_containers_policy_reload_errors_total",
		Help: "Changes of policy.json or registries.d that could not be put in force.",
	})
	good := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "pratique_containers_policy_good",
		Help: "Whether policy.json and registries.d, as they are in their files now, are in force (1) or an earlier state is (0).",
	})
	m.registerer.MustRegister(failed, good)
	good.Set(1) // what is bad at the start ends the process
	return func(err error) {
		if err == nil {
			good.Set(1)
			return
		}
		good.Set(0)
		failed.Inc()
	}
}

// Sizes reports the sizes of caches whenever they are asked for.
func (m *Metrics) Sizes(sizes func() map[string]int) {
	for _, name := range []string{cache.NameVerdicts, cache.NameTags} {
		m.registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "pratique_cache_entries",
			Help:        "Entries that a cache holds.",
			ConstLabels: prometheus.Labels{"cache": name},
		}, func() float64 { return float64(sizes()[name]) }))
	}
}

// Certificates reports when certificates end, whenever they are asked for; zero
// are those that there are not.
func (m *Metrics) Certificates(ends func() (leaf, authority time.Time)) {
	m.registerer.MustRegister(&expiry{
		ends: ends,
		description: prometheus.NewDesc("pratique_certificate_expiry_timestamp_seconds",
			"When the certificate that the webhook serves with (leaf), or the authority that signed it (ca), ends, in seconds since 1970.",
			[]string{"what"}, nil),
	})
}

// expiry collects the ends of certificates.
type expiry struct {
	ends        func() (leaf, authority time.Time)
	description *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (e *expiry) Describe(into chan<- *prometheus.Desc) { into <- e.description }

// Collect implements [prometheus.Collector].
func (e *expiry) Collect(into chan<- prometheus.Metric) {
	leaf, authority := e.ends()
	for what, end := range map[string]time.Time{"leaf": leaf, "ca": authority} {
		if !end.IsZero() {
			into <- prometheus.MustNewConstMetric(e.description, prometheus.GaugeValue, float64(end.Unix()), what)
		}
	}
}

// Armed returns what is told whether the API server is made to ask. Only the
// replica that leads knows, and has the gauge.
func (m *Metrics) Armed() func(leads, armed bool) {
	gauge := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "pratique_webhooks_armed",
		Help: "Whether the webhook configurations are in force (1) or not (0); of the replica that keeps them alone.",
	}, nil)
	m.registerer.MustRegister(gauge)
	return func(leads, armed bool) {
		if !leads {
			gauge.DeleteLabelValues()
			return
		}
		value := 0.0
		if armed {
			value = 1
		}
		gauge.WithLabelValues().Set(value)
	}
}
