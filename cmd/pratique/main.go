// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command pratique examines container images before they enter a cluster.
//
// pratique serve is the admission webhook; the other verbs ask the same rules
// from a terminal. Exit codes: 0 accepted or skipped, 1 rejected, 2 usage or
// configuration error, 3 inconclusive.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// The exit codes (spec section 9).
const (
	exitOK           = 0
	exitRejected     = 1
	exitUsage        = 2
	exitInconclusive = 3
)

// exitError ends the program with a code: the output has told why.
type exitError struct {
	code int
}

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	root := newRoot() //nolint:contextcheck // cobra hands the context on
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if exit, ok := errors.AsType[*exitError](err); ok {
		return exit.code
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		fmt.Fprintf(root.ErrOrStderr(), "pratique: %s\n", strings.TrimSpace(err.Error()))
	}()
	select {
	case <-told:
	case <-time.After(lastWords): // nobody reads it
	}
	return exitUsage
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "pratique",
		Short: "Gives container images the licence to enter a Kubernetes cluster",
		Long: `Pratique examines container images: it resolves each to a digest once, verifies
that very digest by the rules of ImageConfigs, pins it, and says why.

Exit codes: 0 accepted or skipped, 1 rejected, 2 usage or configuration error,
3 inconclusive.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	// As a plugin the binary is called kubectl-pratique.
	if filepath.Base(os.Args[0]) == "kubectl-pratique" {
		root.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl pratique"}
	}
	root.AddCommand(newServe(), newVerify(), newLint(), newTry(), newArm(), newDisarm(), newVersion(), newEvaluate())
	root.SetFlagErrorFunc(usage)
	// Here and not when they are run, so that docs/cli.md has them too.
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

// usage is an error that the verb's help resolves.
func usage(c *cobra.Command, err error) error {
	return fmt.Errorf("%w\nhint: %s --help", err, strings.TrimSpace(c.CommandPath()))
}

// noArguments is the check of verbs that take flags alone.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(c, fmt.Errorf("unexpected argument %q", args[0]))
	}
	return nil
}
