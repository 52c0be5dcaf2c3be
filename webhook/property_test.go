// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"github.com/pratique-dev/pratique/webhook"
)

// oracle is what a decoded Pod holds, by another way than the visitor's: path, container's name, image.
type oracle struct{ Path, Name, Image string }

func collect(pod *corev1.Pod) []oracle {
	var out []oracle
	for i, c := range pod.Spec.Containers {
		out = append(out, oracle{fmt.Sprintf("spec.containers[%d].image", i), c.Name, c.Image})
	}
	for i, c := range pod.Spec.InitContainers {
		out = append(out, oracle{fmt.Sprintf("spec.initContainers[%d].image", i), c.Name, c.Image})
	}
	for i, c := range pod.Spec.EphemeralContainers {
		out = append(out, oracle{fmt.Sprintf("spec.ephemeralContainers[%d].image", i), c.Name, c.Image})
	}
	for i, v := range pod.Spec.Volumes {
		if v.Image != nil {
			out = append(out, oracle{fmt.Sprintf("spec.volumes[%d].image.reference", i), v.Name, v.Image.Reference})
		}
	}
	return out
}

func visited(images []webhook.Image) []oracle {
	var out []oracle
	for _, image := range images {
		out = append(out, oracle{Path: image.Path(), Image: image.Written})
	}
	return out
}

func withoutNames(all []oracle) []oracle {
	var out []oracle
	for _, o := range all {
		out = append(out, oracle{Path: o.Path, Image: o.Image})
	}
	return out
}

// random makes Pods. Names and images come from small sets, so that they meet often.
type random struct{ *rand.Rand }

func (r random) pick(of ...string) string { return of[r.IntN(len(of))] }

func (r random) name() string {
	return r.pick("a", "b", "c", "istio-proxy", "image", "", `quo"te`, `a].image`, "a/b~c", "ü", "\u2028", "\x00")
}

func (r random) image() string {
	return r.pick("nginx", "nginx:1", "docker.io/library/nginx@sha256:00", "", " ", `evil"/x`, `back\slash`, "<&>",
		"$(IMAGE)", "😀", fmt.Sprint("x.io/", r.IntN(1000)))
}

func (r random) container() corev1.Container {
	c := corev1.Container{Name: r.name(), Image: r.image(), ImagePullPolicy: corev1.PullPolicy(r.pick("", "Always"))}
	if r.IntN(2) == 0 {
		c.Env = []corev1.EnvVar{{Name: "image", Value: r.image()}}
		c.Args = []string{"--image", r.image()}
		c.Resources.Requests = corev1.ResourceList{"cpu": resource.MustParse("100m")}
	}
	if r.IntN(4) == 0 {
		always := corev1.ContainerRestartPolicyAlways
		c.RestartPolicy = &always
	}
	return c
}

func (r random) volume() corev1.Volume {
	v := corev1.Volume{Name: r.name()}
	switch r.IntN(4) {
	case 0, 1:
		v.Image = &corev1.ImageVolumeSource{Reference: r.image()}
	case 2:
		v.RBD = &corev1.RBDVolumeSource{RBDImage: r.image()}
	case 3:
		v.ConfigMap = &corev1.ConfigMapVolumeSource{Items: []corev1.KeyToPath{{Key: "image", Path: "image"}}}
	}
	return v
}

func (r random) pod() *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Labels: map[string]string{"image": r.image()}}}
	if r.IntN(4) == 0 {
		pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: r.name(), "image": r.image()}
	}
	for range r.IntN(5) {
		pod.Spec.Containers = append(pod.Spec.Containers, r.container())
	}
	for range r.IntN(3) {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, r.container())
	}
	for range r.IntN(3) {
		c := r.container()
		pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: c.Name, Image: c.Image, Env: c.Env},
		})
	}
	for range r.IntN(4) {
		pod.Spec.Volumes = append(pod.Spec.Volumes, r.volume())
	}
	for range r.IntN(3) {
		pod.Spec.ImagePullSecrets = append(pod.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: r.name()})
	}
	pod.Spec.ServiceAccountName = r.pick("", "robot")
	pod.Spec.DeprecatedServiceAccount = r.pick("", "old")
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: r.name(), Image: r.image()}}
	return pod
}

// changed returns the Pod after an update of one kind or another.
func (r random) changed(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	spec := &pod.Spec
	for range r.IntN(4) {
		switch r.IntN(7) {
		case 0:
			r.Shuffle(len(spec.Containers), func(i, j int) {
				spec.Containers[i], spec.Containers[j] = spec.Containers[j], spec.Containers[i]
			})
		case 1:
			spec.Containers = append(spec.Containers, r.container())
		case 2:
			if n := len(spec.Containers); n > 0 {
				spec.Containers[r.IntN(n)].Image = r.image()
			}
		case 3:
			if n := len(spec.InitContainers); n > 0 { // moves to the regular ones
				spec.Containers = append(spec.Containers, spec.InitContainers[n-1])
				spec.InitContainers = spec.InitContainers[:n-1]
			}
		case 4:
			spec.Volumes = append(spec.Volumes, r.volume())
		case 5:
			if n := len(spec.Containers); n > 0 {
				spec.Containers = slices.Insert(spec.Containers, r.IntN(n), spec.Containers[r.IntN(n)])
			}
		case 6:
			if n := len(spec.Containers); n > 0 {
				spec.Containers[r.IntN(n)].Name = r.name()
			}
		}
	}
	return pod
}

// encode writes a Pod as the API server does, or with its members sorted, as for custom resources.
func (r random) encode(t *testing.T, pod *corev1.Pod) []byte {
	t.Helper()
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	if r.IntN(2) == 0 {
		return raw
	}
	var unstructured any
	if err := json.Unmarshal(raw, &unstructured); err != nil {
		t.Fatal(err)
	}
	if raw, err = json.MarshalIndent(unstructured, "", " "); err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestRandomPods: for random Pods and updates, what is found, changed and patched is what another way of reading says.
func TestRandomPods(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := random{rand.New(rand.NewPCG(seed, 0))}
	row := lookup(t, load(t), "", "v1", "Pod")
	for n := range 2000 {
		before := r.pod()
		after := r.changed(before)
		beforeRaw, afterRaw := r.encode(t, before), r.encode(t, after)
		old, err := row.Find(beforeRaw)
		if err != nil {
			t.Fatalf("%s: %v", beforeRaw, err)
		}
		object, err := row.Find(afterRaw)
		if err != nil {
			t.Fatalf("%s: %v", afterRaw, err)
		}
		checkFound(t, before, old)
		checkFound(t, after, object)
		checkChanged(t, before, after, webhook.Changed(object, old))
		checkPatch(t, after, afterRaw, object)
		if t.Failed() {
			t.Fatalf("Pod %d:\nbefore %s\nafter  %s", n, beforeRaw, afterRaw)
		}
	}
}

func checkFound(t *testing.T, pod *corev1.Pod, found webhook.Found) {
	t.Helper()
	if diff := cmp.Diff(withoutNames(collect(pod)), visited(found.Images)); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	var secrets []string
	for _, secret := range pod.Spec.ImagePullSecrets {
		if secret.Name != "" {
			secrets = append(secrets, secret.Name)
		}
	}
	if diff := cmp.Diff(secrets, found.PullSecrets); diff != "" {
		t.Errorf("pull secrets (-want +got):\n%s", diff)
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = pod.Spec.DeprecatedServiceAccount
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror != found.Mirror || account != found.ServiceAccountName {
		t.Errorf("mirror %t, service account %q, want %t, %q", found.Mirror, found.ServiceAccountName, mirror, account)
	}
}

// checkChanged: take from the images after the update, one for one, those before it; the rest is what changed.
func checkChanged(t *testing.T, before, after *corev1.Pod, changed []webhook.Image) {
	t.Helper()
	list := func(path string) string { return path[:len("spec.cont")] }
	left := collect(before)
	var want []oracle
	for _, image := range collect(after) {
		at := slices.IndexFunc(left, func(o oracle) bool {
			return list(o.Path) == list(image.Path) && o.Name == image.Name && o.Image == image.Image
		})
		if at < 0 {
			want = append(want, oracle{Path: image.Path, Image: image.Image})
			continue
		}
		left = slices.Delete(left, at, at+1)
	}
	if diff := cmp.Diff(want, visited(changed)); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

// checkPatch pins everything, applies the patch, and compares with a Pod that was changed by hand.
func checkPatch(t *testing.T, pod *corev1.Pod, raw []byte, found webhook.Found) {
	t.Helper()
	const pin = `@sha256:"/~`
	want := pod.DeepCopy()
	pinned := func(image *string) {
		if *image != "" && *image != " " {
			*image += pin
		}
	}
	for i := range want.Spec.Containers {
		pinned(&want.Spec.Containers[i].Image)
	}
	for i := range want.Spec.InitContainers {
		pinned(&want.Spec.InitContainers[i].Image)
	}
	for i := range want.Spec.EphemeralContainers {
		pinned(&want.Spec.EphemeralContainers[i].Image)
	}
	for i := range want.Spec.Volumes {
		if image := want.Spec.Volumes[i].Image; image != nil {
			pinned(&image.Reference)
		}
	}
	var replacements []webhook.Replacement
	for _, image := range found.Images {
		replacements = append(replacements, webhook.Replacement{Image: image, With: image.Written + pin})
	}
	patched := raw
	if patch := webhook.Patch(replacements); patch != nil {
		decoded, err := jsonpatch.DecodePatch(patch)
		if err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
		if patched, err = decoded.Apply(raw); err != nil {
			t.Fatalf("%s: %v", patch, err)
		}
	}
	wantRaw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(leaves(t, wantRaw), leaves(t, patched)); diff != "" {
		t.Errorf("patched Pod (-want +got):\n%s", diff)
	}
}

// FuzzImages: any bytes are read or refused; what is read of a Pod is what the API server's own decoder reads.
func FuzzImages(f *testing.F) {
	for _, seed := range []string{
		``, `{}`, `null`, `[]`, `{"spec":` + podSpecJSON + `}`,
		`{"spec":{"template":{"spec":` + podSpecJSON + `}}}`,
		`{"spec":{"containers":[null,{"image":null},{"image":"x","name":"y"}]}}`,
		`{"spec":{"containers":{"a":1}}}`, `{"spec":{"containers":[{"image":"x","image":"y"}]}}`,
		`{"spec":{"conta\u0069ners":[{"im\u0061ge":"\u0078\ud83d\ude00"}]}}`,
		`{"Spec":{"containers":[{"image":"x"}]},"spec":{"containers":[{"Image":"x"}]}}`,
		`{"metadata":{"annotations":{"kubernetes.io/config.mirror":"x"}},"spec":{"volumes":[null,{"image":{}}]}}`,
		`{"spec":{"imagePullSecrets":[null,{"name":null},{"name":"x"}],"serviceAccount":"y"}}`,
		`{"spec":{"package":"p","image":"i"}} `,
	} {
		f.Add([]byte(seed))
	}
	rows := load(f).Rows()
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, row := range rows {
			found, err := row.Find(raw)
			if err != nil {
				if len(found.Images) > 0 {
					t.Errorf("%s: found %v beside error %v", row.Kind, describe(found.Images), err)
				}
				continue
			}
			if row.Kind != "Pod" {
				continue
			}
			var pod corev1.Pod
			if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &pod); err != nil {
				continue // not a Pod elsewhere
			}
			checkFound(t, &pod, found)
			if changed := webhook.Changed(found, found); changed != nil {
				t.Errorf("changed without a change: %v", describe(changed))
			}
		}
	})
}
