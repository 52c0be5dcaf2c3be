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
	passes     map[string]pass // read only
	refused    *prometheus.CounterVec
	verdicts   *prometheus.CounterVec
	cache      *prometheus.CounterVec
	registry   *prometheus.CounterVec
	latency    *prometheus.HistogramVec
	stages     map[string]prometheus.Observer // read only
	knowsHost  func(string) bool
	registerer prometheus.Registerer
}

// pass is what counts one pass of admission. It is looked up once for all: a
// review that is answered from the cache is done in a tenth of a millisecond.
type pass struct {
	allowed, denied prometheus.Counter
	whole           prometheus.Observer
}

// The stages that are timed on their own.
const (
	stageRead    = "read"    // the AdmissionReview, from the network
	stageResolve = "resolve" // a tag, where the cache did not know it
	stageVerify  = "verify"  // an image by a rule, where the cache did not know
)

// overloaded is the status that says that there are too many reviews at once.
const overloaded = "503"

// buckets of times, in seconds: from a cached verdict to the longest that the API
// server waits.
func buckets() []float64 { return []float64{.0001, .0005, .001, .005, .01, .05, .1, .5, 1, 5, 10, 30} }

// New registers the metrics. knowsHost says which registries are named by
// rules; all others are counted as one.
func New(registerer prometheus.Registerer, knowsHost func(host string) bool) *Metrics {
	m := &Metrics{
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "pratique_refused_reviews_total",
			Help: "Requests that got an HTTP error in place of an answer, by pass and status: 503 is too many at once.",
		}, []string{"pass", "code"}),
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
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "pratique_registry_request_duration_seconds",
			Help:    "Time until the header of a registry's answer was there, or none was to come, by host (other: named by no rule).",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"host"}),
		knowsHost:  knowsHost,
		registerer: registerer,
	}
	registerer.MustRegister(m.refused, m.verdicts, m.cache, m.registry, m.latency)
	m.timed()
	// A counter that appears with its first event shows no increase by it.
	for _, event := range []cache.Event{cache.Hit, cache.Miss, cache.Shared, cache.Evicted} {
		m.cache.WithLabelValues(cache.NameVerdicts, string(event))
		m.cache.WithLabelValues(cache.NameTags, string(event))
	}
	m.cache.WithLabelValues(cache.NameTags, string(cache.Stale))
	return m
}

// timed registers what counts and times the passes and the stages.
func (m *Metrics) timed() {
	reviews := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "pratique_reviews_total",
		Help: "AdmissionReviews answered, by pass (mutate, validate, validate-imageconfig) and whether they were allowed.",
	}, []string{"pass", "allowed"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pratique_review_duration_seconds", Buckets: buckets(),
		Help: "Time from an AdmissionReview to its answer, by pass.",
	}, []string{"pass"})
	stages := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "pratique_stage_duration_seconds", Buckets: buckets(),
		Help: "Time that stages of answering took: read the AdmissionReview; resolve a tag and verify an image, where the cache did not know.",
	}, []string{"stage"})
	m.registerer.MustRegister(reviews, duration, stages)
	m.passes, m.stages = map[string]pass{}, map[string]prometheus.Observer{}
	for _, name := range []string{"mutate", "validate", "validate-imageconfig"} {
		m.passes[name] = pass{
			allowed: reviews.WithLabelValues(name, "true"), denied: reviews.WithLabelValues(name, "false"),
			whole: duration.WithLabelValues(name),
		}
		m.refused.WithLabelValues(name, overloaded)
	}
	for _, name := range []string{stageRead, stageResolve, stageVerify} {
		m.stages[name] = stages.WithLabelValues(name)
	}
}

// Reviewed counts an answered AdmissionReview, by one of the passes. It
// allocates nothing.
func (m *Metrics) Reviewed(name string, allowed bool, reading, whole time.Duration) {
	pass := m.passes[name]
	if allowed {
		pass.allowed.Inc()
	} else {
		pass.denied.Inc()
	}
	pass.whole.Observe(whole.Seconds())
	m.stages[stageRead].Observe(reading.Seconds())
}

// Refused counts a request that got an HTTP error, with one of the few that the
// webhook answers.
func (m *Metrics) Refused(pass string, status int) {
	m.refused.WithLabelValues(pass, strconv.Itoa(status)).Inc()
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
func (m *Metrics) RegistryRequest(host string, status int, took time.Duration) {
	host = reference.CanonicalHost(host)
	if !m.knowsHost(host) {
		host = otherHost
	}
	m.registry.WithLabelValues(host, codeOf(status)).Inc()
	m.latency.WithLabelValues(host).Observe(took.Seconds())
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
