// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	stdlog "log"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/grpclog"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
)

// What this binary is when it is started with one of these variables: the program,
// or whoever logs with every library that the program has.
const (
	asProgram = "PRATIQUE_TEST_PROGRAM"
	asLogs    = "PRATIQUE_TEST_LOGS"
)

func logWithAll() {
	registry := prometheus.NewRegistry()
	log, end, err := logTo(os.Stderr, registry)
	if err != nil {
		panic(err)
	}
	defer end()
	countHandshakes(log, registry)
	log.Info("own")
	ctrl.Log.Info("controller-runtime")
	klog.Info("klog, and \"quoted\"\nin two lines")
	klog.ErrorS(errors.New("e"), "klog with values", "key", "value")
	klog.Background().Info("klog with a context")
	klog.Background().V(4).Info("too much")
	utilruntime.HandleError(errors.New("unhandled"))
	logrus.Warn("logrus\nin two lines")
	logrus.Debug("too much")
	stdlog.Print("log")
	slog.Info("slog")
	grpclog.Error("grpc, ", "in parts")
	grpclog.Errorf("grpc, %s", "formatted")
	grpclog.Errorln("grpc, in a", "line")
	grpclog.Component("part").Error("grpc, a part of it")
	grpclog.Info("too much")
	grpclog.Warning("too much")
	fmt.Fprintln(os.Stderr, "to standard error")
	fmt.Printf("to standard output\n\nin several lines\n")
	fmt.Fprint(os.Stderr, strings.Repeat("long ", 2000)+"without an end")
	klog.Flush()
}

// entry is what every line has.
type entry struct {
	Time  time.Time `json:"time"`
	Level string    `json:"level"`
	Msg   string    `json:"msg"`
	Err   string    `json:"err"`
	Text  string    `json:"text"` // that a library printed
}

// entries reads a log.
func entries(t *testing.T, text string) []entry {
	t.Helper()
	var read []entry
	for line := range strings.Lines(text) {
		var e entry
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Time.IsZero() || e.Level == "" || e.Msg == "" {
			t.Errorf("no line of the log: %q (%v)", line, err)
		}
		read = append(read, e)
	}
	return read
}

// TestLogsAreJSON: whichever library logs.
func TestLogsAreJSON(t *testing.T) {
	t.Parallel()
	command := exec.CommandContext(t.Context(), os.Args[0])
	command.Env = append(os.Environ(), asLogs+"=1")
	var stderr bytes.Buffer
	command.Stderr = &stderr
	if out, err := command.Output(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s%s", err, out, stderr.String())
	}
	got := entries(t, stderr.String())
	for _, want := range []string{
		"own", "controller-runtime", "klog, and \"quoted\"\nin two lines", "klog with values", "klog with a context", "unhandled", "logrus\nin two lines", "log", "slog",
		"grpc, in parts", "grpc, formatted", "grpc, in a line", "grpc, a part of it",
		"to standard error", "to standard output", "in several lines", "without an end",
	} {
		found := 0
		for _, e := range got {
			if strings.Contains(e.Msg+"|"+e.Err+"|"+e.Text, want) {
				found++
			}
		}
		if found == 0 {
			t.Errorf("nothing logged %q:\n%s", want, stderr.String())
		}
	}
	if strings.Contains(stderr.String(), "too much") {
		t.Errorf("too much is logged:\n%s", stderr.String())
	}
}
