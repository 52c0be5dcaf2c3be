// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	for _, test := range []struct {
		args string
		want string // what the component finds in os.Args; empty: a usage error
	}{
		{"controlplane etcd --version", "etcd --version"},
		{"/opt/bin/controlplane kubectl get pods", "kubectl get pods"},
		{"/opt/bin/kubectl get pods", "kubectl get pods"},
		{"./kube-apiserver", "kube-apiserver"},
		{"controlplane kubelet --config k.yaml", "kubelet --config k.yaml"},
		// The name of the link wins: etcd would be an argument of kubectl here.
		{"kubectl etcd", "kubectl etcd"},
		{"controlplane", ""},
		{"controlplane docker", ""},
		{"controlplane --help", ""},
		{"controlplane /usr/bin/kubectl", ""},
		{"", ""},
	} {
		t.Run(test.args, func(t *testing.T) {
			args := strings.Fields(test.args)
			c, rest, ok := choose(components(), args)
			if want := test.want != ""; ok != want {
				t.Fatalf("chosen: %t, want %t", ok, want)
			}
			if !ok {
				return
			}
			if want := strings.Fields(test.want); !slices.Equal(rest, want) || c.name != want[0] {
				t.Errorf("chose %s with %q, want %q", c.name, rest, want)
			}
		})
	}
}

func TestUsageNamesEveryComponent(t *testing.T) {
	var b strings.Builder
	usage(&b)
	for _, c := range components() {
		if !strings.Contains(b.String(), "  "+c.name+"\n") {
			t.Errorf("usage text lacks %q", c.name)
		}
	}
}
