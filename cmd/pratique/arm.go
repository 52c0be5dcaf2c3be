// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/internal/arming"
)

func newArm() *cobra.Command {
	f := &switchFlags{}
	c := &cobra.Command{
		Use:   "arm",
		Short: "Have the API server ask this webhook again",
		Long: `Have the API server ask this webhook again, after pratique disarm: it removes
the ConfigMap ` + arming.Marker + `. The elected replica then makes the webhook
configurations, once one answers. That needs pratique serve --manage-webhooks.

Exit codes: 0 both are in force, 2 usage error or refused by the API server, 3
not in force within --wait: the log of the replicas says why.`,
		Example: `  pratique arm
  pratique arm --namespace admission --wait 0`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return usage(c, err)
			}
			return f.arm(c)
		},
	}
	f.register(c, time.Minute, "how long to wait until both are in force; 0 for not at all")
	return c
}

func (f *switchFlags) arm(c *cobra.Command) error {
	s, config, err := f.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), askFor)
	defer cancel()
	if err := s.On(ctx); err != nil {
		return told(config, err)
	}
	if f.wait == 0 {
		fmt.Fprintln(c.OutOrStdout(), "arming")
		return nil
	}
	return told(config, f.await(c, s.Armed, "armed", "the webhook configurations are not in force yet; the log of the replicas says why"))
}
