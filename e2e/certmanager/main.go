// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Certmanager is cert-manager in one program, for tests: the controllers of
// self-signed and CA issuers and of Certificates, and the cainjector. Each is
// unchanged and built from cert-manager's Go module.
//
//	certmanager --kubeconfig FILE
//
// cert-manager's own programs are in Go modules of their own that are not to be
// had; this puts the packages of its main module together as they do, with the
// same defaults. It leaves out what issues with somebody else's help (ACME,
// Vault, Venafi), the election of a leader, and cert-manager's admission
// webhook, which refuses what is malformed and fills in who made a request.
//
// It is a module of its own because cert-manager is built on other versions of
// Kubernetes' libraries than Pratique.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	logf "github.com/cert-manager/cert-manager/pkg/logs"
	"golang.org/x/sync/errgroup"
	ctrl "sigs.k8s.io/controller-runtime"
)

// options are the command line's.
type options struct {
	// kubeconfig is a file: this program must never take the cluster that it
	// happens to run in for the one under test.
	kubeconfig string
	// clusterResources is the namespace of the Secrets of ClusterIssuers.
	clusterResources string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "certmanager:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("certmanager", flag.ContinueOnError)
	flags.StringVar(&o.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "how to reach the API server; the default is the variable KUBECONFIG")
	flags.StringVar(&o.clusterResources, "cluster-resource-namespace", "cert-manager", "namespace of the Secrets of ClusterIssuers")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.kubeconfig == "" || flags.NArg() != 0 {
		return errors.New("usage: certmanager --kubeconfig FILE [--cluster-resource-namespace NAMESPACE]")
	}
	logf.InitLogs()
	defer logf.FlushLogs()
	ctrl.SetLogger(logf.Log)

	group, inner := errgroup.WithContext(ctx)
	if err := startControllers(inner, group, o); err != nil {
		return err
	}
	if err := startInjector(inner, group, o.kubeconfig); err != nil {
		return err
	}
	// The first that fails ends all. What they say when they were told to end
	// is of no interest.
	if err := group.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
