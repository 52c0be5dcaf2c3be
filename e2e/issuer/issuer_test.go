// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package issuer_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/issuer"
)

const (
	// doneWithin bounds what cert-manager does in a second or two.
	doneWithin = time.Minute
	poll       = 50 * time.Millisecond
)

// world is a control plane with cert-manager beside it.
type world struct {
	*cluster.Cluster

	client *kubernetes.Clientset
}

func TestCertManager(t *testing.T) {
	t.Parallel()
	w := start(t)
	stop, err := issuer.Start(t.Context(), w.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	left := w.kubectl(t, "get", "issuers,certificates,certificaterequests,validatingwebhookconfigurations", "-A", "-o", "name")
	left += w.kubectl(t, "get", "secret", "probe", "--namespace="+issuer.Namespace, "--ignore-not-found", "-o", "name")
	if left != "" {
		t.Errorf("left from trying it out: %s", left)
	}
	t.Run("at work", func(t *testing.T) {
		t.Run("chain", func(t *testing.T) {
			t.Parallel()
			w.chain(t)
		})
		t.Run("chart", func(t *testing.T) {
			t.Parallel()
			w.charts(t)
		})
	})
	for range 2 {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
	if _, running := w.PIDs()[issuer.Name]; running {
		t.Error("it runs on")
	}
	// It can be started where it was before.
	if _, err := issuer.Start(t.Context(), w.Cluster); err != nil {
		t.Error(err)
	}
}

// TestNotBuilt: it is said what to do.
func TestNotBuilt(t *testing.T) {
	checkout := t.TempDir()
	if err := os.MkdirAll(filepath.Join(checkout, "deploy", "crds"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ directory, variable, want string }{
		{checkout, "", "make certmanager"},
		{checkout, filepath.Join(checkout, "none"), "PRATIQUE_CERTMANAGER"},
		{t.TempDir(), "", "finding the checkout"},
	} {
		t.Chdir(test.directory)
		t.Setenv("PRATIQUE_CERTMANAGER", test.variable)
		if _, err := issuer.Start(t.Context(), nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q in it", err, test.want)
		}
	}
}

func start(t *testing.T) *world {
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
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	return &world{c, client}
}

// kubectl fails the test if kubectl fails.
func (w *world) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, exit := w.Kubectl(t.Context(), args...)
	if exit != 0 {
		t.Fatalf("kubectl %s: exit code %d: %s%s", strings.Join(args, " "), exit, stdout, stderr)
	}
	return stdout
}

func (w *world) apply(t *testing.T, manifest string, args ...string) {
	t.Helper()
	if stdout, stderr, exit := w.Apply(t.Context(), manifest, args...); exit != 0 {
		t.Fatalf("apply: exit code %d: %s%s", exit, stdout, stderr)
	}
}

// authority is an authority in a namespace, and an issuer of this kind that
// issues by it.
func authority(namespace, kind string) string {
	return strings.NewReplacer("NAMESPACE", namespace, "KIND", kind).Replace(`
apiVersion: cert-manager.io/v1
kind: Issuer
metadata: {name: self, namespace: NAMESPACE}
spec: {selfSigned: {}}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: authority, namespace: NAMESPACE}
spec:
  secretName: authority
  isCA: true
  commonName: authority
  privateKey: {algorithm: ECDSA, size: 256}
  issuerRef: {kind: Issuer, name: self}
---
apiVersion: cert-manager.io/v1
kind: KIND
metadata: {name: authority, namespace: NAMESPACE}
spec: {ca: {secretName: authority}}
`)
}

// chain: a self-signed authority signs a certificate, and whoever believes that
// authority believes the certificate.
func (w *world) chain(t *testing.T) {
	w.kubectl(t, "create", "namespace", "shop")
	w.apply(t, authority("shop", "Issuer")+`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: web, namespace: shop}
spec:
  secretName: web-tls
  dnsNames: [web.shop.svc]
  issuerRef: {kind: Issuer, name: authority}
`)
	web := w.secret(t, "shop", "web-tls")
	verify(t, web, "web.shop.svc")
	root := w.secret(t, "shop", "authority")
	if diff := cmp.Diff(string(root.Data["tls.crt"]), string(web.Data["ca.crt"])); diff != "" {
		t.Errorf("issued by another: %s", diff)
	}
	w.inject(t, "web", "shop/web", web.Data["ca.crt"])
}

// secret waits until a certificate is there.
func (w *world) secret(t *testing.T, namespace, name string) *corev1.Secret {
	t.Helper()
	var found *corev1.Secret
	err := wait.PollUntilContextTimeout(t.Context(), poll, doneWithin, true, func(ctx context.Context) (bool, error) {
		var err error
		found, err = w.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		return err == nil && len(found.Data["tls.crt"]) > 0, err
	})
	if err != nil {
		requests := w.kubectl(t, "get", "issuers,certificates,certificaterequests,events", "-n", namespace, "-o", "wide")
		t.Fatalf("waiting for the Secret %s: %v\n%s", name, err, requests)
	}
	return found
}

// verify fails unless a server that has this Secret is taken for name by a client
// that believes what its ca.crt says.
func verify(t *testing.T, secret *corev1.Secret, name string) {
	t.Helper()
	pair, err := tls.X509KeyPair(secret.Data["tls.crt"], secret.Data["tls.key"])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(secret.Data["ca.crt"]) {
		t.Fatal("no certificate in ca.crt")
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
		t.Error(err)
	}
}

// inject has the CA bundle of a Certificate (namespace/name) written into both
// kinds of configurations, as they are when Pratique applies them: without one,
// and again and again.
func (w *world) inject(t *testing.T, name, from string, want []byte) {
	t.Helper()
	for _, kind := range []string{"Mutating", "Validating"} {
		configuration := strings.NewReplacer("KIND", kind, "NAME", name, "FROM", from).Replace(`
apiVersion: admissionregistration.k8s.io/v1
kind: KINDWebhookConfiguration
metadata:
  name: NAME
  annotations: {cert-manager.io/inject-ca-from: FROM}
webhooks:
- name: one.pratique.dev
  clientConfig: {service: {namespace: NAME, name: one}}
  admissionReviewVersions: [v1]
  sideEffects: None
- name: two.pratique.dev
  clientConfig: {service: {namespace: NAME, name: two}}
  admissionReviewVersions: [v1]
  sideEffects: None
`)
		w.apply(t, configuration, "--server-side", "--field-manager=pratique")
		var bundles [][]byte
		err := wait.PollUntilContextTimeout(t.Context(), poll, doneWithin, true, func(ctx context.Context) (done bool, err error) {
			bundles, err = w.bundles(ctx, kind, name)
			return len(bundles) == 2 && len(bundles[0]) > 0 && len(bundles[1]) > 0, err
		})
		if err != nil {
			t.Errorf("%s: waiting for the CA bundle: %v", kind, err)
			continue
		}
		w.apply(t, configuration, "--server-side", "--field-manager=pratique")
		if bundles, err = w.bundles(t.Context(), kind, name); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([][]byte{want, want}, bundles); diff != "" {
			t.Errorf("%s: the CA bundles: %s", kind, diff)
		}
	}
}

// bundles are those of the webhooks of a configuration.
func (w *world) bundles(ctx context.Context, kind, name string) ([][]byte, error) {
	var bundles [][]byte
	add := func(config admissionregistrationv1.WebhookClientConfig) { bundles = append(bundles, config.CABundle) }
	client := w.client.AdmissionregistrationV1()
	switch kind {
	case "Mutating":
		found, err := client.MutatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		for _, webhook := range found.Webhooks {
			add(webhook.ClientConfig)
		}
	case "Validating":
		found, err := client.ValidatingWebhookConfigurations().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		for _, webhook := range found.Webhooks {
			add(webhook.ClientConfig)
		}
	default:
		return nil, errors.New(kind)
	}
	return bundles, nil
}
