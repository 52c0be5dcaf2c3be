// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/webhook"
)

// stranger has a connection to the webhook, and sends what it likes.
type stranger struct {
	net.Conn

	answers *bufio.Reader
}

// connect sends the header of a review, and returns when its body is waited for,
// with the first line of what the server says.
func connect(tb testing.TB, server *httptest.Server, length string) (*stranger, string) {
	tb.Helper()
	address := server.Listener.Addr().String()
	var connection net.Conn
	var err error
	if server.TLS != nil {
		connection, err = (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(tb.Context(), "tcp", address)
	} else {
		connection, err = (&net.Dialer{}).DialContext(tb.Context(), "tcp", address)
	}
	if err != nil {
		tb.Error(err)
		return nil, ""
	}
	tb.Cleanup(func() { _ = connection.Close() })
	s := &stranger{connection, bufio.NewReader(connection)}
	// The server says 100 when it begins to read the body.
	s.say(tb, "POST /validate?timeout=30s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"+length+"\r\n\r\n")
	return s, s.line(tb)
}

func (s *stranger) say(tb testing.TB, text string) {
	tb.Helper()
	if err := s.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Error(err)
	}
	_, _ = s.Write([]byte(text)) // whether it was read is seen by the answer
}

// line is the next line with something in it.
func (s *stranger) line(tb testing.TB) string {
	tb.Helper()
	for {
		line, err := s.answers.ReadString('\n')
		if line = strings.TrimSpace(line); line != "" || err != nil {
			return line
		}
	}
}

// TestConnectionsThatSendNothing: more of them than reviews are answered at once
// keep nobody out.
func TestConnectionsThatSendNothing(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	server := httptest.NewTLSServer(s.handler)
	t.Cleanup(server.Close)
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			for range 30 {
				if _, line := connect(t, server, "Content-Length: 1000"); line != "HTTP/1.1 100 Continue" {
					t.Errorf("its body is not waited for: %s", line)
				}
			}
		})
	}
	group.Wait()
	for _, path := range []string{"/mutate", "/validate"} {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL+path,
			strings.NewReader(string(ask{object: pod(s.host.Host() + "/static/x")}.body())))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := server.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("%s: answered %d", path, response.StatusCode)
		}
	}
}

// large is a review of so many bytes.
func large(a ask, size int) string {
	body := string(a.body())
	return body + strings.Repeat(" ", size-len(body))
}

// holds waits until so much of the room is held.
func holds(tb testing.TB, bodies *webhook.Bodies, want int64) {
	tb.Helper()
	for end := time.Now().Add(20 * time.Second); bodies.Held() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("%d bytes are held, want %d", bodies.Held(), want)
		}
	}
}

// TestBodiesWithoutEnd: what they take is bounded in sum, whatever they announce,
// and who goes on sending is told at once.
func TestBodiesWithoutEnd(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	for name, length := range map[string]string{
		"announced": "Content-Length: 7340032", "not announced": "Transfer-Encoding: chunked",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bodies := webhook.NewBodies(limit)
			server := httptest.NewServer(newStack(t, setting{bodies: bodies}).handler)
			t.Cleanup(server.Close)
			part := strings.Repeat(" ", limit+128<<10) // more than fits, without the others too
			if name == "not announced" {
				part = fmt.Sprintf("%x\r\n%s\r\n", len(part), part)
			}
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					stranger, line := connect(t, server, length)
					if line != "HTTP/1.1 100 Continue" {
						t.Errorf("its body is not waited for: %s", line)
						return
					}
					go stranger.say(t, part)
					if line := stranger.line(t); line != "HTTP/1.1 503 Service Unavailable" {
						t.Errorf("answered %s", line)
					}
					if held := bodies.Held(); held > limit {
						t.Errorf("%d bytes are held", held)
					}
				})
			}
			group.Wait()
			holds(t, bodies, 0)
		})
	}
}

// TestStrangerLeaves: what a body held that nobody goes on sending is free.
func TestStrangerLeaves(t *testing.T) {
	t.Parallel()
	bodies := webhook.NewBodies(webhook.DefaultBodies)
	server := httptest.NewServer(newStack(t, setting{bodies: bodies}).handler)
	t.Cleanup(server.Close)
	for _, length := range []string{"Content-Length: 7340032", "Transfer-Encoding: chunked"} {
		stranger, _ := connect(t, server, length)
		stranger.say(t, "100000\r\n"+strings.Repeat(" ", 300<<10))
		// What is charged follows what has arrived, not what was announced.
		holds(t, bodies, (512-64)<<10)
		_ = stranger.Close()
		holds(t, bodies, 0)
	}
}

// TestNoRoom: large reviews are refused while others have it all, and those of the
// usual size are not.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20
	bodies := webhook.NewBodies(limit)
	s := newStack(t, setting{bodies: bodies})
	good := ask{object: pod(s.host.Host() + "/static/x")}
	if !bodies.Take(limit) || bodies.Take(1) {
		t.Fatal("the room is not as large as it should be")
	}
	for range 3 {
		status, answer := exchange(t, "", s.url+"/validate", "", large(good, 64<<10+1))
		if status != http.StatusServiceUnavailable || !strings.Contains(answer, "too many large reviews at once") {
			t.Errorf("a large review: %d %.200s", status, answer)
		}
		for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
			if status, answer := exchange(t, "", s.url+"/validate", "", large(good, size)); status != http.StatusOK {
				t.Errorf("a review of %d bytes: %d %.200s", size, status, answer)
			}
		}
	}
	bodies.GiveBack(limit)
	if status, answer := exchange(t, "", s.url+"/validate", "", large(good, limit)); status != http.StatusOK {
		t.Errorf("a large review, when there is room again: %d %.200s", status, answer)
	}
	holds(t, bodies, 0)
}

// TestLargeReviewIsHeld: until it is answered, and also while it is not yet.
func TestLargeReviewIsHeld(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	bodies := webhook.NewBodies(1 << 20)
	var asked atomic.Int64
	s := newStack(t, setting{bodies: bodies, decider: canned{func(q policy.Question) []policy.Decision {
		if asked.Add(1) == 1 {
			close(entered)
			<-release
		}
		return make([]policy.Decision, len(q.Images))
	}}})
	body := large(ask{object: pod("a.io/x")}, 1<<20)
	answered := make(chan int, 1)
	go func() {
		status, _ := exchange(t, "", s.url+"/validate", "", body)
		answered <- status
	}()
	<-entered
	if got, want := bodies.Held(), int64(1<<20-64<<10); got != want {
		t.Errorf("%d bytes are held, want %d", got, want)
	}
	if status, _ := exchange(t, "", s.url+"/validate", "", body); status != http.StatusServiceUnavailable {
		t.Errorf("another one is answered %d", status)
	}
	close(release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("answered %d", status)
	}
	holds(t, bodies, 0)
}

// TestRoomIsGivenBack: however a large review ends.
func TestRoomIsGivenBack(t *testing.T) {
	t.Parallel()
	bodies := webhook.NewBodies(webhook.DefaultBodies)
	panics := newStack(t, setting{bodies: bodies, decider: canned{func(policy.Question) []policy.Decision { panic("boom") }}})
	fine := string(ask{object: pod("a.io/x")}.body())
	spaces := strings.Repeat(" ", 1<<20)
	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"answered":       {fine + spaces, 200}, // the decider's panic too
		"malformed":      {"{" + spaces, 400},
		"not a review":   {"{}" + spaces, 400},
		"a long name":    {strings.Replace(fine, `"name":"x"`, `"name":"`+strings.Repeat("n", 1<<20)+`"`, 1), 400},
		"one byte more":  {fine + strings.Repeat(" ", 7<<20-len(fine)+1), 413},
		"largest":        {fine + strings.Repeat(" ", 7<<20-len(fine)), 200},
		"free":           {fine + strings.Repeat(" ", 64<<10-len(fine)), 200},
		"one byte of it": {fine + strings.Repeat(" ", 64<<10-len(fine)+1), 200},
	} {
		for _, chunked := range []bool{false, true} {
			body := struct{ *strings.Reader }{strings.NewReader(c.body)} // whose length net/http cannot know
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, panics.url+"/validate", body)
			if err != nil {
				t.Fatal(err)
			}
			if !chunked {
				request.ContentLength = int64(len(c.body))
			}
			request.Header.Set("Content-Type", "application/json")
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			_ = response.Body.Close()
			if response.StatusCode != c.status {
				t.Errorf("%s: answered %d, want %d", name, response.StatusCode, c.status)
			}
			holds(t, bodies, 0)
		}
	}

	// An ImageConfig's checks too, and what net/http itself has to catch.
	aborts := httptest.NewServer(&webhook.ImageConfigHandler{
		Check: func([]byte) ([]string, []string) { return nil, nil }, Bodies: bodies, Recorder: aborting{}, Log: logr.Discard(),
	})
	t.Cleanup(aborts.Close)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, aborts.URL, strings.NewReader(config("CREATE", "{}", "{}")+spaces[:512<<10]))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if response, err := http.DefaultClient.Do(request); err == nil {
		_ = response.Body.Close()
	}
	holds(t, bodies, 0)
}

// aborting panics where nobody expects it.
type aborting struct{ webhook.Recorder }

func (aborting) Reviewed(string, bool, time.Duration, time.Duration) { panic(http.ErrAbortHandler) }

// TestStrangersDoNotFillTheLog: of what is no review a few lines are logged, and
// of a review nothing that is longer than an API server sends it.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var logged []string
	s := newStack(t, setting{log: funcr.New(func(_, text string) {
		mu.Lock()
		defer mu.Unlock()
		logged = append(logged, text)
	}, funcr.Options{})})
	body := ask{operation: "DELETE", object: "{}"}.body()
	var review map[string]any
	if err := json.Unmarshal(body, &review); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("n", 900<<10)
	for _, field := range []string{"uid", "name", "namespace", "operation", "subResource", "kind"} {
		request := review["request"].(map[string]any)
		before := request[field]
		request[field] = long
		if field == "kind" {
			request[field] = map[string]any{"kind": long}
		}
		changed, err := json.Marshal(review)
		if err != nil {
			t.Fatal(err)
		}
		request[field] = before
		for _, path := range []string{"/mutate", "/validate"} {
			if status, answer := exchange(t, "", s.url+path, "", string(changed)); status != http.StatusBadRequest || len(answer) > 100 {
				t.Errorf("%s: %d %.200s", field, status, answer)
			}
		}
	}
	for range 13 {
		exchange(t, http.MethodGet, s.url+"/validate", "", "")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(logged) != 10 {
		t.Errorf("%d lines are logged", len(logged))
	}
	for _, line := range logged {
		if len(line) > 300 || !strings.Contains(line, `"notLogged"=0`) {
			t.Errorf("logged %.400s", line)
		}
	}
}
