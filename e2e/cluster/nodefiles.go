// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import "path/filepath"

// NodeFiles are what the programs of a node read of a control plane.
type NodeFiles struct {
	// Kubelet, Proxy and DNS are kubeconfigs: of the node NodeName, of kube-proxy
	// and of DNSUser.
	Kubelet, Proxy, DNS string
	// KubeletClientCA is the authority by which a kubelet knows the API server.
	KubeletClientCA string
}

// NodeFiles returns the paths of these files. The authority is there only with
// an Options.Address.
func (c *Cluster) NodeFiles() NodeFiles {
	path := func(name ...string) string { return filepath.Join(append([]string{c.Dir}, name...)...) }
	return NodeFiles{
		Kubelet:         path("kubelet.kubeconfig"),
		Proxy:           path("kube-proxy.kubeconfig"),
		DNS:             path("coredns.kubeconfig"),
		KubeletClientCA: path("kubelet-client", "ca.crt"),
	}
}
