// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"crypto/tls"
	"fmt"
	stdlog "log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
)

// TestErrorLog: strangers are counted, and cannot fill the log; what is no
// stranger's is logged as it is. The lines are net/http's own.
func TestErrorLog(t *testing.T) {
	t.Parallel()
	const strangers, loggedHandshakes = 25, 10
	written := make(chan string, 10*strangers) // for each line that net/http wrote
	var logged []string
	registry := prometheus.NewRegistry()
	errorLog := NewErrorLog(funcr.New(func(_, text string) { logged = append(logged, text) }, funcr.Options{}), registry)
	var minutes atomic.Int64
	errorLog.now = func() time.Time { return time.Unix(60*minutes.Load(), 0) }
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert}
	s.Config.ErrorLog = stdlog.New(writerFunc(func(p []byte) (int, error) {
		defer func() { written <- string(p) }()
		return errorLog.Write(p)
	}), "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	address := s.Listener.Addr().String()
	minutes.Store(1)
	stranger := func() {
		t.Helper()
		connection, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		line := <-written // the server has read that there is no certificate
		_ = connection.Close()
		if !strings.HasPrefix(line, handshakeError) {
			t.Fatalf("net/http wrote %q", line)
		}
	}
	// A probe says nothing.
	connection, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	_ = connection.Close()
	<-written
	if len(logged) > 0 || counted(t, registry) != 0 {
		t.Errorf("a probe is counted, or logged: %q", logged)
	}
	for range strangers {
		stranger()
	}
	if len(logged) != loggedHandshakes || counted(t, registry) != strangers {
		t.Errorf("%v counted, and %d lines:\n%s", counted(t, registry), len(logged), strings.Join(logged, "\n"))
	}
	for _, want := range []string{`"from"="127.0.0.1:`, `"reason"="tls: client didn't provide a certificate"`, `"notLogged"=0`} {
		if !strings.Contains(logged[0], want) {
			t.Errorf("the line lacks %s: %s", want, logged[0])
		}
	}
	minutes.Store(2)
	logged = nil
	stranger()
	if want := fmt.Sprintf(`"notLogged"=%d`, strangers-loggedHandshakes); len(logged) != 1 || !strings.Contains(logged[0], want) {
		t.Errorf("lacks %s: %q", want, logged)
	}
	logged = nil
	stdlog.New(errorLog, "", 0).Printf("http: panic serving %s: %v", "x", "y")
	if len(logged) != 1 || !strings.Contains(logged[0], `"error"="http: panic serving x: y"`) {
		t.Errorf("got %q", logged)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func counted(t *testing.T, registry *prometheus.Registry) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil || len(families) != 1 || families[0].GetName() != "pratique_refused_connections_total" {
		t.Fatalf("%v: %v", families, err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}
