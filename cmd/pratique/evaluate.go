// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/policy/language"
)

// evaluateVerb makes this program a child that evaluates policies for another.
const evaluateVerb = "evaluate"

// newEvaluate is not for people: see [evaluatorCommand].
func newEvaluate() *cobra.Command {
	return &cobra.Command{
		Use:    evaluateVerb,
		Short:  "Evaluate policies for the process that started this one",
		Hidden: true,
		Args:   noArguments,
		RunE: func(*cobra.Command, []string) error {
			return language.Serve(os.Stdin, os.Stdout)
		},
	}
}

// evaluatorCommand starts this very program as a child that evaluates policies.
func evaluatorCommand() ([]string, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding this program: %w", err)
	}
	return []string{program, evaluateVerb}, nil
}
