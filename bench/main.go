// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	floorName = "floor"
	// limitReady is spec section 12's.
	limitReady = 2 * time.Second
	// allOfIt bounds the whole run; it takes less than six minutes.
	allOfIt = 20 * time.Minute
	// clientGC lets the client collect garbage less often, so that less of it
	// falls into a measurement.
	clientGC = 400
)

// The parts of the benchmark.
const (
	partAll     = "all"
	partFloor   = "floor"
	partHostile = "hostile"
)

// options are what the command line says, and where to work.
type options struct {
	pratique string
	part     string
	quick    bool
	dir      string // for everything that is made on the way
}

// errTooMany means that a count is beyond its limit.
var errTooMany = errors.New("more registry requests than section 12 of the specification allows")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, allOfIt)
	err := run(ctx, os.Args[1:])
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	if slices.Equal(args, []string{fillCache}) {
		return fill(ctx, cache.DefaultVerdicts, os.Stdout)
	}
	var o options
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	flags.StringVar(&o.pratique, "pratique", filepath.Join("bin", "pratique"), "the `program` to measure")
	flags.StringVar(&o.part, "part", partAll,
		"`what` to measure: "+partFloor+" (beside the floor), "+partHostile+" (slow and hostile registries), or "+partAll)
	flags.BoolVar(&o.quick, "quick", false, "fewer rounds: for trying out, the figures are worth less")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !slices.Contains([]string{partAll, partFloor, partHostile}, o.part) {
		return fmt.Errorf("--part: there is no part %q", o.part)
	}
	if _, err := os.Stat(o.pratique); err != nil {
		return fmt.Errorf("%w\nhint: make build", err)
	}
	debug.SetGCPercent(clientGC)
	if o.dir, err = os.MkdirTemp("", "pratique-bench-"); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(o.dir) }()
	return within(func(tb *scope) error {
		b := &bench{options: o, effort: effortOf(o.quick), out: os.Stdout, tb: tb, driver: &driver{client: newClient()}}
		return b.run(ctx)
	})
}

func effortOf(quick bool) effort {
	if quick {
		return effort{rounds: 4, one: 300, many: 1200, warmUp: 200, starts: 1, coldImages: 1, cpuTurns: 1, drips: 1}
	}
	// Many short rounds: what else the machine does comes in bursts, and a
	// median is not moved by the rounds that one falls on.
	return effort{rounds: 21, one: 400, many: 1600, warmUp: 1000, starts: 3, coldImages: 3, cpuTurns: 3, drips: 5}
}

// bench is one run.
type bench struct {
	options
	effort

	out       io.Writer
	tb        *scope
	driver    *driver
	registry  *registrytest.Registry
	key       *registrytest.Key
	sigstore  *cosigntest.Sigstore
	keys      []*registrytest.Key // of whom the last signs
	few, many string              // folders of policies
}

func (b *bench) run(ctx context.Context) error {
	b.sayf("writing policies, signing images")
	images, err := b.prepare()
	if err != nil {
		return err
	}
	small, err := newReview("1 KB", review1K, images)
	if err != nil {
		return err
	}
	large, err := newReview("16 KB", review16K, images)
	if err != nil {
		return err
	}
	var tables []table
	if b.part != partHostile {
		t, err := b.besideFloor(ctx, newDuels(b.effort, small, large))
		if err != nil {
			return err
		}
		tables = append(tables, t)
	}
	if b.part != partFloor {
		t, err := b.hostile(ctx, small)
		if err != nil {
			return err
		}
		tables = append(tables, t)
	}
	return b.report(tables...)
}

// besideFloor is the part of spec section 12.
func (b *bench) besideFloor(ctx context.Context, duels []*duel) (table, error) {
	began := time.Now()
	b.sayf("building the floor")
	binary, err := buildFloor(ctx, b.dir)
	if err != nil {
		return table{}, err
	}
	floor, err := startFloor(ctx, binary, b.dir)
	if err != nil {
		return table{}, err
	}
	defer floor.stop()
	starts, pratique, err := b.starts(ctx)
	if err != nil {
		return table{}, err
	}
	defer pratique.stop()
	rows, err := b.measure(ctx, floor, pratique, duels)
	if err != nil {
		return table{}, pratique.failure(err)
	}
	return table{
		title:    fmt.Sprintf("pratique beside the floor: %s; %d rounds, %d s", machine(), b.rounds, int(time.Since(began).Seconds())),
		compared: "floor", judged: "pratique", rows: append(rows, starts...),
	}, nil
}

func machine() string {
	return fmt.Sprintf("%d CPUs, %s, %s/%s", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// prepare fills the registry and writes the policies.
func (b *bench) prepare() ([]registrytest.Image, error) {
	b.registry = registrytest.New(b.tb)
	b.key = registrytest.NewKey(b.tb, registrytest.ECDSAP256)
	other := registrytest.NewKey(b.tb, registrytest.ECDSAP256)
	b.few, b.many = filepath.Join(b.dir, "few"), filepath.Join(b.dir, "many")
	if err := writePolicies(b.few, b.registry.Host(), fewConfigs, b.key, other); err != nil {
		return nil, err
	}
	if err := writePolicies(b.many, b.registry.Host(), manyConfigs, b.key, other); err != nil {
		return nil, err
	}
	b.sigstore = cosigntest.New(b.tb)
	for range manyKeys {
		b.keys = append(b.keys, registrytest.NewKey(b.tb, registrytest.ECDSAP256))
	}
	if err := writeColdPolicies(b.many, b.registry.Host(), b.sigstore.TrustedRoot(), b.keys); err != nil {
		return nil, err
	}
	var images []registrytest.Image
	for i, repository := range repositories {
		image := b.registry.PushImage(b.tb, repository+":"+reviewTag)
		if i%2 == 0 {
			b.registry.SignLegacy(b.tb, image, b.key)
		} else {
			b.registry.SignBundle(b.tb, image, b.key)
		}
		images = append(images, image)
	}
	return images, nil
}

// starts measures how long pratique takes to be ready, and leaves the last one
// running, with 10,000 ImageConfigs.
func (b *bench) starts(ctx context.Context) ([]row, *process, error) {
	var rows []row
	var server *process
	for _, policies := range []struct {
		dir   string
		count string
	}{{b.few, "10"}, {b.many, "10,000"}} {
		var times []time.Duration
		for i := range b.effort.starts {
			b.sayf("starting pratique with %s ImageConfigs: %d of %d", policies.count, i+1, b.effort.starts)
			if server != nil {
				server.stop()
			}
			var err error
			if server, err = startPratique(ctx, b.options, policies.dir, b.registry.Host()); err != nil {
				return nil, nil, err
			}
			times = append(times, server.ready)
		}
		what := fmt.Sprintf("start to ready, %s ImageConfigs", policies.count)
		rows = append(rows, atMost(what, float64(limitReady), millis).measured(float64(median(times))))
	}
	return rows, server, nil
}

// measure makes all rows that need the servers, and those that do not.
func (b *bench) measure(ctx context.Context, floor, pratique *process, duels []*duel) ([]row, error) {
	if err := warm(ctx, b.effort, b.driver, floor, pratique, duels, os.Stderr); err != nil {
		return nil, err
	}
	rows := warmRows(duels)
	memory, err := memoryRow(floor, pratique)
	if err != nil {
		return nil, err
	}
	b.sayf("cold requests: counting what the registry is asked for")
	c := &cold{bench: b, server: pratique}
	counts, err := c.rows(ctx)
	if err != nil {
		return nil, err
	}
	b.sayf("cold requests: the time that they take the server")
	times, err := c.cpuRows(ctx)
	if err != nil {
		return nil, err
	}
	b.sayf("select among 10,000 ImageConfigs, 100,000 cached verdicts")
	selects, err := selectRows()
	if err != nil {
		return nil, err
	}
	cached, err := cacheRows(ctx)
	if err != nil {
		return nil, err
	}
	return slices.Concat(rows, []row{memory}, counts, times, selects, cached), nil
}

// report prints the tables and judges what can be judged without a clock.
func (b *bench) report(tables ...table) error {
	var all, missed int
	var tooMany bool
	for _, t := range tables {
		if err := t.print(b.out); err != nil {
			return err
		}
		fmt.Fprintln(b.out)
		for _, r := range t.rows {
			all++
			if !r.reached() {
				missed++
				tooMany = tooMany || r.counted
			}
		}
	}
	fmt.Fprintln(b.out, "Every answer was right. Figures are medians over the rounds; a ratio is the median of the rounds' ratios.")
	if missed > 0 {
		fmt.Fprintf(b.out, "NOT REACHED: %d of %d. Times depend on what else the machine does; counts do not.\n", missed, all)
	}
	if tooMany {
		return errTooMany
	}
	return nil
}

func (b *bench) sayf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}
