// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Controlplane is a Kubernetes control plane in one binary, for tests.
//
// It holds etcd, kube-apiserver, kube-controller-manager, kube-scheduler and
// kubectl, and what a node needs besides containerd: kubelet, kube-proxy and
// CoreDNS. Each is unchanged and built from its Go module. The first argument
// names the one to be; a link whose name is a component's does without:
//
//	controlplane kube-apiserver --etcd-servers http://127.0.0.1:2379 …
//	ln -s controlplane kubectl && ./kubectl get pods
//
// It is a module of its own because k8s.io/kubernetes fixes the versions of
// everything beneath it, and those are not the ones that Pratique is built with.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	_ "time/tzdata" // CronJobs may name a time zone; the machine may not know any

	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/template"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"
)

// exitUsage is returned for a command line that names no component.
const exitUsage = 2

// A component is one program that this binary can be.
type component struct {
	name string
	// run is called with os.Args as the component itself would find it, and
	// returns its exit code if it does not exit by itself.
	run func() int
}

// components lists them in the order in which a cluster starts them. It is a
// function and not a table so that only the chosen component is constructed:
// building a server's command already registers flags and metrics.
func components() []component {
	return []component{
		{"etcd", runEtcd},
		{"kube-apiserver", server(apiserver.NewAPIServerCommand)},
		{"kube-controller-manager", server(controllermanager.NewControllerManagerCommand)},
		{"kube-scheduler", server(func() *cobra.Command { return scheduler.NewSchedulerCommand() })},
		{"kubelet", server(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) })},
		{"kube-proxy", server(proxy.NewProxyCommand)},
		{"coredns", runCoreDNS},
		{"kubectl", runKubectl},
	}
}

func main() {
	c, args, ok := choose(components(), os.Args)
	if !ok {
		usage(os.Stderr)
		os.Exit(exitUsage)
	}
	os.Args = args
	os.Exit(c.run())
}

// choose finds the component that args name: by the base name of args[0] if
// that is one, else by args[1]. The arguments it returns start with the name.
func choose(all []component, args []string) (c component, rest []string, ok bool) {
	if len(args) == 0 {
		return component{}, nil, false
	}
	for _, rest := range [][]string{append([]string{filepath.Base(args[0])}, args[1:]...), args[1:]} {
		if len(rest) == 0 {
			continue
		}
		i := slices.IndexFunc(all, func(c component) bool { return c.name == rest[0] })
		if i >= 0 {
			return all[i], rest, true
		}
	}
	return component{}, nil, false
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: controlplane COMPONENT [ARGUMENT…]\n\nCOMPONENT is one of:\n")
	for _, c := range components() {
		fmt.Fprintf(w, "  %s\n", c.name)
	}
	fmt.Fprint(w, "\nWith --help a component prints its own flags. A link to this binary that bears\na component's name is that component.\n")
}

func runEtcd() int {
	etcdmain.Main(os.Args)
	return 0
}

// runCoreDNS is CoreDNS with the only plugins that the tests' Corefile names. Its
// version in go.mod is one that asks for nothing newer than k8s.io/kubernetes
// does: the API server runs on what it was released with.
func runCoreDNS() int {
	coremain.Run()
	return 0
}

func server(newCommand func() *cobra.Command) func() int {
	return func() int { return cli.Run(newCommand()) }
}

// runKubectl differs from the servers as kubectl's own main does: its errors
// are text for a person and not entries of a log.
func runKubectl() int {
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err) // prints, and exits with the code of the error
	}
	return 0
}
