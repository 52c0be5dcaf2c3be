// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestFieldsOfAPod: wherever a Pod may have an image, a signed one is pinned
// and an unsigned one refused by its path.
func TestFieldsOfAPod(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	always := corev1.ContainerRestartPolicyAlways
	for name, test := range map[string]struct {
		path string
		put  func(p *corev1.Pod, image string)
		get  func(p *corev1.Pod) string
	}{
		"container": {
			"spec.containers[1].image",
			func(p *corev1.Pod, image string) {
				p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "x", Image: image})
			},
			func(p *corev1.Pod) string { return p.Spec.Containers[1].Image },
		},
		"init container": {
			"spec.initContainers[0].image",
			func(p *corev1.Pod, image string) {
				p.Spec.InitContainers = []corev1.Container{{Name: "x", Image: image}}
			},
			func(p *corev1.Pod) string { return p.Spec.InitContainers[0].Image },
		},
		"sidecar": {
			"spec.initContainers[0].image",
			func(p *corev1.Pod, image string) {
				p.Spec.InitContainers = []corev1.Container{{Name: "x", Image: image, RestartPolicy: &always}}
			},
			func(p *corev1.Pod) string { return p.Spec.InitContainers[0].Image },
		},
		"image volume": {
			"spec.volumes[0].image.reference",
			func(p *corev1.Pod, image string) {
				p.Spec.Volumes = []corev1.Volume{{Name: "x", VolumeSource: corev1.VolumeSource{
					Image: &corev1.ImageVolumeSource{Reference: image},
				}}}
			},
			func(p *corev1.Pod) string { return p.Spec.Volumes[0].Image.Reference },
		},
	} {
		t.Run(name, func(t *testing.T) {
			good := pod("good", signed.ByTag())
			test.put(good, signed.ByTag())
			got := r.try(t.Context(), good)
			if got.err != nil {
				t.Fatal(got.err)
			}
			if image := test.get(got.pod); image != signed.ByBoth() {
				t.Errorf("%s became %q, want %q", test.path, image, signed.ByBoth())
			}
			bad := pod("bad", signed.ByTag())
			test.put(bad, unsigned.ByTag())
			r.try(t.Context(), bad).refused(t, rejected, test.path+": "+unsigned.ByBoth()+" Rejected", "no signature")
		})
	}
	t.Run("nothing exempts", func(t *testing.T) {
		p := pod("exempt", unsigned.ByTag())
		yes := true
		p.Spec.NodeName = "nowhere" // a mirror Pod has a node
		p.Annotations = map[string]string{"kubernetes.io/config.mirror": "x", "pratique.dev/skip": "true"}
		p.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "x", UID: "0a0b0c0d-0000-4000-8000-000000000000", Controller: &yes,
		}}
		r.try(t.Context(), p).refused(t, rejected, "no signature")
	})
}

// TestEphemeralContainers: kubectl debug, and what it does by hand.
func TestEphemeralContainers(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	r.create(t.Context(), pod("shop", signed.ByTag())).admitted(t, signed.ByBoth())

	debug := func(name, image string) (string, bool) {
		return r.kubectl(t, "debug", "shop", "--attach=false", "--container="+name, "--image="+image)
	}
	if output, ok := debug("rogue", unsigned.ByTag()); ok ||
		!strings.Contains(output, "spec.ephemeralContainers[0].image: "+unsigned.ByBoth()+" Rejected") {
		t.Errorf("kubectl debug with an unsigned image: %s", output)
	}
	if output, ok := debug("fine", signed.ByTag()); !ok {
		t.Errorf("kubectl debug with a signed image: %s", output)
	}
	patch := func(name, image string) answer {
		body, err := json.Marshal(map[string]any{"spec": map[string]any{"ephemeralContainers": []any{map[string]any{"name": name, "image": image}}}})
		if err != nil {
			t.Fatal(err)
		}
		return r.ask(t.Context(), func(ctx context.Context) (*corev1.Pod, error) {
			return r.client.CoreV1().Pods(r.namespace).Patch(ctx, "shop", types.StrategicMergePatchType, body, metav1.PatchOptions{}, "ephemeralcontainers")
		})
	}
	patch("rogue", unsigned.ByTag()).refused(t, rejected, "spec.ephemeralContainers[", "no signature")
	stored := patch("second", signed.ByTag()).admitted(t, signed.ByBoth())
	if n := len(stored.Spec.EphemeralContainers); n != 2 {
		t.Fatalf("%d ephemeral containers, want 2", n)
	}
	for _, c := range stored.Spec.EphemeralContainers {
		if c.Image != signed.ByBoth() {
			t.Errorf("ephemeral container %q has %q, want %q", c.Name, c.Image, signed.ByBoth())
		}
	}
}

// TestUpdateOfAPod: only what is new or changed is examined.
func TestUpdateOfAPod(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	first, second, unsigned := r.signed(t, "app:v1"), r.signed(t, "app:v2"), r.unsigned(t, "unsigned:v1")
	// From the time before the policy.
	r.create(t.Context(), pod("old", unsigned.ByTag(), unsigned.ByTag())).admitted(t, unsigned.ByTag(), unsigned.ByTag())
	r.enforce(t)
	r.create(t.Context(), pod("shop", first.ByTag())).admitted(t, first.ByBoth())

	t.Run("kubectl set image", func(t *testing.T) {
		if output, ok := r.kubectl(t, "set", "image", "pod/shop", "c0="+unsigned.ByTag()); ok || !strings.Contains(output, "no signature") {
			t.Errorf("an unsigned image: %s", output)
		}
		if output, ok := r.kubectl(t, "set", "image", "pod/shop", "c0="+second.ByTag()); !ok {
			t.Errorf("a signed image: %s", output)
		}
		stored, err := r.client.CoreV1().Pods(r.namespace).Get(t.Context(), "shop", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{second.ByBoth()}, imagesOf(stored)); diff != "" {
			t.Errorf("(-want +stored)\n%s", diff)
		}
	})
	t.Run("only the changed one counts", func(t *testing.T) {
		r.update(t.Context(), "old", func(p *corev1.Pod) { p.Spec.Containers[0].Image = second.ByTag() }).
			admitted(t, second.ByBoth(), unsigned.ByTag())
		r.update(t.Context(), "old", func(p *corev1.Pod) { p.Spec.Containers[0].Image = unsigned.ByTag() }).
			refused(t, rejected, "spec.containers[0].image", "no signature")
	})
	t.Run("nothing changed", func(t *testing.T) {
		r.silent(t, func() {
			for i, name := range []string{"old", "shop"} {
				p := r.update(t.Context(), name, func(p *corev1.Pod) { p.Labels = map[string]string{"n": fmt.Sprint(i)} })
				if p.err != nil || len(p.warnings) > 0 {
					t.Errorf("labelling %s: %v, %q", name, p.err, p.warnings)
				}
			}
		})
	})
	t.Run("while it is deleted", func(t *testing.T) {
		r.update(t.Context(), "shop", func(p *corev1.Pod) { p.Finalizers = []string{"e2e.pratique.dev/hold"} }).admitted(t, second.ByBoth())
		if err := r.client.CoreV1().Pods(r.namespace).Delete(t.Context(), "shop", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		r.update(t.Context(), "shop", func(p *corev1.Pod) { p.Spec.Containers[0].Image = unsigned.ByTag() }).
			refused(t, rejected, "no signature")
		r.silent(t, func() {
			r.update(t.Context(), "shop", func(p *corev1.Pod) { p.Finalizers = nil }).admitted(t, second.ByBoth())
		})
	})
}

// TestReferences: what is no reference is refused by its path, covered or not.
func TestReferences(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	for name, image := range map[string]string{
		"upper case": r.registry.Host() + "/Acme/app:v1", "two slashes": "a.io//b", "scheme": "https://a.io/b",
		"sha512": "a.io/b@sha512:" + strings.Repeat("0", 128), "digest cut short": "a.io/b@sha256:0123",
		"control character": "a.io/b:\n",
	} {
		t.Run(name, func(t *testing.T) {
			err := r.try(t.Context(), pod("bad", image)).err
			// The API server itself refuses some.
			if err == nil {
				t.Fatal("admitted")
			}
			if strings.Contains(err.Error(), "admission webhook") {
				refused(t, err, rejected, "spec.containers[0].image: ", "invalid image reference")
			} else if !strings.Contains(err.Error(), "spec.containers[0].image") {
				t.Error(err)
			}
		})
	}
}
