// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestLife is the life of a release, from nothing to nothing, and what each step
// promises.
func TestLife(t *testing.T) {
	r := install(t)
	r.rules(t)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *installation)
	}{
		{"what is signed runs", signedRuns},
		{"what is not signed is refused", unsignedIsRefused},
		{"helm test", tested},
		{"helm upgrade, twice", upgradedTwice},
		{"helm upgrade to Audit, and helm rollback", rolledBack},
		{"a node that comes back", comesBack},
		{"a node that is another one", madeAnew},
		{"helm uninstall", uninstalled},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, r) }) {
			return // the next step begins where this one should have ended
		}
	}
}

// signedRuns: the node pulls a private image by the injected secret; what lies in
// Git stays as it was written.
func signedRuns(t *testing.T, _ *installation) {
	signed := shared.acme.signed
	if _, err := shared.client.AppsV1().Deployments(team).Create(t.Context(), deploymentOf("app", signed.tag), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := running(t, "app")
	if got := pod.Spec.Containers[0].Image; got != signed.pinned() {
		t.Errorf("the Pod's image is %q, want %q", got, signed.pinned())
	}
	if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: "acme-pull"}}, pod.Spec.ImagePullSecrets); diff != "" {
		t.Errorf("pull secrets (-want +got):\n%s", diff)
	}
	if got := pod.Status.ContainerStatuses[0].ImageID; !strings.HasSuffix(got, signed.digest.String()) {
		t.Errorf("the node runs %q, want %s", got, signed.digest)
	}
	written, err := shared.client.AppsV1().Deployments(team).Get(t.Context(), "app", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := written.Spec.Template.Spec.Containers[0].Image; got != signed.tag {
		t.Errorf("the Deployment's image is %q, want it as it was written", got)
	}
}

// running waits for the only Pod of a Deployment of the team's.
func running(t *testing.T, app string) (found *corev1.Pod) {
	t.Helper()
	eventually(t, "a Pod of "+app+" runs", func(ctx context.Context) error {
		pods, err := shared.client.CoreV1().Pods(team).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err != nil {
			return err
		}
		for _, pod := range pods.Items {
			if pod.Status.Phase == corev1.PodRunning && len(pods.Items) == 1 {
				found = &pod
				return nil
			}
		}
		return fmt.Errorf("%d Pods", len(pods.Items))
	})
	return found
}

// unsignedIsRefused says why: to who makes a Pod, and to who makes a Deployment.
func unsignedIsRefused(t *testing.T, _ *installation) {
	refused(t)
	_, stderr, exit := shared.Kubectl(t.Context(), "create", "deployment", "bad", "--image="+shared.acme.unsigned.tag, "--namespace="+team)
	if exit == 0 || !strings.Contains(stderr, "denied the request") {
		t.Errorf("a Deployment: exit code %d, %s", exit, stderr)
	}
}

// refused fails the test unless Pods with the unsigned image are.
func refused(t *testing.T) {
	t.Helper()
	err := tryPod(t.Context(), podOf("bad", shared.acme.unsigned.tag))
	if err == nil {
		t.Error("an unsigned image is admitted")
		return
	}
	if !strings.Contains(err.Error(), "Rejected by ImageConfig \"acme\"") {
		t.Errorf("refused for another reason: %v", err)
	}
}

func tested(t *testing.T, r *installation) {
	out := r.helm(t, "test", release)
	// Helm fails if one does; it would not if there were none.
	for _, name := range []string{"pratique-test-admitted", "pratique-test-denied"} {
		if !strings.Contains(out, name) {
			t.Errorf("there was no test %s:\n%s", name, out)
		}
	}
}

// upgradedTwice to the same changes nothing: no certificate, no replica.
func upgradedTwice(t *testing.T, r *installation) {
	before, replicas := certificates(t), names(t, r)
	for range 2 {
		r.upgrade(t)
	}
	if diff := cmp.Diff(before, certificates(t)); diff != "" {
		t.Error("the certificates are others")
	}
	if diff := cmp.Diff(replicas, names(t, r)); diff != "" {
		t.Errorf("replicas (-before +after):\n%s", diff)
	}
	refused(t)
}

// names are those of the replicas' Pods.
func names(t *testing.T, r *installation) map[string]bool {
	t.Helper()
	pods, err := r.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, pod := range pods {
		all[pod.Name] = true
	}
	return all
}

// rolledBack: Audit denies nothing, and says so to the API server too; rolling
// back enforces again.
func rolledBack(t *testing.T, r *installation) {
	before := certificates(t)
	r.upgrade(t, "--set", "mode=Audit")
	r.awaitReady(t, replicas)
	eventually(t, "nothing is denied", func(ctx context.Context) error { return tryPod(ctx, podOf("bad", shared.acme.unsigned.tag)) })
	policies(t, "Ignore 5", "Ignore 5")
	r.helm(t, "rollback", release, "1")
	r.awaitReady(t, replicas)
	eventually(t, "what is unsigned is refused again", func(ctx context.Context) error {
		if err := tryPod(ctx, podOf("bad", shared.acme.unsigned.tag)); err == nil {
			return errors.New("it is admitted")
		}
		return nil
	})
	refused(t)
	policies(t, "Ignore 10", "Fail 10")
	if diff := cmp.Diff(before, certificates(t)); diff != "" {
		t.Error("the certificates are others")
	}
}

// policies waits until the first webhooks of mutation and validation have these
// failure policies and timeouts.
func policies(t *testing.T, mutation, validation string) {
	t.Helper()
	for kind, want := range map[string]string{"mutatingwebhookconfiguration": mutation, "validatingwebhookconfiguration": validation} {
		eventually(t, kind+" says "+want, func(ctx context.Context) error {
			got, stderr, _ := shared.Kubectl(ctx, "get", kind, release, "-o", "jsonpath={.webhooks[0].failurePolicy} {.webhooks[0].timeoutSeconds}")
			if got != want {
				return fmt.Errorf("%q, %s", got, stderr)
			}
			return nil
		})
	}
}

// comesBack: the node loses power while the webhook is in force, so that nobody
// answers who could let Pratique's own Pods in, and all of it comes up by itself.
func comesBack(t *testing.T, r *installation) {
	before := running(t, "app")
	ctx, cancel := context.WithTimeout(t.Context(), 2*within)
	defer cancel()
	if err := shared.node.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the Pods were started again", func(ctx context.Context) error {
		pods, err := r.pods(ctx)
		if err != nil {
			return err
		}
		for _, pod := range pods {
			if len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].RestartCount == 0 {
				return fmt.Errorf("not yet: %s", pod.Name)
			}
		}
		return nil
	})
	r.whole(t)
	if after := running(t, "app"); after.Name != before.Name {
		t.Errorf("Pod %s, before %s", after.Name, before.Name)
	}
}

// madeAnew: the whole cluster is cold. Every Pod has to be admitted again, while
// nobody is there to be asked; Pratique's own first, without being asked about.
func madeAnew(t *testing.T, r *installation) {
	before := running(t, "app")
	ctx, cancel := context.WithTimeout(t.Context(), 2*within)
	defer cancel()
	if err := shared.node.Recreate(ctx); err != nil {
		t.Fatal(err)
	}
	r.whole(t)
	eventually(t, "the Pod has another in its place", func(context.Context) error {
		if after := running(t, "app"); after.Name == before.Name {
			return errors.New("it is the same")
		}
		return nil
	})
}

// whole waits until all of it works again.
func (r *installation) whole(t *testing.T) {
	t.Helper()
	r.awaitReady(t, replicas)
	r.awaitArmed(t)
	refused(t)
	if err := tryPod(t.Context(), podOf("good", shared.acme.signed.tag)); err != nil {
		t.Errorf("what is signed: %v", err)
	}
}

// uninstalled leaves nothing that blocks, and nothing of what was running or
// written undone.
func uninstalled(t *testing.T, r *installation) {
	r.uninstall(t)
	left, err := configurations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	r.awaitGone(t)
	const kinds = "clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,deployments,jobs,pods,services,configmaps,networkpolicies"
	if out := kubectl(t, "get", kinds, "--all-namespaces", "--selector=app.kubernetes.io/instance="+release, "-o", "name"); out != "" {
		t.Errorf("left behind:\n%s", out)
	}
	kubectl(t, "get", "imageconfig.pratique.dev/acme")
	running(t, "app")
	if err := tryPod(t.Context(), podOf("bad", shared.acme.unsigned.tag)); err != nil {
		t.Errorf("nobody is to be asked any more: %v", err)
	}
}
