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

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/env"
)

// room makes a namespace in the fleet's own control plane.
func (f *fleet) room(t *testing.T, namespace string) *room {
	t.Helper()
	config := f.Config()
	config.WarningHandlerWithContext = collector{}
	w := &world{key: shared.key, other: shared.other}
	var err error
	if w.client, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if w.dynamic, err = dynamic.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := w.client.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r := &room{world: w, namespace: namespace, registry: shared.Registry}
	r.awaitAccount(t)
	return r
}

// bereaved is a room in a control plane of its own, with what was let in while
// there were replicas. There are none any more.
type bereaved struct {
	*deserted

	fleet            *fleet
	args             []string
	signed, unsigned string // by tag
}

// newBereaved kills two replicas. pins says whether they pin.
func newBereaved(t *testing.T, namespace string, pins bool, args ...string) *bereaved {
	t.Helper()
	b := &bereaved{fleet: newFleet(t)}
	b.args = append([]string{"--registry-allow-cidrs", "127.0.0.0/8", "--insecure-registries", shared.Registry.Host()}, args...)
	b.fleet.replica(t, "one", b.args...)
	b.fleet.replica(t, "two", b.args...)
	b.deserted = &deserted{room: b.fleet.room(t, namespace)}
	b.policy(t, "", keyed(b.prefix(), b.key))
	signed := b.room.signed(t, "signed:v1")
	b.signed, b.unsigned = signed.ByTag(), b.room.unsigned(t, "unsigned:v1").ByTag()
	b.image, b.stored = b.signed, b.signed
	if pins {
		b.stored = signed.ByBoth()
	}
	b.judged(t, pins)
	b.furnish(t)
	b.deployment(t, "doomed", 1, 1)
	b.awaitPods(t, "app=doomed", 1)
	b.fleet.eventually(t, "both are ready", func(ctx context.Context) error {
		for name, r := range b.fleet.replicas {
			if !(&env.Server{Health: r.health}).Ready(ctx) {
				return errors.New(name + " is not")
			}
		}
		return nil
	})
	for _, r := range slices.Collect(maps.Values(b.fleet.replicas)) {
		b.fleet.kill(t, r)
	}
	return b
}

// judged waits until an unsigned image is refused, or is warned of.
func (b *bereaved) judged(t *testing.T, refused bool) {
	t.Helper()
	b.fleet.eventually(t, "an unsigned image is noticed", func(ctx context.Context) error {
		got := b.try(ctx, pod("unsigned", b.unsigned))
		text := strings.Join(got.warnings, "\n")
		if got.err != nil {
			text = got.err.Error()
		}
		if !strings.Contains(text, "no signature") || refused != (got.err != nil) {
			return fmt.Errorf("error %w, warnings %q", got.err, got.warnings)
		}
		return nil
	})
}

// goesOn checks what works without replicas, whatever the mode.
func (b *bereaved) goesOn(t *testing.T) {
	t.Helper()
	for _, namespace := range []string{metav1.NamespaceSystem, "kube-node-lease", env.Namespace} {
		exempt := *b.deserted
		exempt.room = b.inNamespace(namespace)
		// Its controllers make Pods there too.
		exempt.deployment(t, "exempt", 2, 1)
		exempt.awaitPods(t, "app=exempt", 2)
		exempt.create(t.Context(), pod("exempt", b.unsigned)).admitted(t, b.unsigned)
	}
	pods, deployments := b.client.CoreV1().Pods(b.namespace), b.client.AppsV1().Deployments(b.namespace)
	if err := b.merge(t.Context(), "deployments", "web", part{"spec": part{"replicas": 1}}); err != nil {
		t.Errorf("scaling down: %v", err)
	}
	b.awaitPods(t, "app=web", 1)
	b.finalizerGoes(t)
	b.jobCompletes(t)
	if err := deployments.Delete(t.Context(), "doomed", metav1.DeleteOptions{}); err != nil {
		t.Errorf("deleting a Deployment: %v", err)
	}
	b.awaitPods(t, "app=doomed", 0) // ReplicaSet and Pods by the garbage collector
	p, err := pods.Get(t.Context(), "plain", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Status.Phase = corev1.PodRunning
	if _, err := pods.UpdateStatus(t.Context(), p, metav1.UpdateOptions{}); err != nil {
		t.Errorf("a kubelet's status: %v", err)
	}
}

// TestEveryReplicaDead: nothing comes in that nobody has examined, everything else
// goes on, and a replica that starts is all that it takes.
func TestEveryReplicaDead(t *testing.T) {
	t.Parallel()
	b := newBereaved(t, "dead", true)
	for name, image := range map[string]string{
		"signed": b.signed, "pinned": b.stored, "unsigned": b.unsigned, "uncovered": "registry.invalid/x:v1", "invalid": "no//reference",
	} {
		b.mustAsk(t, "a Pod, "+name, b.create(t.Context(), pod("new-"+name, image)).err)
	}
	if made, err := b.pods(t.Context(), ""); err != nil || slices.ContainsFunc(made, func(p corev1.Pod) bool { return strings.HasPrefix(p.Name, "new-") }) {
		t.Errorf("there are Pods that nobody examined: %v", err)
	}
	b.goesOn(t)
	// This changes no image; but the Pods that it takes do not come.
	if err := b.merge(t.Context(), "deployments", "web", part{"spec": part{"replicas": 3}}); err != nil {
		t.Errorf("scaling up: %v", err)
	}
	b.eventually(t, settled, "its Pods are refused", func(ctx context.Context) error {
		events, err := b.client.CoreV1().Events(b.namespace).List(ctx, metav1.ListOptions{FieldSelector: "reason=FailedCreate"})
		if err == nil && !slices.ContainsFunc(events.Items, func(e corev1.Event) bool { return strings.Contains(e.Message, "failed calling webhook") }) {
			err = fmt.Errorf("%d Events", len(events.Items))
		}
		return err
	})
	b.awaitPods(t, "app=web", 1)

	b.fleet.replica(t, "three", b.args...)
	b.judged(t, true)
	b.create(t.Context(), pod("after", b.signed)).admitted(t, b.stored)
	b.fleet.eventually(t, "the Pods that were refused are there", func(ctx context.Context) error {
		made, err := b.pods(ctx, "app=web")
		if err == nil && len(made) != 3 {
			err = fmt.Errorf("there are %d", len(made))
		}
		for _, p := range made {
			if image := p.Spec.Containers[0].Image; image != b.stored {
				t.Errorf("%s has the image %s", p.Name, image)
			}
		}
		return err
	})
	b.fleet.end(t, b.fleet.replicas["three"])
}

// TestEveryReplicaDeadInAudit: nothing at all is denied, then neither.
func TestEveryReplicaDeadInAudit(t *testing.T) {
	t.Parallel()
	b := newBereaved(t, "dead-audit", false, "--mode", "Audit")
	for name, image := range map[string]string{
		"signed": b.signed, "unsigned": b.unsigned, "uncovered": "registry.invalid/x:v1", "invalid": "no//reference",
	} {
		b.create(t.Context(), pod("new-"+name, image)).admitted(t, image)
	}
	b.goesOn(t)
	b.deployment(t, "new", 2, 1)
	b.awaitPods(t, "app=new", 2)
	if err := b.merge(t.Context(), "deployments", "new", part{"spec": part{"template": part{"spec": part{
		"containers": []part{{"name": "c0", "image": b.unsigned}},
	}}}}); err != nil {
		t.Errorf("another image: %v", err)
	}
	b.room.update(t.Context(), "new-signed", func(p *corev1.Pod) { p.Spec.Containers[0].Image = b.unsigned }).admitted(t, b.unsigned)

	b.fleet.replica(t, "three", b.args...)
	b.judged(t, false)
	b.fleet.end(t, b.fleet.replicas["three"])
}
