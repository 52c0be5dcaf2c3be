// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// TestOnlyServersWrite: pratique verify neither stands for election nor writes
// a status, however long it takes; pratique serve does both, and gives the
// Lease back when it ends. It has a control plane of its own, where no other
// server holds the Lease.
func TestOnlyServersWrite(t *testing.T) {
	t.Parallel()
	c, account := newCluster(t)
	hanging := registrytest.New(t)
	hanging.Fault(registrytest.Manifest("acme/hangs"), registrytest.Hang())
	if _, stderr, exit := c.Apply(t.Context(), "apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: acme}\nspec:"+
		keyed(hanging.Host()+"/acme/", shared.key)); exit != 0 {
		t.Fatal(stderr)
	}
	written := func(ctx context.Context) (holder, status string) {
		holder, _, _ = c.Kubectl(ctx, "get", "lease", "pratique", "-n", env.Namespace, "-o", "jsonpath={.spec.holderIdentity}")
		status, _, _ = c.Kubectl(ctx, "get", "imageconfig", "acme", "-o", "jsonpath={.status}")
		return holder, status
	}

	// Without -f it goes by the cluster's rules. What it is asked for hangs.
	verify := exec.CommandContext(t.Context(), shared.Binary, "verify", hanging.Host()+"/acme/hangs:v1", "--timeout", "5s",
		"--registry-allow-cidrs", "127.0.0.0/8", "--insecure-registries", hanging.Host())
	verify.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig)
	output, _ := verify.CombinedOutput() // its exit code tells
	if exit := verify.ProcessState.ExitCode(); exit != 3 || !bytes.Contains(output, []byte("ImageConfig/acme: Inconclusive")) {
		t.Errorf("exit code %d and\n%s", exit, output)
	}
	// Who may not read the rules learns it at once, and not after the timeout.
	refused := exec.CommandContext(t.Context(), shared.Binary, "verify", hanging.Host()+"/acme/hangs:v1", "--timeout", "1h")
	refused.Env = append(os.Environ(), "KUBECONFIG="+withoutRights(t, c))
	output, _ = refused.CombinedOutput()
	if exit := refused.ProcessState.ExitCode(); exit != 2 || !bytes.Contains(output, []byte(" is forbidden: User ")) {
		t.Errorf("without rights: exit code %d and\n%s", exit, output)
	}
	if holder, status := written(t.Context()); holder != "" || status != "" {
		t.Errorf("verify left the Lease with %q and the status %q", holder, status)
	}

	ports, err := cluster.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	stop, err := c.Run(cluster.Program{Name: "pratique", Binary: shared.Binary, Kubeconfig: account, Args: []string{
		"serve", "--bind-address", fmt.Sprintf("127.0.0.1:%d", ports[0]), "--metrics-address", "0", "--health-address", "0",
	}})
	if err != nil {
		t.Fatal(err)
	}
	shared.eventually(t, settled, "serve holds the Lease and writes", func(ctx context.Context) error {
		if holder, status := written(ctx); holder == "" || status == "" {
			return errors.New("it does not")
		}
		return nil
	})
	if err := stop(); err != nil {
		t.Error(err)
	}
	if holder, _ := written(t.Context()); holder != "" {
		t.Errorf("serve has ended, and %s still holds the Lease", holder)
	}
}

// withoutRights is a kubeconfig of somebody who may read nothing.
func withoutRights(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	token, stderr, exit := c.Kubectl(t.Context(), "create", "token", "default", "-n", "default")
	if exit != 0 {
		t.Fatal(stderr)
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Token = strings.TrimSpace(token)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// newCluster starts a control plane where Pratique can be run, and returns the
// kubeconfig for that.
func newCluster(t *testing.T) (c *cluster.Cluster, account string) {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	if account, err = env.Install(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c, account
}
