// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package refresh_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pratique-dev/pratique/policy/refresh"
)

const every = time.Hour

// service is what is fetched from. Its answer may be changed at any time.
type service struct {
	mu      sync.Mutex
	answer  func(ctx context.Context, key string) (string, error)
	fetches map[string]int
	changes int
}

func (s *service) fetch(ctx context.Context, key string) (string, error) {
	s.mu.Lock()
	s.fetches[key]++
	answer := s.answer
	s.mu.Unlock()
	return answer(ctx, key)
}

func (s *service) set(answer func(ctx context.Context, key string) (string, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) says(value string) {
	s.set(func(context.Context, string) (string, error) { return value, nil })
}

func (s *service) fails(message string) {
	s.set(func(context.Context, string) (string, error) { return "", errors.New(message) })
}

func (s *service) changed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes++
}

// counted is how often a key was fetched and changes were told.
func (s *service) counted(key string) (fetches, changes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches[key], s.changes
}

// world is a service, and a Map that runs over it in a bubble, where time passes
// only while all wait.
type world struct {
	*service
	*refresh.Map[string, string]

	t    *testing.T
	stop func()
}

func in(t *testing.T, test func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, service: &service{fetches: map[string]int{}}}
		w.says("one")
		w.Map = refresh.NewMap(w.fetch, refresh.Options[string]{
			Every: every, Timeout: 10 * time.Second, RetryFirst: time.Second, RetryMost: 5 * time.Minute,
			Equal: func(a, b string) bool { return a == b }, Changed: w.changed,
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			w.Run(ctx)
		}()
		w.stop = func() {
			cancel()
			<-ended
		}
		defer w.stop()
		test(w)
	})
}

// later is when that long has passed and what was to be done then is done.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (w *world) want(key, value, message string) {
	w.t.Helper()
	got, err := w.Get(key)
	text := ""
	if err != nil {
		text = err.Error()
	}
	if got != value || !strings.Contains(text, message) || (message == "") != (err == nil) {
		w.t.Errorf("%s is %q, %v; want %q, %q", key, got, err, value, message)
	}
}

func (w *world) wantCounted(key string, fetches, changes int) {
	w.t.Helper()
	gotFetches, gotChanges := w.counted(key)
	if gotFetches != fetches || gotChanges != changes {
		w.t.Errorf("%s: %d fetches and %d changes; want %d and %d", key, gotFetches, gotChanges, fetches, changes)
	}
}

func TestNothingIsFetchedBeforeItIsNeeded(t *testing.T) {
	in(t, func(w *world) {
		later(10 * every)
		w.wantCounted("a", 0, 0)
		if err := w.Err("a"); err != nil {
			t.Errorf("nobody asked, and the error is %v", err)
		}
		if _, err := w.Get("a"); !errors.Is(err, refresh.ErrPending) {
			t.Errorf("the first answer is %v, not that it is being fetched", err)
		}
		later(0)
		w.want("a", "one", "")
		w.wantCounted("a", 1, 1)
		w.wantCounted("b", 0, 1)
	})
}

func TestItIsFetchedAgain(t *testing.T) {
	in(t, func(w *world) {
		w.want("a", "", refresh.ErrPending.Error())
		later(every / 2)
		for range 100 {
			w.want("a", "one", "")
		}
		w.wantCounted("a", 1, 1)
		w.says("two")
		later(every / 2)
		w.want("a", "two", "")
		w.wantCounted("a", 2, 2)
		later(every / 2)
		w.want("a", "two", "")
		later(every / 2)
		w.wantCounted("a", 3, 2) // the same: nobody is told
	})
}

func TestTheLastGoodIsKept(t *testing.T) {
	in(t, func(w *world) {
		w.want("a", "", refresh.ErrPending.Error())
		later(every / 2)
		w.want("a", "one", "")
		w.fails("it is away")
		later(every / 2)
		w.want("a", "one", "")
		w.wantCounted("a", 2, 2)
		if err := w.Err("a"); err == nil || err.Error() != "it is away" {
			w.t.Errorf("the error is %v", err)
		}
		later(time.Second + 2*time.Second) // two attempts more, of the same error
		w.wantCounted("a", 4, 2)
		w.fails("it is on fire")
		later(4 * time.Second)
		w.wantCounted("a", 5, 3)
		w.says("one") // that the error is gone is a change
		later(8 * time.Second)
		w.wantCounted("a", 6, 4)
		if err := w.Err("a"); err != nil {
			t.Errorf("the error is still %v", err)
		}
		later(every - time.Second)
		w.want("a", "one", "")
		w.wantCounted("a", 6, 4)
		later(time.Second)
		w.wantCounted("a", 7, 4)
	})
}

func TestFailuresAreRetriedEverMoreRarely(t *testing.T) {
	in(t, func(w *world) {
		w.fails("it is away")
		w.want("a", "", refresh.ErrPending.Error())
		later(0)
		w.want("a", "", "it is away")
		fetches := 1
		for _, wait := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300} {
			later(wait*time.Second - 1)
			w.wantCounted("a", fetches, 1)
			later(1)
			fetches++
			w.wantCounted("a", fetches, 1)
		}
		w.says("one")
		later(5 * time.Minute)
		w.want("a", "one", "")
	})
}

func TestPanicIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		fetch func()
		want  string
	}{
		"of the runtime":  {func() { _ = []string{}[len(t.Name())] }, "index out of range"},
		"of another kind": {func() { panic("the password is hunter2") }, "a value of the type string"},
		"no return":       {runtime.Goexit, "given up"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.set(func(context.Context, string) (string, error) {
					test.fetch()
					return "what was not fetched", nil
				})
				w.want("a", "", refresh.ErrPending.Error())
				later(0)
				w.want("a", "", test.want)
				if err := w.Err("a"); strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the error repeats what the panic said: %v", err)
				}
				w.says("one")
				later(time.Second)
				w.want("a", "one", "")
			})
		})
	}
}

func TestOneThatHangsKeepsNoOtherWaiting(t *testing.T) {
	in(t, func(w *world) {
		w.set(func(ctx context.Context, key string) (string, error) {
			if key == "a" {
				<-ctx.Done()
				return "", ctx.Err()
			}
			return "one", nil
		})
		w.want("a", "", refresh.ErrPending.Error())
		w.want("b", "", refresh.ErrPending.Error())
		later(0)
		w.want("b", "one", "")
		w.want("a", "", refresh.ErrPending.Error())
		later(10 * time.Second)
		w.want("a", "", "no answer within 10s")
		w.says("late")
		later(time.Second)
		w.want("a", "late", "")
	})
}

// A fetch that does not heed its context is given up, and does not pile up.
func TestOneThatDoesNotStop(t *testing.T) {
	in(t, func(w *world) {
		release := make(chan struct{})
		w.set(func(context.Context, string) (string, error) {
			<-release
			return "too late", nil
		})
		w.want("a", "", refresh.ErrPending.Error())
		later(2 * time.Hour)
		w.want("a", "", "no answer within 10s")
		w.wantCounted("a", 3, 2)
		w.fails("it is away") // what comes late is not taken for an answer
		close(release)
		later(5 * time.Minute)
		w.want("a", "", "it is away")
		w.says("one")
		later(5 * time.Minute)
		w.want("a", "one", "")
	})
}

func TestWhatNobodyAsksForIsForgotten(t *testing.T) {
	in(t, func(w *world) {
		w.want("a", "", refresh.ErrPending.Error())
		w.want("b", "", refresh.ErrPending.Error())
		later(every)
		// Both were fetched twice, and who needs them is asked to say so.
		w.wantCounted("a", 2, 3)
		w.want("b", "one", "")
		later(every - 1)
		w.wantCounted("a", 2, 3)
		later(1)
		w.wantCounted("a", 2, 4)
		w.wantCounted("b", 3, 4)
		w.want("b", "one", "")
		later(10 * every)
		w.wantCounted("a", 2, 5)
		w.wantCounted("b", 4, 5)
		w.want("a", "", refresh.ErrPending.Error()) // as if for the first time
		later(0)
		w.want("a", "one", "")
	})
}

// A service that is away is not asked for a key for ever either.
func TestWhatFailsIsForgottenToo(t *testing.T) {
	in(t, func(w *world) {
		w.fails("it is away")
		w.want("a", "", refresh.ErrPending.Error())
		later(2*every + 5*time.Minute)
		fetches, _ := w.counted("a")
		later(10 * every)
		w.wantCounted("a", fetches, 2)
	})
}

func TestNothingIsDoneAfterTheEnd(t *testing.T) {
	in(t, func(w *world) {
		w.set(func(ctx context.Context, _ string) (string, error) {
			<-ctx.Done()
			return "one", nil
		})
		w.want("a", "", refresh.ErrPending.Error())
		later(time.Second)
		w.stop()
		w.want("b", "", refresh.ErrPending.Error())
		later(10 * every)
		w.want("a", "", refresh.ErrPending.Error())
		w.wantCounted("a", 1, 0)
		w.wantCounted("b", 0, 0)
	})
}

func TestWait(t *testing.T) {
	in(t, func(w *world) {
		w.set(func(ctx context.Context, key string) (string, error) {
			select {
			case <-time.After(3 * time.Second):
			case <-ctx.Done():
			}
			if key == "bad" {
				return "", errors.New("it is away")
			}
			return "one", nil
		})
		began := time.Now()
		if got, err := w.Wait(w.t.Context(), "a"); got != "one" || err != nil {
			w.t.Errorf("it is %q, %v", got, err)
		}
		if _, err := w.Wait(w.t.Context(), "bad"); err == nil || err.Error() != "it is away" {
			w.t.Errorf("the error is %v", err)
		}
		if took := time.Since(began); took != 6*time.Second {
			w.t.Errorf("that took %s", took)
		}
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		defer cancel()
		if _, err := w.Wait(ctx, "b"); !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("the error is %v", err)
		}
	})
}

// Changed may ask, as one that compiles rules anew does.
func TestWhoIsToldMayAsk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told []string
		var value *refresh.Value[string]
		fetched := 0
		value = refresh.New(func(context.Context) (string, error) {
			fetched++
			return fmt.Sprint(fetched), nil
		}, refresh.Options[string]{Every: every, Changed: func() {
			got, err := value.Get()
			told = append(told, fmt.Sprint(got, " ", err))
		}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go value.Run(ctx)
		if _, err := value.Get(); !errors.Is(err, refresh.ErrPending) {
			t.Errorf("the first answer is %v", err)
		}
		later(3*every + time.Second)
		// Nobody but Changed asks, and that is enough to be kept: it is told each
		// time before the fetch that nobody asked for, and after it.
		want := "1 <nil>, 1 <nil>, 2 <nil>, 2 <nil>, 3 <nil>, 3 <nil>, 4 <nil>"
		if got := strings.Join(told, ", "); got != want {
			t.Errorf("it was told %s; want %s", got, want)
		}
		if err := value.Err(); err != nil {
			t.Errorf("the error is %v", err)
		}
	})
}
