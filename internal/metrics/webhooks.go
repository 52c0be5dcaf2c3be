// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

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
		gauge.WithLabelValues().Set(truth(armed))
	}
}
