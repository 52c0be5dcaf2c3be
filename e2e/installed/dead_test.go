// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package installed_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// killEvery is far less than a replica needs before it answers.
	killEvery = 50 * time.Millisecond
	// finalizer is one that nobody but the test removes.
	finalizer = "e2e.pratique.dev/held"
)

// TestEveryReplicaDead: nobody answers. In Enforce nothing comes in that would have
// to be examined, and everything else goes on; in Audit nothing is held up. Nobody
// has to do anything for it to be as before.
func TestEveryReplicaDead(t *testing.T) {
	r := install(t)
	r.rules(t)
	if !t.Run("Enforce", func(t *testing.T) { deadInEnforce(t, r) }) {
		return
	}
	r.upgrade(t, "--set", "mode=Audit")
	r.awaitReady(t, replicas)
	policies(t, "Ignore 5", "Ignore 5")
	t.Run("Audit", func(t *testing.T) { deadInAudit(t, r) })
}

func deadInEnforce(t *testing.T, r *installation) {
	before := names(t, r)
	job := prepareLives(t)
	relent := r.slay(t)
	s := newStream(t, "every replica dead, Enforce", closed)
	s.more(t, after)
	for _, life := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"what is not signed does not get in", unsignedStaysOut},
		{"kube-system", kubeSystemWorks},
		{"a Deployment is scaled down", func(t *testing.T) { scalesDown(t, "app") }},
		{"a Job completes", func(t *testing.T) { completes(t, job) }},
		{"a finalizer is removed", finalizerGoes},
		{"a Pod is deleted", func(t *testing.T) { vanishes(t, "doomed") }},
	} {
		t.Run(life.name, life.run)
	}
	if err := s.end().broken(false); err != nil {
		t.Error(err)
	}
	r.comesBackFrom(t, relent, before)
	again := newStream(t, "every replica was dead, Enforce", enforced)
	again.more(t, after)
	if err := again.end().broken(false); err != nil {
		t.Error(err)
	}
	table([]*row{s.end(), again.end()})
}

// closed is what is right while nobody answers in Enforce: everything is refused,
// because the webhook fails.
func closed(q question, _ *corev1.Pod, err error) (outcome, error) {
	switch {
	case err == nil:
		return wrong, fmt.Errorf("%s is admitted", q.image.tag)
	case !strings.Contains(err.Error(), `failed calling webhook "pods.pratique.dev"`):
		return raw, err
	default:
		return right, nil
	}
}

func deadInAudit(t *testing.T, r *installation) {
	before := names(t, r)
	relent := r.slay(t)
	s := newStream(t, "every replica dead, Audit", audited)
	s.more(t, after)
	for _, image := range []published{shared.acme.signed, shared.acme.unsigned} {
		if _, err := shared.client.AppsV1().Deployments(team).Create(t.Context(), deploymentOf("any", image.tag), dryRun); err != nil {
			t.Error(err)
		}
	}
	done := s.end()
	if err := done.broken(false); err != nil {
		t.Error(err)
	}
	if done.late > 0 {
		t.Errorf("%d Pods took longer than the two webhooks' timeouts, the slowest %s", done.late, done.longest)
	}
	r.comesBackFrom(t, relent, before)
	eventually(t, "Pods are examined again", func(ctx context.Context) error {
		_, warnings, _ := shared.Kubectl(ctx, "run", "bad", "--image="+shared.acme.unsigned.tag, "--namespace="+team, "--dry-run=server")
		if !strings.Contains(warnings, `Rejected by ImageConfig "acme"`) {
			return errors.New(warnings)
		}
		return nil
	})
	again := newStream(t, "every replica was dead, Audit", audited)
	again.more(t, after)
	if err := again.end().broken(false); err != nil {
		t.Error(err)
	}
	table([]*row{done, again.end()})
}

// slay kills every replica, and again as soon as one is started, and waits until
// nobody is asked any more. The returned function ends it, and returns how many
// processes were killed.
func (r *installation) slay(t *testing.T) (relent func() int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var slayer sync.WaitGroup
	killed := 0
	slayer.Go(func() {
		for ctx.Err() == nil {
			n, err := shared.node.Kill(program, "")
			if err != nil {
				t.Error(err)
				return
			}
			killed += n
			select {
			case <-ctx.Done():
			case <-time.After(killEvery):
			}
		}
	})
	relent = func() int {
		stop()
		slayer.Wait()
		return killed
	}
	t.Cleanup(func() { relent() })
	eventually(t, "nobody is asked", func(ctx context.Context) error { return r.answering(ctx, 0) })
	return relent
}

// answering is an error unless so many replicas are behind the Service.
func (r *installation) answering(ctx context.Context, want int) error {
	slices, err := shared.client.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + release})
	if err != nil {
		return err
	}
	n := 0
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			if ready := endpoint.Conditions.Ready; ready == nil || *ready {
				n++
			}
		}
	}
	if n != want {
		return fmt.Errorf("%d replicas answer", n)
	}
	return nil
}

// comesBackFrom: the same replicas answer again by themselves, none of which
// answered before.
func (r *installation) comesBackFrom(t *testing.T, relent func() int, before map[string]bool) {
	t.Helper()
	if err := r.answering(t.Context(), 0); err != nil {
		t.Errorf("while all were dead: %v", err)
	}
	killed, began := relent(), time.Now()
	if killed < replicas {
		t.Errorf("%d processes were killed", killed)
	}
	r.awaitReady(t, replicas)
	eventually(t, "all are asked", func(ctx context.Context) error { return r.answering(ctx, replicas) })
	fmt.Fprintf(os.Stdout, "killed %d processes of %d replicas, which all answer again %.1f s later\n", killed, replicas, time.Since(began).Seconds())
	if diff := cmp.Diff(before, names(t, r)); diff != "" {
		t.Errorf("replicas (-before +after):\n%s", diff)
	}
}

// prepareLives makes what goes on, or ends, while nobody answers, and returns the
// Pod of the Job.
func prepareLives(t *testing.T) (working *corev1.Pod) {
	t.Helper()
	t.Cleanup(func() {
		if _, stderr, exit := shared.Kubectl(context.WithoutCancel(t.Context()), "delete", "deployments,jobs,pods", "--all", "--namespace="+team); exit != 0 {
			t.Error(stderr)
		}
	})
	signed := shared.acme.signed.tag
	if _, err := shared.client.AppsV1().Deployments(team).Create(t.Context(), deploymentOf("app", signed), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "work", Namespace: team}}
	job.Spec.Template.Labels = map[string]string{"app": "work"}
	job.Spec.Template.Spec = podOf("work", signed).Spec
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if _, err := shared.client.BatchV1().Jobs(team).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"held", "doomed"} {
		pod := podOf(name, signed)
		pod.Labels = map[string]string{"app": name}
		if name == "held" {
			pod.Finalizers = []string{finalizer}
		}
		if _, err := shared.client.CoreV1().Pods(team).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, app := range []string{"app", "held", "doomed"} {
		running(t, app)
	}
	return running(t, "work")
}

// unsignedStaysOut, not as a dry run.
func unsignedStaysOut(t *testing.T) {
	if _, err := shared.client.CoreV1().Pods(team).Create(t.Context(), podOf("bad", shared.acme.unsigned.tag), metav1.CreateOptions{}); err == nil {
		t.Error("it is admitted")
	}
	if _, err := shared.client.CoreV1().Pods(team).Get(t.Context(), "bad", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("it is there: %v", err)
	}
}

// kubeSystemWorks: a Pod runs there that nobody has examined.
func kubeSystemWorks(t *testing.T) {
	pods := shared.client.CoreV1().Pods(metav1.NamespaceSystem)
	pod := podOf("needed", shared.node.Registry+"/draft/unsigned:v1")
	pod.Namespace = metav1.NamespaceSystem
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pods.Delete(context.WithoutCancel(t.Context()), pod.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "it runs", func(ctx context.Context) error {
		pod, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && pod.Status.Phase != corev1.PodRunning {
			err = errors.New(string(pod.Status.Phase))
		}
		return err
	})
}

// scalesDown changes the Deployment itself, as who applies a manifest does.
func scalesDown(t *testing.T, app string) {
	deployments := shared.client.AppsV1().Deployments(team)
	if _, err := deployments.Patch(t.Context(), app, types.MergePatchType, []byte(`{"spec": {"replicas": 0}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its Pods are gone", func(ctx context.Context) error {
		pods, err := shared.client.CoreV1().Pods(team).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d are there", len(pods.Items))
		}
		return err
	})
}

// completes: the program of the Job's Pod ends, and its controller takes note.
func completes(t *testing.T, pod *corev1.Pod) {
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+pod.Status.PodIP+":8080/finish", nil)
	if err != nil {
		t.Fatal(err)
	}
	// It may end before it has answered.
	if response, err := http.DefaultClient.Do(request); err == nil {
		_ = response.Body.Close()
	}
	eventually(t, "the Job is complete", func(ctx context.Context) error {
		job, err := shared.client.BatchV1().Jobs(team).Get(ctx, "work", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range job.Status.Conditions {
			if condition.Type == batchv1.JobComplete && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("%+v", job.Status)
	})
	after, err := shared.client.CoreV1().Pods(team).Get(t.Context(), pod.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if after.Status.Phase != corev1.PodSucceeded || len(pod.Finalizers) == 0 || len(after.Finalizers) > 0 {
		t.Errorf("its Pod is %s, with the finalizers %q, before %q", after.Status.Phase, after.Finalizers, pod.Finalizers)
	}
}

// finalizerGoes: a Pod that was deleted stays until its finalizer is removed.
func finalizerGoes(t *testing.T) {
	pods := shared.client.CoreV1().Pods(team)
	if err := pods.Delete(t.Context(), "held", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Patch(t.Context(), "held", types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	isGone(t, "held")
}

func vanishes(t *testing.T, name string) {
	if err := shared.client.CoreV1().Pods(team).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	isGone(t, name)
}

func isGone(t *testing.T, name string) {
	t.Helper()
	eventually(t, name+" is gone", func(ctx context.Context) error {
		_, err := shared.client.CoreV1().Pods(team).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("it is there: %w", err)
	})
}
