// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/internal/version"
)

func newVersion() *cobra.Command {
	var output outputFormat
	c := &cobra.Command{
		Use:   "version",
		Short: "Print which build this is",
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			info := version.Get()
			if output == outputJSON {
				return json.NewEncoder(c.OutOrStdout()).Encode(info)
			}
			fmt.Fprintf(c.OutOrStdout(), "pratique %s (%s, %s)\n", info.Version, info.Go, info.Platform)
			return nil
		},
	}
	output.register(c.Flags())
	return c
}
