// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/issuer"
)

// TestCertManager: the certificate is cert-manager's, and so is the bundle by
// which the API server believes it. It is replaced without a request that fails.
func TestCertManager(t *testing.T) {
	stop, err := issuer.Start(t.Context(), shared.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	r := install(t, "--set", "certificates.certManager.enabled=true")
	r.rules(t)
	refused(t)
	before := issued(t)
	r.awaitServed(t, before)
	r.upgrade(t)
	if !issued(t).Equal(before) {
		t.Error("an upgrade to the same makes another certificate")
	}
	asked := askOn(t)
	// What cmctl renew does.
	kubectl(t, "patch", "certificate", release, "--namespace="+namespace, "--subresource=status", "--type=merge",
		`--patch={"status": {"conditions": [{"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}`)
	eventually(t, "there is another certificate", func(context.Context) error {
		if issued(t).Equal(before) {
			return errors.New("it is the same")
		}
		return nil
	})
	r.awaitServed(t, issued(t))
	refused(t)
	asked()
}

// issued is the certificate that cert-manager keeps.
func issued(t *testing.T) *x509.Certificate {
	t.Helper()
	name := kubectl(t, "get", "certificate", release, "--namespace="+namespace, "-o", "jsonpath={.spec.secretName}")
	secret, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// host is the name by which the API server knows the webhook.
const host = release + "." + namespace + ".svc"

// TestOwnCertificate: the certificate is the admin's, and is replaced as
// docs/operations.md says, without a request that fails. The namespace was made
// before, and takes nothing but what is restricted.
func TestOwnCertificate(t *testing.T) {
	makeNamespace(t, namespace)
	kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
	t.Cleanup(func() {
		_, _, _ = shared.Kubectl(context.Background(), "label", "namespace", namespace, "pod-security.kubernetes.io/enforce-")
		_, _, _ = shared.Kubectl(context.Background(), "delete", "secret", "own-tls", "--namespace="+namespace, "--ignore-not-found")
	})
	first, second := newCert(t), newCert(t)
	keep(t, first, first.CAPEM)
	r := install(t, "--set", "certificates.existingSecret=own-tls")
	r.rules(t)
	refused(t)
	r.awaitServed(t, leaf(t, first))
	asked := askOn(t)
	both := append(bytes.Clone(second.CAPEM), first.CAPEM...)
	keep(t, first, both)
	r.awaitBundle(t, both)
	keep(t, second, both)
	r.awaitServed(t, leaf(t, second))
	keep(t, second, second.CAPEM)
	r.awaitBundle(t, second.CAPEM)
	refused(t)
	asked()
}

func newCert(t *testing.T) cluster.ServingCert {
	t.Helper()
	cert, err := cluster.NewServingCert(t.TempDir(), host)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func leaf(t *testing.T, cert cluster.ServingCert) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(cert.CertPEM, cert.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

// keep writes the admin's Secret.
func keep(t *testing.T, cert cluster.ServingCert, authorities []byte) {
	t.Helper()
	apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Secret
metadata: {name: own-tls, namespace: %s}
type: kubernetes.io/tls
stringData: {tls.crt: %q, tls.key: %q, ca.crt: %q}
`, namespace, cert.CertPEM, cert.KeyPEM, authorities))
}

// awaitBundle waits until the API server believes these authorities and no others.
func (r *installation) awaitBundle(t *testing.T, authorities []byte) {
	t.Helper()
	eventually(t, "the configurations name the authorities", func(ctx context.Context) error {
		hooks := shared.client.AdmissionregistrationV1()
		mutating, err := hooks.MutatingWebhookConfigurations().Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return err
		}
		validating, err := hooks.ValidatingWebhookConfigurations().Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return err
		}
		bundles := [][]byte{}
		for _, w := range mutating.Webhooks {
			bundles = append(bundles, w.ClientConfig.CABundle)
		}
		for _, w := range validating.Webhooks {
			bundles = append(bundles, w.ClientConfig.CABundle)
		}
		for _, bundle := range bundles {
			if !bytes.Equal(bytes.TrimSpace(bundle), bytes.TrimSpace(authorities)) {
				return fmt.Errorf("there are others: %d bytes, want %d", len(bundle), len(authorities))
			}
		}
		return nil
	})
}

// awaitServed waits until every replica serves a certificate. Who it is by is not
// the question here.
func (r *installation) awaitServed(t *testing.T, want *x509.Certificate) {
	t.Helper()
	dialer := tls.Dialer{Config: &tls.Config{ServerName: host, InsecureSkipVerify: true}}
	eventually(t, "every replica serves the certificate", func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			connection, err := dialer.DialContext(ctx, "tcp", pod.Status.PodIP+":9443")
			if err != nil {
				return err
			}
			got := connection.(*tls.Conn).ConnectionState().PeerCertificates[0]
			if err := connection.Close(); err != nil {
				return err
			}
			if !got.Equal(want) {
				return fmt.Errorf("%s serves another one", pod.Name)
			}
		}
		return nil
	})
}

// askOn goes on asking the API server about a signed image, until the returned
// function is called; it fails the test if one of the requests did.
func askOn(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done, asked, failures := make(chan struct{}), 0, []string{}
	go func() {
		defer close(done)
		for ; ctx.Err() == nil; asked++ {
			if err := tryPod(ctx, podOf("good", shared.acme.signed.tag)); err != nil && ctx.Err() == nil {
				failures = append(failures, fmt.Sprintf("request %d: %v", asked, err))
			}
		}
	}()
	return func() {
		t.Helper()
		cancel()
		<-done
		if len(failures) > 0 || asked < 20 {
			t.Errorf("%d of %d requests failed:\n%s", len(failures), asked, strings.Join(failures, "\n"))
		}
	}
}
