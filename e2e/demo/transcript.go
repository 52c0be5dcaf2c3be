// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// transcript prints what a person would have typed and seen.
type transcript struct {
	out                       io.Writer
	bold, dim, command, reset string
	steps                     int
}

func newTranscript(out *os.File) *transcript {
	t := &transcript{out: out}
	if term.IsTerminal(int(out.Fd())) && os.Getenv("NO_COLOR") == "" {
		t.bold, t.dim, t.command, t.reset = "\x1b[1m", "\x1b[2m", "\x1b[36m", "\x1b[0m"
	}
	return t
}

// Title begins a part.
func (t *transcript) Title(text string) {
	t.steps++
	fmt.Fprintf(t.out, "\n%s%d. %s%s\n", t.bold, t.steps, text, t.reset)
}

// Sayf explains.
func (t *transcript) Sayf(format string, args ...any) {
	fmt.Fprintf(t.out, "%s# %s%s\n", t.dim, fmt.Sprintf(format, args...), t.reset)
}

// Command prints a command and what it printed.
func (t *transcript) Command(command, output string) {
	fmt.Fprintf(t.out, "%s$ %s%s\n", t.command, command, t.reset)
	if output = strings.TrimRight(output, "\n"); output != "" {
		fmt.Fprintln(t.out, output)
	}
}
