// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A user that the API server knows by a token. RBAC grants the rest, as in any
// cluster: the API server itself binds these names at its start.
type user struct {
	name, group string
	kubeconfig  string // file in Dir
}

func users() []user {
	return []user{
		{admin, "system:masters", "kubeconfig"},
		{controllerManager, "", "kube-controller-manager.kubeconfig"},
		{scheduler, "", "kube-scheduler.kubeconfig"},
		{"system:node:" + NodeName, "system:nodes", "kubelet.kubeconfig"},
		{"system:kube-proxy", "", "kube-proxy.kubeconfig"},
		{DNSUser, "", "coredns.kubeconfig"},
	}
}

const (
	// loopback is where everything listens that nobody else asks for.
	loopback = "127.0.0.1"
	// defaultServiceCIDR is of no consequence while nothing routes it.
	defaultServiceCIDR = "10.0.0.0/24"

	// NodeName is the node that the kubelet's account is for.
	NodeName = "pratique"
	// DNSUser is the account of the cluster's DNS. Unlike the others it has no
	// rights until somebody grants them: no version of Kubernetes binds its name.
	DNSUser = "pratique-dns"

	admin             = "pratique-admin"
	controllerManager = "system:kube-controller-manager"
	scheduler         = "system:kube-scheduler"
)

// A component is one program of the control plane and how it is called.
type component struct {
	name string
	args []string
	env  []string // besides environment's
	// grace is how long it may take to end after SIGTERM.
	grace time.Duration
}

// A plan is what is decided before anything starts: the files in dir, the ports
// and the tokens.
type plan struct {
	dir                            string
	etcdPort, peerPort, securePort int
	cert                           ServingCert
	tokens                         map[string]string // by user name

	address     string // the API server's
	serviceCIDR netip.Prefix
	// kubeletClient is by what kubelets know the API server; none without a node.
	kubeletClient ClientCert
}

// newPlan chooses the ports and writes every file that a component reads.
func newPlan(options Options) (*plan, error) {
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, fmt.Errorf("finding the absolute path of %q: %w", options.Dir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the control plane's folder: %w", err)
	}
	p := &plan{dir: dir, tokens: map[string]string{}, address: cmp.Or(options.Address, loopback)}
	if p.serviceCIDR, err = netip.ParsePrefix(cmp.Or(options.ServiceCIDR, defaultServiceCIDR)); err != nil {
		return nil, fmt.Errorf("parsing the range of Services: %w", err)
	}
	if err := os.RemoveAll(p.path("etcd")); err != nil {
		return nil, fmt.Errorf("removing an earlier cluster's data: %w", err)
	}
	ports, err := FreePorts(3)
	if err != nil {
		return nil, err
	}
	p.etcdPort, p.peerPort, p.securePort = ports[0], ports[1], ports[2]

	// Clients inside a Pod ask for the API server by these names, or by the first
	// address of the Services.
	p.cert, err = NewServingCert(p.path("apiserver"), "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		p.serviceCIDR.Addr().Next().String(), p.address)
	if err != nil {
		return nil, err
	}
	if p.forNode() {
		if p.kubeletClient, err = NewClientCert(p.path("kubelet-client"), "kube-apiserver"); err != nil {
			return nil, err
		}
	}
	if err := writeKeyPair(p.path("service-account.key"), p.path("service-account.pub")); err != nil {
		return nil, err
	}
	return p, p.writeUsers()
}

func (p *plan) path(name string) string { return filepath.Join(p.dir, name) }

// writeUsers writes the API server's token file and the kubeconfig of each user.
func (p *plan) writeUsers() error {
	var lines strings.Builder
	for _, u := range users() {
		p.tokens[u.name] = rand.Text()
		// token,user,uid,"groups"; a group with a colon needs the quotes.
		fmt.Fprintf(&lines, "%s,%s,%s,%q\n", p.tokens[u.name], u.name, u.name, u.group)
		if err := clientcmd.WriteToFile(p.kubeconfig(u.name), p.path(u.kubeconfig)); err != nil {
			return fmt.Errorf("writing the kubeconfig of %q: %w", u.name, err)
		}
	}
	if err := os.WriteFile(p.path("tokens.csv"), []byte(lines.String()), 0o600); err != nil {
		return fmt.Errorf("writing the token file: %w", err)
	}
	return nil
}

// forNode says whether a node can reach this control plane.
func (p *plan) forNode() bool { return p.address != loopback }

func (p *plan) server() string { return fmt.Sprintf("https://%s:%d", p.address, p.securePort) }

func (p *plan) config(user string) *rest.Config {
	return &rest.Config{
		Host:            p.server(),
		BearerToken:     p.tokens[user],
		TLSClientConfig: rest.TLSClientConfig{CAData: p.cert.CAPEM},
		// The default of 5 requests a second would be what a test measures.
		QPS: -1,
	}
}

func (p *plan) kubeconfig(user string) clientcmdapi.Config {
	const name = "pratique"
	return clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: p.server(), CertificateAuthorityData: p.cert.CAPEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {Token: p.tokens[user]}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
}

func (p *plan) etcd() component {
	client, peer := fmt.Sprintf("http://127.0.0.1:%d", p.etcdPort), fmt.Sprintf("http://127.0.0.1:%d", p.peerPort)
	return component{name: "etcd", grace: 5 * time.Second, args: []string{
		"--name=pratique",
		"--data-dir=" + p.path("etcd"),
		"--listen-client-urls=" + client,
		"--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer,
		"--initial-advertise-peer-urls=" + peer,
		"--initial-cluster=pratique=" + peer,
		"--unsafe-no-fsync", // nothing here has to outlive the machine
		"--log-level=warn",
	}}
}

func (p *plan) apiServer(more []string) component {
	args := []string{
		fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", p.etcdPort),
		fmt.Sprintf("--secure-port=%d", p.securePort),
		"--bind-address=" + p.address,
		// Without it it looks for the address of an interface, which a machine may
		// not have.
		"--advertise-address=" + p.address,
		"--cert-dir=" + p.path("apiserver"),
		"--tls-cert-file=" + p.cert.CertFile,
		"--tls-private-key-file=" + p.cert.KeyFile,
		"--token-auth-file=" + p.path("tokens.csv"),
		"--authorization-mode=Node,RBAC",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + p.path("service-account.pub"),
		"--service-account-signing-key-file=" + p.path("service-account.key"),
		"--service-cluster-ip-range=" + p.serviceCIDR.String(),
		"--allow-privileged",
	}
	if p.forNode() {
		args = append(args,
			"--enable-admission-plugins=NodeRestriction", // a node writes of itself and its Pods alone, as anywhere
			"--kubelet-client-certificate="+p.kubeletClient.CertFile,
			"--kubelet-client-key="+p.kubeletClient.KeyFile,
			"--kubelet-preferred-address-types=InternalIP", // nobody resolves its name
		)
	} else {
		// It would publish its address in a Service that nobody uses.
		args = append(args, "--endpoint-reconciler-type=none")
	}
	return component{name: "kube-apiserver", grace: 10 * time.Second, args: append(args, more...)}
}

func (p *plan) controllerManager() component {
	return component{name: "kube-controller-manager", grace: 5 * time.Second, args: []string{
		"--kubeconfig=" + p.path("kube-controller-manager.kubeconfig"),
		"--use-service-account-credentials", // each controller with its own role, as in a real cluster
		"--service-account-private-key-file=" + p.path("service-account.key"),
		"--root-ca-file=" + p.cert.CAFile,
		// The default of 20 requests a second makes it wait 3 s for itself while it
		// gets each controller's credentials.
		"--kube-api-qps=1000",
		"--kube-api-burst=1000",
		"--leader-elect=false",
		"--secure-port=0",
	}}
}

func (p *plan) scheduler() component {
	return component{name: "kube-scheduler", grace: 5 * time.Second, args: []string{
		"--kubeconfig=" + p.path("kube-scheduler.kubeconfig"),
		"--leader-elect=false",
		"--secure-port=0",
	}}
}

// FreePorts returns n different ports of 127.0.0.1 that nobody listens on now.
func FreePorts(n int) ([]int, error) {
	listeners := make([]net.Listener, 0, n)
	defer func() {
		// All stay open until the last is chosen, so that no port comes twice.
		for _, l := range listeners {
			_ = l.Close()
		}
	}()
	ports := make([]int, n)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		listeners = append(listeners, l)
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
