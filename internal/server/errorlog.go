// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"errors"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/pratique-dev/pratique/internal/loglimit"
)

const (
	// handshakeError is what net/http begins such lines with.
	handshakeError = "http: TLS handshake error from "
	// silent is how the line of a connection ends that was closed before
	// anything was said: probes of ports do that, our own too.
	silent = ": EOF"
)

// ErrorLog is for the lines that net/http, and whichever library has no other
// logger, writes to the standard one: it logs them as the rest is logged, and
// counts the connections that failed in the TLS handshake, of which it logs a few
// only. Make it with [NewErrorLog].
type ErrorLog struct {
	log     logr.Logger
	refused prometheus.Counter
	now     func() time.Time
	limit   loglimit.Limit // strangers decide how many handshakes fail
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
	omitted, ok := l.limit.Next(l.now())
	if !ok {
		return
	}
	from, reason, _ := strings.Cut(failed, ": ")
	l.log.Info("refused a connection: the TLS handshake failed", "from", from, "reason", reason, "notLogged", omitted)
}
