// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package issuer runs cert-manager beside a control plane, for tests: its
// controllers of self-signed and CA issuers and of Certificates, and its
// cainjector, in one process outside of the cluster.
//
//	stop, err := issuer.Start(ctx, c)
//	…
//	c.Kubectl(ctx, "wait", "--for=condition=Ready", "certificate/mine")
//
// e2e/certmanager builds it. There is no admission webhook of cert-manager's: the
// API server refuses what the CRDs do, and no more.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

const (
	// Namespace is where the Secrets are that ClusterIssuers name. Start makes it.
	Namespace = "cert-manager"
	// Name is that of the process; its log is c.Log(Name).
	Name = "certmanager"
	// readyWithin bounds each step of the start; all of them take five seconds.
	readyWithin = time.Minute
	poll        = 100 * time.Millisecond
	// crdsFile is beside the program.
	crdsFile = "crds.yaml"
)

// probe wants each of the program's halves to do something once. No rule sends
// anything to the webhook.
const probe = `
apiVersion: v1
kind: Namespace
metadata: {name: ` + Namespace + `}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: probe, namespace: ` + Namespace + `}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: probe, namespace: ` + Namespace + `}
spec:
  secretName: probe
  dnsNames: [probe.invalid]
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {kind: Issuer, name: probe}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata:
  name: cert-manager-probe
  annotations: {cert-manager.io/inject-ca-from: ` + Namespace + `/probe}
webhooks:
- name: probe.cert-manager.invalid
  clientConfig: {url: "https://127.0.0.1:1"}
  admissionReviewVersions: [v1]
  sideEffects: None
`

// Start applies cert-manager's CRDs, starts it with the administrator's rights,
// and returns when it has made a certificate and written a CA bundle. It ends
// when the returned function is called, and with the cluster. The CRDs, and what
// was made of them, stay.
func Start(ctx context.Context, c *cluster.Cluster) (stop func() error, err error) {
	binary, err := findProgram()
	if err != nil {
		return nil, err
	}
	crds := filepath.Join(filepath.Dir(binary), crdsFile)
	for _, args := range [][]string{
		// Client-side apply would keep a copy of each in an annotation, for which
		// they are too big.
		{"apply", "--server-side", "--filename=" + crds},
		{"wait", "--for=condition=Established", "--timeout=" + readyWithin.String(), "--filename=" + crds},
	} {
		if err := kubectl(ctx, c, args...); err != nil {
			return nil, fmt.Errorf("installing cert-manager: %w", err)
		}
	}
	stop, err = c.Run(cluster.Program{Name: Name, Binary: binary, Args: []string{"--cluster-resource-namespace=" + Namespace}})
	if err != nil {
		return nil, err
	}
	if err := tryOut(ctx, c); err != nil {
		// If it has ended by itself, stop says how.
		return nil, errors.Join(fmt.Errorf("trying cert-manager out (its log is %s): %w", c.Log(Name), err), stop())
	}
	return stop, nil
}

// tryOut waits until both halves work, and leaves nothing behind but the namespace.
func tryOut(ctx context.Context, c *cluster.Cluster) error {
	var stderr string
	// That a CRD is established does not say that its kind is already listed,
	// where kubectl looks for it.
	err := wait.PollUntilContextTimeout(ctx, poll, readyWithin, true, func(ctx context.Context) (applied bool, _ error) {
		var exit int
		_, stderr, exit = c.Apply(ctx, probe)
		return exit == 0, nil
	})
	if err != nil {
		return fmt.Errorf("applying what to try it on: %w: %s", err, stderr)
	}
	certificate := []string{"certificate/probe", "--namespace=" + Namespace, "--timeout=" + readyWithin.String()}
	configuration := "validatingwebhookconfiguration/cert-manager-probe"
	for _, args := range [][]string{
		append([]string{"wait", "--for=condition=Ready"}, certificate...),
		// Only now is nobody at it any more.
		append([]string{"wait", "--for=jsonpath={.status.revision}=1"}, certificate...),
		{"wait", "--for=jsonpath={.webhooks[0].clientConfig.caBundle}", configuration, "--timeout=" + readyWithin.String()},
		{"delete", configuration},
		// Neither the Secret nor, for half a minute, the request would go with the
		// Certificate: nobody owns the one, and the garbage collector has yet to
		// hear of the other's kind. A request that is left is taken for that of the
		// next start.
		{"delete", "issuer/probe", "certificate/probe", "certificaterequest/probe-1", "secret/probe", "--ignore-not-found", "--namespace=" + Namespace},
	} {
		if err := kubectl(ctx, c, args...); err != nil {
			return err
		}
	}
	return nil
}

func kubectl(ctx context.Context, c *cluster.Cluster, args ...string) error {
	if stdout, stderr, exit := c.Kubectl(ctx, args...); exit != 0 {
		return fmt.Errorf("kubectl %s: exit code %d: %s%s", strings.Join(args, " "), exit, stdout, stderr)
	}
	return nil
}

// findProgram returns the path of the program: the variable PRATIQUE_CERTMANAGER
// if it is set, else the one in the checkout. Its CRDs are beside it.
func findProgram() (string, error) {
	binary, how := os.Getenv("PRATIQUE_CERTMANAGER"), "it is named by PRATIQUE_CERTMANAGER"
	if binary == "" {
		root, err := cluster.Checkout()
		if err != nil {
			return "", err
		}
		binary, how = filepath.Join(root, "e2e", "certmanager", "bin", "certmanager"), "build it with: make certmanager"
	}
	for _, path := range []string{binary, filepath.Join(filepath.Dir(binary), crdsFile)} {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("finding cert-manager: %w; %s", err, how)
		}
	}
	return binary, nil
}
