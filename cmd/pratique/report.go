// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/pratique-dev/pratique/internal/version"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
)

// report has the metrics tell how the server is.
func (p *parts) report(inFlight func() int) {
	build := version.Get()
	p.metrics.Build(build.Version, build.Revision, build.Go)
	p.metrics.Ready(p.rules.ready)
	p.metrics.InFlight(inFlight)
	p.metrics.Rules(p.rules.each)
}

// each tells of every rule, by its kind and whether it is ready.
func (r rules) each(tell func(kind string, ready bool)) {
	for _, compiled := range r.compiled() {
		tell(compiled.Rule.Kind, compiled.Ready)
	}
	set := r.Set()
	if set == nil {
		return
	}
	// Those of a policy.json are not compiled: they come beside.
	for _, rule := range set.Rules() {
		if rule.Kind == containers.Kind {
			fixed := rule.Verification.Fixed
			tell(rule.Kind, fixed == nil || fixed.Reason != policy.ReasonNotReady)
		}
	}
}
