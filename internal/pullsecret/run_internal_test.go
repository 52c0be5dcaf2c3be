// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
)

// run runs a Copier in a bubble, where time passes only while all wait.
func run(t *testing.T, test func(t *testing.T, w *world, changed chan<- struct{})) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		changed := make(chan struct{}, 1)
		o := w.options()
		o.Changed = changed
		ctx, cancel := context.WithCancel(w.context())
		ended := make(chan error)
		go func() { ended <- New(o).Run(ctx) }()
		test(t, w, changed)
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// later is when that long has passed and what was to be done then is done.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestChangesAreActedUponSoon(t *testing.T) {
	run(t, func(t *testing.T, w *world, changed chan<- struct{}) {
		later(time.Second)
		w.wantThere(all("one"))
		w.set(func() { w.sources["pull"] = source("pull", "two") })
		passes := w.passes()
		for range 5 { // that come together
			select {
			case changed <- struct{}{}:
			default:
			}
			time.Sleep(collect / 10)
		}
		later(2 * collect)
		w.wantThere(all("two"))
		if got := w.passes() - passes; got > 2 {
			t.Errorf("%d passes of changes that came together", got)
		}
	})
}

func TestCopiesAreRepairedEveryMinute(t *testing.T) {
	run(t, func(t *testing.T, w *world, _ chan<- struct{}) {
		later(time.Second)
		if err := w.bare.Delete(t.Context(), copyIn("a", "pull", "one")); err != nil {
			t.Fatal(err)
		}
		later(repairEvery / 2)
		if got := w.passes(); got != 1 {
			t.Errorf("%d passes, though nothing changed", got)
		}
		later(repairEvery / 2)
		w.wantThere(all("one"))
	})
}

func TestFailuresAreTriedAgain(t *testing.T) {
	run(t, func(t *testing.T, w *world, _ chan<- struct{}) {
		w.set(func() {
			w.fault = func(verb, _, _ string) error {
				if verb == "create" {
					return apierrors.NewInternalError(errors.New(hush))
				}
				return nil
			}
		})
		later(time.Second)
		w.wantResult(reasonFailed)
		w.set(func() { w.fault = nil })
		later(retryAfter)
		w.wantThere(all("one"))
		w.wantResult(reasonCopied)
	})
}

func TestOnlyTheElectedReplicaWrites(t *testing.T) {
	run(t, func(t *testing.T, w *world, changed chan<- struct{}) {
		w.leads.Store(false)
		changed <- struct{}{}
		later(2 * repairEvery)
		if requests, passes := w.requests(), w.passes(); requests != 0 || passes != 0 {
			t.Errorf("%d requests in %d passes", requests, passes)
		}
		w.leads.Store(true)
		later(time.Second)
		w.wantThere(all("one"))
		// Elected again, it sees at once to what the other left undone.
		w.leads.Store(false)
		later(time.Second)
		if err := w.bare.Delete(t.Context(), copyIn("a", "pull", "one")); err != nil {
			t.Fatal(err)
		}
		w.leads.Store(true)
		later(time.Second)
		w.wantThere(all("one"))
	})
}

func TestClosedChannelDoesNotMakeItSpin(t *testing.T) {
	run(t, func(t *testing.T, w *world, changed chan<- struct{}) {
		close(changed)
		later(repairEvery / 2)
		if got := w.passes(); got < 1 || got > 2 {
			t.Errorf("%d passes", got)
		}
	})
}

// An API server that does not answer is asked by few at once, takes a bounded
// time, and leaves time for the list of what is to be removed.
func TestSlowAPIServerIsGivenUp(t *testing.T) {
	t.Parallel()
	for namespaces, want := range map[int]time.Duration{
		2 * atOnce:   2*askFor + askFor,
		100 * atOnce: passFor + askFor,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			for i := range namespaces {
				w.namespaces[fmt.Sprint("n", i)] = labels.Set{"team": "slow"}
			}
			w.wanted[0].Namespaces = team("slow")
			slow := &silent{Client: w.client}
			o := w.options()
			o.Client = slow
			start := time.Now()
			if got := New(o).pass(w.context()); got != unfinished {
				t.Errorf("the pass came to %d", got)
			}
			if took := time.Since(start); took != want {
				t.Errorf("of %d namespaces the pass took %v, want %v", namespaces, took, want)
			}
			if got := slow.most.Load(); got != atOnce {
				t.Errorf("at once were asked %d", got)
			}
			w.wantResult(reasonFailed, causeTime, fmt.Sprintf("and %d more", namespaces-maxNamed))
		})
	}
}

// What stays as it is is not told the log every time.
func TestTheLogIsToldOnce(t *testing.T) {
	run(t, func(t *testing.T, w *world, _ chan<- struct{}) {
		w.set(func() {
			w.fault = func(verb, _, name string) error {
				if verb == "list" {
					return forbidden(name)
				}
				return nil
			}
		})
		later(10 * retryAfter)
		if got := w.passes(); got < 5 {
			t.Errorf("%d passes", got)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, line := range []string{"cannot remove copies of pull secrets", `"msg"="copies of a pull secret"`} {
			if got := strings.Count(w.log.String(), line); got != 1 {
				t.Errorf("%q is in the log %d times:\n%s", line, got, w.log.String())
			}
		}
	})
}
