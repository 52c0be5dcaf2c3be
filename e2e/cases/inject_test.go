// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/e2e/env"
)

// The namespaces where Pratique may write Secrets.
const (
	injectedA = "injected-a"
	injectedB = "injected-b"
)

// inNamespace is the same room with Pods in another namespace.
func (r *room) inNamespace(name string) *room {
	moved := *r
	moved.namespace = name
	return &moved
}

// wears sets a label of a namespace, or takes it away if it has no value.
func (r *room) wears(t *testing.T, label, value string) {
	t.Helper()
	text := "null"
	if value != "" {
		text = fmt.Sprintf("%q", value)
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, label, text)
	if _, err := r.client.CoreV1().Namespaces().Patch(t.Context(), r.namespace, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
}

// holds waits until the namespace has the pull secret with these data, or has
// none if there are none.
func (r *room) holds(t *testing.T, name string, want map[string]string) {
	t.Helper()
	r.eventually(t, inForce, r.namespace+" has the right copy", func(ctx context.Context) error {
		secret, err := r.client.CoreV1().Secrets(r.namespace).Get(ctx, name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && want == nil:
			return nil
		case err != nil:
			return err
		case want == nil:
			return errors.New("it is still there")
		}
		got := map[string]string{}
		for key, value := range secret.Data {
			got[key] = string(value)
		}
		if !maps.Equal(got, want) || string(secret.Type) != dockerConfig {
			return fmt.Errorf("type %s, %d keys", secret.Type, len(got))
		}
		return nil
	})
}

// copies waits for the condition that tells of copies.
func (r *room) copies(t *testing.T, config, reason string, texts ...string) {
	t.Helper()
	r.eventually(t, inForce, "the status tells of copies: "+reason, func(ctx context.Context) error {
		object, err := r.dynamic.Resource(imageConfigs()).Get(ctx, config, metav1.GetOptions{})
		if err != nil {
			return err
		}
		var read v1alpha1.ImageConfig
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &read); err != nil {
			return err
		}
		condition := meta.FindStatusCondition(read.Status.Conditions, v1alpha1.ConditionPullSecretsCopied)
		if condition == nil || condition.Reason != reason || (condition.Status == metav1.ConditionTrue) != (reason == "Copied") {
			return fmt.Errorf("condition %+v", condition)
		}
		for _, text := range texts {
			if !strings.Contains(condition.Message, text) {
				return fmt.Errorf("message %q", condition.Message)
			}
		}
		return nil
	})
}

// injecting is a spec that gives Pods its pull secret, of the room's name, where
// namespaces wear the room's label.
func (r *room) injecting() string {
	return keyed(r.prefix(), r.key, fmt.Sprintf(`  registry:
    insecurePlainHTTP: true
    authentication: {pullSecretRef: {name: %s}, inject: {namespaceSelector: {matchLabels: {%s: given}}}}`, r.namespace, r.namespace))
}

// TestInject: Pods of the selected namespaces are given the pull secret, once,
// and its copies follow it.
func TestInject(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	a, b := r.inNamespace(injectedA), r.inNamespace(injectedB)
	name, signed := r.namespace, r.signed(t, "app:v1")
	// A Pod from before.
	b.create(t.Context(), pod(name+"-older", "registry.invalid/x")).admitted(t, "registry.invalid/x")
	a.wears(t, name, "given")
	t.Cleanup(func() {
		// It should be gone.
		_ = a.client.CoreV1().Secrets(a.namespace).Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	r.dockerSecret(t, env.Namespace, name, r.registry.Host(), user, password)
	config := r.policy(t, "", r.injecting())
	r.copies(t, config, "Copied")
	a.holds(t, name, dockerData(t, r.registry.Host(), user, password))
	b.holds(t, name, nil)

	own := name + "-own"
	a.dockerSecret(t, injectedA, own, "127.0.0.1:1", user, password)
	given := a.create(t.Context(), withSecrets(pod(name+"-a", signed.ByTag()), own)).admitted(t, signed.ByBoth())
	if diff := cmp.Diff([]corev1.LocalObjectReference{{Name: own}, {Name: name}}, given.Spec.ImagePullSecrets); diff != "" {
		t.Errorf("pull secrets (-want +got):\n%s", diff)
	}
	if p := b.create(t.Context(), pod(name+"-b", signed.ByTag())).admitted(t, signed.ByBoth()); len(p.Spec.ImagePullSecrets) > 0 {
		t.Errorf("in a namespace that is not selected: %v", p.Spec.ImagePullSecrets)
	}
	a.givesController(t, name, signed.ByTag())

	// Another namespace is selected; what runs there stays as it is.
	b.wears(t, name, "given")
	b.holds(t, name, dockerData(t, r.registry.Host(), user, password))
	older := b.update(t.Context(), name+"-older", func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }).admitted(t, "registry.invalid/x")
	if len(older.Spec.ImagePullSecrets) > 0 {
		t.Errorf("an older Pod is given %v", older.Spec.ImagePullSecrets)
	}

	// Rotation, and what somebody did to a copy.
	r.rotate(t, env.Namespace, name, dockerData(t, r.registry.Host(), user, "another"))
	for _, at := range []*room{a, b} {
		at.holds(t, name, dockerData(t, r.registry.Host(), user, "another"))
	}
	if err := b.client.CoreV1().Secrets(b.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.rotate(t, env.Namespace, name, dockerData(t, r.registry.Host(), user, password))
	b.holds(t, name, dockerData(t, r.registry.Host(), user, password))

	b.wears(t, name, "")
	b.holds(t, name, nil)
	a.holds(t, name, dockerData(t, r.registry.Host(), user, password))
	r.change(t, config, keyed(r.prefix(), r.key))
	a.holds(t, name, nil)
	r.usesInjectRights(t)
}

// usesInjectRights checks that what deploy/rbac/inject.yaml gives was all needed.
func (r *room) usesInjectRights(t *testing.T) {
	t.Helper()
	r.eventually(t, settled, "each right to copy was used", func(context.Context) error {
		requests, err := r.audited()
		if err != nil {
			return err
		}
		for _, verb := range []string{"get", "list", "create", "update", "delete"} {
			if !slices.ContainsFunc(requests, func(a audited) bool {
				return a.Verb == verb && a.ObjectRef.Resource == "secrets" && strings.HasPrefix(a.ObjectRef.Namespace, "injected-")
			}) {
				return errors.New("nobody asked to " + verb)
			}
		}
		return nil
	})
}

// rotate changes what a Secret holds.
func (r *room) rotate(t *testing.T, namespace, name string, data map[string]string) {
	t.Helper()
	secret, err := r.client.CoreV1().Secrets(namespace).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data = nil
	secret.StringData = data
	if _, err := r.client.CoreV1().Secrets(namespace).Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// givesController checks that the Pods that a controller makes are given the
// secret too, and its template is not.
func (r *room) givesController(t *testing.T, name, image string) {
	t.Helper()
	deployment := parse(t, fmt.Sprintf(`
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  selector: {matchLabels: {app: %[1]s}}
  template: {metadata: {labels: {app: %[1]s}}, spec: {containers: [{name: main, image: %[2]q}]}}
`, name, image))
	resource := r.dynamic.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace(r.namespace)
	stored, err := resource.Create(t.Context(), deployment, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = resource.Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	if text := fmt.Sprint(stored.Object["spec"]); strings.Contains(text, "imagePullSecrets") {
		t.Errorf("the template was changed: %s", text)
	}
	r.eventually(t, settled, "the Deployment's Pod is given the secret", func(ctx context.Context) error {
		pods, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: "app=" + name})
		if err != nil {
			return err
		}
		if len(pods.Items) != 1 || len(pods.Items[0].Spec.ImagePullSecrets) != 1 || pods.Items[0].Spec.ImagePullSecrets[0].Name != name {
			return fmt.Errorf("%d Pods", len(pods.Items))
		}
		return nil
	})
}

// TestInjectConflict: a Secret of somebody else is never touched, and is told.
func TestInjectConflict(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	a := r.inNamespace(injectedA)
	name := r.namespace
	a.wears(t, name, "given")
	theirs := dockerData(t, "registry.invalid", "somebody", "else")
	r.dockerSecret(t, injectedA, name, "registry.invalid", "somebody", "else")
	r.dockerSecret(t, env.Namespace, name, r.registry.Host(), user, password)
	config := r.policy(t, "", r.injecting())
	r.copies(t, config, "Conflict", injectedA)
	a.holds(t, name, theirs)
	// Nor is it removed.
	r.change(t, config, keyed(r.prefix(), r.key))
	r.awaitReady(t, config, metav1.ConditionTrue, "Compiled")
	a.holds(t, name, theirs)
	if err := a.client.CoreV1().Secrets(a.namespace).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	// A namespace that Pratique may not write to is told, and gets nothing.
	r.wears(t, name, "given")
	r.change(t, config, r.injecting())
	r.copies(t, config, "NotInNamespace", r.namespace)
	a.holds(t, name, dockerData(t, r.registry.Host(), user, password))
}
