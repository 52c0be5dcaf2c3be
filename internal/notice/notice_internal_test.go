// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package notice

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/rest"
)

// apiServer takes Events, after it has refused some requests.
type apiServer struct {
	*httptest.Server

	created chan eventsv1.Event
	mu      sync.Mutex
	refuse  int
	asked   int
}

func newAPIServer(t *testing.T, refuse int) *apiServer {
	t.Helper()
	s := &apiServer{created: make(chan eventsv1.Event, 10), refuse: refuse}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		w.Header().Set("Content-Type", "application/json")
		if s.refuse > 0 {
			s.refuse--
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`))
			return
		}
		var event eventsv1.Event
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil || r.Method != http.MethodPost ||
			r.URL.Path != "/apis/events.k8s.io/v1/namespaces/pratique-system/events" {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		s.created <- event
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(event)
	}))
	t.Cleanup(s.Close)
	return s
}

// board runs one, and returns what it logs.
func (s *apiServer) board(t *testing.T) (*Board, <-chan string) {
	t.Helper()
	b, err := New(&rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, "pratique-system")
	if err != nil {
		t.Fatal(err)
	}
	b.again = time.Millisecond
	logged := make(chan string, 10)
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), funcr.New(func(_, args string) { logged <- args }, funcr.Options{})))
	var running sync.WaitGroup
	running.Go(func() { b.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return b, logged
}

func receive[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(5 * time.Second):
		t.Fatal("nothing after 5 s")
	}
	return value
}

// It sets the environment: no other test runs beside it.
func TestPod(t *testing.T) { //nolint:paralleltest // see above
	t.Setenv("POD_NAME", "pratique-0")
	t.Setenv("POD_UID", "1234")
	s := newAPIServer(t, 0)
	b, _ := s.board(t)
	b.Post(Notice{Bad: true, Reason: "TooBad", Action: "Reload", Message: strings.Repeat("ä", 600)})
	event := receive(t, s.created)
	want := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: "pratique-system", Name: "pratique-0", UID: "1234"}
	if event.Regarding != want || event.ReportingInstance != "pratique-0" || event.ReportingController != "pratique.dev/pratique" {
		t.Errorf("it is about %+v, by %s", event.Regarding, event.ReportingInstance)
	}
	if event.Type != corev1.EventTypeWarning || event.Reason != "TooBad" || event.Action != "Reload" || event.EventTime.IsZero() || event.GenerateName == "" {
		t.Errorf("it is %+v", event)
	}
	if n := len(event.Note); n > 1024 || n < 1020 || !utf8.ValidString(event.Note) || !strings.HasSuffix(event.Note, "…") {
		t.Errorf("its note has %d bytes: %q", n, event.Note)
	}
}

// TestRefused: what cannot be written at once is tried again, and given up at
// last with a line in the log; the next one is written.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, 2)
	b, _ := s.board(t)
	b.Post(Notice{Reason: "Good", Action: "Reload", Message: "good"})
	if event := receive(t, s.created); event.Type != corev1.EventTypeNormal || event.Note != "good" || event.Regarding.Name == "" {
		t.Errorf("it is %+v", event)
	}

	s = newAPIServer(t, attempts)
	b, logged := s.board(t)
	b.Post(Notice{Bad: true, Reason: "Bad", Action: "Reload", Message: "bad"})
	if line := receive(t, logged); !strings.Contains(line, `"reason"="Bad"`) || !strings.Contains(line, "pratique-system") {
		t.Errorf("logged %s", line)
	}
	b.Post(Notice{Reason: "Good", Action: "Reload", Message: "good"})
	if event := receive(t, s.created); event.Reason != "Good" {
		t.Errorf("it is %+v", event)
	}
}

// TestNewest: who posts does not wait, and the newest is what is written.
func TestNewest(t *testing.T) {
	t.Parallel()
	s := newAPIServer(t, 0)
	b, err := New(&rest.Config{Host: s.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, "pratique-system")
	if err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"One", "Two", "Three"} {
		b.Post(Notice{Reason: reason, Action: "Reload"})
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go b.Run(ctx)
	if event := receive(t, s.created); event.Reason != "Three" {
		t.Errorf("it is %s", event.Reason)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked != 1 {
		t.Errorf("%d Events", s.asked)
	}
}
