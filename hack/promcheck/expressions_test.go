// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package promcheck

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/promql/parser"
)

// metric is what docs/metrics.md says of one. Of a label without values these are
// not listed there.
type metric struct {
	kind   string
	labels map[string][]string
}

// documented reads the tables of docs/metrics.md, as TestMetricsAreDocumented in
// cmd/pratique does.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| (.*?) ?\\| .+ \\|$")
	label := regexp.MustCompile("`([a-z]+)`(?: \\((`[^)]*`)\\))?")
	found := map[string]metric{}
	for _, match := range row.FindAllStringSubmatch(string(page), -1) {
		m := metric{kind: match[2], labels: map[string][]string{}}
		for _, l := range label.FindAllStringSubmatch(match[3], -1) {
			m.labels[l[1]] = nil
			for value := range strings.SplitSeq(l[2], ", ") {
				if value != "" {
					m.labels[l[1]] = append(m.labels[l[1]], strings.TrimSpace(strings.Trim(value, "`")))
				}
			}
		}
		found[match[1]] = m
	}
	if len(found) < 20 {
		t.Fatalf("docs/metrics.md has %d metrics", len(found))
	}
	return found
}

// checker looks through expressions.
type checker struct {
	metrics map[string]metric
	// target are labels that Prometheus itself adds.
	target []string
	// seen are the metrics that expressions name.
	seen map[string]bool
}

// check says what is wrong with an expression.
func (c checker) check(expression string) (problems []string) {
	parsed, err := parser.ParseExpr(expression)
	if err != nil {
		return []string{err.Error()}
	}
	parser.Inspect(parsed, func(node parser.Node, path []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			problems = append(problems, c.selector(node, path)...)
		case *parser.AggregateExpr:
			problems = append(problems, c.grouping(node)...)
		}
		return nil
	})
	return problems
}

// selector checks a metric's name, its labels and their values.
func (c checker) selector(s *parser.VectorSelector, path []parser.Node) (problems []string) {
	m, ok := c.find(s.Name)
	if !ok {
		return []string{fmt.Sprintf("there is no metric %s", s.Name)}
	}
	if counts := m.kind != "gauge"; counts != rated(path) {
		problems = append(problems, fmt.Sprintf("%s is a %s: a rate is for what counts, and for nothing else", s.Name, m.kind))
	}
	for _, matcher := range s.LabelMatchers {
		if matcher.Name == model.MetricNameLabel {
			continue
		}
		allowed, ok := m.labels[matcher.Name]
		if !ok && !slices.Contains(c.target, matcher.Name) {
			problems = append(problems, fmt.Sprintf("%s has no label %s", s.Name, matcher.Name))
		}
		for value := range strings.SplitSeq(matcher.Value, "|") {
			if allowed != nil && !slices.Contains(allowed, value) {
				problems = append(problems, fmt.Sprintf("the label %s of %s is never %q", matcher.Name, s.Name, value))
			}
		}
	}
	return problems
}

// find knows the series of a histogram, which has none of its own name.
func (c checker) find(name string) (metric, bool) {
	m, ok := c.metrics[name]
	if ok && m.kind != "histogram" {
		c.seen[name] = true
		return m, true
	}
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		base, cut := strings.CutSuffix(name, suffix)
		if m := c.metrics[base]; cut && m.kind == "histogram" {
			c.seen[base] = true
			if suffix == "_bucket" {
				m.labels = maps.Clone(m.labels)
				m.labels["le"] = nil
			}
			return m, true
		}
	}
	return metric{}, false
}

// rated reports whether what is selected goes into a rate.
func rated(path []parser.Node) bool {
	return slices.ContainsFunc(path, func(n parser.Node) bool {
		call, ok := n.(*parser.Call)
		return ok && slices.Contains([]string{"rate", "increase"}, call.Func.Name)
	})
}

// grouping checks that what is grouped by is a label of all below.
func (c checker) grouping(a *parser.AggregateExpr) (problems []string) {
	parser.Inspect(a.Expr, func(node parser.Node, _ []parser.Node) error {
		selector, ok := node.(*parser.VectorSelector)
		if !ok {
			return nil
		}
		m, _ := c.find(selector.Name)
		for _, label := range a.Grouping {
			if _, ok := m.labels[label]; !ok && !slices.Contains(c.target, label) {
				problems = append(problems, fmt.Sprintf("%s has no label %s to group by", selector.Name, label))
			}
		}
		return nil
	})
	return problems
}

// TestChecker: it finds what it is for.
func TestChecker(t *testing.T) {
	t.Parallel()
	c := checker{metrics: documented(t), target: []string{"instance"}, seen: map[string]bool{}}
	for expression, want := range map[string]string{
		`sum by (pass) (rate(pratique_reviews_total{allowed="true",instance="x"}[5m]))`: "",
		`sum by (le, pass) (rate(pratique_review_duration_seconds_bucket[5m]))`:         "",
		`rate(pratique_review_duration_seconds_sum[5m])`:                                "",
		`sum(`:                     "parse error",
		`nonsense(pratique_ready)`: "unknown function",
		`pratique_no_such`:         "there is no metric pratique_no_such",
		`up`:                       "there is no metric up",
		`{allowed="true"}`:         "there is no metric",
		`rate(pratique_review_duration_seconds[5m])`:                       "there is no metric",
		`pratique_review_duration_seconds_total`:                           "there is no metric",
		`rate(pratique_review_duration_seconds_sum{le="1"}[5m])`:           "no label le",
		`rate(pratique_reviews_total{pod="x"}[5m])`:                        "no label pod",
		`rate(pratique_reviews_total{pass="all"}[5m])`:                     `never "all"`,
		`rate(pratique_verdicts_total{outcome=~"Rejected|Undecided"}[5m])`: `never "Undecided"`,
		`sum by (host) (rate(pratique_reviews_total[5m]))`:                 "no label host to group by",
		`pratique_reviews_total`:                                           "is a counter",
		`rate(pratique_ready[5m])`:                                         "is a gauge",
	} {
		got := strings.Join(c.check(expression), "; ")
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expression, got, want)
		}
	}
}
