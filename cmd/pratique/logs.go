// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	stdlog "log"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/pratique-dev/pratique/internal/server"
)

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
	return log
}

// countHandshakes takes over the standard logger: the webhook's server has no
// other.
func countHandshakes(log logr.Logger, registerer prometheus.Registerer) {
	stdlog.SetFlags(0)
	stdlog.SetOutput(server.NewErrorLog(log, registerer))
}
