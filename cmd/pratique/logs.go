// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/grpclog"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/pratique-dev/pratique/internal/logwriter"
	"github.com/pratique-dev/pratique/internal/server"
)

const (
	// lastWords is how long the end waits for the log to be written.
	lastWords = time.Second
	// maxPrinted is how long a line may be that a library prints; what is longer
	// becomes several.
	maxPrinted = 4 << 10
)

// logFor makes the logger of the server, and what ends it. Where somebody else gets
// the command's errors, the process is not the server's own.
func logFor(c *cobra.Command, registerer prometheus.Registerer) (log logr.Logger, end func(), err error) {
	if c.ErrOrStderr() != os.Stderr {
		return logToJSON(os.Stderr), func() {}, nil
	}
	return logTo(os.Stderr, registerer)
}

// logTo makes the server's logger, which has the process to itself: nobody waits
// for what is logged, and nothing that is printed anywhere gets past it. The
// caller ends it with end, before whoever started the program is told how it
// ended.
func logTo(to *os.File, registerer prometheus.Registerer) (log logr.Logger, end func(), err error) {
	// A pipe whose reader is gone would end the process with its next line
	// (os/signal, SIGPIPE).
	signal.Ignore(syscall.SIGPIPE)
	w := logwriter.New(to, registerer)
	log = logToJSON(w)
	giveBack, err := takePrints(log)
	if err != nil {
		return log, nil, err
	}
	return log, func() {
		giveBack()
		w.Close(lastWords)
	}, nil
}

// logToJSON makes the server's logger. Every line is one JSON object with time,
// level and msg, whichever library writes it.
func logToJSON(to io.Writer) logr.Logger {
	log := logr.FromSlogHandler(slog.NewJSONHandler(to, nil))
	ctrl.SetLogger(log)
	// client-go's own, and what it hands on with a context.
	klog.SetLoggerWithOptions(log, klog.ContextualLogger(true))
	// The library of policy.json and the helper of AWS.
	logrus.SetFormatter(&logrus.JSONFormatter{})
	logrus.SetOutput(to)
	// That of Google's key service. What is no error it does not tell by default
	// either; what it ends the process with cannot wait for the log.
	grpclog.SetLoggerV2(grpcLogger{grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr), log})
	return log
}

// grpcLogger logs what gRPC calls errors.
type grpcLogger struct {
	grpclog.LoggerV2

	log logr.Logger
}

// Error implements [grpclog.LoggerV2].
func (g grpcLogger) Error(args ...any) { g.error(fmt.Sprint(args...)) }

// Errorln implements [grpclog.LoggerV2].
func (g grpcLogger) Errorln(args ...any) { g.error(fmt.Sprintln(args...)) }

// Errorf implements [grpclog.LoggerV2].
func (g grpcLogger) Errorf(format string, args ...any) { g.error(fmt.Sprintf(format, args...)) }

func (g grpcLogger) error(text string) { g.log.Error(errors.New(strings.TrimSpace(text)), "gRPC") }

// takePrints logs what libraries print, line by line, until giveBack: those that
// verify signatures tell standard error of some of them. It is not to wait there
// for whoever reads it, and not to be text among JSON.
func takePrints(log logr.Logger) (giveBack func(), err error) {
	from, to, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("making a pipe for what is printed: %w", err)
	}
	stdout, stderr := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = to, to
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewReaderSize(from, maxPrinted)
		for {
			line, _, err := lines.ReadLine()
			if text := strings.TrimSpace(string(line)); text != "" {
				log.Info("a library printed", "text", text)
			}
			if err != nil {
				return
			}
		}
	}()
	return func() {
		os.Stdout, os.Stderr = stdout, stderr
		_ = to.Close()
		select {
		case <-read:
		case <-time.After(lastWords): // a program that a library started has it, too
		}
		_ = from.Close()
	}, nil
}

// countHandshakes takes over the standard logger, which is that of net/http's
// servers.
func countHandshakes(log logr.Logger, registerer prometheus.Registerer) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(server.NewErrorLog(log, registerer))
}
