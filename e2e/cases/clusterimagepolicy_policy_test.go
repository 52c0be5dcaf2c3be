// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// tiers are policies over the object's labels, in both languages.
func tiers(tier string) map[string]string {
	return map[string]string{
		"cue":  fmt.Sprintf("  policy: {type: cue, includeObjectMeta: true, data: 'metadata: labels: tier: %q'}", tier),
		"rego": fmt.Sprintf("  policy: {type: rego, includeObjectMeta: true, data: 'package sigstore\n\n    isCompliant { input.metadata.labels.tier == %q }'}", tier),
	}
}

// A policy over the object is asked when it changes, too; of signatures nothing is
// asked again.
func clusterPolicyMetadata(t *testing.T) {
	for language, policy := range tiers("gold") {
		t.Run(language, func(t *testing.T) {
			r := newRoom(t, included)
			key := newKey(t)
			image := r.cosigned(t, "app:v1", cosign3.Sign, key)
			name := r.cip(t, "", byKey("release", key), policy)
			r.says(t, r.attempt(labelled(pod("x", image.ByTag()), "tier", "gold")))
			r.create(t.Context(), labelled(pod("x", image.ByTag()), "tier", "gold")).admitted(t, image.ByBoth())
			label := func(value string) answer {
				return r.update(t.Context(), "x", func(p *corev1.Pod) { p.Labels["tier"] = value })
			}
			r.silent(t, func() {
				r.try(t.Context(), labelled(pod("y", image.ByDigest()), "tier", "tin")).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
				if without := r.try(t.Context(), pod("y", image.ByDigest())); language == "rego" {
					without.refused(t, rejected, "Rejected by ClusterImagePolicy", name)
				} else { // to CUE what is missing is no contradiction (docs/policies.md)
					without.admitted(t, image.ByDigest())
				}
				label("tin").refused(t, rejected, "Rejected by ClusterImagePolicy", name)
				r.update(t.Context(), "x", func(p *corev1.Pod) { p.Labels["other"] = "tin" }).admitted(t, image.ByBoth())
			})
			// The object does not stand in for a signature.
			r.try(t.Context(), labelled(pod("y", r.unsigned(t, "bare:v1").ByTag()), "tier", "gold")).refused(t, rejected, name, "no signature")
		})
	}
}

// What breaks a policy that came later can be scaled down and removed, and not
// changed in another way.
func clusterPolicyOut(t *testing.T) {
	r := newRoom(t, included)
	key := newKey(t)
	image := r.cosigned(t, "app:v1", cosign2.Sign, key)
	name := r.cip(t, "", byKey("release", key), tiers("gold")["cue"])
	kept := labelled(pod("kept", image.ByTag()), "tier", "gold")
	kept.Finalizers = []string{"pratique.dev/case"}
	r.says(t, r.attempt(kept))
	r.create(t.Context(), kept).admitted(t, image.ByBoth())
	set := r.replicas(t, image.ByDigest())
	r.cip(t, "", byKey("release", key), tiers("platinum")["rego"])
	r.says(t, r.attempt(kept), name)

	relabelled, scaled, grown := set.DeepCopy(), set.DeepCopy(), set.DeepCopy()
	relabelled.Labels["other"] = "x"
	two, nine := int32(2), int32(9)
	scaled.Spec.Replicas, grown.Spec.Replicas = &two, &nine
	sets := r.client.AppsV1().ReplicaSets(r.namespace)
	for what, changed := range map[string]*appsv1.ReplicaSet{"a label": relabelled, "more replicas": grown} {
		_, err := sets.Update(t.Context(), changed, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", what, err)
		}
	}
	relabelled.Spec.Replicas = &two
	if _, err := sets.Update(t.Context(), relabelled, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}); err == nil {
		t.Error("a label was written together with fewer replicas")
	}
	if _, err := sets.Update(t.Context(), scaled, metav1.UpdateOptions{}); err != nil {
		t.Errorf("fewer replicas: %v", err)
	}

	without := func(p *corev1.Pod) { p.Finalizers = nil }
	r.update(t.Context(), "kept", without).refused(t, rejected, name)
	if err := r.client.CoreV1().Pods(r.namespace).Delete(t.Context(), "kept", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if a := r.update(t.Context(), "kept", without); a.err != nil {
		t.Errorf("its finalizer: %v", a.err)
	}
	r.eventually(t, settled, "it is gone", func(ctx context.Context) error {
		if _, err := r.client.CoreV1().Pods(r.namespace).Get(ctx, "kept", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("answered %w", errors.Join(err, errors.New("not that it is not there")))
		}
		return nil
	})
}

// replicas makes a ReplicaSet of the tier gold. Its selector is one that its
// controller works for in vain: the case alone writes to it.
func (r *room) replicas(t *testing.T, image string) *appsv1.ReplicaSet {
	t.Helper()
	three := int32(3)
	var made *appsv1.ReplicaSet
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}}, Spec: pod("x", image).Spec,
	}
	made, err := r.client.AppsV1().ReplicaSets(r.namespace).Create(t.Context(), &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "set", Labels: map[string]string{"tier": "gold"}},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &three, Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Its controller writes the status: changes must not be refused for being made
	// of an older one.
	made.ResourceVersion = ""
	return made
}

// A policy over the object's spec.
func clusterPolicySpec(t *testing.T) {
	r := newRoom(t, included)
	name := r.cip(t, "", passes, "  policy: {type: rego, includeSpec: true, data: 'package sigstore\n\n    isCompliant { not input.spec.hostNetwork }'}")
	image := r.unsigned(t, "app:v1")
	r.says(t, r.attempt(pod("x", image.ByTag())))
	host := pod("x", image.ByTag())
	host.Spec.HostNetwork = true
	r.try(t.Context(), host).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
	r.cip(t, "", passes, "  policy: {type: cue, includeTypeMeta: true, data: 'typemeta: kind!: \"Deployment\"'}")
	r.says(t, r.attempt(pod("x", image.ByTag())), "Rejected by ClusterImagePolicy", name)
	if output, ok := r.kubectl(t, "create", "deployment", "x", "--image", image.ByTag(), "--dry-run=server"); !ok {
		t.Error(output)
	}
}

// A policy over the image's config.
func clusterPolicyConfig(t *testing.T) {
	r := newRoom(t, included)
	key := newKey(t)
	name := r.cip(t, "", byKey("release", key),
		"  policy: {type: rego, fetchConfigFile: true, data: 'package sigstore\n\n    isCompliant { input.config[\"linux/amd64\"].config.User == \"65532\" }'}")
	as := func(user string) registrytest.Image {
		t.Helper()
		content, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
			OS: "linux", Architecture: "amd64", RootFS: v1.RootFS{Type: "layers"}, Config: v1.Config{User: user},
		})
		if err != nil {
			t.Fatal(err)
		}
		image := r.registry.Push(t, r.namespace+"/as-"+user+":v1", content)
		if err := cosign3.Sign(t.Context(), key, image.ByDigest(), nil); err != nil {
			t.Fatal(err)
		}
		return image
	}
	nobody, root := as("65532"), as("0")
	r.says(t, r.attempt(pod("x", nobody.ByTag())))
	r.try(t.Context(), pod("x", nobody.ByTag())).admitted(t, nobody.ByBoth())
	r.try(t.Context(), pod("x", root.ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
}

// A policy over what the authorities have found sees all of it, not only what was
// enough.
func clusterPolicyAuthorities(t *testing.T) {
	r := newRoom(t, included)
	one, two := newKey(t), newKey(t)
	name := r.cip(t, "", byKey("one", one)+", "+byKey("two", two),
		"  policy: {type: rego, data: 'package sigstore\n\n    isCompliant { count(input.authorityMatches.one.signatures) == 1; count(input.authorityMatches.two.signatures) == 1 }'}")
	both := r.cosigned(t, "both:v1", cosign3.Sign, one, two)
	r.says(t, r.attempt(pod("x", both.ByTag())))
	r.try(t.Context(), pod("x", both.ByTag())).admitted(t, both.ByBoth())
	for written, key := range map[string]signer.Key{"one:v1": one, "two:v1": two} {
		r.try(t.Context(), pod("x", r.cosigned(t, written, cosign3.Sign, key).ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
	}
}

// A policy's text may be in a ConfigMap, and changes with it.
func clusterPolicyConfigMap(t *testing.T) {
	r := newRoom(t, included)
	image := r.unsigned(t, "app:v1")
	gold := labelled(pod("x", image.ByTag()), "tier", "gold")
	name := r.cip(t, "", passes, fmt.Sprintf("  policy: {type: cue, includeObjectMeta: true, configMapRef: {name: %s, key: policy}}", r.namespace))
	r.says(t, r.attempt(gold), "Inconclusive by ClusterImagePolicy", name, "does not exist")
	configs := r.client.CoreV1().ConfigMaps(policyControllerNamespace)
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}, Data: map[string]string{"policy": `metadata: labels: tier: "gold"`}}
	if _, err := configs.Create(t.Context(), config, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = configs.Delete(context.Background(), config.Name, metav1.DeleteOptions{}) })
	r.says(t, r.attempt(gold))
	r.try(t.Context(), labelled(pod("x", image.ByTag()), "tier", "tin")).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
	config.Data["policy"] = `metadata: labels: tier: "tin"`
	if _, err := configs.Update(t.Context(), config, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.says(t, r.attempt(gold), "Rejected by ClusterImagePolicy", name)
}
