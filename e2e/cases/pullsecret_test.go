// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const dockerConfig = string(corev1.SecretTypeDockerConfigJson)

// dockerSecret makes a pull secret.
func (r *room) dockerSecret(t *testing.T, namespace, name, host, user, password string) {
	t.Helper()
	r.secret(t, namespace, name, dockerConfig, dockerData(t, host, user, password))
}

// dockerData is what a pull secret holds.
func dockerData(t *testing.T, host, user, password string) map[string]string {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]string{"auth": auth}}})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{corev1.DockerConfigJsonKey: string(config)}
}

// withSecrets is a Pod that names pull secrets.
func withSecrets(p *corev1.Pod, names ...string) *corev1.Pod {
	for _, name := range names {
		p.Spec.ImagePullSecrets = append(p.Spec.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	return p
}

// shown lists the Authorization headers with which the room's images, or tokens
// for them, were asked for.
func (r *room) shown() []string {
	var list []string
	for _, request := range r.registry.Requests() {
		about := strings.HasPrefix(request.Path, "/v2/"+r.namespace+"/") || strings.Contains(request.Query, r.namespace)
		if about && request.Authorization != "" {
			list = append(list, request.Authorization)
		}
	}
	return list
}

// TestPullSecretOfThePod: it is read in the Pod's namespace and nowhere else.
func TestPullSecretOfThePod(t *testing.T) {
	t.Parallel()
	for name, registry := range map[string]*registrytest.Registry{"basic": shared.private, "token": shared.tokens} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for name, test := range map[string]struct {
				secrets func(t *testing.T, r *room) []string
				code    int32 // 0: admitted
				texts   []string
				shown   bool // something is shown to the registry
			}{
				"none": {func(*testing.T, *room) []string { return nil }, inconclusive, []string{"answered 401", "no credentials for this host were found"}, false},
				"the right one": {func(t *testing.T, r *room) []string {
					r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
					return []string{"pull"}
				}, 0, nil, true},
				"by path": {func(t *testing.T, r *room) []string {
					r.dockerSecret(t, r.namespace, "pull", "https://"+r.registry.Host()+"/"+r.namespace, user, password)
					return []string{"pull"}
				}, 0, nil, true},
				"the second one": {func(t *testing.T, r *room) []string {
					r.dockerSecret(t, r.namespace, "wrong", r.registry.Host(), user, "guess")
					r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
					return []string{"missing", "wrong", "pull"}
				}, 0, []string{`pull secret "missing" does not exist`}, true},
				"a wrong password": {func(t *testing.T, r *room) []string {
					r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, "guess")
					return []string{"pull"}
				}, inconclusive, []string{"answered 401"}, true},
				"in another namespace": {func(t *testing.T, r *room) []string {
					other := newRoom(t)
					other.dockerSecret(t, other.namespace, "pull", r.registry.Host(), user, password)
					// Nor in Pratique's own.
					r.dockerSecret(t, env.Namespace, r.namespace, r.registry.Host(), user, password)
					return []string{"pull", r.namespace}
				}, inconclusive, []string{"answered 401"}, false},
				"for another host": {func(t *testing.T, r *room) []string {
					r.dockerSecret(t, r.namespace, "pull", "127.0.0.1:1", user, password)
					return []string{"pull"}
				}, inconclusive, []string{"answered 401"}, false},
				"for another path": {func(t *testing.T, r *room) []string {
					r.dockerSecret(t, r.namespace, "pull", r.registry.Host()+"/"+r.namespace+"-evil", user, password)
					return []string{"pull"}
				}, inconclusive, []string{"answered 401"}, false},
				"malformed": {func(t *testing.T, r *room) []string {
					r.secret(t, r.namespace, "pull", dockerConfig, map[string]string{".dockerconfigjson": `{"auths": "` + password + `"}`})
					return []string{"pull"}
				}, inconclusive, []string{`reading pull secret "pull"`, "malformed JSON"}, false},
				"of another type": {func(t *testing.T, r *room) []string {
					r.secret(t, r.namespace, "pull", "Opaque", map[string]string{".dockerconfigjson": "{}"})
					return []string{"pull"}
				}, inconclusive, []string{"answered 401"}, false},
			} {
				t.Run(name, func(t *testing.T) {
					r := newRoom(t).at(registry)
					r.enforce(t)
					signed := r.signed(t, "app:v1")
					got := r.create(t.Context(), withSecrets(pod("app", signed.ByTag()), test.secrets(t, r)...))
					if test.code == 0 {
						got.warned(t, []string{signed.ByBoth()}, test.texts...)
					} else {
						got.refused(t, test.code, test.texts...)
					}
					if shown := r.shown(); test.shown != (len(shown) > 0) {
						t.Errorf("shown to the registry: %q", shown)
					}
				})
			}
		})
	}
}

// TestPlainHTTPIsShownNothing: that the admin lets a registry be asked over plain
// HTTP does not let it be shown credentials; the ImageConfig has to.
func TestPlainHTTPIsShownNothing(t *testing.T) {
	t.Parallel()
	for name, registry := range map[string]*registrytest.Registry{"basic": shared.private, "token": shared.tokens} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t).at(registry)
			r.policy(t, "", keyed(r.prefix(), r.key))
			r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
			signed := r.signed(t, "app:v1")
			r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull")).refused(t, inconclusive, "Inconclusive by ImageConfig")
			if shown := r.shown(); len(shown) > 0 {
				t.Errorf("shown to the registry: %q", shown)
			}
		})
	}
}

// TestPullSecretOfTheServiceAccount: the API server writes it into the Pod.
func TestPullSecretOfTheServiceAccount(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
	account, err := r.client.CoreV1().ServiceAccounts(r.namespace).Get(t.Context(), "default", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	if _, err := r.client.CoreV1().ServiceAccounts(r.namespace).Update(t.Context(), account, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	signed := r.signed(t, "app:v1")
	// The API server's own cache of ServiceAccounts may be late.
	r.eventually(t, settled, "the ServiceAccount's secret is used", func(ctx context.Context) error {
		got := r.try(ctx, pod("app", signed.ByTag()))
		if got.err == nil && got.pod.Spec.Containers[0].Image != signed.ByBoth() {
			t.Errorf("not pinned: %q", imagesOf(got.pod))
		}
		return got.err
	})
}

// pulling is a spec that brings a pull secret.
func pulling(r *room, secret string) string {
	return keyed(r.prefix(), r.key, "  registry: {insecurePlainHTTP: true, authentication: {pullSecretRef: {name: "+secret+"}}}")
}

// TestPullSecretOfTheImageConfig: it lies in Pratique's namespace, and serves
// for Pods that have none, or none that helps.
func TestPullSecretOfTheImageConfig(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	signed, second := r.signed(t, "app:v1"), r.signed(t, "app:v2")
	// A missing one makes it not ready, but images are examined with what there is.
	name := r.unreadyPolicy(t, "", pulling(r, r.namespace))
	r.awaitReady(t, name, metav1.ConditionFalse, "SecretNotFound")
	r.try(t.Context(), pod("app", signed.ByTag())).refused(t, inconclusive, "answered 401")
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
	r.dockerSecret(t, r.namespace, "wrong", r.registry.Host(), user, "guess")
	r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull")).admitted(t, signed.ByBoth())

	r.dockerSecret(t, env.Namespace, r.namespace, r.registry.Host(), user, password)
	r.awaitReady(t, name, metav1.ConditionTrue, "Compiled")
	r.try(t.Context(), pod("app", second.ByTag())).admitted(t, second.ByBoth())
	r.try(t.Context(), withSecrets(pod("app", second.ByTag()), "wrong")).admitted(t, second.ByBoth())
	// Whoever has no credential at all gets no digest by another's.
	bare := r.unsigned(t, "bare:v1")
	r.try(t.Context(), pod("bare", bare.ByTag())).refused(t, rejected, "no signature")
}

// TestNoPasswordIsTold: neither the log nor, in the cases above, a message
// holds one.
func TestNoPasswordIsTold(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password+"-wrong")
	signed := r.signed(t, "app:v1")
	got := r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull"))
	got.refused(t, inconclusive, "answered 401")
	log, err := os.ReadFile(r.Log("pratique"))
	if err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{"log": string(log), "denial": got.err.Error(), "warnings": strings.Join(got.warnings, "\n")} {
		for _, secret := range []string{password, base64.StdEncoding.EncodeToString([]byte(user + ":" + password))[:20]} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s holds %q", what, secret)
			}
		}
	}
}
