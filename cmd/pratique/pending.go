// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/term"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// fetchTime is how long a command waits for keys and trust roots that its rules
	// rest on: a service that is there answers within seconds.
	fetchTime = 20 * time.Second
	// lookAgain is how often it looks for them.
	lookAgain = 20 * time.Millisecond
)

// settled decides, and again while an image hangs on a rule that waits for what
// is being fetched. Rules that no image needs are not waited for.
func (r rules) settled(ctx context.Context, progress io.Writer, decide func() []policy.Decision) []policy.Decision {
	until, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	told := ""
	for {
		before := r.Set()
		decisions := decide()
		waiting := r.waiting(decisions)
		if waiting == "" {
			return decisions
		}
		if waiting != told && isTerminal(progress) {
			told = waiting
			fmt.Fprintf(progress, "waiting: %s\n", printable(waiting))
		}
		for r.Set() == before {
			select {
			case <-until.Done():
				return decisions
			case <-time.After(lookAgain):
			}
		}
	}
}

// waiting says for which rule, and what, a decision has to wait; "" for nothing.
func (r rules) waiting(decisions []policy.Decision) string {
	pending := r.pending()
	for _, d := range decisions {
		for _, f := range d.Findings {
			if f.Rule == nil || f.Verdict.Reason != policy.ReasonNotReady {
				continue
			}
			if name := f.Rule.Kind + "/" + f.Rule.Name; slices.Contains(pending, name) {
				return name + ": " + f.Verdict.Message
			}
		}
	}
	return ""
}

// isTerminal reports whether a person reads along.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
