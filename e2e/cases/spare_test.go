// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/webhook"
)

// manyContainers is how many a Deployment has whose update must not be too dear
// to compare.
const manyContainers = 3000

// deserted is a room whose server is gone for good, while its webhooks, which
// fail closed, are still there; what is in it was let in before.
type deserted struct {
	*room

	image, other string
	stored       string // what image becomes in a Pod
}

// newDesert makes what a namespace has in it, and takes the server away.
func newDesert(t *testing.T) *deserted {
	t.Helper()
	server, err := shared.Beside(t.Context(), env.ServerOptions{Name: "spare", Spare: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.End(context.Background()) }) // it has ended already; its webhooks have not
	d := &deserted{room: newRoom(t, env.OtherServer+"="+server.Name)}
	// No ImageConfig covers them: they are let in as they are.
	d.image, d.other = d.prefix()+"app:v1", d.prefix()+"app:v2"
	d.stored = d.image
	d.furnish(t)
	d.deployment(t, "wide", 0, manyContainers)
	if err := server.Terminate(); err != nil {
		t.Fatal(err)
	}
	// Nobody answers: what is asked about is refused.
	d.mustAsk(t, "a new Pod", d.try(t.Context(), pod("new", d.image)).err)
	return d
}

// furnish makes a Deployment, a Job and Pods, while somebody answers.
func (d *deserted) furnish(t *testing.T) {
	t.Helper()
	d.deployment(t, "web", 2, 1)
	job := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "once"}, Spec: batchv1.JobSpec{Template: d.template(1)}}
	job.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
	if _, err := d.client.BatchV1().Jobs(d.namespace).Create(t.Context(), job, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"plain", "held"} {
		p := pod(name, d.image)
		p.Spec.Volumes = []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: d.image}}}}
		p.Finalizers = []string{"e2e.pratique.dev/held"}
		d.create(t.Context(), p).admitted(t, d.stored)
	}
	d.awaitPods(t, "app=web", 2)
	d.awaitPods(t, "job-name=once", 1)
}

func (d *deserted) template(containers int) corev1.PodTemplateSpec {
	template := corev1.PodTemplateSpec{Spec: corev1.PodSpec{
		Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{Image: &corev1.ImageVolumeSource{Reference: d.image}}}},
	}}
	for i := range containers {
		template.Spec.Containers = append(template.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: d.image})
	}
	return template
}

func (d *deserted) deployment(t *testing.T, name string, replicas int32, containers int) {
	t.Helper()
	template := d.template(containers)
	template.Labels = map[string]string{"app": name}
	_, err := d.client.AppsV1().Deployments(d.namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (d *deserted) pods(ctx context.Context, selector string) ([]corev1.Pod, error) {
	list, err := d.client.CoreV1().Pods(d.namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

func (d *deserted) awaitPods(t *testing.T, selector string, want int) {
	t.Helper()
	d.eventually(t, settled, fmt.Sprintf("%d Pods of %s", want, selector), func(ctx context.Context) error {
		pods, err := d.pods(ctx, selector)
		if err == nil && len(pods) != want {
			err = fmt.Errorf("there are %d", len(pods))
		}
		return err
	})
}

// mustAsk fails the test unless the API server asked the server that is gone,
// and therefore refused.
func (d *deserted) mustAsk(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), "failed calling webhook") || !apierrors.IsInternalError(err) {
		t.Errorf("%s: got %v, want it to be refused because nobody answers", what, err)
	}
}

// merge patches an object of the room.
func (d *deserted) merge(ctx context.Context, resource, name string, patch any) error {
	raw, err := json.Marshal(patch)
	if err != nil {
		return err
	}
	switch resource {
	case "pods":
		_, err = d.client.CoreV1().Pods(d.namespace).Patch(ctx, name, types.StrategicMergePatchType, raw, metav1.PatchOptions{})
	case "deployments":
		_, err = d.client.AppsV1().Deployments(d.namespace).Patch(ctx, name, types.StrategicMergePatchType, raw, metav1.PatchOptions{})
	case "jobs":
		_, err = d.client.BatchV1().Jobs(d.namespace).Patch(ctx, name, types.StrategicMergePatchType, raw, metav1.PatchOptions{})
	}
	return err
}

// part is a part of a patch.
type part = map[string]any

// TestSpared: while no server answers, what changes no image goes on, by hand and
// by the controllers, and what changes one is refused.
func TestSpared(t *testing.T) {
	t.Parallel()
	d := newDesert(t)
	d.refusesChanges(t)
	for what, c := range map[string]struct {
		resource, name string
		patch          part
	}{
		"a label":                          {"pods", "plain", part{"metadata": part{"labels": part{"a": "b"}}}},
		"an annotation of a Job":           {"jobs", "once", part{"metadata": part{"annotations": part{"a": "b"}}}},
		"a label of a wide Deployment":     {"deployments", "wide", part{"metadata": part{"labels": part{"a": "b"}}}},
		"a variable of a Deployment's Pod": {"deployments", "web", part{"spec": part{"paused": true}}},
		"going on":                         {"deployments", "web", part{"spec": part{"paused": false}}},
	} {
		if err := d.merge(t.Context(), c.resource, c.name, c.patch); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The Deployment's controller updates the ReplicaSet in its turn.
	if err := d.merge(t.Context(), "deployments", "web", part{"spec": part{"replicas": 1}}); err != nil {
		t.Errorf("scaling down: %v", err)
	}
	d.awaitPods(t, "app=web", 1)
	d.finalizerGoes(t)
	d.jobCompletes(t)
	d.refusesChanges(t)
}

// finalizerGoes: what is being deleted can end.
func (d *deserted) finalizerGoes(t *testing.T) {
	t.Helper()
	pods := d.client.CoreV1().Pods(d.namespace)
	if err := pods.Delete(t.Context(), "held", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := d.merge(t.Context(), "pods", "held", part{"metadata": part{"$deleteFromPrimitiveList/finalizers": []string{"e2e.pratique.dev/held"}}}); err != nil {
		t.Errorf("removing a finalizer: %v", err)
	}
	d.eventually(t, settled, "the Pod is gone", func(ctx context.Context) error {
		if _, err := pods.Get(ctx, "held", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is not: %w", err)
		}
		return nil
	})
}

// jobCompletes: its Pod succeeds, as a kubelet would say, and the Job's controller
// takes its finalizer from the Pod, which is an UPDATE of it.
func (d *deserted) jobCompletes(t *testing.T) {
	t.Helper()
	made, err := d.pods(t.Context(), "job-name=once")
	if err != nil || len(made) != 1 {
		t.Fatalf("%d Pods: %v", len(made), err)
	}
	one := &made[0]
	one.Status.Phase = corev1.PodSucceeded
	if _, err := d.client.CoreV1().Pods(d.namespace).UpdateStatus(t.Context(), one, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	d.eventually(t, settled, "the Job is complete", func(ctx context.Context) error {
		job, err := d.client.BatchV1().Jobs(d.namespace).Get(ctx, "once", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range job.Status.Conditions {
			if condition.Type == batchv1.JobComplete && condition.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("its status is %+v", job.Status)
	})
}

// refusesChanges: every way to bring another image in is asked about.
func (d *deserted) refusesChanges(t *testing.T) {
	t.Helper()
	template := func(spec part) part { return part{"spec": part{"template": part{"spec": spec}}} }
	volume := []part{{"name": "data", "image": part{"reference": d.other}}}
	for what, c := range map[string]struct {
		resource, name string
		patch          part
	}{
		"a Pod's image":                   {"pods", "plain", part{"spec": part{"containers": []part{{"name": "c0", "image": d.other}}}}},
		"a Deployment's image":            {"deployments", "web", template(part{"containers": []part{{"name": "c0", "image": d.other}}})},
		"one of many":                     {"deployments", "wide", template(part{"containers": []part{{"name": "c2999", "image": d.other}}})},
		"a Deployment's image volume":     {"deployments", "web", template(part{"volumes": volume})},
		"a Deployment's new init one":     {"deployments", "web", template(part{"initContainers": []part{{"name": "i", "image": d.image}}})},
		"a Deployment's new image volume": {"deployments", "web", template(part{"volumes": []part{{"name": "more", "image": part{"reference": d.image}}}})},
	} {
		d.mustAsk(t, what, d.merge(t.Context(), c.resource, c.name, c.patch))
	}
	pods := d.client.CoreV1().Pods(d.namespace)
	p, err := pods.Get(t.Context(), "plain", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: d.image}}}
	_, err = pods.UpdateEphemeralContainers(t.Context(), p.Name, p, metav1.UpdateOptions{})
	d.mustAsk(t, "an ephemeral container", err)
}

// TestConfigurationsAreAccepted: the API server compiles every condition, and
// takes the objects as they are by a server-side apply.
func TestConfigurationsAreAccepted(t *testing.T) {
	t.Parallel()
	catalog, err := webhook.LoadCatalog()
	if err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]webhook.ConfigurationOptions{
		"service": {Service: "pratique", Spare: true},
		"URL":     {URL: "https://pratique.example:9443", Mode: policy.Audit},
		"owned": {Service: "pratique", Spare: true, CABundle: shared.Cert.CAPEM, Labels: map[string]string{"a": "b"}, Owner: metav1.OwnerReference{
			APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: "pratique", UID: "8d3d1b5e-0000-4000-8000-000000000000",
		}},
	} {
		o.Name, o.Namespace = "accepted", env.Namespace
		mutating, validating, err := catalog.Configurations(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, configuration := range []any{mutating, validating} {
			raw, err := json.Marshal(configuration)
			if err != nil {
				t.Fatal(err)
			}
			// It is not stored: it would have everything in the cluster wait for nobody.
			if _, stderr, exit := shared.Apply(t.Context(), string(raw), "--server-side", "--dry-run=server"); exit != 0 {
				t.Errorf("%s: %s", name, stderr)
			}
		}
	}
}

// TestImageConfigsAreChecked: who writes one is told at once.
func TestImageConfigsAreChecked(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	apply := func(prefix string) (output string, ok bool) {
		_, stderr, exit := r.Apply(t.Context(), fmt.Sprintf("apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: %s}\nspec: {matchImages: [{prefix: %q}], "+
			"verification: {provider: Cosign, cosign: {authorities: [{name: a, static: {action: pass}}]}}}", r.namespace, prefix), "--dry-run=server")
		return stderr, exit == 0
	}
	if output, ok := apply("a.example/x/"); !ok || strings.Contains(output, "Warning") {
		t.Errorf("a good one: %s", output)
	}
	if output, ok := apply("a.example/x/provider-aws"); !ok || !strings.Contains(output, "Warning: spec.matchImages[0].prefix: also matches names that go on") {
		t.Errorf("a prefix that ends inside a component: %s", output)
	}
	// No schema says what a host is.
	if output, ok := apply("a.example:x/"); ok || !strings.Contains(output, `admission webhook "imageconfigs.pratique.dev" denied the request`) ||
		!strings.Contains(output, "spec.matchImages[0].prefix: ") {
		t.Errorf("a host that is none: %s", output)
	}
}
