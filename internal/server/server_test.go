// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/internal/server"
)

// freeAddress is one that nobody listens on now.
func freeAddress(t *testing.T) string {
	t.Helper()
	listener := occupied(t)
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return address
}

func occupied(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	return listener
}

// options of a server that answers reviews by validate.
func options(t *testing.T, validate http.HandlerFunc) server.Options {
	t.Helper()
	return server.Options{
		BindAddress: freeAddress(t), HealthAddress: freeAddress(t), MetricsAddress: "0",
		Mutate: http.NotFoundHandler(), Validate: validate,
		Gatherer: prometheus.NewRegistry(), Ready: func() error { return nil },
	}
}

// start runs a server until stop, and waits until it is ready.
func start(t *testing.T, o server.Options, log ...logr.Logger) (stop context.CancelFunc, ended <-chan error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	for _, log := range log {
		ctx = logr.NewContext(ctx, log)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, o) }()
	t.Cleanup(stop)
	await(t, func() bool {
		status, _ := get(t.Context(), "http://"+o.HealthAddress+"/readyz")
		return status == http.StatusOK
	})
	return stop, done
}

// await polls: tests must not depend on speed.
func await(t *testing.T, done func() bool) {
	t.Helper()
	for !done() {
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// get asks on a connection of its own.
func get(ctx context.Context, url string) (status int, body string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true,
	}}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(text)
}

// TestRequestsInFlightFinish: the end of the server is not the end of what it
// is answering.
func TestRequestsInFlightFinish(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	o := options(t, func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		<-release
		if err := r.Context().Err(); err != nil {
			http.Error(w, "aborted: "+err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "finished")
	})
	stop, ended := start(t, o)
	type answer struct {
		status int
		body   string
	}
	answers := make(chan answer, 1)
	go func() {
		status, body := get(t.Context(), "https://"+o.BindAddress+"/validate")
		answers <- answer{status, body}
	}()
	<-entered
	stop()
	// It stops listening after the contexts that are made from its own ended.
	await(t, func() bool {
		connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", o.BindAddress)
		if err == nil {
			_ = connection.Close()
		}
		return err != nil
	})
	close(release)
	if got, want := <-answers, (answer{http.StatusOK, "finished"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestClientLeaves: nobody works for a client that has gone.
func TestClientLeaves(t *testing.T) {
	t.Parallel()
	entered, left := make(chan struct{}), make(chan struct{})
	o := options(t, func(_ http.ResponseWriter, r *http.Request) {
		close(entered)
		<-r.Context().Done()
		close(left)
	})
	start(t, o)
	ctx, leave := context.WithCancel(t.Context())
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		get(ctx, "https://"+o.BindAddress+"/validate")
	}()
	<-entered
	leave()
	<-gone
	<-left
}

// TestDraining: before it stops listening, it says that it is not ready, answers
// who comes all the same, and asks each client to come back elsewhere.
func TestDraining(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	o := options(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "slow" {
			close(entered)
			<-release
		}
		_, _ = io.WriteString(w, "answered")
	})
	o.Drain = time.Hour // it does not end before the test
	stop, _ := start(t, o)
	client := keeping(t)
	ask := func(client *http.Client, query string) (reused, asksToClose bool) {
		t.Helper()
		trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { reused = info.Reused }}
		request, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodPost, "https://"+o.BindAddress+"/validate?"+query, nil)
		if err != nil {
			t.Error(err)
			return false, false
		}
		response, err := client.Do(request)
		if err != nil {
			t.Error(err)
			return false, false
		}
		defer func() { _ = response.Body.Close() }()
		if text, err := io.ReadAll(response.Body); err != nil || response.StatusCode != http.StatusOK || string(text) != "answered" {
			t.Errorf("%s %q: %v", response.Status, text, err)
		}
		return reused, response.Close
	}
	for range 2 {
		if _, asksToClose := ask(client, ""); asksToClose {
			t.Error("it closes connections before it should stop")
		}
	}
	slow := make(chan struct{})
	go func() {
		defer close(slow)
		ask(keeping(t), "slow")
	}()
	<-entered
	stop()
	await(t, func() bool {
		status, body := get(t.Context(), "http://"+o.HealthAddress+"/readyz")
		return status == http.StatusServiceUnavailable && body == "stopping\n"
	})
	if status, _ := get(t.Context(), "https://"+o.BindAddress+"/readyz"); status != http.StatusServiceUnavailable {
		t.Errorf("on the webhook's own port it is ready: %d", status)
	}
	if reused, asksToClose := ask(client, ""); !reused || !asksToClose {
		t.Errorf("on a connection from before: reused is %t, asked to close it %t", reused, asksToClose)
	}
	if reused, asksToClose := ask(client, ""); reused || !asksToClose {
		t.Errorf("on a new connection: reused is %t, asked to close it %t", reused, asksToClose)
	}
	close(release)
	<-slow
}

// keeping is a client that keeps its connections.
func keeping(t *testing.T) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TestOnlyHTTP1: in HTTP/2 "Connection: close" means nothing to clients.
func TestOnlyHTTP1(t *testing.T) {
	t.Parallel()
	o := options(t, http.NotFound)
	start(t, o)
	for _, c := range []struct {
		offered []string
		spoken  string // "" for no handshake
	}{{[]string{"h2", "http/1.1"}, "http/1.1"}, {[]string{"h2"}, ""}} {
		dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: c.offered}}
		connection, err := dialer.DialContext(t.Context(), "tcp", o.BindAddress)
		if err != nil {
			if c.spoken != "" {
				t.Errorf("%q: %v", c.offered, err)
			}
			continue
		}
		if got := connection.(*tls.Conn).ConnectionState().NegotiatedProtocol; got != c.spoken || c.spoken == "" {
			t.Errorf("of %q it speaks %q, want %q", c.offered, got, c.spoken)
		}
		_ = connection.Close()
	}
}

// TestReadyIsAskedOnce: between two questions the answer may change.
func TestReadyIsAskedOnce(t *testing.T) {
	t.Parallel()
	o := options(t, http.NotFound)
	var asked atomic.Int64
	o.Ready = func() error {
		if asked.Add(1)%2 == 1 {
			return errors.New("not read yet")
		}
		return nil
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, o) }()
	var status int
	var body string
	await(t, func() bool {
		status, body = get(t.Context(), "http://"+o.HealthAddress+"/readyz")
		return status != 0
	})
	if status != http.StatusServiceUnavailable || body != "not read yet\n" {
		t.Errorf("status %d: %s", status, body)
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("asked %d times", got)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestMistakesNameTheirFlag: whoever starts it learns which to change.
func TestMistakesNameTheirFlag(t *testing.T) {
	t.Parallel()
	busy := occupied(t).Addr().String()
	folder := t.TempDir()
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte("no PEM"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		change func(*server.Options)
		want   []string
	}{
		"no port":          {func(o *server.Options) { o.BindAddress = "9443" }, []string{"--bind-address", "9443"}},
		"port 0":           {func(o *server.Options) { o.BindAddress = ":0" }, []string{"--bind-address", ":0"}},
		"busy":             {func(o *server.Options) { o.BindAddress = busy }, []string{"--bind-address", busy, "in use"}},
		"health busy":      {func(o *server.Options) { o.HealthAddress = busy }, []string{"--health-address", busy, "in use"}},
		"metrics busy":     {func(o *server.Options) { o.MetricsAddress = busy }, []string{"--metrics-address", busy, "in use"}},
		"metrics no port":  {func(o *server.Options) { o.MetricsAddress = "8080" }, []string{"--metrics-address", "8080"}},
		"profiles busy":    {func(o *server.Options) { o.PprofAddress = busy }, []string{"--pprof-address", busy, "in use"}},
		"no certificate":   {func(o *server.Options) { o.CertDir = "/no/such/folder" }, []string{"--cert-dir", "/no/such/folder"}},
		"bad certificate":  {func(o *server.Options) { o.CertDir = folder }, []string{"--cert-dir", folder}},
		"metrics go first": {func(o *server.Options) { o.MetricsAddress, o.BindAddress = busy, busy }, []string{"--metrics-address"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t, http.NotFound)
			test.change(&o)
			err := server.Run(t.Context(), o)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
}
