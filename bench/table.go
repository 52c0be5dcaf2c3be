// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// row is one line of the table.
type row struct {
	what    string
	unit    unit
	floor   float64
	figure  float64
	ratio   float64
	versus  bool // floor and ratio mean something, and the limit is on the ratio
	limit   float64
	bound   bound
	counted bool // needs no clock: beyond its limit it is an error
}

type bound int

const (
	none bound = iota // told, not judged
	most
	least
)

// unit writes a figure.
type unit func(float64) string

func micros(v float64) string    { return fmt.Sprintf("%.0f µs", v/1e3) }
func nanos(v float64) string     { return fmt.Sprintf("%.0f ns", v) }
func millis(v float64) string    { return fmt.Sprintf("%.0f ms", v/1e6) }
func tenths(v float64) string    { return fmt.Sprintf("%.1f ms", v/1e6) }
func seconds(v float64) string   { return fmt.Sprintf("%.1f s", v/1e9) }
func whole(v float64) string     { return fmt.Sprintf("%.0f", v) }
func mebibytes(v float64) string { return fmt.Sprintf("%.0f MiB", v/(1<<20)) }

func atMost(what string, limit float64, u unit) row {
	return row{what: what, unit: u, limit: limit, bound: most}
}

func atLeast(what string, limit float64, u unit) row {
	return row{what: what, unit: u, limit: limit, bound: least}
}

func told(what string, u unit) row { return row{what: what, unit: u} }

// compared fills in a figure that has a floor. The limit is on the ratio.
func (r row) compared(floor, figure, ratio float64) row {
	r.floor, r.figure, r.ratio, r.versus = floor, figure, ratio, true
	return r
}

// measured fills in a figure that has none. The limit is on the figure.
func (r row) measured(figure float64) row {
	r.figure = figure
	return r
}

// reached reports whether the row is within its limit.
func (r row) reached() bool {
	judged := r.figure
	if r.versus {
		judged = r.ratio
	}
	switch r.bound {
	case most:
		return judged <= r.limit
	case least:
		return judged >= r.limit
	default:
		return true
	}
}

// cells are floor, pratique, ratio, limit and what to say of it.
func (r row) cells() []string {
	const empty = "-"
	cells := []string{empty, r.unit(r.figure), empty, empty, ""}
	if r.versus {
		cells[0], cells[2] = r.unit(r.floor), fmt.Sprintf("%.2f", r.ratio)
	}
	if r.bound == none {
		return cells
	}
	sign := "≤ "
	if r.bound == least {
		sign = "≥ "
	}
	if r.versus {
		cells[3] = fmt.Sprintf("%s%.1f ×", sign, r.limit)
	} else {
		cells[3] = sign + r.unit(r.limit)
	}
	cells[4] = "NOT REACHED"
	if r.reached() {
		cells[4] = "ok"
	}
	return cells
}

// table is what comes of one part of the benchmark.
type table struct {
	title string
	// compared and judged are the heads of the columns of row.floor and
	// row.figure.
	compared, judged string
	rows             []row
}

// print writes the title and the rows in columns.
func (t table) print(out io.Writer) error {
	fmt.Fprintf(out, "%s\n\n", t.title)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "what\t%s\t%s\tratio\tlimit\t\n", t.compared, t.judged)
	for _, r := range t.rows {
		fmt.Fprintf(w, "%s\t%s\n", r.what, strings.Join(r.cells(), "\t"))
	}
	return w.Flush()
}
