// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-dev/pratique/internal/server"
	"github.com/pratique-dev/pratique/internal/version"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/webhook"
)

// serveFlags are the flags of pratique serve.
type serveFlags struct {
	registryFlags
	policyFlags
	webhookFlags

	listen server.Options

	config           string
	policies         string
	staleTags        time.Duration
	injectNamespaces []string
	catalog          [][]byte // rows of the configuration file
}

func newServe() *cobra.Command { return newServeFor(&serveFlags{}) }

func newServeFor(f *serveFlags) *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the admission webhook",
		Long: `Run the admission webhook: /mutate rewrites and pins the images of Pods,
and gives them pull secrets; /validate examines images; /validate-imageconfig
says what is wrong with an ImageConfig. The rules are the ImageConfigs of the
cluster that KUBECONFIG, or the Pod's ServiceAccount, leads to; or, with
--policies, those in the files of a folder, without any cluster.
With --containers-policy the policy.json in that file is asked besides.`,
		Example: `  pratique serve --policies ./policies --registry-allow-cidrs 127.0.0.0/8 \
    --insecure-registries 127.0.0.1:5000`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := f.readConfig(c); err != nil {
				return err
			}
			if err := f.check(c); err != nil {
				return usage(c, err)
			}
			return f.run(c)
		},
	}
	flags := c.Flags()
	f.registryFlags.register(flags)
	f.policyFlags.register(flags)
	f.webhookFlags.register(flags)
	flags.StringVar(&f.config, "config", "", "YAML `file` of flags (by their names) and of rows for the catalog; the command line wins")
	flags.StringVar(&f.policies, "policies", "", "`folder` (or file) of ImageConfigs, Secrets, ConfigMaps, Namespaces and ServiceAccounts, instead of a cluster")
	flags.StringVar(&f.listen.BindAddress, "bind-address", ":9443", "`address` of the webhook")
	flags.StringVar(&f.listen.CertDir, "cert-dir", "", "`folder` with tls.crt and tls.key, reloaded on change; without one, a self-signed certificate")
	flags.StringVar(&f.listen.ClientCAFile, "client-ca-file", "",
		"PEM `file` of certificate authorities, reloaded on change; only who shows a client certificate signed by one is answered; without one, everybody")
	flags.StringSliceVar(&f.listen.ClientNames, "client-names", nil,
		"`names`, one of which must be the client certificate's common name or among its DNS names; needs --client-ca-file")
	flags.StringVar(&f.listen.MetricsAddress, "metrics-address", ":8080", "`address` of /metrics; 0 for none")
	flags.StringVar(&f.listen.HealthAddress, "health-address", ":8081", "`address` of /healthz and /readyz; 0 for none")
	flags.StringVar(&f.listen.PprofAddress, "pprof-address", "0",
		"`address` of /debug/pprof/ for go tool pprof, such as 127.0.0.1:6060; it answers whoever reaches it; 0 for none")
	flags.StringSliceVar(&f.injectNamespaces, "inject-namespaces", nil,
		"`namespaces` where ImageConfigs with inject may give Pods a pull secret, or * for all; needs the right to write Secrets there (deploy/rbac/inject.yaml)")
	flags.DurationVar(&f.staleTags, "stale-tags", cache.DefaultStaleFor,
		"how much longer a resolved tag serves while its registry is away, if its digest is known to be good; 0 for not at all")
	return c
}

// check refuses values that make no sense, from wherever they come.
func (f *serveFlags) check(c *cobra.Command) error {
	switch {
	// It would go by the cluster's rules, and nobody asked for those.
	case f.policies == "" && c.Flags().Changed("policies"):
		return errors.New("reading --policies: it names no folder")
	case f.staleTags < 0:
		return fmt.Errorf("reading --stale-tags: %s is negative", f.staleTags)
	}
	return errors.Join(f.checkClients(c), f.checkInject(), f.checkWebhooks(c), f.policyFlags.check(c))
}

// checkInject refuses what is no list of namespaces.
func (f *serveFlags) checkInject() error {
	if slices.Equal(f.injectNamespaces, []string{source.AllNamespaces}) {
		return nil
	}
	var errs []error
	for _, name := range f.injectNamespaces {
		if name == source.AllNamespaces {
			errs = append(errs, errors.New("reading --inject-namespaces: * is all namespaces, and stands alone"))
			continue
		}
		errs = append(errs, checkNamespace("--inject-namespaces", name))
	}
	return errors.Join(errs...)
}

// checkClients refuses what would let in more than was meant.
func (f *serveFlags) checkClients(c *cobra.Command) error {
	switch named := c.Flags().Changed("client-names"); {
	case f.listen.ClientCAFile == "" && c.Flags().Changed("client-ca-file"):
		return errors.New("reading --client-ca-file: it names no file")
	case named && f.listen.ClientCAFile == "":
		return errors.New("--client-names needs --client-ca-file: without authorities anybody may have any name")
	case named && (len(f.listen.ClientNames) == 0 || slices.Contains(f.listen.ClientNames, "")):
		return fmt.Errorf("reading --client-names: an empty name in %q", f.listen.ClientNames)
	}
	return nil
}

func (f *serveFlags) run(c *cobra.Command) error {
	registerer := prometheus.NewRegistry()
	log, endLog, err := logFor(c, registerer)
	if err != nil {
		return err
	}
	defer endLog()
	ctx := logr.NewContext(c.Context(), log)
	catalog, err := webhook.LoadCatalog(f.catalog...)
	if err != nil {
		return fmt.Errorf("reading the catalog: %w", err)
	}
	registryOptions, err := f.options()
	if err != nil {
		return err
	}
	registerer.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	countHandshakes(log, registerer)
	settings := settings{
		registry: registryOptions, server: f.policyFlags.server, namespace: f.namespace, crossplane: f.crossplaneNamespace, policyController: f.ofPolicyController(), clouds: f.clouds,
		cache: cache.Options{StaleFor: cmp.Or(f.staleTags, -1)}, pathsFlag: "--policies", writes: true, injectInto: f.injectNamespaces,
		trustedRoot: f.trustedRoot, containers: containersSettings{policy: f.containersPolicy, registries: f.registriesD},
	}
	settings.hooks = f.hookSettings(catalog)
	if f.policies != "" {
		settings.paths = []string{f.policies}
	}
	parts, err := wire(ctx, settings, registerer)
	if err != nil {
		return err
	}
	defer parts.close()
	handler, err := f.handler(parts, catalog, log)
	if err != nil {
		return err
	}
	log.Info("starting", "version", version.Get().Version, "mode", settings.server.Mode)
	if settings.server.Mode == policy.Audit {
		log.Info("mode Audit: nothing is denied, pinned, rewritten or injected, whatever the ImageConfigs say")
	}
	return f.serve(ctx, handler, parts, registerer)
}

func (f *serveFlags) handler(parts *parts, catalog *webhook.Catalog, log logr.Logger) (*webhook.Handler, error) {
	references, err := reference.NewMemo(rememberedReferences)
	if err != nil {
		return nil, err
	}
	return &webhook.Handler{
		Catalog: catalog, References: references, Decider: parts.decider, Surroundings: parts.rules, Server: f.policyFlags.server,
		// Without one for SecretNamespaceOwn: what has no namespace has no
		// Secrets of its own, and must not read Pratique's.
		SecretNamespaces: map[webhook.SecretNamespace]string{
			webhook.SecretNamespaceCrossplane: f.crossplaneNamespace,
		},
		Bodies: webhook.NewBodies(webhook.DefaultBodies), Recorder: parts.metrics, Log: log,
	}, nil
}

// rememberedReferences is how many image references need not be parsed again:
// more than a large cluster runs, at up to about 2 KB each.
const rememberedReferences = 10_000

// drainFor is how long a Pod goes on answering after it stopped being ready:
// the Service's endpoints, and with them the API server, learn of it in that
// time (spec section 8).
const drainFor = 10 * time.Second

// serve runs the rules and the server until ctx ends, or either fails.
func (f *serveFlags) serve(ctx context.Context, handler *webhook.Handler, parts *parts, gatherer prometheus.Gatherer) error {
	listen := f.listen
	listen.Mutate, listen.Validate = handler.Mutate(), handler.Validate()
	listen.ValidateImageConfig = &webhook.ImageConfigHandler{
		Check: checkImageConfig, Bodies: handler.Bodies, Recorder: parts.metrics, Log: handler.Log,
	}
	listen.Gatherer, listen.Ready = gatherer, parts.rules.ready
	parts.report(handler.InFlight)
	listen.Certificate = parts.rules.certificate
	if f.listen.CertDir != "" {
		parts.metrics.Certificates(f.certDirEnds)
	}
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		listen.Drain = drainFor
	}
	// The rules outlive the server: reviews in flight need them.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group errgroup.Group
	group.Go(func() error {
		defer stop()
		return parts.rules.run(running)
	})
	group.Go(func() error {
		defer stop()
		// Without rules there is nothing to answer by.
		serving, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(running, cancel)()
		return server.Run(serving, listen)
	})
	return group.Wait()
}
