// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// world is a registry with images of every sort, and what is true of them.
type world struct {
	*stack
	pool   []string        // references to write into Pods
	signed map[string]bool // repository@digest
}

func newWorld(t *testing.T, now *clock) *world {
	t.Helper()
	w := &world{stack: newStack(t, setting{cache: cache.Options{Now: now.Now}}), signed: map[string]bool{}}
	every := func(i registrytest.Image) {
		w.pool = append(w.pool, i.ByTag(), i.ByDigest(), i.ByBoth())
	}
	sign := func(i registrytest.Image) registrytest.Image {
		w.host.SignLegacy(t, i, w.key)
		w.signed[i.Name()+"@"+i.Digest] = true
		return i
	}
	legacy := sign(w.host.PushImage(t, "acme/legacy:v1"))
	bundle := w.host.PushImage(t, "acme/bundle:v1")
	w.host.SignBundle(t, bundle, w.key)
	w.signed[bundle.Name()+"@"+bundle.Digest] = true
	latest := sign(w.host.PushImage(t, "acme/latest"))
	unsigned := w.host.PushImage(t, "acme/unsigned:v1")
	wrong := w.host.PushImage(t, "acme/wrong:v1")
	w.host.SignLegacy(t, wrong, w.other)
	for _, i := range []registrytest.Image{legacy, bundle, latest, unsigned, wrong, w.host.PushImage(t, "audit/app:v1")} {
		every(i)
	}
	flips := sign(w.host.PushImage(t, "acme/flips:good"))
	bad := w.host.PushImage(t, "acme/flips:bad")
	flips = w.host.Tag(t, "acme/flips", "v1", flips.Digest)
	w.host.Fault(registrytest.Manifest(flips.ByTag()), registrytest.FlipFlop(flips, bad))
	broken := w.host.PushImage(t, "acme/broken:v1")
	w.host.Fault(registrytest.Manifest("acme/broken"), registrytest.Status(500))
	every(broken)
	host := w.host.Host()
	w.pool = append(w.pool, legacy.ByTag(), bundle.ByTag(), legacy.ByBoth(), // so that whole Pods are good now and then
		flips.ByTag(), flips.ByTag(), flips.ByTag()+"@"+bad.Digest, latest.Name(), strings.ToUpper(host)+"/acme/legacy:v1",
		host+"/static/x", host+"/acme/absent:v1", host+"/acme/legacy@"+unsigned.Digest, host+"/acme-evil/x@"+unsigned.Digest,
		"registry.invalid/x", "x", "", " ", "BAD", host+"/acme/legacy:v1 ", host+"/acme//legacy:v1", host+"/acme/../acme/legacy:v1",
		"http://"+host+"/acme/legacy:v1", legacy.ByTag()+"@sha256:00", legacy.ByDigest()+"@"+unsigned.Digest, "$(IMAGE)", "\u2028", "\x00",
		host+"/acme/unsigned:v1@"+strings.ToUpper(unsigned.Digest), strings.Repeat("x", 2_000))
	return w
}

// rewrite gives the Pods images of the world: equal ones stay equal.
func (w *world) rewrite(r random, pods ...*corev1.Pod) {
	chosen := map[string]string{}
	good := r.IntN(2) == 0 // mostly good, or of every sort
	choose := func(image *string) {
		now, ok := chosen[*image]
		if !ok {
			now = w.pool[r.IntN(len(w.pool))]
			if good && r.IntN(10) > 0 {
				now = w.pool[r.IntN(9)]
			}
			chosen[*image] = now
		}
		*image = now
	}
	for _, pod := range pods {
		for i := range pod.Spec.Containers {
			choose(&pod.Spec.Containers[i].Image)
		}
		for i := range pod.Spec.InitContainers {
			choose(&pod.Spec.InitContainers[i].Image)
		}
		for i := range pod.Spec.EphemeralContainers {
			choose(&pod.Spec.EphemeralContainers[i].Image)
		}
		for i := range pod.Spec.Volumes {
			if pod.Spec.Volumes[i].Image != nil {
				choose(&pod.Spec.Volumes[i].Image.Reference)
			}
		}
	}
}

// good reports whether an image as stored may run.
func (w *world) good(image string) bool {
	ref, err := reference.Parse(image)
	switch {
	case err != nil:
		return false
	case strings.HasPrefix(ref.Repository(), w.host.Host()+"/acme/"):
		return ref.Digest() != "" && w.signed[ref.Repository()+"@"+ref.Digest()]
	default:
		return true
	}
}

// news takes from the images after an update, one for one, those before it.
func news(before, after *corev1.Pod) []oracle {
	list := func(path string) string { return path[:len("spec.cont")] }
	left := collect(before)
	var fresh []oracle
	for _, image := range collect(after) {
		at := slices.IndexFunc(left, func(o oracle) bool {
			return list(o.Path) == list(image.Path) && o.Name == image.Name && o.Image == image.Image
		})
		if at < 0 {
			fresh = append(fresh, image)
		} else {
			left = slices.Delete(left, at, at+1)
		}
	}
	return fresh
}

// TestAdmitsOnlyGood: for random Pods and updates, every string that the API
// server takes for an image is accepted, denied, or unchanged; never is one
// not examined.
func TestAdmitsOnlyGood(t *testing.T) {
	t.Parallel()
	now := &clock{now: time.Now()}
	w := newWorld(t, now)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	count := map[string]int{}
	for n := range uint64(1_000) {
		r := random{rand.New(rand.NewPCG(seed, n))}
		before := r.pod()
		after := r.changed(before)
		w.rewrite(r, before, after)
		a := ask{object: string(r.encode(t, after)), subresource: r.pick("", "", "ephemeralcontainers")}
		if r.IntN(3) > 0 {
			a.old = string(r.encode(t, before))
		} else {
			before = &corev1.Pod{}
		}
		if r.IntN(8) == 0 {
			a.groups = []string{"system:nodes"}
		}
		stored, got := w.admit(t, a)
		problem, kind := w.problem(before, after, stored, got, a)
		count[kind]++
		if problem != "" {
			t.Fatalf("seed %d, Pod %d: %s\nobject %s\nold %s\nstored %s\nanswer %s", seed, n, problem, a.object, a.old, stored, message(got))
		}
		now.add(31 * time.Second) // tags are asked for anew, verdicts are cached
	}
	t.Logf("%v", count)
	for _, kind := range []string{"let in", "denied", "unchanged", "mirror"} {
		if count[kind] < 10 {
			t.Errorf("%s: only %d; the test sees too little of it", kind, count[kind])
		}
	}
}

func (w *world) problem(before, after *corev1.Pod, stored string, got *admissionv1.AdmissionResponse, a ask) (problem, kind string) {
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(stored), &pod); err != nil {
		return err.Error(), ""
	}
	for i, image := range collect(&pod) {
		sent := collect(after)[i]
		plain, _, pinned := strings.Cut(image.Image, "@")
		if image.Image != sent.Image && (!pinned || plain != sent.Image && plain != sent.Image+":latest") {
			return fmt.Sprintf("%s became %q", sent.Path, image.Image), ""
		}
	}
	if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; mirror && len(a.groups) > 0 {
		if !got.Allowed || stored != a.object {
			return "a node's mirror Pod was not left alone", ""
		}
		return "", "mirror"
	}
	fresh := news(before, &pod)
	if len(fresh) == 0 {
		// A tag may have become the digest that was there before.
		if !got.Allowed || len(news(before, after)) == 0 && stored != a.object {
			return "nothing changed, and it was not let in as it is", ""
		}
		return "", "unchanged"
	}
	bad, uncertain := []string{}, false
	for _, image := range fresh {
		if !w.good(image.Image) {
			bad = append(bad, image.Path)
		}
		uncertain = uncertain || strings.Contains(image.Image, "/acme/flips")
		if line := "\n" + got.AuditAnnotations["images"]; !strings.Contains(line, "\n"+image.Path+": ") && !strings.HasSuffix(line, "…") {
			return image.Path + " was not examined: " + line, ""
		}
	}
	switch {
	case got.Allowed && len(bad) > 0:
		return fmt.Sprintf("let in, although %q must not run", bad), ""
	case !got.Allowed && len(bad) == 0 && !uncertain:
		return "denied, although every image is good", ""
	case got.Allowed:
		return "", "let in"
	default:
		return "", "denied"
	}
}
