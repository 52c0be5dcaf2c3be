// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/helm"
)

const (
	// within bounds each wait: on a machine with nothing else to do three replicas
	// are Ready after some seconds.
	within = 2 * time.Minute
	poll   = 200 * time.Millisecond
	// replicas is the chart's default.
	replicas = 3
)

// installation is a release of the chart.
type installation struct {
	// values are the flags by which it was installed.
	values []string
}

// install installs the chart as the README says, with these flags besides, waits
// until it is in force, and uninstalls it at the end of the test.
func install(t *testing.T, flags ...string) *installation {
	t.Helper()
	makeNamespace(t, team)
	r := &installation{values: append([]string{
		"--set", "image.repository=" + shared.repository + ",image.tag=" + imageTag,
		"--set-file", "caBundle.inline=" + shared.authority,
		"--set", "inject.namespaces={" + team + "}",
		"--set", fmt.Sprintf("tests.namespace=%s,tests.admitted=%s,tests.denied=%s", team, shared.acme.signed.tag, shared.acme.unsigned.tag),
	}, flags...)}
	t.Cleanup(func() { r.uninstall(t) })
	t.Cleanup(func() { // before that
		if t.Failed() {
			tell(t)
		}
	})
	r.helm(t, append([]string{"install", release, chart(t), "--create-namespace"}, r.values...)...)
	r.awaitReady(t, replicas)
	r.awaitArmed(t)
	return r
}

// uninstall does nothing if that was done already.
func (r *installation) uninstall(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	if out, err := helm.Run(ctx, shared.Kubeconfig, "uninstall", release, "--namespace", namespace, "--ignore-not-found"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	r.awaitGone(t)
}

// awaitGone waits until nothing of the release's own is left in its namespace.
// The replicas answer for a while after they have been told to end.
func (r *installation) awaitGone(t *testing.T) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // it has ended when the test cleans up
	eventuallyIn(ctx, t, "nothing is left in the namespace", func(ctx context.Context) error {
		out, stderr, exit := shared.Kubectl(ctx, "get", "all,configmaps,poddisruptionbudgets,serviceaccounts", "-n", namespace, "-o", "name")
		if exit != 0 || strings.Contains(out, "/"+release) {
			return fmt.Errorf("%s%s", out, stderr)
		}
		return nil
	})
}

func chart(t *testing.T) string {
	t.Helper()
	root, err := cluster.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "charts", "pratique")
}

// helm runs Helm in the release's namespace, and fails the test if Helm fails.
func (r *installation) helm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := helm.Run(t.Context(), shared.Kubeconfig, append(args, "--namespace", namespace)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// upgrade installs the chart with the values of before and these.
func (r *installation) upgrade(t *testing.T, flags ...string) {
	t.Helper()
	r.helm(t, append(append([]string{"upgrade", release, chart(t)}, r.values...), flags...)...)
}

// awaitReady waits until so many replicas answer, all of one version, and no
// other Pod of the release is there any more.
func (r *installation) awaitReady(t *testing.T, want int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d replicas are Ready", want), func(ctx context.Context) error {
		deployment, err := shared.client.AppsV1().Deployments(namespace).Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if s := deployment.Status; s.ObservedGeneration < deployment.Generation || int(s.UpdatedReplicas) != want || int(s.ReadyReplicas) != want {
			return fmt.Errorf("generation %d, %+v", deployment.Generation, s)
		}
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		if len(pods) != want {
			return fmt.Errorf("%d Pods", len(pods))
		}
		return nil
	})
}

// pods are the replicas, those that are ending too.
func (r *installation) pods(ctx context.Context) ([]corev1.Pod, error) {
	list, err := shared.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=pratique"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// awaitArmed waits until the API server asks, and is answered.
func (r *installation) awaitArmed(t *testing.T) {
	t.Helper()
	eventually(t, "the webhook is asked and answers", func(ctx context.Context) error {
		err := tryPod(ctx, podOf("probe", "no//reference"))
		if err == nil {
			return errors.New("nobody was asked")
		}
		if !strings.Contains(err.Error(), "invalid image reference") {
			return err
		}
		return nil
	})
}

// configurations names the webhook configurations that are there.
func configurations(ctx context.Context) ([]string, error) {
	stdout, stderr, exit := shared.Kubectl(ctx, "get", "mutatingwebhookconfigurations,validatingwebhookconfigurations", "-o", "name")
	if exit != 0 {
		return nil, errors.New(stderr)
	}
	return strings.Fields(stdout), nil
}

// certificates is the Secret of Pratique's own certificates.
func certificates(t *testing.T) map[string][]byte {
	t.Helper()
	secret, err := shared.client.CoreV1().Secrets(namespace).Get(t.Context(), certificateSecret, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return secret.Data
}

// podOf is a Pod in the team's namespace with these images, that ends at once
// when told to.
func podOf(name string, images ...string) *corev1.Pod {
	grace := int64(1)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: team},
		Spec:       corev1.PodSpec{TerminationGracePeriodSeconds: &grace},
	}
	for i, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: image})
	}
	return p
}

// deploymentOf is one replica of such a Pod.
func deploymentOf(name, image string) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	template := podOf(name, image)
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: team},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
		},
	}
}

var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// tryPod asks the API server whether it would take a Pod.
func tryPod(ctx context.Context, p *corev1.Pod) error {
	_, err := shared.client.CoreV1().Pods(p.Namespace).Create(ctx, p, dryRun)
	return err
}

// makeNamespace makes it if it is not there, and waits for its ServiceAccount.
func makeNamespace(t *testing.T, name string) {
	t.Helper()
	_, err := shared.client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	eventually(t, "the namespace can be used", func(ctx context.Context) error {
		_, err := shared.client.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func apply(t *testing.T, manifest string) {
	t.Helper()
	if _, stderr, exit := shared.Apply(t.Context(), manifest); exit != 0 {
		t.Fatal(stderr)
	}
}

// kubectl fails the test if kubectl fails.
func kubectl(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, exit := shared.Kubectl(t.Context(), args...)
	if exit != 0 {
		t.Fatalf("kubectl %s: exit code %d: %s%s", strings.Join(args, " "), exit, stdout, stderr)
	}
	return stdout
}

// eventually asks until there is no error any more.
func eventually(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	eventuallyIn(t.Context(), t, what, ask)
}

func eventuallyIn(ctx context.Context, t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	begin := time.Now()
	var last error
	err := wait.PollUntilContextTimeout(ctx, poll, within, true, func(ctx context.Context) (bool, error) {
		last = ask(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("waiting until %s: %v; last: %v", what, err, last)
	}
	t.Logf("%s after %.1f s", what, time.Since(begin).Seconds())
}

// tell prints what an admin would look at.
func tell(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"get", "pods", "--all-namespaces", "-o", "wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"logs", "--namespace=" + namespace, "--selector=app.kubernetes.io/name=pratique", "--tail=40", "--prefix"},
	} {
		stdout, stderr, _ := shared.Kubectl(context.Background(), args...)
		t.Logf("kubectl %s\n%s%s", strings.Join(args, " "), stdout, stderr)
	}
}
