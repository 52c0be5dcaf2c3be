// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package promcheck

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// source is where a panel's data are from.
type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

// panel is what is looked at of one.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Datasource source `json:"datasource"`
	Targets    []struct {
		RefID      string `json:"refId"`
		Expr       string `json:"expr"`
		Datasource source `json:"datasource"`
	} `json:"targets"`
}

type dashboard struct {
	UID           string  `json:"uid"`
	SchemaVersion int     `json:"schemaVersion"`
	Panels        []panel `json:"panels"`
	Templating    struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	content, err := os.ReadFile("../../deploy/dashboards/pratique.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestDashboard: every panel goes by what there is, and every metric of ours is
// shown.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	if d.SchemaVersion != 39 || d.UID != "pratique" { // of Grafana 11.0
		t.Errorf("schemaVersion %d, uid %q", d.SchemaVersion, d.UID)
	}
	c := checker{metrics: documented(t), target: []string{"instance"}, seen: map[string]bool{}}
	// What Grafana puts in the place of its variables.
	filled := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".+")
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q has no title, its number is there twice, or it is out of the grid", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.Type == "row" {
			continue
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			if want := (source{"prometheus", "${datasource}"}); p.Datasource != want || target.Datasource != want || target.RefID == "" {
				t.Errorf("panel %q is not from the data source that is chosen", p.Title)
			}
			for _, problem := range c.check(filled.Replace(target.Expr)) {
				t.Errorf("panel %q: %s: %s", p.Title, target.Expr, problem)
			}
		}
	}
	for name := range c.metrics {
		if !c.seen[name] {
			t.Errorf("%s is nowhere in the dashboard", name)
		}
	}
	variables := map[string]string{}
	for _, v := range d.Templating.List {
		variables[v.Name] = v.Type + " " + v.Definition
	}
	if variables["datasource"] != "datasource " || variables["instance"] != "query label_values(pratique_build_info, instance)" {
		t.Errorf("its variables are %v", variables)
	}
}

// TestDashboardPanelsApart: none lies over another.
func TestDashboardPanelsApart(t *testing.T) {
	t.Parallel()
	panels := readDashboard(t).Panels
	for i, p := range panels {
		for _, q := range panels[:i] {
			a, b := p.GridPos, q.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panel %q lies over %q", p.Title, q.Title)
			}
		}
	}
}
