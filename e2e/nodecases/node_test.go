// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package nodecases_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

const (
	// namespace enforces the strictest of the Pod Security Standards.
	namespace = "cases"
	// within bounds each wait: Pods take seconds when nothing else runs.
	within = 2 * time.Minute
	poll   = 200 * time.Millisecond
	// askWithin bounds one request.
	askWithin = 10 * time.Second
	replicas  = 3
)

// setup is three replicas of the probe behind a Service, confined as far as can
// be, and one that is a webhook. Arguments: image, and the webhook's certificate
// and key.
const setup = `
apiVersion: v1
kind: Namespace
metadata:
  name: cases
  labels: {pod-security.kubernetes.io/enforce: restricted}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: cases}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: probe
        image: %[1]q
        securityContext:
          {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        readinessProbe: {periodSeconds: 1, httpGet: {path: /name, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: cases}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Secret
metadata: {name: webhook, namespace: cases}
type: kubernetes.io/tls
stringData: {tls.crt: %[2]q, tls.key: %[3]q}
---
apiVersion: v1
kind: Pod
metadata: {name: webhook, namespace: cases, labels: {app: webhook}}
spec:
  terminationGracePeriodSeconds: 1
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: probe
    image: %[1]q
    securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
    readinessProbe: {periodSeconds: 1, httpGet: {path: /name, port: 8080}}
    volumeMounts: [{name: certs, mountPath: /certs}]
  volumes: [{name: certs, secret: {secretName: webhook}}]
---
apiVersion: v1
kind: Service
metadata: {name: webhook, namespace: cases}
spec: {selector: {app: webhook}, ports: [{port: 443, targetPort: 8443}]}
`

// webhookConfiguration has the API server ask the probe about ConfigMaps with a
// label. Argument: the authority of its certificate.
const webhookConfiguration = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: probe}
webhooks:
- name: probe.pratique.dev
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 5
  objectSelector: {matchLabels: {probe: deny}}
  clientConfig:
    service: {name: webhook, namespace: cases, path: /deny}
    caBundle: %s
  rules: [{apiGroups: [""], apiVersions: [v1], resources: [configmaps], operations: [CREATE]}]
`

// TestNode is one test because its last part takes the node away from the others.
func TestNode(t *testing.T) {
	cert, err := cluster.NewServingCert(t.TempDir(), "webhook.cases.svc")
	if err != nil {
		t.Fatal(err)
	}
	apply(t, fmt.Sprintf(setup, shared.probe, cert.CertPEM, cert.KeyPEM))
	apply(t, fmt.Sprintf(webhookConfiguration, cert.CABundle()))
	t.Cleanup(func() {
		if t.Failed() {
			out, _, _ := shared.Kubectl(context.Background(), "describe", "pods", "--namespace="+namespace)
			t.Log(out)
		}
	})
	awaitPods(t)

	t.Run("logs", func(t *testing.T) {
		out, stderr, _ := shared.Kubectl(t.Context(), "logs", "--namespace="+namespace, "webhook")
		if out != "probe is up\n" {
			t.Errorf("logs: %q, %s", out, stderr)
		}
	})
	t.Run("a Service routes to three replicas", routes)
	t.Run("a Pod is confined", confined)
	t.Run("a Pod finds the API server", func(t *testing.T) {
		eventually(t, func(ctx context.Context) error {
			return askPod(ctx, "https://kubernetes.default.svc/version", "200 ", "v1.36")
		})
	})
	t.Run("a Pod finds a Service by its name", func(t *testing.T) {
		for _, host := range []string{"web", "web.cases.svc", "web.cases.svc.cluster.local"} {
			eventually(t, func(ctx context.Context) error { return askPod(ctx, "http://"+host+"/name", "200 web-") })
		}
	})
	t.Run("a Pod finds nothing else", func(t *testing.T) {
		err := askPod(t.Context(), "http://example.com/", "200")
		if err == nil || !strings.Contains(err.Error(), "no such host") {
			t.Errorf("error %v, want that there is no such host", err)
		}
	})
	t.Run("a Pod asks the registry", func(t *testing.T) {
		eventually(t, func(ctx context.Context) error {
			return askPod(ctx, "http://"+shared.node.Registry+"/v2/acme/probe/tags/list", "200 ", `"v1"`)
		})
	})
	t.Run("the node runs Pods of its own", static)
	t.Run("the API server reaches a webhook through its Service", denied)

	t.Run("everything comes back after a restart", func(t *testing.T) {
		before := restarts(t)
		ctx, cancel := context.WithTimeout(t.Context(), 2*within)
		defer cancel()
		if err := shared.node.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, func(context.Context) error {
			now := restarts(t)
			for pod, count := range now {
				if count <= before[pod] {
					return fmt.Errorf("Pod %s was not restarted: %v, before %v", pod, now, before)
				}
			}
			if len(now) != len(before) {
				return fmt.Errorf("Pods %v, before %v", now, before)
			}
			return nil
		})
		awaitPods(t)
		t.Run("routes", routes)
		t.Run("denied", denied)
	})
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	if _, stderr, exit := shared.Apply(t.Context(), manifest); exit != 0 {
		t.Fatal(stderr)
	}
}

// awaitPods waits until all Pods of the cases are Ready.
func awaitPods(t *testing.T) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		ready := 0
		for _, pod := range pods(t) {
			for _, condition := range pod.Status.Conditions {
				if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		if want := replicas + 1; ready != want {
			return fmt.Errorf("%d Pods are Ready, want %d", ready, want)
		}
		return nil
	})
}

func pods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := shared.client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// restarts counts them, by Pod.
func restarts(t *testing.T) map[string]int32 {
	t.Helper()
	counts := map[string]int32{}
	for _, pod := range pods(t) {
		for _, container := range pod.Status.ContainerStatuses {
			counts[pod.Name] += container.RestartCount
		}
	}
	return counts
}

// routes asks the Service until each replica has answered.
func routes(t *testing.T) {
	seen := map[string]bool{}
	eventually(t, func(ctx context.Context) error {
		name, err := askService(ctx, "/name")
		if err != nil {
			return err
		}
		if !strings.HasPrefix(name, "web-") {
			return fmt.Errorf("somebody else answered: %q", name)
		}
		if seen[name] = true; len(seen) < replicas {
			return fmt.Errorf("only %v answered", seen)
		}
		return nil
	})
}

// confined reads what the kernel says of the process in the Pod.
func confined(t *testing.T) {
	status, err := askService(t.Context(), "/confinement")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nUid:\t65532\t65532\t65532\t65532\n",
		"\nCapBnd:\t0000000000000000\n",
		"\nNoNewPrivs:\t1\n",
		"\nSeccomp:\t2\n", // a filter
		"\nread-only root:\ttrue\n",
	} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
}

// static puts a Pod's manifest where the node looks for them.
func static(t *testing.T) {
	manifest := fmt.Sprintf(`{
		"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "own", "namespace": "default"},
		"spec": {"containers": [{"name": "probe", "image": %q}], "terminationGracePeriodSeconds": 1}
	}`, shared.probe)
	path := filepath.Join(shared.node.StaticPods, "own.json")
	if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(path)
	eventually(t, func(ctx context.Context) error {
		pod, err := shared.client.CoreV1().Pods("default").Get(ctx, "own-"+cluster.NodeName, metav1.GetOptions{})
		if err == nil && (pod.Status.Phase != corev1.PodRunning || pod.Annotations[corev1.MirrorPodAnnotationKey] == "") {
			err = fmt.Errorf("phase %s, annotations %v", pod.Status.Phase, pod.Annotations)
		}
		return err
	})
}

// denied makes what the webhook in the Pod denies.
func denied(t *testing.T) {
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "denied-", Labels: map[string]string{"probe": "deny"}}}
	eventually(t, func(ctx context.Context) error {
		_, err := shared.client.CoreV1().ConfigMaps(namespace).Create(ctx, configMap, metav1.CreateOptions{})
		if err == nil {
			return fmt.Errorf("nobody denied it")
		}
		if !strings.Contains(err.Error(), "the probe denies it") {
			return err
		}
		return nil
	})
}

// askService asks the Service web at its address, as the API server would.
func askService(ctx context.Context, path string) (string, error) {
	service, err := shared.client.CoreV1().Services(namespace).Get(ctx, "web", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+service.Spec.ClusterIP+path, nil)
	if err != nil {
		return "", err
	}
	// Each request is a connection of its own, which kube-proxy routes anew.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return string(body), err
}

// askPod has a Pod ask a URL, and says whether all of want is in the answer.
func askPod(ctx context.Context, target string, want ...string) error {
	answer, err := askService(ctx, "/ask?url="+url.QueryEscape(target))
	if err != nil {
		return err
	}
	for _, part := range want {
		if !strings.Contains(answer, part) {
			return fmt.Errorf("no %q in the answer %q", part, answer)
		}
	}
	return nil
}

// eventually asks until there is no error any more.
func eventually(t *testing.T, ask func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), poll, within, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("%v; last: %v", err, last)
	}
}
