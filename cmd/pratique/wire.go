// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/internal/election"
	"github.com/pratique-dev/pratique/internal/metrics"
	"github.com/pratique-dev/pratique/internal/pullsecret"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/cloud"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/webhook"
)

// leaseName is the Lease of the replica that writes.
const leaseName = "pratique"

// rules are where the policies come from: a cluster, or files.
type rules struct {
	webhook.Surroundings
	// clouds are asked for credentials after all others; nil for none.
	clouds *cloud.Keychain
	// run keeps them up to date until ctx ends.
	run func(ctx context.Context) error
	// ready reports why there are none yet.
	ready func() error
	// certificate is what is served with; nil if that is in a folder.
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// refused gets what the API server does not let us read. A server goes on
	// asking, a command need not.
	refused <-chan error
	// again has them compiled again, pending names those that wait for what is
	// being fetched.
	again   func()
	pending func() []string
	// compiled lists the rules, but for those of a policy.json.
	compiled func() []source.Compiled
	// imageConfigs is how many the files held when they were first read.
	imageConfigs int
}

// Credentials finds those of an object, and last the cloud's. Those are
// Pratique's own, whatever the object is and wherever it says its are.
func (r rules) Credentials(names credential.Names) *credential.Source {
	found := r.Surroundings.Credentials(names)
	if r.clouds == nil {
		return found
	}
	return found.Then(r.clouds.Any())
}

// parts is everything that a server or a command consists of.
type parts struct {
	decider *policy.Decider
	rules   rules
	metrics *metrics.Metrics
	// close ends what is left running once nobody asks the decider any more.
	close func()
}

// settings is what parts are made by.
type settings struct {
	registry registry.Options
	server   policy.Server
	cache    cache.Options
	// clouds says that the cloud is asked for credentials of its registries.
	clouds bool
	// namespace is Pratique's own, crossplane is Crossplane's.
	namespace, crossplane string
	policyController      source.PolicyController
	// paths are the files that hold the policies; without any a cluster does.
	// pathsFlag is the flag that names them.
	paths     []string
	pathsFlag string
	// trustedRoot is the file of the trust root for rules that name none; "" means
	// the public one.
	trustedRoot string
	// containers are the files of a policy.json and a registries.d. alone says that
	// there are no other rules, and no cluster is asked for any.
	containers containersSettings
	alone      bool
	// injectInto names the namespaces whose Pods may be given pull secrets.
	injectInto []string
	// hooks says how the API server is made to ask; nil if it is not.
	hooks   *hookSettings
	metrics *metrics.Metrics // set by wire
	// writes says that this process stands for election, and writes statuses
	// once it is elected.
	writes bool
}

// fromCluster reports whether a cluster has the policies.
func (s *settings) fromCluster() bool { return len(s.paths) == 0 && !s.alone }

// connect finds the cluster that has the policies; nil if none has.
func (s *settings) connect() (*rest.Config, error) {
	if !s.fromCluster() {
		return nil, nil //nolint:nilnil // see above
	}
	config, err := clusterConfig(s.pathsFlag)
	if err == nil {
		s.registry.APIServer = append(s.registry.APIServer, config.Host)
	}
	return config, err
}

// wire makes all parts of which a server or a command consists.
func wire(ctx context.Context, s settings, registerer prometheus.Registerer) (*parts, error) {
	p := &parts{}
	p.metrics = metrics.New(registerer, func(host string) bool {
		set := p.rules.Set()
		return set != nil && set.KnowsHost(host)
	})
	s.registry.Observe = p.metrics.RegistryRequest
	// No registry is at the API server, also where the rules are from files.
	s.registry.APIServer = []string{os.Getenv("KUBERNETES_SERVICE_HOST")}
	config, err := s.connect()
	if err != nil {
		return nil, err
	}
	s.registry.LocalLookaside = s.containers.local
	client, err := registry.New(s.registry)
	if err != nil {
		return nil, err
	}
	s.cache.Observe = p.metrics.CacheEvent
	cached, err := cache.New(p.metrics.Engine(policy.Direct{}), p.metrics.Resolver(client), client, s.cache)
	if err != nil {
		return nil, err
	}
	p.metrics.Sizes(cached.Sizes)
	p.decider = &policy.Decider{Server: s.server, Resolver: cached, Engine: cached}
	compiler := source.Compiler{
		Cosign: cosign.Options{Source: client}, InjectInto: s.injectInto,
		CrossplaneNamespace: s.crossplane, PolicyController: s.policyController, ContainersSource: client,
	}
	compiler.PolicyController.Configs = client
	told, err := newReloads(config, s, p.metrics)
	if err != nil {
		return nil, err
	}
	told.log = logr.FromContextOrDiscard(ctx)
	fetched, err := fetchedBy(s, client, told)
	if err != nil {
		return nil, err
	}
	fetched.into(ctx, &compiler)
	s.metrics = p.metrics
	p.close = fetched.close
	var clouds *cloud.Keychain
	if s.clouds {
		if clouds, err = cloud.New(ctx); err != nil {
			return nil, err
		}
		compiler.Clouds = func(p v1alpha1.CredentialProvider) credential.Config { return clouds.Of(cloud.Provider(p)) }
	}
	if s.fromCluster() {
		p.rules, err = clusterRules(ctx, config, compiler, s)
	} else {
		p.rules, err = fileRules(compiler, s)
	}
	if err != nil {
		p.close()
		return nil, err
	}
	p.rules.clouds = clouds
	p.rules.run = fetched.beside(p.rules)
	return p, nil
}

func fileRules(compiler source.Compiler, s settings) (rules, error) {
	files, err := source.NewFiles(compiler, s.namespace, s.paths...)
	if err != nil {
		return rules{}, fmt.Errorf("%s: %w", s.pathsFlag, err)
	}
	return rules{
		Surroundings: files, run: files.Watch, ready: func() error { return nil }, imageConfigs: len(files.Compiled()),
		again: files.Again, pending: files.Pending, compiled: files.Compiled,
	}, nil
}

func clusterRules(ctx context.Context, config *rest.Config, compiler source.Compiler, s settings) (rules, error) {
	refused := make(chan error, 1)
	cached := source.CacheOptions(s.namespace)
	failed := refusals(refused)
	cached.DefaultWatchErrorHandler = failed
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Cache: cached,
		// ImageConfigs are read as they are stored, and from the cache.
		Client:  client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		Metrics: metricsserver.Options{BindAddress: "0"},
		Logger:  logr.FromContextOrDiscard(ctx),
	})
	if err != nil {
		return rules{}, unconnected(config, fmt.Errorf("preparing the connection to the cluster: %w", err))
	}
	leads, stand := func() bool { return false }, func(context.Context) {}
	if s.writes {
		candidate, err := election.New(config, s.namespace, leaseName)
		if err != nil {
			return rules{}, err
		}
		leads, stand = candidate.Leads, candidate.Run
	}
	cluster, err := source.NewCluster(ctx, manager, source.ClusterOptions{
		Compiler: compiler, Namespace: s.namespace, Leads: leads, WatchFailed: failed,
	})
	if err != nil {
		return rules{}, unconnected(config, err)
	}
	var copier *pullsecret.Copier
	if s.writes && len(s.injectInto) > 0 {
		if copier, err = newCopier(config, cluster, leads, s); err != nil {
			return rules{}, err
		}
	}
	hooks, err := newHooks(config, cluster, leads, s)
	if err != nil {
		return rules{}, err
	}
	run := func(ctx context.Context) error {
		// The process must not end before the lease is given back.
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error {
			stand(ctx)
			return nil
		})
		group.Go(func() error { return manager.Start(ctx) })
		if copier != nil {
			group.Go(func() error { return copier.Run(ctx) })
		}
		hooks.start(ctx, group)
		return group.Wait()
	}
	return rules{
		Surroundings: cluster, run: run, ready: hooks.ready(cluster.Ready), certificate: hooks.certificate(), refused: refused,
		again: cluster.Again, pending: cluster.Pending, compiled: cluster.Compiled,
	}, nil
}

// refusals passes on what the API server refuses, and logs the rest as usual.
func refusals(refused chan<- error) toolscache.WatchErrorHandlerWithContext {
	return func(ctx context.Context, r *toolscache.Reflector, err error) {
		if status, ok := errors.AsType[*apierrors.StatusError](err); ok && (apierrors.IsForbidden(status) || apierrors.IsUnauthorized(status)) {
			select {
			case refused <- status:
			default: // nobody waits for it, or one is enough
			}
		}
		toolscache.DefaultWatchErrorHandler(ctx, r, err)
	}
}

// unconnected says in short that the API server could not be asked, if that is
// why: what it was asked first is no concern of the user's.
func unconnected(config *rest.Config, err error) error {
	if asking, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("the API server at %s cannot be reached: %w", config.Host, asking.Err)
	}
	if apierrors.IsUnauthorized(err) {
		return fmt.Errorf("the API server at %s does not accept the credentials of the kubeconfig", config.Host)
	}
	return err
}

// The limits of requests to the API server. Namespaces and Secrets of Pods are
// asked for during admission, so the client must not hold them back itself;
// the API server has limits of its own.
const (
	clusterQPS   = 200
	clusterBurst = 400
)

// clusterConfig finds the cluster as kubectl does: KUBECONFIG, the user's own
// configuration, or the ServiceAccount of the Pod.
func clusterConfig(pathsFlag string) (*rest.Config, error) {
	config, err := findCluster()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w\nhint: %s takes the rules from files instead", err, pathsFlag)
	}
	return config, nil
}

// findCluster is clusterConfig for who needs the cluster itself.
func findCluster() (*rest.Config, error) {
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err == nil {
		config.QPS, config.Burst = clusterQPS, clusterBurst
		return config, nil
	}
	if clientcmd.IsEmptyConfig(err) {
		err = noCluster()
	}
	return nil, err
}

// noCluster says why nothing leads to a cluster.
func noCluster() error {
	const variable = clientcmd.RecommendedConfigPathEnvVar
	missing := slices.DeleteFunc(filepath.SplitList(os.Getenv(variable)), func(path string) bool {
		_, err := os.Stat(path)
		return err == nil
	})
	if len(missing) > 0 {
		return fmt.Errorf("%s names %s, which cannot be read", variable, strings.Join(missing, ", "))
	}
	return fmt.Errorf("neither %s nor %s names one", variable, clientcmd.RecommendedHomeFile)
}
