// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pratique-dev/pratique/internal/arming"
)

// switchFlags are those of disarm and arm.
type switchFlags struct {
	name, namespace, deployment string
	wait                        time.Duration
}

func (f *switchFlags) register(c *cobra.Command, wait time.Duration, what string) {
	flags := c.Flags()
	nameFlag(flags, &f.name)
	flags.StringVar(&f.namespace, "namespace", "pratique-system", "Pratique's own `namespace`")
	flags.DurationVar(&f.wait, "wait", wait, what)
}

func (f *switchFlags) check() error {
	if f.wait < 0 {
		return fmt.Errorf("reading --wait: %s is negative", f.wait)
	}
	if f.name == "" {
		return errors.New("reading --webhook-name: it is empty")
	}
	return checkNamespace("--namespace", f.namespace)
}

// connect is the switch of the cluster that the kubeconfig leads to.
func (f *switchFlags) connect() (arming.Switch, *rest.Config, error) {
	config, err := findCluster()
	if err != nil {
		return arming.Switch{}, nil, fmt.Errorf("finding the cluster: %w", err)
	}
	direct, err := client.New(config, client.Options{})
	if err != nil {
		return arming.Switch{}, nil, unconnected(config, fmt.Errorf("making a client: %w", err))
	}
	return arming.Switch{Client: direct, Name: f.name, Namespace: f.namespace, Deployment: f.deployment}, config, nil
}

// askFor bounds what a switch asks of an API server that does not answer.
const askFor = 30 * time.Second

func newDisarm() *cobra.Command {
	f := &switchFlags{}
	c := &cobra.Command{
		Use:   "disarm",
		Short: "Have the API server ask this webhook no more",
		Long: `Have the API server ask this webhook no more: the switch for emergencies, and
what comes before uninstalling. Images are not examined from then on, and
nothing is refused.

It leaves the ConfigMap ` + arming.Marker + ` in Pratique's namespace, by which no
replica arms again, and deletes both webhook configurations. It works whether or
not a replica is alive. Of configurations that somebody else keeps (without
--manage-webhooks) it deletes those of that name, and nobody makes them again.

Exit codes: 0 both are gone, 2 usage error or refused by the API server, 3 not
gone within --wait.`,
		Example: `  pratique disarm
  pratique disarm --namespace admission --wait 2m`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.check(); err != nil {
				return usage(c, err)
			}
			return f.disarm(c)
		},
	}
	f.register(c, time.Minute, "how long to wait until both are gone, and stay so; 0 for not at all")
	c.Flags().StringVar(&f.deployment, "deployment", defaultName, "`name` of Pratique's Deployment, which the ConfigMap ends with")
	return c
}

func (f *switchFlags) disarm(c *cobra.Command) error {
	s, config, err := f.connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context(), askFor)
	defer cancel()
	ownerErr, err := s.Off(ctx)
	if err != nil {
		return told(config, err)
	}
	if ownerErr != nil {
		fmt.Fprintf(c.ErrOrStderr(), "pratique: Deployment %q cannot be read, so ConfigMap %s/%s stays until pratique arm: %s\n",
			f.deployment, f.namespace, arming.Marker, printable(told(config, ownerErr).Error()))
	}
	if f.wait == 0 {
		fmt.Fprintln(c.OutOrStdout(), "disarming")
		return nil
	}
	return told(config, f.await(c, s.Gone, "disarmed", "the webhook configurations are still there"))
}

// await waits for as long as it may, and says that it is done, or not.
func (f *switchFlags) await(c *cobra.Command, reached func(context.Context) (bool, error), done, not string) error {
	ctx, cancel := context.WithTimeout(c.Context(), f.wait)
	defer cancel()
	ok, err := reached(ctx)
	if err != nil {
		return err
	}
	if !ok {
		fmt.Fprintf(c.ErrOrStderr(), "pratique: not within %s: %s\n", f.wait, not)
		return &exitError{exitInconclusive}
	}
	fmt.Fprintln(c.OutOrStdout(), done)
	return nil
}

// told is an error as a person is told it: of an API server that does not answer
// only that.
func told(config *rest.Config, err error) error {
	if _, ok := errors.AsType[*url.Error](err); ok {
		return unconnected(config, err)
	}
	return err
}
