// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy/language"
)

// TestMain: whatever here evaluates policies starts this binary as a child, which
// must not run the tests.
func TestMain(m *testing.M) {
	if slices.Equal(os.Args[1:], []string{evaluateVerb}) || os.Getenv(asProgram) != "" {
		main()
	}
	if os.Getenv(asLogs) != "" {
		logWithAll()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestEvaluate: the program is its own child, and nobody is told that it can be.
func TestEvaluate(t *testing.T) {
	t.Parallel()
	command, err := evaluatorCommand()
	if err != nil {
		t.Fatal(err)
	}
	e := language.New(language.Options{Command: command})
	t.Cleanup(e.Close)
	for _, p := range []language.Policy{
		{Language: language.CUE, Text: "a: 1"},
		{Language: language.Rego, Text: "package sigstore\nisCompliant { input.a == 1 }"},
		{Language: language.CEL, Text: "statement.a == 1"},
	} {
		for document, want := range map[string]bool{`{"a": 1}`: true, `{"a": 2}`: false} {
			if got, err := e.Evaluate(t.Context(), p, []byte(document)); err != nil || got.Compliant != want {
				t.Errorf("%s of %s: %+v, %v", p.Language, document, got, err)
			}
		}
	}
	if help, _, _ := call(t, "--help"); strings.Contains(help, evaluateVerb+" ") {
		t.Errorf("the help tells of it:\n%s", help)
	}
	if _, _, code := call(t, evaluateVerb, "more"); code != exitUsage {
		t.Errorf("with an argument its exit code is %d", code)
	}
}
