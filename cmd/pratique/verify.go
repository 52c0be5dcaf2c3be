// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// verifyFlags are the flags of pratique verify.
type verifyFlags struct {
	registryFlags
	policyFlags

	files      []string
	cluster    bool
	in         string // namespace that the images are examined for
	pullSecret []string
	account    string // ServiceAccount
	ownConfig  bool   // use the user's own Docker configuration
	timeout    time.Duration
	output     outputFormat
}

func newVerify() *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify IMAGE...",
		Short: "Examine images as the webhook would",
		Long: `Examine images by the rules of ImageConfigs, and print each verdict with its
reason, the digest, the rule and who signed. The rules are those of the cluster
that KUBECONFIG, or else ~/.kube/config, leads to; or, with -f, those in files.
Nothing is written to the cluster.

With --containers-policy the policy.json in that file is asked besides. Without -f
and --cluster it is asked alone, and no cluster is needed. In --registries-d, here
and not in the server, signatures may be in folders (file://).

Registries are shown the credentials of --pull-secret, of the ImageConfig and of
--service-account, in this order, and then those that the cloud gives the machine
that this runs on for registries of its own. With neither of the two flags your
own come last: those of ~/.docker/config.json, or of the folder that DOCKER_CONFIG
names, and of the credential helper that it names for the registry. Turn that off
with --user-credentials=false, and the cloud's, for which your Docker
configuration is read too, with --cloud-credentials=false.

Exit codes: 0 accepted or skipped, 1 rejected, 2 usage or configuration error,
3 inconclusive. The weightiest verdict decides: Rejected before Inconclusive.
It does so with --mode Audit too. What is not an image reference is Rejected.
Files that cannot be read, or hold no ImageConfig, are an error: 2; so is a mistake
in policy.json. One in an ImageConfig makes the images that it selects
Inconclusive: 3, and so does a key file that policy.json names and that cannot be
read.`,
		Example: `  pratique verify registry1.com/acme-co/app:v1
  pratique verify registry1.com/acme-co/app:v1 -f policies/ -o json
  pratique verify registry1.com/acme-co/app:v1 \
    --containers-policy /etc/containers/policy.json --registries-d /etc/containers/registries.d`,
		Args: func(c *cobra.Command, images []string) error {
			if len(images) == 0 {
				return usage(c, errors.New("no image to examine"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, images []string) error {
			if err := f.check(c); err != nil {
				return usage(c, err)
			}
			return f.run(c, images)
		},
	}
	flags := c.Flags()
	f.registryFlags.register(flags)
	f.policyFlags.register(flags)
	f.output.register(flags)
	flags.StringSliceVarP(&f.files, "file", "f", nil, "`file` or folder of ImageConfigs, Secrets, ConfigMaps, Namespaces and ServiceAccounts, instead of the cluster")
	flags.BoolVar(&f.cluster, "cluster", false, "take the rules from the cluster, as without -f; with --containers-policy, besides those of that file")
	flags.StringVarP(&f.in, "for-namespace", "n", "", "examine as for an object in this `namespace`; without it, as for one that has none")
	flags.StringSliceVar(&f.pullSecret, "pull-secret", nil, "`names` of pull secrets in that namespace")
	flags.StringVar(&f.account, "service-account", "", "`name` of a ServiceAccount in that namespace, whose pull secrets are used too")
	flags.BoolVar(&f.ownConfig, "user-credentials", true,
		"use your own Docker configuration and credential helpers last, without --pull-secret and --service-account")
	flags.DurationVar(&f.timeout, "timeout", time.Minute, "how long all of it may take")
	return c
}

// check refuses what makes no sense, alone or together.
func (f *verifyFlags) check(c *cobra.Command) error {
	files := c.Flags().Changed("file")
	switch {
	case files && f.cluster:
		return errors.New("-f or --cluster, not both")
	case files && (len(f.files) == 0 || slices.Contains(f.files, "")):
		return errors.New("reading -f: it names no file")
	case f.timeout <= 0:
		return fmt.Errorf("reading --timeout: %s is no time to examine anything in", f.timeout)
	case len(f.pullSecret) > 0 && f.in == "":
		return errors.New("--pull-secret needs -n, the namespace that the secret is in")
	case f.account != "" && f.in == "":
		return errors.New("--service-account needs -n, the namespace that it is in")
	}
	return errors.Join(f.policyFlags.check(c), f.checkNames())
}

func (f *verifyFlags) checkNames() error {
	if f.in != "" {
		if err := checkNamespace("-n", f.in); err != nil {
			return err
		}
	}
	for _, name := range f.pullSecret {
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			return fmt.Errorf("reading --pull-secret: %q is not a Secret's name", name)
		}
	}
	if f.account != "" && len(validation.IsDNS1123Subdomain(f.account)) > 0 {
		return fmt.Errorf("reading --service-account: %q is not a ServiceAccount's name", f.account)
	}
	return nil
}

func (f *verifyFlags) run(c *cobra.Command, images []string) error {
	ctx, cancel := context.WithTimeout(logr.NewContext(c.Context(), logr.Discard()), f.timeout)
	defer cancel()
	options, err := f.options()
	if err != nil {
		return err
	}
	parts, err := wire(ctx, settings{
		registry: options, server: f.policyFlags.server, namespace: f.namespace, crossplane: f.crossplaneNamespace, policyController: f.ofPolicyController(), clouds: f.clouds,
		paths: f.files, pathsFlag: "-f", trustedRoot: f.trustedRoot,
		containers: containersSettings{
			policy: f.containersPolicy, registries: f.registriesD, local: true,
			warn: func(p config.Problem) { fmt.Fprintln(c.ErrOrStderr(), "warning:", printable(p.Error())) },
		},
		alone: f.containersPolicy != "" && len(f.files) == 0 && !f.cluster,
	}, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer parts.close()
	if len(f.files) > 0 && parts.rules.imageConfigs == 0 && f.containersPolicy == "" {
		// Everything would be skipped: that is not what was asked.
		return fmt.Errorf("no ImageConfig in %s", strings.Join(f.files, ", "))
	}
	if err := parts.rules.await(ctx); err != nil {
		return err
	}
	decisions := parts.rules.settled(ctx, c.ErrOrStderr(), func() []policy.Decision {
		return parts.decider.Decide(ctx, f.question(ctx, parts.rules, images))
	})
	if f.output == outputText {
		printText(c.OutOrStdout(), images, decisions)
	} else if err := printJSON(c.OutOrStdout(), images, decisions); err != nil {
		return err
	}
	return exitCode(decisions)
}

// await starts the rules and waits for the first.
func (r rules) await(ctx context.Context) error {
	failed := make(chan error, 1)
	go func() { failed <- r.run(ctx) }()
	const again = 20 * time.Millisecond
	for r.ready() != nil {
		select {
		case err := <-failed:
			return fmt.Errorf("reading the cluster's ImageConfigs: %w", err)
		case err := <-r.refused:
			return fmt.Errorf("reading the cluster's ImageConfigs: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("reading the cluster's ImageConfigs: %w", ctx.Err())
		case <-time.After(again):
		}
	}
	return nil
}

func (f *verifyFlags) question(ctx context.Context, r rules, images []string) policy.Question {
	q := policy.Question{
		Set: r.Set(), Images: make([]policy.Asked, len(images)), Pods: true,
		// Without a namespace nothing is named either.
		Credentials: r.Credentials(credential.Names{Namespace: f.in, PullSecrets: f.pullSecret, ServiceAccount: f.account}),
	}
	if f.in != "" {
		q.Namespace = r.Namespace(ctx, f.in)
		q.Secrets = func(names []string) *credential.Source {
			return r.Credentials(credential.Names{Namespace: f.in, PullSecrets: names})
		}
	}
	// Who names some wants to know whether those are enough.
	if f.ownConfig && len(f.pullSecret) == 0 && f.account == "" {
		q.Credentials = q.Credentials.Then(userCredentials())
	}
	for i, image := range images {
		q.Images[i].Reference, q.Images[i].Invalid = reference.Parse(image)
	}
	return q
}

// exitCode is that of the weightiest verdict.
func exitCode(decisions []policy.Decision) error {
	outcome := policy.Skipped
	for _, d := range decisions {
		if d.Outcome().Outweighs(outcome) {
			outcome = d.Outcome()
		}
	}
	switch outcome {
	case policy.Accepted, policy.Skipped:
		return nil
	case policy.Rejected:
		return &exitError{exitRejected}
	default:
		return &exitError{exitInconclusive}
	}
}

// report is one image in JSON.
type report struct {
	Image    string    `json:"image"`
	Digest   string    `json:"digest,omitempty"`
	Outcome  string    `json:"outcome"`
	Findings []finding `json:"findings"`
	Warnings []string  `json:"warnings,omitempty"`
}

type finding struct {
	Rule    string `json:"rule,omitempty"`
	Engine  string `json:"engine,omitempty"`
	Mode    string `json:"mode"`
	Outcome string `json:"outcome"`
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
	Signer  string `json:"signer,omitempty"`
}

func reportOf(image string, d policy.Decision) report {
	r := report{Image: image, Digest: d.Digest, Outcome: d.Outcome().String(), Warnings: d.Warnings}
	for _, f := range d.Findings {
		one := finding{
			Mode: string(f.Mode), Outcome: f.Verdict.Outcome.String(), Reason: string(f.Verdict.Reason),
			Message: f.Verdict.Message, Signer: f.Verdict.Signer,
		}
		if f.Rule != nil {
			one.Rule = f.Rule.Kind + "/" + f.Rule.Name
			if f.Rule.Verification != nil {
				one.Engine = f.Rule.Verification.Engine
			}
		}
		r.Findings = append(r.Findings, one)
	}
	return r
}

func printJSON(w io.Writer, images []string, decisions []policy.Decision) error {
	reports := make([]report, len(decisions))
	for i, d := range decisions {
		reports[i] = reportOf(images[i], d)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(reports)
}

// printText writes for people: the image, the verdict, and below it why.
func printText(w io.Writer, images []string, decisions []policy.Decision) {
	paint := painter(w)
	for i, d := range decisions {
		r := reportOf(images[i], d)
		fmt.Fprintf(w, "%s  %q\n", paint(d.Outcome()), images[i])
		if r.Digest != "" {
			fmt.Fprintf(w, "  digest: %s\n", r.Digest)
		}
		for _, f := range r.Findings {
			who := "server"
			if f.Rule != "" {
				who = f.Rule
			}
			if f.Mode == string(policy.Audit) {
				who += " (Audit)"
			}
			message := f.Message
			if message == "" && f.Reason == string(policy.ReasonNotCovered) {
				message = "no rule covers it"
			}
			fmt.Fprintf(w, "  %s: %s: %s\n", printable(who), f.Outcome, printable(message))
		}
		for _, warning := range r.Warnings {
			fmt.Fprintf(w, "  warning: %s\n", printable(warning))
		}
	}
}

// printable escapes what would break a line, or a terminal: a message may
// repeat what a user wrote.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
			continue
		}
		quoted := strconv.QuoteRune(r)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// painter colours outcomes on a terminal, and only there.
func painter(w io.Writer) func(policy.Outcome) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return policy.Outcome.String
	}
	const green, red, yellow, reset = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[0m"
	return func(o policy.Outcome) string {
		switch o {
		case policy.Accepted:
			return green + o.String() + reset
		case policy.Rejected:
			return red + o.String() + reset
		case policy.Inconclusive:
			return yellow + o.String() + reset
		default:
			return o.String()
		}
	}
}
