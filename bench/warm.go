// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strconv"
	"time"
)

const (
	mutatePath   = "/mutate"
	validatePath = "/validate"

	// manyInFlight is spec section 12's.
	manyInFlight = 16
)

// The limits of spec section 12, as multiples of the floor.
const (
	limitSmall      = 1.5
	limitLarge      = 2
	limitThroughput = 0.6
	limitCPU        = 3
)

// effort is how often things are done.
type effort struct {
	rounds     int
	one, many  int // requests a round, with one and with many in flight
	warmUp     int
	starts     int
	coldImages int
	cpuTurns   int // each of cpuImages cold images
	drips      int // rounds of the part about slow registries
}

// duel is one load with the samples of both servers, in pairs: what stands at
// one place was measured one after the other.
type duel struct {
	load            load
	limit           float64 // of the p50
	floor, pratique []sample
}

func newDuels(e effort, small, large *review) []*duel {
	var duels []*duel
	for _, r := range []*review{small, large} {
		limit := limitSmall
		if r == large {
			limit = limitLarge
		}
		for _, path := range []string{validatePath, mutatePath} {
			duels = append(duels,
				&duel{load: load{review: r, path: path, inFlight: 1, requests: e.one}, limit: limit},
				&duel{load: load{review: r, path: path, inFlight: manyInFlight, requests: e.many}, limit: limit})
		}
	}
	return duels
}

// warm lets floor and pratique answer the same loads in turns, and changes who
// begins, so that whatever else the machine does falls on both.
func warm(ctx context.Context, e effort, d *driver, floor, pratique *process, duels []*duel, progress io.Writer) error {
	for _, duel := range duels {
		l := duel.load
		l.requests = e.warmUp
		for _, server := range []*process{floor, pratique} {
			if _, err := d.run(ctx, server, l); err != nil {
				return fmt.Errorf("warming up: %w", err)
			}
		}
	}
	for round := range e.rounds {
		fmt.Fprintf(progress, "bench: warm requests: round %d of %d\n", round+1, e.rounds)
		for _, duel := range duels {
			if err := duel.round(ctx, round, d, floor, pratique); err != nil {
				return err
			}
		}
	}
	return nil
}

func (u *duel) round(ctx context.Context, round int, d *driver, floor, pratique *process) error {
	order := []*process{floor, pratique}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, server := range order {
		runtime.GC() // the client's garbage of one must not be the other's time
		s, err := d.run(ctx, server, u.load)
		if err != nil {
			return err
		}
		if server == floor {
			u.floor = append(u.floor, s)
		} else {
			u.pratique = append(u.pratique, s)
		}
	}
	return nil
}

// compare returns the medians of a figure and of its ratio, round by round.
func (u *duel) compare(figure func(sample) float64) (floor, pratique, ratio float64) {
	var floors, pratiques, ratios []float64
	for i := range u.floor {
		f, p := figure(u.floor[i]), figure(u.pratique[i])
		floors, pratiques, ratios = append(floors, f), append(pratiques, p), append(ratios, p/f)
	}
	return median(floors), median(pratiques), median(ratios)
}

// median is the middle of values, or of the middle two.
func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// warmRows are the rows of the table about warm requests.
func warmRows(duels []*duel) []row {
	var latency, tail, throughput, cpu []row
	for i, u := range duels {
		what := fmt.Sprintf("warm %s, %s, %d in flight: ", u.load.path, u.load.review.name, u.load.inFlight)
		if u.load.inFlight == 1 {
			p50 := func(s sample) float64 { return float64(s.p50) }
			latency = append(latency, atMost(what+"p50", u.limit, micros).compared(u.compare(p50)))
			p99 := func(s sample) float64 { return float64(s.p99) }
			tail = append(tail, told(what+"p99", micros).compared(u.compare(p99)))
			continue
		}
		perSecond := func(s sample) float64 { return s.perSecond }
		throughput = append(throughput, atLeast(what+"requests/s", limitThroughput, whole).compared(u.compare(perSecond)))
		what = fmt.Sprintf("warm %s, %s: server CPU a request", u.load.path, u.load.review.name)
		cpu = append(cpu, atMost(what, limitCPU, micros).compared(cpuOf(duels[i-1], u)))
	}
	return slices.Concat(latency, throughput, cpu, tail)
}

// cpuOf compares the server's time for a request over all rounds of the loads
// together: the clock of /proc is too coarse for a single round.
func cpuOf(duels ...*duel) (floor, pratique, ratio float64) {
	each := func(samples func(*duel) []sample) float64 {
		var cpu time.Duration
		var requests int
		for _, u := range duels {
			for _, s := range samples(u) {
				cpu += s.cpu
				requests += s.requests
			}
		}
		return float64(cpu) / float64(requests)
	}
	floor = each(func(u *duel) []sample { return u.floor })
	pratique = each(func(u *duel) []sample { return u.pratique })
	return floor, pratique, pratique / max(floor, 1) // a nanosecond, if the floor took no tick at all
}

// memoryRow tells what both servers hold after all that was asked of them.
func memoryRow(floor, pratique *process) (row, error) {
	f, err := resident(strconv.Itoa(floor.cmd.Process.Pid))
	if err != nil {
		return row{}, err
	}
	p, err := resident(strconv.Itoa(pratique.cmd.Process.Pid))
	if err != nil {
		return row{}, err
	}
	return told("resident after warm requests, 10,000 ImageConfigs", mebibytes).compared(float64(f), float64(p), float64(p)/float64(f)), nil
}
