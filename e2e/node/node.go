// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node adds a real node to a control plane of package cluster, on this
// machine: containerd with runc and CNI plugins, kubelet, kube-proxy and CoreDNS.
// Pods run, Services route, names of Services resolve, and the API server reaches
// a webhook through its Service.
//
//	func TestMain(m *testing.M) { os.Exit(node.Main(m.Run)) }
//	…
//	dir, err := node.TempDir()
//	…
//	c, err := cluster.Start(ctx, node.ClusterOptions(filepath.Join(dir, "cluster")))
//	…
//	defer c.Stop()
//	n, err := node.Start(ctx, c, node.Options{Dir: filepath.Join(dir, "node")})
//	…
//	defer n.Stop()
//	err = n.Push(ctx, n.Registry+"/acme/probe:v1", node.Image{Package: "./nodecases/probe"})
//
// All of it is in namespaces that Main makes: nothing of the machine's network,
// mounts or processes is touched, nothing beyond it can be reached, and several
// can run at the same time. It needs root on Linux, with Debian's packages.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/registry"
)

// The addresses are fixed: the network is of this run alone.
const (
	// Address is the machine as Pods see it: the API server, the cluster's DNS and
	// the node itself listen there.
	Address = "10.244.0.1"
	// ServiceCIDR is the range of the Services' addresses.
	ServiceCIDR = "10.96.0.0/24"

	podCIDR         = "10.244.0.0/24"
	podPrefixLength = "24"
	bridge          = "pratique0"
	// kubernetesService is where Pods find the API server: the first address of
	// ServiceCIDR.
	kubernetesService = "10.96.0.1:443"
	// dnsDomain is what the names of Services end in.
	dnsDomain = "cluster.local"
)

const (
	// readyWithin bounds the start: some ten times what it takes when the machine
	// has nothing else to do.
	readyWithin = 2 * time.Minute
	// poll is how often readiness is asked for.
	poll = 100 * time.Millisecond
	// askWithin bounds one such question.
	askWithin = 2 * time.Second
	// stateDir is in memory, and its path is short, as those of sockets must be.
	stateDir = "/run/pratique"
)

// Options say how a node runs.
type Options struct {
	// Dir is the folder for configurations and logs; it is made if need be.
	Dir string
	// Log, if not nil, gets a line for each step.
	Log io.Writer
	// LogSpace, if not 0, gives what containers print a disk of its own, in memory,
	// of so many bytes, which FillLogs fills. It goes with the namespaces, also if
	// the other logs are kept (TempDir).
	LogSpace int64
}

// A Node is a running node.
type Node struct {
	// Registry is the host of a registry that the node pulls from and that Pods can
	// ask, both over plain HTTP; Push puts images there.
	Registry string
	// StaticPods is a folder: Pods whose manifests are in it are run by the node
	// itself, which tells the API server of them.
	StaticPods string

	dir      string
	logSpace int64
	binary   string // the control plane's: it holds most programs of a node
	log      io.Writer
	cluster  *cluster.Cluster
	client   *kubernetes.Clientset
	registry *registry.Registry
	// starts counts how often the programs were started; each time has its logs.
	starts   int
	programs []program // in the order of their start
}

// A program is one of the node's.
type program struct {
	name    string
	process *cluster.Process
}

// TempDir makes a folder in memory, which goes with the namespaces. Logs in it go
// too: with PRATIQUE_E2E_KEEP it is the folder of that name, and stays.
func TempDir() (string, error) {
	if keep := os.Getenv("PRATIQUE_E2E_KEEP"); keep != "" {
		return keep, os.MkdirAll(keep, 0o700)
	}
	return os.MkdirTemp("/run", "pratique-")
}

// ClusterOptions are those of a control plane that a node can be added to.
func ClusterOptions(dir string) cluster.Options {
	return cluster.Options{Dir: dir, Address: Address, ServiceCIDR: ServiceCIDR, Scheduler: true}
}

// Start adds the node to a control plane that was started with ClusterOptions,
// and waits until it can be used: it is Ready, Services are routed and names
// resolve. It works only in a program that Main runs. If it fails nothing is
// left running. The context bounds the start alone.
func Start(ctx context.Context, c *cluster.Cluster, o Options) (_ *Node, err error) {
	if os.Getenv(stageVariable) != stageInside {
		return nil, errors.New("starting a node: this program was not run by node.Main")
	}
	n := &Node{cluster: c, log: o.Log, logSpace: o.LogSpace, StaticPods: filepath.Join(stateDir, "static")}
	if n.log == nil {
		n.log = io.Discard
	}
	if n.dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, fmt.Errorf("finding the node's folder: %w", err)
	}
	if n.binary, err = cluster.FindBinary(); err != nil {
		return nil, err
	}
	if n.client, err = kubernetes.NewForConfig(c.Config()); err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("the node is not ready after %s", readyWithin))
	defer cancel()
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting the node: %w", err), n.Stop())
		}
	}()
	if n.registry, err = registry.Memory(registry.Options{Addr: Address + ":0"}); err != nil {
		return nil, err
	}
	n.Registry = n.registry.Host
	if err := n.Push(ctx, n.Registry+sandboxImage, Image{Package: "./node/pause"}); err != nil {
		return nil, err
	}
	if err := n.configure(ctx); err != nil {
		return nil, err
	}
	return n, n.startPrograms(ctx)
}

// Stop ends the node's programs and its containers, the last started first, and
// waits until they are gone. Calling it again does nothing.
func (n *Node) Stop() error {
	err := n.stopPrograms()
	if n.registry != nil {
		err = errors.Join(err, n.registry.Stop())
	}
	return err
}

// Restart is what a machine goes through that loses power and comes back: every
// process of the node ends, those of its containers too, and the programs are
// started again on what they left. It waits as Start does. Pods come back some
// time later.
func (n *Node) Restart(ctx context.Context) error {
	return n.again(ctx, func(context.Context) error { return nil })
}

// Recreate is Restart with another machine in place of this one, of the same name:
// the images, the containers and what the kubelet knew are gone, and so are the
// Node and all Pods, which their controllers make anew.
func (n *Node) Recreate(ctx context.Context) error {
	return n.again(ctx, func(ctx context.Context) error {
		var errs []error
		for _, dir := range []string{"containerd", "containerd-state", "kubelet", "kubelet-pki"} {
			errs = append(errs, removeAll(filepath.Join(stateDir, dir)))
		}
		for _, args := range [][]string{
			{"delete", "node", cluster.NodeName},
			{"delete", "pods", "--all", "--all-namespaces", "--force", "--grace-period=0", "--wait=false"},
		} {
			if _, stderr, exit := n.cluster.Kubectl(ctx, args...); exit != 0 {
				errs = append(errs, errors.New(stderr))
			}
		}
		return errors.Join(errs...)
	})
}

// again ends the node's programs, calls meanwhile, and starts them again.
func (n *Node) again(ctx context.Context, meanwhile func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("the node is not ready after %s", readyWithin))
	defer cancel()
	if err := n.stopPrograms(); err != nil {
		return fmt.Errorf("restarting the node: %w", err)
	}
	before, err := n.heartbeat(ctx) // the last there was
	if err != nil {
		return fmt.Errorf("restarting the node: %w", err)
	}
	if err := meanwhile(ctx); err != nil {
		return fmt.Errorf("restarting the node: %w", err)
	}
	if err := n.startPrograms(ctx); err != nil {
		return fmt.Errorf("restarting the node: %w", err)
	}
	// Until the kubelet speaks, the API server has what it said before.
	return n.await(ctx, "the node's sign of life", func(ctx context.Context) error {
		now, err := n.heartbeat(ctx)
		if err == nil && !now.After(before) {
			err = fmt.Errorf("the last was at %s", now)
		}
		return err
	})
}

// heartbeat is when the node last renewed its lease; never is no error.
func (n *Node) heartbeat(ctx context.Context) (time.Time, error) {
	lease, err := n.client.CoordinationV1().Leases(corev1.NamespaceNodeLease).Get(ctx, cluster.NodeName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && lease.Spec.RenewTime == nil {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the node's lease: %w", err)
	}
	return lease.Spec.RenewTime.Time, nil
}

func (n *Node) startPrograms(ctx context.Context) error {
	n.starts++
	if err := n.run("containerd", "containerd", "--config", n.path("containerd.toml")); err != nil {
		return err
	}
	// The kubelet gives up if nobody listens there.
	if err := n.await(ctx, "containerd", dial("unix", containerdSocket)); err != nil {
		return err
	}
	for _, p := range n.components() {
		if err := n.run(p[0], n.binary, p...); err != nil {
			return err
		}
	}
	if err := n.await(ctx, "the node", n.ready); err != nil {
		return err
	}
	if err := n.await(ctx, "the Service kubernetes", dial("tcp", kubernetesService)); err != nil {
		return err
	}
	return n.await(ctx, "DNS", func(ctx context.Context) error {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(Address, "53"))
		}}
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+dnsDomain+".")
		return err
	})
}

// run starts a program of the node.
func (n *Node) run(name, binary string, args ...string) error {
	path, err := exec.LookPath(binary)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	process, err := cluster.StartProcess(n.dir, cluster.Program{
		Name: fmt.Sprintf("%s-%d", name, n.starts), Binary: path, Args: args,
	})
	if err != nil {
		return err
	}
	n.programs = append(n.programs, program{name, process})
	fmt.Fprintf(n.log, "%s started, process %d\n", name, process.PID())
	return nil
}

// stopPrograms ends what startPrograms started, and the containers after who
// would start them again.
func (n *Node) stopPrograms() error {
	var errs []error
	for len(n.programs) > 0 {
		last := len(n.programs) - 1
		p := n.programs[last]
		n.programs = n.programs[:last]
		if p.name == "containerd" {
			errs = append(errs, endContainers())
		}
		errs = append(errs, p.process.Stop())
		fmt.Fprintf(n.log, "%s stopped\n", p.name)
	}
	return errors.Join(errs...)
}

// await asks until there is no error any more. It fails when ctx ends or one of
// the programs does.
func (n *Node) await(ctx context.Context, what string, ask func(context.Context) error) error {
	begin := time.Now()
	var last error
	err := wait.PollUntilContextCancel(ctx, poll, true, func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeout(ctx, askWithin)
		defer cancel()
		if last = ask(ctx); last == nil {
			return true, nil
		}
		for _, p := range n.programs {
			if err := p.process.Failure(); err != nil {
				return false, err
			}
		}
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for %s: %w; last: %w; logs are in %s", what, errors.Join(err, context.Cause(ctx)), last, n.dir)
	}
	fmt.Fprintf(n.log, "%s is there after %.1f s\n", what, time.Since(begin).Seconds())
	return nil
}

// ready says why Pods cannot be put on the node.
func (n *Node) ready(ctx context.Context) error {
	node, err := n.client.CoreV1().Nodes().Get(ctx, cluster.NodeName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return fmt.Errorf("not Ready: %s", condition.Message)
		}
	}
	if len(node.Spec.Taints) > 0 || len(node.Status.Conditions) == 0 {
		return fmt.Errorf("taints: %v, %d conditions", node.Spec.Taints, len(node.Status.Conditions))
	}
	_, err = n.client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return errors.New("no default ServiceAccount yet")
	}
	return err
}

// dial returns a question: does somebody listen there?
func dial(network, address string) func(context.Context) error {
	return func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
}
