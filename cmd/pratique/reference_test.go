// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestReference holds docs/cli.md against the commands' own help. Run it with
// UPDATE=1 to write the page.
func TestReference(t *testing.T) {
	t.Parallel()
	const page = "../../docs/cli.md"
	var want strings.Builder
	want.WriteString("# Command line\n\n<!-- Generated from the commands' help by UPDATE=1 go test ./cmd/pratique -run TestReference -->\n")
	// The root's as the binary prints it: cobra adds verbs when it runs.
	help, _, _ := call(t, "--help")
	describe(&want, "pratique", help)
	for _, c := range newRoot().Commands() {
		if c.Hidden {
			continue
		}
		var help bytes.Buffer
		c.InitDefaultHelpFlag()
		c.SetOut(&help)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		describe(&want, c.CommandPath(), help.String())
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(page, []byte(want.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("docs/cli.md is stale: run UPDATE=1 go test ./cmd/pratique -run TestReference\n%s", diff)
	}
}

func describe(page *strings.Builder, command, help string) {
	page.WriteString("\n## " + command + "\n\n```text\n" + strings.TrimSpace(help) + "\n```\n")
}
