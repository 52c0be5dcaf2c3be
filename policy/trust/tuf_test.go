// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/pratique-dev/pratique/policy/refresh"
	"github.com/pratique-dev/pratique/policy/trust"
)

const day = 24 * time.Hour

// run keeps what a TUF does in the background until the end of the test.
func run(t *testing.T, repository *trust.TUF) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		repository.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// later is when that long has passed and what was to be done then is done.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// world is a TUF over a mirror, in a bubble.
type world struct {
	*mirror
	*trust.TUF

	changes atomic.Int32
}

func in(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{mirror: newMirror(t)}
		repository, err := trust.NewTUF(trust.Options{
			Transport: w.mirror, Mirror: mirrorURL, Root: w.get("1.root.json"), Changed: func() { w.changes.Add(1) },
		})
		if err != nil {
			t.Fatal(err)
		}
		w.TUF = repository
		run(t, repository)
		test(t, w)
	})
}

// want looks at the root, which is asked for as whoever compiles rules does, and
// at what is wrong with it.
func (w *world) want(raw []byte, message string) {
	w.t.Helper()
	got, err := w.Root()
	switch {
	case raw == nil && err == nil:
		w.t.Error("there is a root")
	case raw != nil && err != nil:
		w.t.Errorf("there is no root: %v", err)
	case raw != nil && got.Hash != mustParse(w.t, raw).Hash:
		w.t.Error("it is another root")
	}
	// Being asked starts a fetch, which may have ended a moment later.
	if raw != nil {
		err = w.Err()
	}
	switch {
	case message == "" && err == nil:
	case message == "" || err == nil || !strings.Contains(err.Error(), message):
		w.t.Errorf("the error is %v; want %q", err, message)
	case strings.Contains(err.Error(), "\n") || len(err.Error()) > 400:
		w.t.Errorf("the error is not one short line: %q", err)
	case !strings.Contains(err.Error(), "tuf.example.com"):
		w.t.Errorf("the error does not name the repository: %q", err)
	}
}

func TestRepositoryOnLoopback(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	raw := goodText(t)
	m.publish(raw)
	server := httptest.NewServer(m)
	t.Cleanup(server.Close)
	repository, err := trust.NewTUF(trust.Options{
		Transport: server.Client().Transport, Mirror: server.URL + "/repository/", Root: m.get("1.root.json"),
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, repository)
	if asked := m.asked(); len(asked) > 0 {
		t.Errorf("before it was needed it was asked for %v", asked)
	}
	got, err := repository.Wait(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.Hash != mustParse(t, raw).Hash {
		t.Error("it is another root")
	}
	asked := m.asked()
	if len(asked) != 5 || !strings.HasSuffix(asked[4], "."+targetID) {
		t.Fatalf("it was asked for %v", asked)
	}
	want := []string{"2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"}
	if diff := cmp.Diff(want, asked[:4]); diff != "" {
		t.Errorf("it was asked for other files (-want +got):\n%s", diff)
	}
}

func TestRepositoryIsNotDialledBeforeItIsNeeded(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		raw := goodText(t)
		w.publish(raw)
		later(30 * day)
		if err := w.Err(); err != nil || len(w.asked()) > 0 || w.changes.Load() > 0 {
			t.Errorf("nobody asked, and it was dialled: %v", err)
		}
		w.publish(raw)
		if _, err := w.Root(); !errors.Is(err, refresh.ErrPending) || !strings.Contains(err.Error(), "tuf.example.com: it is being fetched") {
			t.Errorf("the first answer is %v", err)
		}
		later(0)
		w.want(raw, "")
		if asked := w.asked(); len(asked) != 5 || w.changes.Load() != 1 {
			t.Errorf("%d changes; it was asked for %v", w.changes.Load(), asked)
		}
	})
}

func TestRepositoryIsAskedEveryDay(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first, second := goodText(t), goodText(t)
		w.publish(first)
		w.want(nil, "being fetched")
		later(day / 2)
		w.want(first, "")
		w.asked()
		w.publish(second)
		later(day/2 - 1)
		w.want(first, "")
		if asked := w.asked(); len(asked) > 0 {
			t.Errorf("before its time it was asked for %v", asked)
		}
		later(1)
		w.want(second, "")
		if w.changes.Load() != 2 {
			t.Errorf("%d changes", w.changes.Load())
		}
		w.publish(second) // as publishers do, so that it does not expire
		later(day / 2)
		w.want(second, "")
		later(day / 2)
		w.want(second, "")
		if w.changes.Load() != 2 {
			t.Errorf("%d changes, though nothing changed", w.changes.Load())
		}
	})
}

// What cannot be had, or cannot be believed, leaves the last good one in force,
// and is told; once it is mended, it is fetched soon.
func TestLastGoodRootIsKept(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(w *world, second []byte)
		want  string
	}{
		"the mirror fails": {func(w *world, _ []byte) {
			w.answer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusBadGateway) }))
		}, "502"},
		"the mirror has nothing": {func(w *world, _ []byte) { w.answer(http.NotFoundHandler()) }, "404"},
		"a page of a portal": {func(w *world, _ []byte) {
			w.answer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = rw.Write([]byte("<html>\n<b>Please\nlog in</b>"))
			}))
		}, "updating: "},
		"a redirect from https to http": {func(w *world, _ []byte) {
			w.answer(http.RedirectHandler("http://elsewhere.example.com/?token=hunter2", http.StatusFound))
		}, "a redirect from https to http"},
		"redirects without an end": {func(w *world, _ []byte) {
			w.answer(http.RedirectHandler("https://elsewhere.example.com/?token=hunter2", http.StatusFound))
		}, "too many redirects"},
		"files without an end": {func(w *world, _ []byte) {
			w.answer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				_, _ = rw.Write(make([]byte, 10_000_000))
			}))
		}, "more than 512000 bytes"},
		"a snapshot of 100 MB": {func(w *world, _ []byte) {
			timestamp := metadata.Timestamp(time.Now().Add(w.lives))
			timestamp.Signed.Version = 2
			timestamp.Signed.Meta["snapshot.json"] = &metadata.MetaFiles{Version: 2, Length: 100_000_000}
			w.put("timestamp.json", sign(w.mirror, timestamp, w.keys[metadata.TIMESTAMP]))
			w.put("2.snapshot.json", make([]byte, 10_000_000))
			w.version = 2
		}, "more than 5000000 bytes"},
		"a target that is longer than said": {func(w *world, second []byte) {
			w.length = int64(len(second)) - 1
			w.publish(second)
			w.length = 0
		}, "more than"},
		"a target of 100 MB": {func(w *world, second []byte) {
			w.length = 100_000_000
			w.publish(second)
			w.length = 0
		}, "has 100000000 bytes: at most 1048576 are read"},
		"a target that was changed": {func(w *world, second []byte) {
			w.publish(second)
			w.spoil("." + targetID)
		}, "hash"},
		"a target that is no trusted root": {func(w *world, _ []byte) { w.publish([]byte("{}")) }, "not a trusted root"},
		"a target that is missing": {func(w *world, second []byte) {
			w.publish(second)
			w.remove("targets/")
		}, "404"},
		"another's timestamp": {func(w *world, second []byte) {
			mine := w.keys[metadata.TIMESTAMP]
			w.keys[metadata.TIMESTAMP] = w.keys[metadata.TARGETS]
			w.publish(second)
			w.keys[metadata.TIMESTAMP] = mine
		}, "timestamp"},
		"another's snapshot": {func(w *world, second []byte) {
			mine := w.keys[metadata.SNAPSHOT]
			w.keys[metadata.SNAPSHOT] = w.keys[metadata.TARGETS]
			w.publish(second)
			w.keys[metadata.SNAPSHOT] = mine
		}, "snapshot"},
		"another's targets": {func(w *world, second []byte) {
			mine := w.keys[metadata.TARGETS]
			w.keys[metadata.TARGETS] = w.keys[metadata.SNAPSHOT]
			w.publish(second)
			w.keys[metadata.TARGETS] = mine
		}, "targets"},
		"another's root": {func(w *world, second []byte) {
			w.publish(second)
			other := newMirror(w.t)
			other.rotate(metadata.TIMESTAMP)
			w.put("2.root.json", other.get("2.root.json"))
		}, "root"},
		"expired metadata": {func(w *world, second []byte) {
			w.lives = day / 4
			w.publish(second)
			w.lives = 7 * day
		}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, w *world) {
				first, second := goodText(t), goodText(t)
				w.publish(first)
				w.want(nil, "being fetched")
				later(day / 2)
				w.want(first, "")
				test.spoil(w, second)
				later(day / 2)
				w.want(first, test.want)
				if err := w.Err(); err != nil && strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the error repeats where a redirect led: %v", err)
				}
				if w.changes.Load() != 2 {
					t.Errorf("%d changes", w.changes.Load())
				}
				w.answer(nil)
				w.remove("2.root.json")
				w.publish(second)
				later(time.Second) // the first time after which it is tried again
				w.want(second, "")
				if w.changes.Load() != 3 {
					t.Errorf("%d changes", w.changes.Load())
				}
			})
		})
	}
}

// A mirror that stands still for ever is found out when what it has expires.
func TestRepositoryThatStandsStill(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		raw := goodText(t)
		w.publish(raw)
		w.want(nil, "being fetched")
		for range 7 {
			later(day)
			w.want(raw, "")
		}
		later(day)
		w.want(raw, "expired")
	})
}

func TestRepositoryThatHangs(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		raw := goodText(t)
		w.publish(raw)
		w.answer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
		w.want(nil, "being fetched")
		later(time.Minute)
		w.want(nil, "no answer within 1m0s")
		w.answer(nil)
		later(time.Second)
		w.want(raw, "")
	})
}

// go-tuf itself finds that out only by the files that it writes.
func TestRollback(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first, second := goodText(t), goodText(t)
		w.publish(first)
		restore := w.save()
		w.publish(second)
		w.want(nil, "being fetched")
		later(day / 2)
		w.want(second, "")
		restore()
		later(day / 2)
		w.want(second, "rolled back: the version of timestamp is 1 and was 2")
		later(time.Hour) // and at each attempt after that
		w.want(second, "rolled back: the version of timestamp is 1 and was 2")
		w.version = 2
		w.publish(second)
		later(5 * time.Minute)
		w.want(second, "")
	})
}

// Whoever has the key of timestamps alone may sign an old snapshot anew.
func TestRollbackOfTheSnapshot(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first, second := goodText(t), goodText(t)
		w.publish(first)
		w.publish(second)
		w.want(nil, "being fetched")
		later(day / 2)
		w.want(second, "")
		timestamp := metadata.Timestamp(time.Now().Add(w.lives))
		timestamp.Signed.Version = 3
		timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(1)
		w.put("timestamp.json", sign(w.mirror, timestamp, w.keys[metadata.TIMESTAMP]))
		later(day / 2)
		w.want(second, "rolled back: the version of snapshot is 1 and was 2")
	})
}

// Whoever has the keys of both may sign a snapshot of old targets.
func TestRollbackOfTheTargets(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first, second := goodText(t), goodText(t)
		w.publish(first)
		w.publish(second)
		w.want(nil, "being fetched")
		later(day / 2)
		w.want(second, "")
		snapshot := metadata.Snapshot(time.Now().Add(w.lives))
		snapshot.Signed.Version = 3
		snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(1)
		w.put("3.snapshot.json", sign(w.mirror, snapshot, w.keys[metadata.SNAPSHOT]))
		timestamp := metadata.Timestamp(time.Now().Add(w.lives))
		timestamp.Signed.Version = 3
		timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(3)
		w.put("timestamp.json", sign(w.mirror, timestamp, w.keys[metadata.TIMESTAMP]))
		later(day / 2)
		w.want(second, "rolled back: its snapshot has an older targets.json")
	})
}

// Keys that are replaced are followed, and what was signed by the last ones is
// no measure any more: it may have been a thief's.
func TestKeysAreReplaced(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first, second := goodText(t), goodText(t)
		w.version = 1_000_000 // where nobody will get to
		w.publish(first)
		w.want(nil, "being fetched")
		later(day / 2)
		w.want(first, "")
		w.asked()
		w.rotate(metadata.TOP_LEVEL_ROLE_NAMES[:]...)
		w.version = 1
		w.publish(second)
		later(day / 2)
		w.want(second, "")
		if asked := w.asked(); !slices.Contains(asked, "3.root.json") {
			t.Errorf("it was asked for %v", asked)
		}
		w.publish(second)
		later(day / 2)
		w.want(second, "")
		later(day / 2)
		w.want(second, "")
		// It is not led through the old root.json again, nor back to it.
		if asked := w.asked(); slices.Contains(asked, "2.root.json") || !slices.Contains(asked, "3.root.json") {
			t.Errorf("it was asked for %v", asked)
		}
	})
}

// A root.json that was verified stands, even if all else fails.
func TestKeysThatAreRevoked(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		first, second := goodText(t), goodText(t)
		w.publish(first)
		w.want(nil, "being fetched")
		later(day / 2)
		w.publish(second) // with keys that a thief has
		restore := w.save()
		w.want(first, "")
		w.rotate(metadata.TIMESTAMP, metadata.SNAPSHOT, metadata.TARGETS)
		later(day / 2)
		w.want(first, "timestamp") // it is not signed with the new keys yet
		restore()                  // a mirror that hides the new root.json
		later(day / 2)
		w.want(first, "timestamp")
	})
}

// What no rule needs any more is not fetched any more.
func TestRepositoryThatIsNotNeededAnyMore(t *testing.T) {
	in(t, func(t *testing.T, w *world) {
		w.publish(goodText(t))
		w.want(nil, "being fetched")
		later(3 * day)
		w.asked()
		later(30 * day)
		if asked := w.asked(); len(asked) > 0 {
			t.Errorf("it was asked for %v", asked)
		}
	})
}

func TestRepositoryOptions(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	good := m.get("1.root.json")
	for name, o := range map[string]trust.Options{
		"no transport":       {Mirror: mirrorURL, Root: good},
		"no root of its own": {Transport: m, Mirror: mirrorURL},
		"no URL":             {Transport: m, Mirror: "tuf.example.com", Root: good},
		"a file":             {Transport: m, Mirror: "file:///etc", Root: good},
		"a password":         {Transport: m, Mirror: "https://user:hunter2@tuf.example.com", Root: good},
		"a query":            {Transport: m, Mirror: mirrorURL + "?token=hunter2", Root: good},
		"no root.json":       {Transport: m, Mirror: mirrorURL, Root: []byte("{}")},
		"not signed":         {Transport: m, Mirror: mirrorURL, Root: []byte(strings.Replace(string(good), `"version":1`, `"version":2`, 1))},
	} {
		if _, err := trust.NewTUF(o); err == nil {
			t.Errorf("%s: it is taken", name)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats it: %v", name, err)
		}
	}
	if _, err := trust.NewTUF(trust.Options{Transport: m}); err != nil {
		t.Errorf("the public Sigstore's: %v", err)
	}
	if asked := m.asked(); len(asked) > 0 {
		t.Errorf("it was asked for %v", asked)
	}
}

// The public repository is asked where it is, from the root.json that is built
// in; nothing of ours is it, so that nothing is believed.
func TestPublicRepository(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []string
		repository, err := trust.NewTUF(trust.Options{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.String())
			recorder := httptest.NewRecorder()
			http.NotFound(recorder, r)
			return recorder.Result(), nil
		})})
		if err != nil {
			t.Fatal(err)
		}
		run(t, repository)
		if _, err := repository.Wait(t.Context()); err == nil || !strings.Contains(err.Error(), "the trust root of tuf-repo-cdn.sigstore.dev: ") {
			t.Errorf("the error is %v", err)
		}
		root, err := metadata.Root().FromBytes(tuf.DefaultRoot())
		if err != nil {
			t.Fatal(err)
		}
		if root.Signed.Version < 14 || len(asked) != 2 || !strings.HasPrefix(asked[0], "https://tuf-repo-cdn.sigstore.dev/") || !strings.HasSuffix(asked[1], "/timestamp.json") {
			t.Errorf("it was asked for %v", asked)
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (r roundTripper) RoundTrip(request *http.Request) (*http.Response, error) { return r(request) }

// The file system may be read-only, and what lies in the working directory is
// nobody's, even if it is signed.
func TestNoFilesAreUsed(t *testing.T) {
	home, work := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("TMPDIR", home)
	t.Chdir(work)
	m := newMirror(t)
	m.publish(goodText(t))
	restore := m.save()
	m.publish(goodText(t))
	write(t, "timestamp.json", m.get("timestamp.json"))
	restore()
	repository, err := trust.NewTUF(trust.Options{Transport: m, Mirror: mirrorURL, Root: m.get("1.root.json")})
	if err != nil {
		t.Fatal(err)
	}
	run(t, repository)
	if _, err := repository.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	for directory, most := range map[string]int{home: 0, work: 1} {
		entries, err := os.ReadDir(directory)
		if err != nil || len(entries) > most {
			t.Errorf("there is something: %v, %v", entries, err)
		}
	}
}
