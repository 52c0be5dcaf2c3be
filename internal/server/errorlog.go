// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	// Of the handshakes that fail within a minute only so many are logged:
	// strangers decide how many there are.
	loggedHandshakes = 10
	handshakesWindow = time.Minute
	// handshakeError is what net/http begins such lines with.
	handshakeError = "http: TLS handshake error from "
	// silent is how the line of a connection ends that was closed before
	// anything was said: probes of ports do that, our own too.
	silent = ": EOF"
)

// ErrorLog is for the lines that net/http writes to the standard logger, as
// controller-runtime's server has no other: it logs them as the rest is logged,
// and counts the connections that failed in the TLS handshake, of which it logs
// a few only. Make it with [NewErrorLog].
type ErrorLog struct {
	log     logr.Logger
	refused prometheus.Counter
	now     func() time.Time

	mu      sync.Mutex
	began   time.Time // of the window
	logged  int       // in it
	omitted int       // since the last one that was logged
}

// NewErrorLog returns a writer for [log.SetOutput], without flags.
func NewErrorLog(log logr.Logger, registerer prometheus.Registerer) *ErrorLog {
	l := &ErrorLog{log: log, now: time.Now, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "pratique_refused_connections_total",
		Help: "Connections to the webhook that failed in the TLS handshake, such as those without an accepted client certificate.",
	})}
	registerer.MustRegister(l.refused)
	return l
}

// Write implements [io.Writer]; each call is one line, or a panic with its
// stack.
func (l *ErrorLog) Write(text []byte) (int, error) {
	line := strings.TrimSpace(string(text))
	failed, isHandshake := strings.CutPrefix(line, handshakeError)
	switch {
	case !isHandshake:
		l.log.Error(errors.New(line), "serving")
	case !strings.HasSuffix(failed, silent):
		l.refused.Inc()
		l.refuse(failed)
	}
	return len(text), nil
}

func (l *ErrorLog) refuse(failed string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := l.now(); now.Sub(l.began) >= handshakesWindow {
		l.began, l.logged = now, 0
	}
	if l.logged == loggedHandshakes {
		l.omitted++
		return
	}
	from, reason, _ := strings.Cut(failed, ": ")
	l.log.Info("refused a connection: the TLS handshake failed", "from", from, "reason", reason, "notLogged", l.omitted)
	l.logged++
	l.omitted = 0
}
