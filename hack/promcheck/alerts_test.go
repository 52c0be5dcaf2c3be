// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package promcheck

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/rules"
)

const alertsFile = "../../deploy/alerts/pratique.yaml"

// alerts reads the file as Prometheus does.
func alerts(t *testing.T) []rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile(alertsFile, false, model.LegacyValidation)
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	var all []rulefmt.Rule
	for _, group := range groups.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

// TestAlerts: each says how bad it is and what to do, and goes by what there is.
func TestAlerts(t *testing.T) {
	t.Parallel()
	c := checker{metrics: documented(t), seen: map[string]bool{}}
	names := map[string]bool{}
	for _, rule := range alerts(t) {
		if names[rule.Alert] || !strings.HasPrefix(rule.Alert, "Pratique") {
			t.Errorf("%q is no name, or there twice", rule.Alert)
		}
		names[rule.Alert] = true
		if !slices.Contains([]string{"critical", "warning", "info"}, rule.Labels["severity"]) || rule.For == 0 {
			t.Errorf("%s: severity %q, for %s", rule.Alert, rule.Labels["severity"], rule.For)
		}
		if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s says too little: %v", rule.Alert, rule.Annotations)
		}
		for _, problem := range c.check(rule.Expr) {
			t.Errorf("%s: %s", rule.Alert, problem)
		}
	}
}

// healthy are the series of two replicas that have been well for half a day, by
// the names in which scenarios change them. 0+6x… is six more each minute.
var healthy = map[string]string{
	"build":      `pratique_build_info{instance="a",version="v1"} 1x720`,
	"build b":    `pratique_build_info{instance="b",version="v1"} 1x720`,
	"ready":      `pratique_ready{instance="a"} 1x720`,
	"ready b":    `pratique_ready{instance="b"} 1x720`,
	"armed":      `pratique_webhooks_armed{instance="a"} 1x720`,
	"leaf":       `pratique_certificate_expiry_timestamp_seconds{instance="a",what="leaf"} 1728000x720`, // 20 days
	"ca":         `pratique_certificate_expiry_timestamp_seconds{instance="a",what="ca"} 31536000x720`,
	"fast":       `pratique_review_duration_seconds_bucket{instance="a",pass="validate",le="1"} 0+6000x720`,
	"all":        `pratique_review_duration_seconds_bucket{instance="a",pass="validate",le="5"} 0+6010x720`,
	"inf":        `pratique_review_duration_seconds_bucket{instance="a",pass="validate",le="+Inf"} 0+6010x720`,
	"refused":    `pratique_refused_reviews_total{instance="a",pass="validate",code="503"} 0x720`,
	"malformed":  `pratique_refused_reviews_total{instance="a",pass="validate",code="400"} 0+6x720`,
	"handshakes": `pratique_refused_connections_total{instance="a"} 0+1x720`,
	"accepted":   `pratique_verdicts_total{instance="a",engine="Cosign",mode="Enforce",outcome="Accepted",reason="Verified"} 0+6000x720`,
	"undecided":  `pratique_verdicts_total{instance="a",engine="Cosign",mode="Enforce",outcome="Inconclusive",reason="Unreachable"} 0+60x720`,
	"answered":   `pratique_registry_requests_total{instance="a",host="r.io",code="200"} 0+600x720`,
	"errors":     `pratique_registry_requests_total{instance="a",host="r.io",code="5xx"} 0+6x720`,
	"login":      `pratique_registry_requests_total{instance="a",host="r.io",code="401"} 0+600x720`,
	"policy":     `pratique_containers_policy_good{instance="a"} 1x720`,
	"rules":      `pratique_rules{instance="a",kind="ImageConfig",ready="true"} 100x720`,
	"unready":    `pratique_rules{instance="a",kind="ImageConfig",ready="false"} 0x720`,
	"evicted":    `pratique_cache_events_total{instance="a",cache="verdicts",event="evicted"} 0x720`,
	"hits":       `pratique_cache_events_total{instance="a",cache="verdicts",event="hit"} 0+600x720`,
}

// TestAlertsFire: in each scenario those fire that should, and no others. What is
// changed to the empty text is not there.
func TestAlertsFire(t *testing.T) {
	t.Parallel()
	fired := map[string]bool{}
	const hours12 = 12 * time.Hour
	for name, c := range map[string]struct {
		changes map[string]string
		after   time.Duration // 12 h if 0
		want    string
	}{
		"healthy": {},
		"nothing is scraped": {
			changes: maps.Collect(func(yield func(string, string) bool) {
				for name := range healthy {
					if !yield(name, "") {
						return
					}
				}
			}), want: "PratiqueAbsent",
		},
		"one replica is gone":        {changes: map[string]string{"build b": "", "ready b": ""}},
		"one is not ready":           {changes: map[string]string{"ready b": `pratique_ready{instance="b"} 0x720`}, want: "PratiqueNotReady b"},
		"one is not ready for now":   {changes: map[string]string{"ready b": `pratique_ready{instance="b"} 0x720`}, after: 9 * time.Minute},
		"none is ready":              {changes: map[string]string{"ready": `pratique_ready{instance="a"} 0x720`, "ready b": ""}, want: "PratiqueDown, PratiqueNotReady a"},
		"not armed":                  {changes: map[string]string{"armed": `pratique_webhooks_armed{instance="a"} 0x720`}, want: "PratiqueNotArmed"},
		"the leader changes":         {changes: map[string]string{"armed": `pratique_webhooks_armed{instance="a"} 1x100 _x620`, "more": `pratique_webhooks_armed{instance="b"} _x100 1x620`}},
		"arming is not kept":         {changes: map[string]string{"armed": ""}},
		"the leaf ends in six days":  {changes: map[string]string{"leaf": `pratique_certificate_expiry_timestamp_seconds{instance="a",what="leaf"} 561600x720`}, want: "PratiqueCertificateExpiring a"},
		"the leaf ends in eight":     {changes: map[string]string{"leaf": `pratique_certificate_expiry_timestamp_seconds{instance="a",what="leaf"} 734400x720`}},
		"the leaf is replaced":       {changes: map[string]string{"leaf": `pratique_certificate_expiry_timestamp_seconds{instance="a",what="leaf"} 561600x30 2592000x690`}},
		"the authority ends in 59 d": {changes: map[string]string{"ca": `pratique_certificate_expiry_timestamp_seconds{instance="a",what="ca"} 5140800x720`}, want: "PratiqueAuthorityExpiring a"},
		"two in a hundred are slow":  {changes: map[string]string{"fast": `pratique_review_duration_seconds_bucket{instance="a",pass="validate",le="1"} 0+5880x720`}, want: "PratiqueSlow validate"},
		"refuses a few":              {changes: map[string]string{"refused": `pratique_refused_reviews_total{instance="a",pass="validate",code="503"} 0+1x720`}, want: "PratiqueOverloaded"},
		"handshakes fail":            {changes: map[string]string{"handshakes": `pratique_refused_connections_total{instance="a"} 0+60x720`}, want: "PratiqueHandshakesFail"},
		"one in ten is undecided":    {changes: map[string]string{"undecided": `pratique_verdicts_total{instance="a",engine="",mode="Enforce",outcome="Inconclusive",reason="Internal"} 0+660x720`}, want: "PratiqueInconclusive"},
		"nobody asks":                {changes: map[string]string{"accepted": `pratique_verdicts_total{instance="a",outcome="Accepted"} 5x720`, "undecided": `pratique_verdicts_total{instance="a",outcome="Inconclusive"} 5x720`}},
		"a registry is away":         {changes: map[string]string{"errors": `pratique_registry_requests_total{instance="a",host="r.io",code="none"} 0+600x720`}, want: "PratiqueRegistryErrors r.io"},
		"a registry limits": {changes: map[string]string{
			"errors": `pratique_registry_requests_total{instance="a",host="other",code="429"} 0+600x720`,
			"more":   `pratique_registry_requests_total{instance="a",host="other",code="200"} 0+600x720`,
		}, want: "PratiqueRegistryErrors other"},
		"a mistake in policy.json": {changes: map[string]string{"policy": `pratique_containers_policy_good{instance="a"} 0x720`}, want: "PratiquePolicyReloadFailed a"},
		"a rule is not ready":      {changes: map[string]string{"unready": `pratique_rules{instance="a",kind="ImageConfig",ready="false"} 1x720`}, want: "PratiqueRuleNotReady ImageConfig"},
		"a rule was not ready":     {changes: map[string]string{"unready": `pratique_rules{instance="a",kind="ImageConfig",ready="false"} 1x10 0x710`}},
		"the cache is too small":   {changes: map[string]string{"evicted": `pratique_cache_events_total{instance="a",cache="tags",event="evicted"} 0+6x720`}, want: "PratiqueCacheEvicts tags"},
		"the cache was too small":  {changes: map[string]string{"evicted": `pratique_cache_events_total{instance="a",cache="tags",event="evicted"} 0+6x30 180x690`}},
	} {
		if c.after == 0 {
			c.after = hours12
		}
		series := maps.Clone(healthy)
		maps.Copy(series, c.changes)
		got := firing(t, series, c.after)
		if strings.Join(got, ", ") != c.want {
			t.Errorf("%s: %q fire, want %q", name, got, c.want)
		}
		for _, one := range got {
			one, _, _ = strings.Cut(one, " ")
			fired[one] = true
		}
	}
	for _, rule := range alerts(t) {
		if !fired[rule.Alert] {
			t.Errorf("%s fires in no scenario", rule.Alert)
		}
	}
}

// named are the labels that annotations name.
var named = regexp.MustCompile(`\$labels\.([a-z_]+)`)

// firing names the alerts that fire at a time, each with its label, if it has one.
func firing(t *testing.T, series map[string]string, after time.Duration) []string {
	t.Helper()
	load := "load 1m\n"
	for _, one := range series {
		if one != "" {
			load += "  " + one + "\n"
		}
	}
	stored := promqltest.LoadedStorage(t, load)
	query := rules.EngineQueryFunc(promqltest.NewTestEngine(t, false, 0, promqltest.DefaultMaxSamplesPerQuery), stored)
	var names []string
	for _, rule := range alerts(t) {
		expression, err := parser.ParseExpr(rule.Expr)
		if err != nil {
			t.Fatal(err)
		}
		alerting := rules.NewAlertingRule(rule.Alert, expression, time.Duration(rule.For), time.Duration(rule.KeepFiringFor),
			labels.FromMap(rule.Labels), labels.FromMap(rule.Annotations), labels.EmptyLabels(), "", true, promslog.NewNopLogger())
		for at := time.Duration(0); at <= after; at += time.Minute {
			if _, err := alerting.Eval(t.Context(), 0, time.Unix(0, 0).Add(at), query, nil, 0); err != nil {
				t.Fatalf("%s: %v", rule.Alert, err)
			}
		}
		for _, alert := range alerting.ActiveAlerts() {
			if alert.State != rules.StateFiring {
				continue
			}
			name := rule.Alert
			alert.Labels.Range(func(l labels.Label) {
				if l.Name != labels.AlertName && l.Name != "severity" && l.Name != "what" {
					name += " " + l.Value
				}
			})
			names = append(names, name)
			if text := fmt.Sprint(alert.Annotations); strings.Contains(text, "<error") {
				t.Errorf("%s says %s", name, text)
			}
			// A template is silent about a label that there is not.
			for _, named := range named.FindAllStringSubmatch(fmt.Sprint(rule.Annotations), -1) {
				if !alert.Labels.Has(named[1]) {
					t.Errorf("%s has no label %s", name, named[1])
				}
			}
		}
	}
	slices.Sort(names)
	return names
}
