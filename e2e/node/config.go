// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

const (
	containerdSocket = stateDir + "/containerd.sock"
	// sandboxImage is what keeps a Pod's namespaces, in Node.Registry.
	sandboxImage = "/pause:v1"
)

// containerd 1.6: state in memory, no systemd, no right to make the kernel spare
// a container when memory is short. Arguments: the socket, the sandbox image, the
// folders of CNI's plugins and configurations, the folder of what AllowHTTP says.
const containerdConfig = `version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"] # it makes folders in /opt
root = "/run/pratique/containerd"
state = "/run/pratique/containerd-state"
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = %q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = %q
    conf_dir = %q
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = %q
`

// plainHost and trustedHost are what containerd reads of a registry before it asks
// it. Arguments: the host, and the file with its authority.
const (
	plainHost = `server = "http://%[1]s"
[host."http://%[1]s"]
  capabilities = ["pull", "resolve"]
`
	trustedHost = `server = "https://%[1]s"
[host."https://%[1]s"]
  capabilities = ["pull", "resolve"]
  ca = %[2]q
`
)

// The bridge is ours already; the plugin puts Pods on it. Arguments: the bridge
// and the range of the Pods' addresses.
const networkConfig = `{
  "cniVersion": "0.4.0",
  "name": "pratique",
  "plugins": [
    {
      "type": "bridge", "bridge": %q, "isGateway": true, "hairpinMode": true,
      "ipam": {"type": "host-local", "ranges": [[{"subnet": %q}]], "routes": [{"dst": "0.0.0.0/0"}]}
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// The kubelet keeps the control groups of Pods beneath ours, and evicts nobody:
// the disk is others' as well. Arguments: the socket, the authority of the API
// server's certificate, the folders of Pods' logs and of static Pods, the file
// for names outside of the cluster, DNS and its domain, the control group.
const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://%s
authentication:
  anonymous: {enabled: false}
  webhook: {enabled: false}
  x509: {clientCAFile: %q}
authorization: {mode: AlwaysAllow}
podLogsDir: %q
staticPodPath: %q
fileCheckFrequency: 1s
volumePluginDir: "/run/pratique/volume-plugins" # else it is made in /usr
resolvConf: %q
clusterDNS: [%q]
clusterDomain: %q
cgroupDriver: cgroupfs
cgroupsPerQOS: true
cgroupRoot: %q
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "0%%", nodefs.available: "0%%", imagefs.available: "0%%", nodefs.inodesFree: "0%%", imagefs.inodesFree: "0%%"}
# How soon what changed is seen: tests wait for it.
syncFrequency: 5s
# However often a container has ended, it is started again soon.
crashLoopBackOff: {maxContainerRestartPeriod: 5s}
nodeStatusUpdateFrequency: 2s
nodeLeaseDurationSeconds: 8 # renewed four times in that
`

// CoreDNS knows the cluster's names; no others exist. Arguments: the address, the
// domain, the kubeconfig.
const dnsConfig = `%[2]s:53 in-addr.arpa:53 {
	errors
	bind %[1]s
	kubernetes %[2]s in-addr.arpa {
		kubeconfig %[3]s
	}
}
.:53 {
	errors
	bind %[1]s
	template ANY ANY {
		rcode NXDOMAIN
	}
}
`

// dnsRights are what CoreDNS reads. Argument: its user.
const dnsRights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: pratique-dns}
rules:
- {apiGroups: [""], resources: [services, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: pratique-dns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: pratique-dns}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: %s}]
`

func (n *Node) path(name string) string { return filepath.Join(n.dir, name) }

// logs is the disk that what containers print is on.
func (n *Node) logs() string { return n.path("logs") }

// hosts is the folder of what containerd is told of registries.
func (n *Node) hosts() string { return n.path("hosts") }

// AllowHTTP has the node pull from a registry without TLS. One on 127.0.0.1 needs
// no such word, but Pods cannot ask it: one that they ask too is at Address.
func (n *Node) AllowHTTP(host string) error { return n.tell(host, fmt.Sprintf(plainHost, host)) }

// Trust has the node pull from a registry whose certificate an authority of its
// own has issued, the PEM file ca.
func (n *Node) Trust(host, ca string) error { return n.tell(host, fmt.Sprintf(trustedHost, host, ca)) }

// tell writes what containerd reads of a registry whenever it is about to ask it.
func (n *Node) tell(host, what string) error {
	dir := filepath.Join(n.hosts(), host)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("telling the node of %s: %w", host, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(what), 0o600); err != nil {
		return fmt.Errorf("telling the node of %s: %w", host, err)
	}
	return nil
}

// configure writes what the programs read, and grants DNS its rights.
func (n *Node) configure(ctx context.Context) error {
	podLogs, cni := n.PodLogs(), n.path("cni")
	if err := n.mountLogs(); err != nil {
		return err
	}
	for _, dir := range []string{n.dir, podLogs, cni, stateDir, n.StaticPods} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the node's folders: %w", err)
		}
	}
	files := n.cluster.NodeFiles()
	for path, content := range map[string]string{
		n.path("containerd.toml"):               fmt.Sprintf(containerdConfig, containerdSocket, n.Registry+sandboxImage, cniDir(), cni, n.hosts()),
		filepath.Join(cni, "pratique.conflist"): fmt.Sprintf(networkConfig, bridge, podCIDR),
		n.path("kubelet.yaml"): fmt.Sprintf(kubeletConfig, containerdSocket, files.KubeletClientCA, podLogs, n.StaticPods,
			n.path("resolv.conf"), Address, dnsDomain, "/"+os.Getenv(cgroupVariable)),
		n.path("resolv.conf"): "",
		n.path("Corefile"):    fmt.Sprintf(dnsConfig, Address, dnsDomain, files.DNS),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("writing the node's configuration: %w", err)
		}
	}
	if err := n.AllowHTTP(n.Registry); err != nil {
		return err
	}
	if _, stderr, exit := n.cluster.Apply(ctx, fmt.Sprintf(dnsRights, cluster.DNSUser)); exit != 0 {
		return fmt.Errorf("granting DNS its rights: %s", stderr)
	}
	return nil
}

// components are the programs of the node that are in the control plane's binary,
// each with its arguments.
func (n *Node) components() [][]string {
	files := n.cluster.NodeFiles()
	return [][]string{
		{
			"kubelet",
			"--config=" + n.path("kubelet.yaml"),
			"--kubeconfig=" + files.Kubelet,
			"--root-dir=" + filepath.Join(stateDir, "kubelet"),
			"--cert-dir=" + filepath.Join(stateDir, "kubelet-pki"),
			"--hostname-override=" + cluster.NodeName,
			"--node-ip=" + Address,
		},
		{
			"kube-proxy",
			"--kubeconfig=" + files.Proxy,
			"--hostname-override=" + cluster.NodeName,
			"--proxy-mode=iptables",
			"--cluster-cidr=" + podCIDR,
			// Left at 0 it does not touch the machine's settings for connections.
			"--conntrack-max-per-core=0",
			"--conntrack-tcp-timeout-established=0",
			"--conntrack-tcp-timeout-close-wait=0",
			"--oom-score-adj=0",
			// How soon a change is routed: tests wait for it.
			"--iptables-min-sync-period=100ms",
		},
		{"coredns", "-conf", n.path("Corefile")},
	}
}
