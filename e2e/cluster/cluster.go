// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a real Kubernetes control plane for tests and for the
// demo: etcd, kube-apiserver, kube-controller-manager and, if asked for,
// kube-scheduler, each a process of its own on free ports of 127.0.0.1.
//
//	c, err := cluster.Start(ctx, cluster.Options{Dir: t.TempDir()})
//	…
//	defer c.Stop()
//	stdout, stderr, exit := c.Kubectl(ctx, "get", "namespaces")
//	client, err := kubernetes.NewForConfig(c.Config())
//
// There is no node: Pods are admitted, stored and counted by their controllers,
// and stay Pending. A webhook under test runs outside the cluster and is
// reached by its URL; NewServingCert makes its certificate. Package node adds a
// node to a control plane that was started with an Options.Address.
//
// All components come from one binary, which e2e/controlplane builds. Nobody
// but who reads Dir can use the API server; etcd has no authentication, and
// anyone on the machine can reach it.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/rest"
)

const (
	// defaultReadyTimeout is some ten times what a start takes on two cores
	// that have nothing else to do.
	defaultReadyTimeout = 60 * time.Second
	// pollInterval is how often readiness is asked for: often enough not to
	// count in a start of seconds.
	pollInterval = 50 * time.Millisecond
	// requestTimeout bounds one such question.
	requestTimeout = 5 * time.Second
	// startAttempts allows for a port that somebody else took between choosing
	// it and listening on it.
	startAttempts = 3
)

// Options say how a control plane runs. Only Dir is required.
type Options struct {
	// Binary is the path of the controlplane binary; empty means FindBinary.
	Binary string
	// Dir is the folder for certificates, kubeconfigs, data and logs. It is made
	// if need be. What an earlier cluster left there is overwritten.
	Dir string
	// Log, if not nil, gets a line for each step of the start and the stop. What
	// the components log themselves is in Dir, in <component>.log.
	Log io.Writer
	// Scheduler starts kube-scheduler too. Without a node it can only say why a
	// Pod does not fit.
	Scheduler bool
	// Address is where the API server listens; empty means 127.0.0.1. With another
	// one it is ready for a node and its Pods: it publishes the address in the
	// Service kubernetes, and asks kubelets for logs and the like.
	Address string
	// ServiceCIDR is the range of the Services' addresses; empty means 10.0.0.0/24.
	ServiceCIDR string
	// APIServerArgs are further flags of kube-apiserver; where one repeats a
	// flag of ours, it wins.
	APIServerArgs []string
	// ReadyTimeout bounds the start; 0 means 60 s.
	ReadyTimeout time.Duration
}

// A Cluster is a running control plane.
type Cluster struct {
	// Dir is Options.Dir as an absolute path.
	Dir string
	// Kubeconfig is the path of a kubeconfig file for an administrator.
	Kubeconfig string

	binary string
	log    io.Writer
	config *rest.Config
	// apiServer is how it was started, for it to be started so again.
	apiServer component
	// processes are in the order in which they were started.
	processes []*process
}

// Start starts a control plane and waits until it is ready: the API server says
// so, and the controller manager has made the default ServiceAccount, without
// which no Pod is admitted. The context bounds the start alone; what was started
// runs until Stop, or until this process dies (on Linux).
//
// If it fails, nothing is left running, and the error carries the end of the log
// of the component at fault.
func Start(ctx context.Context, options Options) (*Cluster, error) {
	if options.Dir == "" {
		return nil, errors.New("starting the control plane: Options.Dir is empty")
	}
	if options.Binary == "" {
		binary, err := FindBinary()
		if err != nil {
			return nil, err
		}
		options.Binary = binary
	}
	// The components have another working directory than this process.
	binary, err := filepath.Abs(options.Binary)
	if err != nil {
		return nil, fmt.Errorf("finding the absolute path of %q: %w", options.Binary, err)
	}
	options.Binary = binary
	if options.Log == nil {
		options.Log = io.Discard
	}
	if options.ReadyTimeout == 0 {
		options.ReadyTimeout = defaultReadyTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, options.ReadyTimeout,
		fmt.Errorf("not ready after %s", options.ReadyTimeout))
	defer cancel()

	for attempt := 1; ; attempt++ {
		c, err := startOnce(ctx, options)
		if err == nil {
			return c, nil
		}
		if attempt == startAttempts || !strings.Contains(err.Error(), "address already in use") {
			return nil, fmt.Errorf("starting the control plane: %w", err)
		}
		fmt.Fprintln(options.Log, "a port was taken meanwhile; starting again with others")
	}
}

// Config returns a client configuration for an administrator (the group
// system:masters), without client-side throttling.
func (c *Cluster) Config() *rest.Config {
	return rest.CopyConfig(c.config)
}

// PIDs returns the process id of each component, by its name.
func (c *Cluster) PIDs() map[string]int {
	pids := make(map[string]int, len(c.processes))
	for _, p := range c.processes {
		pids[p.name] = p.pid
	}
	return pids
}

// Stop ends every component, the last started first, so that none outlives what
// it depends on: SIGTERM, and SIGKILL if that does not end it in time. When it
// returns none is left. The error says which had to be killed or had ended
// before. Calling it again does nothing.
func (c *Cluster) Stop() error {
	var errs []error
	for len(c.processes) > 0 {
		last := len(c.processes) - 1
		p := c.processes[last]
		c.processes = c.processes[:last]
		begin := time.Now()
		errs = append(errs, p.stop())
		fmt.Fprintf(c.log, "%s stopped after %.1f s\n", p.name, time.Since(begin).Seconds())
	}
	return errors.Join(errs...)
}

// RestartAPIServer ends the API server in the middle of everything, starts it
// again at the same address on the same data, and waits until it is ready. All
// other components go on meanwhile. (After SIGTERM it would wait a minute for
// clients that stay, as those components do, and not answer.)
func (c *Cluster) RestartAPIServer(ctx context.Context) error {
	at := slices.IndexFunc(c.processes, func(p *process) bool { return p.name == c.apiServer.name })
	if at < 0 {
		return errors.New("restarting the API server: it was not started")
	}
	c.processes[at].kill()
	again := c.apiServer
	again.args = append([]string{again.name}, again.args...)
	p, err := startProcess(c.binary, c.Dir, again)
	if err != nil {
		return fmt.Errorf("restarting the API server: %w", err)
	}
	c.processes[at] = p
	fmt.Fprintf(c.log, "%s started again, process %d\n", p.name, p.pid)
	if err := c.await(ctx, "/readyz"); err != nil {
		return fmt.Errorf("restarting the API server: %w", err)
	}
	return nil
}

func startOnce(ctx context.Context, options Options) (_ *Cluster, err error) {
	plan, err := newPlan(options)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		Dir:        plan.dir,
		Kubeconfig: filepath.Join(plan.dir, "kubeconfig"),
		binary:     options.Binary,
		log:        options.Log,
		config:     plan.config(admin),
		apiServer:  plan.apiServer(options.APIServerArgs),
	}
	defer func() {
		if err != nil {
			// What it says about components that ended is in err already.
			_ = c.Stop()
		}
	}()

	// The API server waits for etcd by itself; starting both at once saves time.
	if err := c.startComponents(plan.etcd(), c.apiServer); err != nil {
		return nil, err
	}
	if err := c.await(ctx, "/readyz"); err != nil {
		return nil, err
	}
	// The others give up if the API server is not there within some seconds.
	later := []component{plan.controllerManager()}
	if options.Scheduler {
		later = append(later, plan.scheduler())
	}
	if err := c.startComponents(later...); err != nil {
		return nil, err
	}
	if err := c.await(ctx, "/api/v1/namespaces/default/serviceaccounts/default"); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Cluster) startComponents(components ...component) error {
	for _, one := range components {
		// The binary is told by its first argument which component it is.
		one.args = append([]string{one.name}, one.args...)
		if err := c.start(c.binary, one); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) start(binary string, one component) error {
	p, err := startProcess(binary, c.Dir, one)
	if err != nil {
		return err
	}
	c.processes = append(c.processes, p)
	fmt.Fprintf(c.log, "%s started, process %d, log %s\n", p.name, p.pid, p.logFile)
	return nil
}

// await asks the API server for the path until the answer is 200. It fails when
// ctx ends or a component does.
func (c *Cluster) await(ctx context.Context, path string) error {
	client, err := rest.HTTPClientFor(c.config)
	if err != nil {
		return fmt.Errorf("making the readiness client: %w", err)
	}
	client.Timeout = requestTimeout
	defer client.CloseIdleConnections()

	begin := time.Now()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		last := get(ctx, client, c.config.Host+path)
		if last == nil {
			fmt.Fprintf(c.log, "%s is there after %.1f s\n", path, time.Since(begin).Seconds())
			return nil
		}
		for _, p := range c.processes {
			if p.ended() {
				return p.failure()
			}
		}
		select {
		case <-ctx.Done():
			// The component started last is the one that is waited for.
			p := c.processes[len(c.processes)-1]
			return fmt.Errorf("waiting for %s: %w; last answer: %w; %s", path, context.Cause(ctx), last, p.logTail())
		case <-tick.C:
		}
	}
}

// get returns nil if the URL answers 200.
func get(ctx context.Context, client *http.Client, url string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// FindBinary returns the path of the controlplane binary: the environment
// variable PRATIQUE_CONTROLPLANE if it is set, else
// e2e/controlplane/bin/controlplane in the nearest checkout at or above the
// working directory. If there is none, the error names the command that builds it.
func FindBinary() (string, error) {
	if path := os.Getenv("PRATIQUE_CONTROLPLANE"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("finding the control plane named by PRATIQUE_CONTROLPLANE: %w", err)
		}
		return path, nil
	}
	start, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the control plane: %w", err)
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		source := filepath.Join(dir, "e2e", "controlplane")
		if _, err := os.Stat(filepath.Join(source, "main.go")); err == nil {
			binary := filepath.Join(source, "bin", "controlplane")
			if _, err := os.Stat(binary); err != nil {
				return "", fmt.Errorf("finding the control plane: %w; build it with: make -C %s build", err, source)
			}
			return binary, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("finding the control plane: no checkout of Pratique at or above %q; "+
				"set PRATIQUE_CONTROLPLANE to the binary that `make -C e2e/controlplane build` makes", start)
		}
	}
}

// Checkout is the checkout of Pratique that the working directory is in.
func Checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the checkout: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "deploy", "crds")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("finding the checkout: the working directory is in none")
		}
		dir = filepath.Dir(dir)
	}
}
