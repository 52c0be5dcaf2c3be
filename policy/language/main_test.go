// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy/language"
)

// The environment makes the test's own binary a child.
const (
	roleVariable = "PRATIQUE_TEST_ROLE"
	// fileVariable names a file to which each child adds a byte when it starts,
	// and which it holds locked.
	fileVariable = "PRATIQUE_TEST_FILE"
)

func TestMain(m *testing.M) {
	role := os.Getenv(roleVariable)
	if role == "" {
		os.Exit(m.Run())
	}
	if path := os.Getenv(fileVariable); path != "" && role != "parent" {
		if err := register(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	switch role {
	case "child":
		if err := language.Serve(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "parent":
		e := language.New(language.Options{
			Command: []string{os.Args[0]},
			Env:     []string{roleVariable + "=child", fileVariable + "=" + os.Getenv(fileVariable)},
		})
		//nolint:forbidigo // there is no test to take it from
		ctx := context.Background()
		if _, err := e.Evaluate(ctx, anything[2], []byte(`{}`)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(0)
		}
		time.AfterFunc(200*time.Millisecond, func() { _ = syscall.Kill(os.Getpid(), syscall.SIGKILL) })
		_, _ = e.Evaluate(ctx, endless[language.CUE], []byte(`{}`))
	default:
		misbehave(role)
	}
	os.Exit(0)
}

// registered stays open, and locked, until the process ends.
var registered *os.File

func register(path string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH); err != nil {
		return err
	}
	registered = f
	_, err = f.WriteString("x")
	return err
}

// misbehave is a child that is not what it should be.
func misbehave(role string) {
	frame := func(text string) {
		fmt.Fprintf(os.Stdout, "\x00\x00\x00%c%s", len(text), text)
	}
	reply := func(text string) {
		frame("pratique/evaluate")
		_, _ = io.ReadFull(os.Stdin, make([]byte, 8)) // a request has come
		frame(text)
	}
	switch role {
	case "rude":
		frame("hello")
	case "loud":
		fmt.Fprint(os.Stdout, "panic: this is no frame at all, but text\n")
	case "gone":
		return
	case "hanging":
		frame("pratique/evaluate")
	case "garbage":
		reply("compliant")
	case "unknown field":
		reply(`{"kind":"answered","compliant":true,"surely":true}`)
	case "unknown kind":
		reply(`{"kind":"maybe","compliant":true}`)
	case "huge":
		reply("")
		fmt.Fprint(os.Stdout, "\xff\xff\xff\xff")
	case "cut":
		reply("")
		fmt.Fprint(os.Stdout, "\x00\x00\x00\x40{\"kind\":\"answered\",\"compliant\":true}")
		return
	case "killed":
		frame("pratique/evaluate")
		_, _ = io.ReadFull(os.Stdin, make([]byte, 8))
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "telling":
		told, _ := json.Marshal(map[string]any{"kind": "answered", "message": strings.Join(os.Environ(), " ") + "\x1b[31m"})
		reply(string(told))
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// unhurried is time enough for what a test is not about, however busy the
// machine is.
const unhurried = 2 * time.Minute

// options have children of this binary.
func options(t testing.TB, role string, workers int, env ...string) language.Options {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return language.Options{Command: []string{program}, Env: append(env, roleVariable+"="+role), Workers: workers, Time: unhurried}
}

// newHurried is newEvaluator for what never ends.
func newHurried(t testing.TB, role string) *language.Evaluator {
	t.Helper()
	o := options(t, role, 1)
	o.Time = 0 // the default
	e := language.New(o)
	t.Cleanup(e.Close)
	return e
}

func newEvaluator(t testing.TB, role string, workers int, env ...string) *language.Evaluator {
	t.Helper()
	e := language.New(options(t, role, workers, env...))
	t.Cleanup(e.Close)
	return e
}
