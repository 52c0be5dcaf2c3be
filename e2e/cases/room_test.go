// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/util/retry"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// inForce is how soon a change of the rules holds (spec section 3).
	inForce = 5 * time.Second
	// settled bounds the wait for what controllers do.
	settled = 20 * time.Second
	again   = 50 * time.Millisecond
)

// room is where one case works: a namespace of its own, and images whose
// repositories begin with its name.
type room struct {
	*world

	namespace string
	// host of the room's images.
	registry *registrytest.Registry
}

// newRoom makes a namespace that goes away with the case. labels are name=value.
func newRoom(t *testing.T, labels ...string) *room {
	t.Helper()
	r := &room{world: shared, registry: shared.Registry}
	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "case-", Labels: map[string]string{}}}
	for _, label := range labels {
		name, value, _ := strings.Cut(label, "=")
		object.Labels[name] = value
	}
	made, err := r.client.CoreV1().Namespaces().Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r.namespace = made.Name
	t.Cleanup(func() {
		// The test's context has ended.
		_ = r.client.CoreV1().Namespaces().Delete(context.Background(), made.Name, metav1.DeleteOptions{})
	})
	r.awaitAccount(t)
	return r
}

// awaitAccount waits for that without which there are no Pods.
func (r *room) awaitAccount(t *testing.T) {
	t.Helper()
	r.eventually(t, settled, "the namespace has its ServiceAccount", func(ctx context.Context) error {
		_, err := r.client.CoreV1().ServiceAccounts(r.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// at is the same room with images in another registry.
func (r *room) at(registry *registrytest.Registry) *room {
	moved := *r
	moved.registry = registry
	return &moved
}

// prefix is what the names of the room's images begin with.
func (r *room) prefix() string { return r.registry.Host() + "/" + r.namespace + "/" }

// unsigned pushes an image, written as "app:v1".
func (r *room) unsigned(t *testing.T, written string) registrytest.Image {
	t.Helper()
	return r.registry.PushImage(t, r.namespace+"/"+written)
}

// signed pushes an image and signs it, as cosign 2 does.
func (r *room) signed(t *testing.T, written string) registrytest.Image {
	t.Helper()
	image := r.unsigned(t, written)
	r.registry.SignLegacy(t, image, r.key)
	return image
}

// requests lists what was asked of the room's images, without the login.
func (r *room) requests() []string {
	var list []string
	for _, request := range r.registry.Counted() {
		if strings.HasPrefix(request.Path, "/v2/"+r.namespace+"/") {
			list = append(list, request.String())
		}
	}
	return list
}

// silent fails the test if act makes a request about the room's images.
func (r *room) silent(t *testing.T, act func()) {
	t.Helper()
	before := len(r.requests())
	act()
	if more := r.requests()[before:]; len(more) > 0 {
		t.Errorf("the registry was asked:\n%s", strings.Join(more, "\n"))
	}
}

// keyed is a spec that asks for a signature by a key under a prefix. More lines
// of the spec may follow.
func keyed(prefix string, key *registrytest.Key, more ...string) string {
	return fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  verification:
    provider: Cosign
    cosign: {authorities: [{name: release, key: {data: %q}}]}
%s`, prefix, key.PublicPEM(), strings.Join(more, "\n"))
}

// fixed is a spec whose only authority decides without looking.
func fixed(prefix, action string, more ...string) string {
	return fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  verification:
    provider: Cosign
    cosign: {authorities: [{name: all, static: {action: %s}}]}
%s`, prefix, action, strings.Join(more, "\n"))
}

func imageConfigs() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "pratique.dev", Version: "v1alpha1", Resource: "imageconfigs"}
}

// policy makes an ImageConfig that goes away with the case, and waits until it
// is in force. Its name begins with the namespace's.
func (r *room) policy(t *testing.T, suffix, spec string) (name string) {
	t.Helper()
	name = r.unreadyPolicy(t, suffix, spec)
	r.awaitReady(t, name, metav1.ConditionTrue, "Compiled")
	return name
}

// unreadyPolicy makes an ImageConfig without waiting for it.
func (r *room) unreadyPolicy(t *testing.T, suffix, spec string) (name string) {
	t.Helper()
	name = r.namespace + suffix
	manifest := fmt.Sprintf("apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: %s}\nspec:%s", name, spec)
	if _, err := r.dynamic.Resource(imageConfigs()).Create(t.Context(), parse(t, manifest), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.dynamic.Resource(imageConfigs()).Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	return name
}

// enforce is the usual policy: what lies in the room is signed by the key.
func (r *room) enforce(t *testing.T) (name string) {
	t.Helper()
	return r.policy(t, "", keyed(r.prefix(), r.key, r.plain()))
}

// plain is what an ImageConfig says of the registries that are shown
// credentials over plain HTTP.
func (r *room) plain() string {
	if r.registry == shared.private || r.registry == shared.tokens {
		return "  registry: {insecurePlainHTTP: true}"
	}
	return ""
}

// change replaces the spec of an ImageConfig, whose status the server writes at
// the same time.
func (r *room) change(t *testing.T, name, spec string) {
	t.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		config, err := r.dynamic.Resource(imageConfigs()).Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		config.Object["spec"] = parse(t, "apiVersion: x/v1\nkind: X\nspec:"+spec).Object["spec"]
		_, err = r.dynamic.Resource(imageConfigs()).Update(t.Context(), config, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// awaitReady waits until the condition Ready of the latest generation is so,
// and returns its message.
func (r *room) awaitReady(t *testing.T, name string, status metav1.ConditionStatus, reason string) (message string) {
	t.Helper()
	r.eventually(t, inForce, fmt.Sprintf("ImageConfig %s has Ready=%s, %s", name, status, reason), func(ctx context.Context) error {
		config, err := r.dynamic.Resource(imageConfigs()).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready, err := readyOf(config)
		if err != nil {
			return err
		}
		if ready.ObservedGeneration != config.GetGeneration() || ready.Status != status || ready.Reason != reason {
			return fmt.Errorf("generation %d, condition %+v", config.GetGeneration(), ready)
		}
		message = ready.Message
		return nil
	})
	return message
}

func readyOf(config *unstructured.Unstructured) (metav1.Condition, error) {
	var typed struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(config.Object, &typed); err != nil {
		return metav1.Condition{}, err
	}
	for _, condition := range typed.Status.Conditions {
		if condition.Type == "Ready" {
			return condition, nil
		}
	}
	return metav1.Condition{}, errors.New("no condition Ready yet")
}

// secret makes a Secret; without a namespace in Pratique's own.
func (r *room) secret(t *testing.T, namespace, name, kind string, data map[string]string) {
	t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretType(kind), StringData: data}
	if _, err := r.client.CoreV1().Secrets(namespace).Create(t.Context(), secret, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if namespace == env.Namespace {
		t.Cleanup(func() {
			_ = r.client.CoreV1().Secrets(namespace).Delete(context.Background(), name, metav1.DeleteOptions{})
		})
	}
}

// pod is a Pod with a container for each image.
func pod(name string, images ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for i, image := range images {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: fmt.Sprintf("c%d", i), Image: image})
	}
	return p
}

// imagesOf lists the images of a Pod's containers.
func imagesOf(p *corev1.Pod) []string {
	var images []string
	for _, c := range p.Spec.Containers {
		images = append(images, c.Image)
	}
	return images
}

// answer is what the API server says to a request.
type answer struct {
	pod      *corev1.Pod // as stored
	warnings []string
	err      error
}

// create asks for a Pod, which is stored.
func (r *room) create(ctx context.Context, p *corev1.Pod) answer {
	return r.ask(ctx, func(ctx context.Context) (*corev1.Pod, error) {
		return r.client.CoreV1().Pods(r.namespace).Create(ctx, p, metav1.CreateOptions{})
	})
}

// try is create without storing anything.
func (r *room) try(ctx context.Context, p *corev1.Pod) answer {
	return r.ask(ctx, func(ctx context.Context) (*corev1.Pod, error) {
		return r.client.CoreV1().Pods(r.namespace).Create(ctx, p, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	})
}

// update asks for a change of a stored Pod.
func (r *room) update(ctx context.Context, name string, change func(*corev1.Pod)) answer {
	return r.ask(ctx, func(ctx context.Context) (*corev1.Pod, error) {
		p, err := r.client.CoreV1().Pods(r.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		change(p)
		return r.client.CoreV1().Pods(r.namespace).Update(ctx, p, metav1.UpdateOptions{})
	})
}

func (r *room) ask(ctx context.Context, request func(context.Context) (*corev1.Pod, error)) answer {
	ctx, warnings := collecting(ctx)
	p, err := request(ctx)
	return answer{p, warnings(), err}
}

// admitted fails the test unless the request was granted with these images,
// and without a warning.
func (a answer) admitted(t *testing.T, images ...string) *corev1.Pod {
	t.Helper()
	p := a.warned(t, images)
	if len(a.warnings) > 0 {
		t.Errorf("warnings: %q", a.warnings)
	}
	return p
}

// warned fails the test unless the request was granted with these images, and
// with a warning that has each of the texts.
func (a answer) warned(t *testing.T, images []string, texts ...string) *corev1.Pod {
	t.Helper()
	if a.err != nil {
		t.Fatalf("refused: %v", a.err)
	}
	if diff := cmp.Diff(images, imagesOf(a.pod)); diff != "" {
		t.Errorf("images (-want +stored):\n%s", diff)
	}
	all := strings.Join(a.warnings, "\n")
	for _, text := range texts {
		if !strings.Contains(all, text) {
			t.Errorf("the warnings lack %q:\n%s", text, all)
		}
	}
	return a.pod
}

// refused fails the test unless the validating webhook denied with this code
// and each of the texts.
func (a answer) refused(t *testing.T, code int32, texts ...string) {
	t.Helper()
	refused(t, a.err, code, texts...)
}

func refused(t *testing.T, err error, code int32, texts ...string) {
	t.Helper()
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatalf("want a denial with %d, got %v", code, err)
	}
	if got := status.Status().Code; got != code {
		t.Errorf("code %d, want %d: %v", got, code, err)
	}
	for _, text := range append([]string{`.pratique.dev" denied the request`}, texts...) {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the denial lacks %q:\n%v", text, err)
		}
	}
	if _, retry := apierrors.SuggestsClientDelay(err); retry {
		t.Errorf("the client is asked to repeat by itself: %v", err)
	}
}

// denied are the codes of denials (spec section 4).
const (
	rejected     int32 = 403
	inconclusive int32 = 503
)

// eventually fails the test unless check succeeds in time.
func (w *world) eventually(t *testing.T, within time.Duration, what string, check func(context.Context) error) {
	t.Helper()
	var last error
	err := wait.PollUntilContextTimeout(t.Context(), again, within, true, func(ctx context.Context) (bool, error) {
		last = check(ctx)
		return last == nil, nil
	})
	if err != nil {
		t.Fatalf("not within %s: %s; last: %v", within, what, last)
	}
}

// collector puts the API server's warnings where collecting asked for them.
type collector struct{}

type warningsKey struct{}

type warnings struct {
	mu   sync.Mutex
	list []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (collector) HandleWarningHeaderWithContext(ctx context.Context, code int, _, text string) {
	into, ok := ctx.Value(warningsKey{}).(*warnings)
	if !ok || code != 299 {
		return
	}
	into.mu.Lock()
	defer into.mu.Unlock()
	into.list = append(into.list, text)
}

func collecting(ctx context.Context) (_ context.Context, collected func() []string) {
	into := &warnings{}
	return context.WithValue(ctx, warningsKey{}, into), func() []string {
		into.mu.Lock()
		defer into.mu.Unlock()
		return slices.Clone(into.list)
	}
}

// parse reads one manifest.
func parse(t *testing.T, manifest string) *unstructured.Unstructured {
	t.Helper()
	raw, err := utilyaml.ToJSON([]byte(manifest))
	if err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(raw); err != nil {
		t.Fatalf("%v in\n%s", err, manifest)
	}
	return object
}

// kubectl runs it in the room's namespace.
func (r *room) kubectl(t *testing.T, args ...string) (output string, ok bool) {
	t.Helper()
	stdout, stderr, exit := r.Kubectl(t.Context(), append(args, "--namespace", r.namespace)...)
	return stdout + stderr, exit == 0
}
