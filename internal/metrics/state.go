// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/policy/cache"
)

// Build registers which build this is.
func (m *Metrics) Build(version, revision, goVersion string) {
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "pratique_build_info",
		Help:        "Always 1; which build this is.",
		ConstLabels: prometheus.Labels{"version": version, "revision": revision, "goversion": goVersion},
	})
	m.registerer.MustRegister(build)
	build.Set(1)
}

// Ready reports whether reviews can be answered, whenever it is asked for.
func (m *Metrics) Ready(ready func() error) {
	m.registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pratique_ready",
		Help: "Whether reviews can be answered (1) or not (0): no rules are read yet, or there is no certificate.",
	}, func() float64 { return truth(ready() == nil) }))
}

// InFlight reports how many reviews are being answered, whenever it is asked for.
func (m *Metrics) InFlight(number func() int) {
	m.registerer.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "pratique_reviews_in_flight",
		Help: "AdmissionReviews that are being answered; beyond a fixed number they are refused.",
	}, func() float64 { return float64(number()) }))
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

// Rules reports how many rules there are, whenever it is asked for: tally is told
// of each, by its kind and whether it is ready. Kinds are few.
func (m *Metrics) Rules(each func(tally func(kind string, ready bool))) {
	m.registerer.MustRegister(&rules{
		each: each,
		description: prometheus.NewDesc("pratique_rules",
			"Rules in force, by the kind that they are from and whether they are ready; what one that is not ready selects is Inconclusive, or read without its pull secret.",
			[]string{"kind", "ready"}, nil),
	})
}

// rules collects how many there are.
type rules struct {
	each        func(tally func(kind string, ready bool))
	description *prometheus.Desc
}

// Describe implements [prometheus.Collector].
func (r *rules) Describe(into chan<- *prometheus.Desc) { into <- r.description }

// Collect implements [prometheus.Collector]. Of a kind that there is both numbers
// are told, so that one falls to zero before it is gone.
func (r *rules) Collect(into chan<- prometheus.Metric) {
	numbers := map[string]map[bool]int{}
	r.each(func(kind string, ready bool) {
		if numbers[kind] == nil {
			numbers[kind] = map[bool]int{true: 0, false: 0}
		}
		numbers[kind][ready]++
	})
	for kind, of := range numbers {
		for ready, number := range of {
			into <- prometheus.MustNewConstMetric(r.description, prometheus.GaugeValue, float64(number), kind, strconv.FormatBool(ready))
		}
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
