// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/env"
)

// account makes a ServiceAccount with pull secrets.
func (r *room) account(t *testing.T, name string, secrets ...string) {
	t.Helper()
	object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, secret := range secrets {
		object.ImagePullSecrets = append(object.ImagePullSecrets, corev1.LocalObjectReference{Name: secret})
	}
	if _, err := r.client.CoreV1().ServiceAccounts(r.namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// as is a Pod of a ServiceAccount.
func as(p *corev1.Pod, account string) *corev1.Pod {
	p.Spec.ServiceAccountName = account
	return p
}

// TestCredentialsAnywhere: a private image is admitted where the Pod, its
// ServiceAccount or the ImageConfig has the credential, in either form of
// Secret, and where none has the denial says what is missing.
func TestCredentialsAnywhere(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pod   func(t *testing.T, r *room, p *corev1.Pod) *corev1.Pod
		rule  bool // the ImageConfig has the credential
		texts []string
		code  int32
	}{
		"nowhere": {
			pod:  func(_ *testing.T, _ *room, p *corev1.Pod) *corev1.Pod { return p },
			code: inconclusive, texts: []string{"answered 401", "credentials"},
		},
		"the Pod": {pod: func(t *testing.T, r *room, p *corev1.Pod) *corev1.Pod {
			r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
			return withSecrets(p, "pull")
		}},
		"the Pod, in the old form": {pod: func(t *testing.T, r *room, p *corev1.Pod) *corev1.Pod {
			r.secret(t, r.namespace, "old", string(corev1.SecretTypeDockercfg), map[string]string{
				corev1.DockerConfigKey: fmt.Sprintf(`{"https://%s/v1/":{"username":%q,"password":%q}}`, r.registry.Host(), user, password),
			})
			return withSecrets(p, "old")
		}},
		// The API server gives a Pod its ServiceAccount's secrets only if it
		// brings none itself.
		"the ServiceAccount, beside the Pod's own": {pod: func(t *testing.T, r *room, p *corev1.Pod) *corev1.Pod {
			r.dockerSecret(t, r.namespace, "wrong", r.registry.Host(), user, "guess")
			r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
			r.account(t, "puller", "pull")
			return as(withSecrets(p, "wrong"), "puller")
		}},
		"another's ServiceAccount": {
			pod: func(t *testing.T, r *room, p *corev1.Pod) *corev1.Pod {
				r.dockerSecret(t, r.namespace, "wrong", r.registry.Host(), user, "guess")
				r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
				r.account(t, "puller", "pull")
				r.account(t, "plain")
				return as(withSecrets(p, "wrong"), "plain")
			},
			code: inconclusive, texts: []string{"answered 401"},
		},
		"the ServiceAccount names one that is not there": {
			pod: func(t *testing.T, r *room, p *corev1.Pod) *corev1.Pod {
				r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
				r.account(t, "careless", "absent")
				return as(withSecrets(p, "pull"), "careless")
			},
			texts: []string{`pull secret "absent" does not exist`},
		},
		"the ImageConfig": {rule: true, pod: func(_ *testing.T, _ *room, p *corev1.Pod) *corev1.Pod { return p }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t).at(shared.private)
			if test.rule {
				r.dockerSecret(t, env.Namespace, r.namespace, r.registry.Host(), user, password)
				r.policy(t, "", pulling(r, r.namespace))
			} else {
				r.enforce(t)
			}
			signed := r.signed(t, "app:v1")
			got := r.create(t.Context(), test.pod(t, r, pod("app", signed.ByTag())))
			if test.code != 0 {
				got.refused(t, test.code, test.texts...)
				return
			}
			got.warned(t, []string{signed.ByBoth()}, test.texts...)
		})
	}
}

// TestCredentialsOfATemplate: the API server writes no pull secrets into a
// template, so those of the ServiceAccount are looked up.
func TestCredentialsOfATemplate(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
	r.account(t, "puller", "pull")
	signed := r.signed(t, "app:v1")
	for account, admitted := range map[string]bool{"default": false, "puller": true} {
		ctx, collected := collecting(t.Context())
		labels := map[string]string{"app": account}
		template := as(pod("app", signed.ByTag()), account)
		template.Labels = labels
		template.Spec.RestartPolicy = corev1.RestartPolicyAlways
		_, err := r.client.AppsV1().Deployments(r.namespace).Create(ctx, &appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Name: account},
			Spec: appsv1.DeploymentSpec{
				Replicas: new(int32), // the Pods are another test's
				Selector: &metav1.LabelSelector{MatchLabels: labels},
				Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: template.Spec},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		warned := strings.Join(collected(), "\n")
		if strings.Contains(warned, "answered 401") == admitted || admitted && warned != "" {
			t.Errorf("ServiceAccount %q: warnings %q", account, warned)
		}
	}
}

// TestCredentialsServeTheirNamespace: a tag that one namespace's credential has
// resolved is not pinned for another that has none, whatever it asks first.
func TestCredentialsServeTheirNamespace(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
	signed := r.signed(t, "app:v1")
	other := newRoom(t).at(shared.private)
	other.try(t.Context(), pod("app", signed.ByTag())).refused(t, inconclusive, "answered 401")
	r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull")).admitted(t, signed.ByBoth())
	other.try(t.Context(), pod("app", signed.ByTag())).refused(t, inconclusive, "answered 401")
	other.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull")).refused(t, inconclusive, "answered 401")
	// And what the other was refused changes nothing here.
	r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "pull")).admitted(t, signed.ByBoth())
}

// TestServiceAccountRotates: another pull secret of the ServiceAccount, and
// another password in it, are in force within 5 s.
func TestServiceAccountRotates(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	r.dockerSecret(t, r.namespace, "own", "127.0.0.1:1", user, password)
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, "guess")
	r.account(t, "puller")
	signed := r.signed(t, "app:v1")
	ask := func(ctx context.Context) answer {
		return r.try(ctx, as(withSecrets(pod("app", signed.ByTag()), "own"), "puller"))
	}
	ask(t.Context()).refused(t, inconclusive, "answered 401")
	accounts, secrets := r.client.CoreV1().ServiceAccounts(r.namespace), r.client.CoreV1().Secrets(r.namespace)
	account, err := accounts.Get(t.Context(), "puller", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	account.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
	if _, err := accounts.Update(t.Context(), account, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually(t, inForce, "the ServiceAccount's new secret is shown", func(ctx context.Context) error {
		ask(ctx)
		if len(r.shown()) == 0 {
			return fmt.Errorf("nothing is shown to the registry")
		}
		return nil
	})
	if err := secrets.Delete(t.Context(), "pull", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.dockerSecret(t, r.namespace, "pull", r.registry.Host(), user, password)
	r.eventually(t, inForce, "the new password is used", func(ctx context.Context) error { return ask(ctx).err })
}
