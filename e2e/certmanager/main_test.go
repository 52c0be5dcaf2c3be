// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cert-manager/cert-manager/pkg/controller"
)

// What the controllers do is tested where they are used, in package issuer.

func TestUsage(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	none := filepath.Join(t.TempDir(), "kubeconfig")
	for _, test := range []struct{ args, want string }{
		{"", "usage: certmanager --kubeconfig FILE"},
		{"--kubeconfig= --cluster-resource-namespace=here", "usage: certmanager --kubeconfig FILE"},
		{"--kubeconfig=" + none + " more", "usage: certmanager --kubeconfig FILE"},
		{"--leader-elect", "flag provided but not defined"},
		{"--kubeconfig=" + none, "no such file or directory"},
	} {
		t.Run(test.args, func(t *testing.T) {
			err := run(t.Context(), strings.Fields(test.args))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q in it", err, test.want)
			}
		})
	}
}

func TestVariable(t *testing.T) {
	none := filepath.Join(t.TempDir(), "kubeconfig")
	t.Setenv("KUBECONFIG", none)
	if err := run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), none) {
		t.Errorf("%v, want %q in it", err, none)
	}
}

// TestControllers: what is registered is what is meant to run. An import that
// brings in the controllers of ACME would have them run as well, without what
// they need.
func TestControllers(t *testing.T) {
	want := []string{
		"certificaterequests-approver",
		"certificaterequests-issuer-ca",
		"certificaterequests-issuer-selfsigned",
		"certificates-issuing",
		"certificates-key-manager",
		"certificates-metrics",
		"certificates-readiness",
		"certificates-request-manager",
		"certificates-revision-manager",
		"certificates-trigger",
		"clusterissuers",
		"issuers",
	}
	if got := slices.Sorted(maps.Keys(controller.Known())); !slices.Equal(got, want) {
		t.Errorf("registered: %q, want %q", got, want)
	}
}
