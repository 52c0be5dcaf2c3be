// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package env puts Pratique into a real control plane, beside a registry, as an
// admin would: the CRD, its rights, the webhook configurations and the server,
// which has no rights but those.
//
// The demo and the cases start from the same Env, so that what the one shows is
// what the others hold.
package env

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// Namespace is Pratique's own.
	Namespace = "pratique-system"
	// readyWithin bounds the start of the server.
	readyWithin = 30 * time.Second
	// inForceWithin bounds the wait for a change of ImageConfigs (spec: 5 s).
	inForceWithin = 5 * time.Second
	// mainName is the server whose webhooks govern the cluster.
	mainName = "pratique"
	poll     = 20 * time.Millisecond
)

// Options say what runs.
type Options struct {
	// Dir is a folder for everything that is written.
	Dir string
	// Log, if not nil, gets a line for each step.
	Log io.Writer
	// Registry is where images are; it must be on the loopback interface.
	Registry *registrytest.Registry
	// Insecure lists further registries, as host:port, that are asked over
	// plain HTTP.
	Insecure []string
	// Args are further flags of pratique serve, Environment further variables, as
	// NAME=value; both also for the servers beside.
	Args, Environment []string
	// Inject names namespaces, which are made, where Pods may be given pull
	// secrets and Pratique may write them.
	Inject []string
	// APIServerArgs are further flags of kube-apiserver.
	APIServerArgs []string
}

// Env is Pratique at work.
type Env struct {
	*cluster.Cluster

	// Server is the one whose webhooks govern the cluster.
	*Server

	// Caller is how the API server proves to a server of a case that it is it.
	Caller *Caller

	// Account is the kubeconfig of Pratique's own ServiceAccount: its servers'.
	Account string

	Registry *registrytest.Registry
	// Binary is the program, for its other verbs.
	Binary string
	Client *kubernetes.Clientset

	options Options
	mu      sync.Mutex // programs are started and ended one at a time
}

// Start starts all of it. If it fails nothing is left running. The caller ends
// it with Stop.
func Start(ctx context.Context, o Options) (_ *Env, err error) {
	if o.Log == nil {
		o.Log = io.Discard
	}
	e := &Env{Registry: o.Registry, options: o}
	if e.Binary, err = findBinary(); err != nil {
		return nil, err
	}
	var args []string
	if e.Caller, args, err = newCaller(filepath.Join(o.Dir, "caller")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.Caller.release()
		}
	}()
	options := cluster.Options{Dir: filepath.Join(o.Dir, "cluster"), Log: o.Log, APIServerArgs: append(args, o.APIServerArgs...)}
	if e.Cluster, err = cluster.Start(ctx, options); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = e.Stop()
		}
	}()
	if e.Client, err = kubernetes.NewForConfig(e.Config()); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	if e.Account, err = Install(ctx, e.Cluster); err != nil {
		return nil, err
	}
	if err := e.allowInjection(ctx); err != nil {
		return nil, err
	}
	if e.Server, err = e.serve(ctx, ServerOptions{Name: mainName}); err != nil {
		return nil, err
	}
	return e, e.arm(ctx, e.Server)
}

// findBinary returns bin/pratique of the nearest checkout, or what the variable
// PRATIQUE names.
func findBinary() (string, error) {
	if path := os.Getenv("PRATIQUE"); path != "" {
		return path, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", "pratique")
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("finding pratique: %w; build it with: make build", err)
	}
	return path, nil
}

// Root is the checkout that the working directory is in.
func Root() (string, error) { return cluster.Checkout() }

// Install applies the CRD, makes Pratique's namespace, and gives it its rights
// there and everywhere. It returns the kubeconfig of its ServiceAccount.
func Install(ctx context.Context, c *cluster.Cluster) (account string, err error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	if _, stderr, exit := c.Kubectl(ctx, "apply", "-f", filepath.Join(root, "deploy", "crds")); exit != 0 {
		return "", fmt.Errorf("applying the CRD: %s", stderr)
	}
	if _, stderr, exit := c.Kubectl(ctx, "create", "namespace", Namespace); exit != 0 {
		return "", fmt.Errorf("making the namespace: %s", stderr)
	}
	if account, err = newAccount(ctx, c, root); err != nil {
		return "", err
	}
	if _, stderr, exit := c.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=10s",
		"crd/imageconfigs.pratique.dev"); exit != 0 {
		return "", fmt.Errorf("waiting for the CRD: %s", stderr)
	}
	return account, nil
}

// Policy applies ImageConfigs and whatever goes with them, and waits until each
// named one is in force as it is written. ready is what its condition Ready
// must become.
func (e *Env) Policy(ctx context.Context, manifest string, ready bool, names ...string) error {
	if _, stderr, exit := e.Apply(ctx, manifest); exit != 0 {
		return fmt.Errorf("applying the policy: %s", stderr)
	}
	return e.AwaitPolicy(ctx, ready, names...)
}

// AwaitPolicy waits until the latest generation of each ImageConfig has the
// condition Ready.
func (e *Env) AwaitPolicy(ctx context.Context, ready bool, names ...string) error {
	for _, name := range names {
		var last string
		err := wait.PollUntilContextTimeout(ctx, poll, inForceWithin, true, func(ctx context.Context) (bool, error) {
			last, _, _ = e.Kubectl(ctx, "get", "imageconfigs.pratique.dev", name, "-o",
				`jsonpath={.metadata.generation} {.status.conditions[?(@.type=="Ready")].observedGeneration} `+
					`{.status.conditions[?(@.type=="Ready")].status}`)
			fields := strings.Fields(last)
			return len(fields) == 3 && fields[0] == fields[1] && fields[2] == map[bool]string{true: "True", false: "False"}[ready], nil
		})
		if err != nil {
			return fmt.Errorf("waiting for ImageConfig %q to have Ready=%t: %w (generation, observed, status: %q)", name, ready, err, last)
		}
	}
	return nil
}
