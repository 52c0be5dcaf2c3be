// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/policy/containers/config"
)

func newLint() *cobra.Command {
	var output outputFormat
	var namespace string
	c := &cobra.Command{
		Use:   "lint FILE...",
		Short: "Check ImageConfigs, policy.json and registries.d",
		Long: `Check files without any cluster or registry, and print what to mend with file and
line: ImageConfigs in YAML or JSON, a containers-policy.json(5), and the files of
a containers-registries.d(5) folder. Of a folder all *.yaml, *.yml and *.json are
checked, those of its subfolders are not. - is the standard input.

Which kind a file is of shows in what it says: apiVersion and kind are of a
manifest, docker and default-docker of a file of registries.d; any other *.json is
taken for a policy.json. Manifests of other kinds than ImageConfig are passed over,
but that Secrets and ConfigMaps are found among them. A Secret that is not there is
a warning: it may be in the cluster. Key files that a policy.json names are not
looked at.

Exit codes: 0 if there are no errors, warnings or not; 2 if there are.`,
		Example: `  pratique lint policies/
  pratique lint /etc/containers/policy.json /etc/containers/registries.d
  kubectl get imageconfigs.pratique.dev -o yaml | pratique lint - -o json`,
		Args: func(c *cobra.Command, paths []string) error {
			if len(paths) == 0 || slices.Contains(paths, "") {
				return usage(c, errors.New("no file to check"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, paths []string) error {
			if err := checkNamespace("--namespace", namespace); err != nil {
				return usage(c, err)
			}
			l := &linter{namespace: namespace, stdin: c.InOrStdin()}
			if err := l.run(c.Context(), paths); err != nil {
				return err
			}
			return l.print(c.OutOrStdout(), output)
		},
	}
	output.register(c.Flags())
	c.Flags().StringVar(&namespace, "namespace", "pratique-system", "Pratique's own `namespace`: the Secrets and ConfigMaps that ImageConfigs name are there")
	return c
}

// lintReport is the output in JSON.
type lintReport struct {
	Files    int           `json:"files"`
	Errors   int           `json:"errors"`
	Warnings int           `json:"warnings"`
	Problems []lintProblem `json:"problems"`
}

type lintProblem struct {
	File     string `json:"file"`
	Line     int    `json:"line,omitempty"` // none if it is about the whole file
	Severity string `json:"severity"`       // error or warning
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

const (
	severityError   = "error"
	severityWarning = "warning"
)

// report counts the problems, in the order of the files and their lines.
func (l *linter) report() lintReport {
	r := lintReport{Files: len(l.order), Problems: []lintProblem{}}
	at := map[string]int{}
	for i, name := range l.order {
		at[name] = i
	}
	slices.SortStableFunc(l.problems, func(a, b config.Problem) int {
		if d := at[a.File] - at[b.File]; d != 0 {
			return d
		}
		return a.Line - b.Line
	})
	for _, p := range l.problems {
		severity := severityError
		if p.Warning {
			severity = severityWarning
			r.Warnings++
		} else {
			r.Errors++
		}
		r.Problems = append(r.Problems, lintProblem{File: p.File, Line: p.Line, Severity: severity, Message: p.Message, Hint: p.Hint})
	}
	return r
}

// print writes what was found, and returns the exit code.
func (l *linter) print(w io.Writer, output outputFormat) error {
	r := l.report()
	if output == outputJSON {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r); err != nil {
			return err
		}
	} else {
		r.print(w)
	}
	if r.Errors > 0 {
		return &exitError{exitUsage}
	}
	return nil
}

// print writes as compilers do, which editors can read.
func (r lintReport) print(w io.Writer) {
	paint := func(s string) string { return s }
	if isTerminal(w) && os.Getenv("NO_COLOR") == "" {
		colours := map[string]string{severityError: "\x1b[31m", severityWarning: "\x1b[33m"}
		paint = func(s string) string { return colours[s] + s + "\x1b[0m" }
	}
	for _, p := range r.Problems {
		where := p.File
		if p.Line > 0 {
			where = fmt.Sprintf("%s:%d", p.File, p.Line)
		}
		message := p.Message
		if p.Hint != "" {
			message += "; " + p.Hint
		}
		fmt.Fprintf(w, "%s: %s: %s\n", printable(where), paint(p.Severity), printable(message))
	}
	fmt.Fprintln(w, r.summary())
}

func (r lintReport) summary() string {
	var parts []string
	if r.Errors > 0 {
		parts = append(parts, counted(r.Errors, "error"))
	}
	if r.Warnings > 0 {
		parts = append(parts, counted(r.Warnings, "warning"))
	}
	if len(parts) == 0 {
		return "no mistakes in " + counted(r.Files, "file")
	}
	return strings.Join(parts, ", ")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
