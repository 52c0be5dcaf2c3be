// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// KubectlCommand returns a kubectl that is ready to run as the administrator,
// for callers that want its standard input or its output as it comes. It sees
// no configuration but this cluster's. The context kills it.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.binary, args...)
	cmd.Args[0] = "kubectl" // the binary is what it is called
	cmd.Env = append(environment(c.Dir), "KUBECONFIG="+c.Kubeconfig)
	return cmd
}

// Kubectl runs kubectl as the administrator and returns what it printed and its
// exit code. If it could not be run or was killed, the exit code is -1 and
// stderr ends with the reason.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (stdout, stderr string, exit int) {
	return run(c.KubectlCommand(ctx, args...))
}

// Apply is kubectl apply of the manifest, which is YAML or JSON, any number of
// documents. Further arguments are added.
func (c *Cluster) Apply(ctx context.Context, manifest string, args ...string) (stdout, stderr string, exit int) {
	cmd := c.KubectlCommand(ctx, append([]string{"apply", "--filename=-"}, args...)...)
	cmd.Stdin = strings.NewReader(manifest)
	return run(cmd)
}

func run(cmd *exec.Cmd) (stdout, stderr string, exit int) {
	var out, errOut strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	exit = cmd.ProcessState.ExitCode() // -1 also for a process that never was
	if err != nil && exit < 0 {
		errOut.WriteString(err.Error() + "\n")
	}
	return out.String(), errOut.String(), exit
}

// Drift is what kubectl diff says of a manifest that was applied: empty if what
// is in the cluster is what was asked for, as GitOps would see it.
func (c *Cluster) Drift(ctx context.Context, manifest string) string {
	command := c.KubectlCommand(ctx, "diff", "--server-side", "--field-manager=gitops", "--force-conflicts", "--filename=-")
	command.Stdin = strings.NewReader(manifest)
	output, err := command.CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v\n%s", err, output)
	}
	return ""
}
