// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package env

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

const (
	// accountName is the ServiceAccount that deploy/rbac makes.
	accountName = "pratique"
	// AccountUser is the same as the API server names it.
	AccountUser = "system:serviceaccount:" + Namespace + ":" + accountName
	// accountFor is how long its token is good: as long as the certificates of
	// the cluster, for a demo may be kept.
	accountFor = 7 * 24 * time.Hour
	// grantedWithin bounds the wait until the API server goes by the new rights.
	grantedWithin = 10 * time.Second
)

// Rights are the files in deploy/rbac that Pratique needs in any case.
func Rights() []string { return []string{"role.yaml", "pratique.yaml"} }

// newAccount gives Pratique its rights, and writes a kubeconfig with a token of
// its ServiceAccount.
func newAccount(ctx context.Context, c *cluster.Cluster, root string) (path string, err error) {
	for _, file := range Rights() {
		if _, stderr, exit := c.Kubectl(ctx, "apply", "-f", filepath.Join(root, "deploy", "rbac", file)); exit != 0 {
			return "", fmt.Errorf("giving Pratique its rights: %s", stderr)
		}
	}
	token, stderr, exit := c.Kubectl(ctx, "create", "token", accountName, "--namespace", Namespace,
		"--duration", accountFor.String())
	if exit != 0 {
		return "", fmt.Errorf("making a token for Pratique: %s", stderr)
	}
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		return "", fmt.Errorf("reading the administrator's kubeconfig: %w", err)
	}
	for _, user := range config.AuthInfos {
		user.Token = strings.TrimSpace(token)
	}
	path = filepath.Join(c.Dir, "pratique.kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		return "", fmt.Errorf("writing Pratique's kubeconfig: %w", err)
	}
	return path, awaitGranted(ctx, c, []string{"list", "imageconfigs.pratique.dev"}, []string{"list", "secrets", "--namespace", Namespace})
}

// allowInjection makes the namespaces of Options.Inject, and lets Pratique write
// Secrets there and nowhere else.
func (e *Env) allowInjection(ctx context.Context) error {
	if len(e.options.Inject) == 0 {
		return nil
	}
	root, err := Root()
	if err != nil {
		return err
	}
	commands := [][]string{{"apply", "-f", filepath.Join(root, "deploy", "rbac", "inject.yaml")}}
	var rights [][]string
	for _, namespace := range e.options.Inject {
		commands = append(commands, []string{"create", "namespace", namespace}, []string{
			"create", "rolebinding", "pratique-inject", "--namespace", namespace,
			"--clusterrole=pratique-inject", "--serviceaccount=" + Namespace + ":" + accountName,
		})
		rights = append(rights, []string{"create", "secrets", "--namespace", namespace})
	}
	for _, command := range commands {
		if _, stderr, exit := e.Kubectl(ctx, command...); exit != 0 {
			return fmt.Errorf("letting Pratique write pull secrets: %s", stderr)
		}
	}
	return awaitGranted(ctx, e.Cluster, rights...)
}

// awaitGranted waits until the API server knows the bindings. Before, it would
// refuse, and what it refused would be in the log.
func awaitGranted(ctx context.Context, c *cluster.Cluster, rights ...[]string) error {
	for _, right := range rights {
		var last string
		err := wait.PollUntilContextTimeout(ctx, poll, grantedWithin, true, func(ctx context.Context) (bool, error) {
			stdout, stderr, exit := c.Kubectl(ctx, append([]string{"auth", "can-i", "--as", AccountUser}, right...)...)
			last = strings.TrimSpace(stdout + stderr)
			return exit == 0, nil
		})
		if err != nil {
			return fmt.Errorf("waiting for Pratique to be allowed to %s: %w; last: %s", strings.Join(right, " "), err, last)
		}
	}
	return nil
}
