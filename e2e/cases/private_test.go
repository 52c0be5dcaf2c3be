// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/registry"
)

// kinds are the ways in which a vault asks who one is: by token or not.
func kinds() map[string]bool { return map[string]bool{"basic": false, "token": true} }

// TestVault: a private image comes in where the Pod, its ServiceAccount or the
// ImageConfig has the credential, over TLS with the registry's own authority and
// a client certificate; and where none has, the denial says what is missing.
func TestVault(t *testing.T) {
	t.Parallel()
	for kind, byToken := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, byToken)
			for name, test := range map[string]struct {
				pod  func(t *testing.T, r *inVault, p *corev1.Pod) *corev1.Pod
				rule string // of spec.registry
				code int32
			}{
				"nowhere": {func(_ *testing.T, _ *inVault, p *corev1.Pod) *corev1.Pod { return p }, "", inconclusive},
				"the Pod": {func(t *testing.T, r *inVault, p *corev1.Pod) *corev1.Pod {
					r.pull(t, r.namespace, "pull", user, password)
					return withSecrets(p, "pull")
				}, "", 0},
				"the ServiceAccount": {func(t *testing.T, r *inVault, p *corev1.Pod) *corev1.Pod {
					r.pull(t, r.namespace, "pull", user, password)
					r.account(t, "puller", "pull")
					return as(p, "puller")
				}, "", 0},
				"the ImageConfig": {func(t *testing.T, r *inVault, p *corev1.Pod) *corev1.Pod {
					r.pull(t, env.Namespace, r.namespace, user, password)
					return p
				}, "    authentication: {pullSecretRef: {name: %s}}", 0},
			} {
				t.Run(name, func(t *testing.T) {
					// One after another: each has to make what the rule names first.
					r := newRoom(t).in(v)
					signed := r.signed(t, "app:v1")
					p := test.pod(t, r, pod("app", signed.ByTag()))
					if test.rule == "" {
						r.enforce(t)
					} else {
						r.enforce(t, fmt.Sprintf(test.rule, r.namespace))
					}
					// The API server may be late to know the ServiceAccount.
					r.eventually(t, settled, "it is answered", func(ctx context.Context) error {
						got := r.try(ctx, p)
						if test.code != 0 {
							got.refused(t, test.code, "answered 401", "no credentials for this host were found")
							return nil
						}
						if got.err == nil {
							got.admitted(t, signed.ByBoth())
						}
						return got.err
					})
				})
			}
		})
	}
}

// away fails the test unless the image could not be examined because no
// connection came about. Nobody must be advised to do without TLS then.
func away(t *testing.T, got answer) {
	t.Helper()
	got.refused(t, inconclusive, "Inconclusive by ImageConfig")
	if text := got.err.Error(); strings.Contains(text, "plain HTTP") || strings.Contains(text, "--insecure-registries") {
		t.Errorf("the denial leads to plain HTTP:\n%s", text)
	}
}

// TestVaultWithoutItsCertificates: who cannot prove to the registry who he is,
// or does not know its authority, says so and shows it nothing.
func TestVaultWithoutItsCertificates(t *testing.T) {
	t.Parallel()
	v := newVault(t, true)
	r := newRoom(t).in(v)
	signed := r.signed(t, "app:v1")
	before := len(v.tokens.Requests())
	r.pull(t, r.namespace, "pull", user, password)
	p := withSecrets(pod("app", signed.ByTag()), "pull")
	stranger := newClientCert(t)
	name := r.policy(t, "", keyed(r.prefix(), r.key)) // no TLS section at all
	away(t, r.try(t.Context(), p))
	spec := keyed(r.prefix(), r.key, "  registry: {tls: {certSecretRef: {name: "+r.tlsSecret()+"}}}")
	r.secret(t, env.Namespace, r.tlsSecret(), "Opaque", map[string]string{"ca.crt": string(v.cert.CAPEM)})
	r.change(t, name, spec)
	r.awaitReady(t, name, "True", "Compiled")
	away(t, r.try(t.Context(), p))
	r.rewrite(t, env.Namespace, r.tlsSecret(), map[string]string{
		"ca.crt": string(v.cert.CAPEM), "tls.crt": string(stranger.CertPEM), "tls.key": string(stranger.KeyPEM),
	})
	away(t, r.try(t.Context(), p))
	if asked := v.tokens.Requests()[before:]; len(asked) > 0 {
		t.Errorf("the token server was asked: %+v", asked)
	}
	r.rewrite(t, env.Namespace, r.tlsSecret(), v.secret())
	r.comesIn(t, "the right certificates are used", signed, "pull")
}

// TestVaultServesTheirNamespace: a tag that one namespace's credential has
// resolved is not pinned for another that has none, or a wrong one.
func TestVaultServesTheirNamespace(t *testing.T) {
	t.Parallel()
	v := newVault(t, true)
	r := newRoom(t).in(v)
	r.enforce(t)
	signed := r.signed(t, "app:v1")
	r.pull(t, r.namespace, "pull", user, password)
	other := newRoom(t).in(v)
	other.pull(t, other.namespace, "pull", user, "guess")
	mine, none := withSecrets(pod("app", signed.ByTag()), "pull"), pod("app", signed.ByTag())
	for range 2 { // cold and warm
		r.try(t.Context(), mine).admitted(t, signed.ByBoth())
		other.try(t.Context(), none).refused(t, inconclusive, "answered 401")
		other.try(t.Context(), mine).refused(t, inconclusive, "answered 401")
	}
	r.try(t.Context(), mine).admitted(t, signed.ByBoth())
}

// TestVaultSecretsOfOthers: a Pod that names a Secret which only another
// namespace has gets nothing of it. The token server is the judge.
func TestVaultSecretsOfOthers(t *testing.T) {
	t.Parallel()
	v := newVault(t, true)
	r, other := newRoom(t).in(v), newRoom(t).in(v)
	v.allow(t, "tenant", "s3cret-of-the-tenant")
	other.pull(t, other.namespace, "theirs", "tenant", "s3cret-of-the-tenant")
	r.enforce(t)
	signed := r.signed(t, "app:v1")
	r.account(t, "thief", "theirs")
	p := withSecrets(pod("app", signed.ByTag()), "theirs", other.namespace+"/theirs", "../"+other.namespace+"/theirs")
	got := r.try(t.Context(), as(p, "thief"))
	if got.err == nil {
		t.Error("admitted")
	}
	got = r.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "theirs"))
	got.refused(t, inconclusive, "answered 401")
	r.try(t.Context(), as(pod("app", signed.ByTag()), "thief")).refused(t, inconclusive, "answered 401")
	if v.asked()["tenant"] {
		t.Error("the tenant's password was shown")
	}
	// It is one that works, where it is.
	other.try(t.Context(), withSecrets(pod("app", signed.ByTag()), "theirs")).admitted(t, signed.ByBoth())
	if !v.asked()["tenant"] {
		t.Error("the tenant's password was not shown: the judge is blind")
	}
}

// TestVaultPasswordRotates: another password is used as soon as the pull secret
// has it, be it the Pod's or the ImageConfig's.
func TestVaultPasswordRotates(t *testing.T) {
	t.Parallel()
	for kind, byToken := range kinds() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, byToken)
			for whose, ofThePod := range map[string]bool{"the Pod's": true, "the ImageConfig's": false} {
				t.Run(whose, func(t *testing.T) {
					r := newRoom(t).in(v)
					v.allow(t, user, password)
					// Tokens are good for one repository, and longer than passwords.
					before, after := r.signed(t, "before:v1"), r.signed(t, "after:v1")
					namespace, lines, secrets := r.namespace, []string{}, []string{r.namespace}
					if !ofThePod {
						namespace, secrets = env.Namespace, nil
						lines = []string{"    authentication: {pullSecretRef: {name: " + r.namespace + "}}"}
					}
					r.pull(t, namespace, r.namespace, user, password)
					r.enforce(t, lines...)
					r.try(t.Context(), withSecrets(pod("app", before.ByTag()), secrets...)).admitted(t, before.ByBoth())

					const another = "another-s3cret-of-the-robot"
					v.allow(t, user, another)
					r.try(t.Context(), withSecrets(pod("app", after.ByTag()), secrets...)).refused(t, inconclusive, "answered 401")
					r.rewrite(t, namespace, r.namespace, dockerData(t, v.Host, user, another))
					r.comesIn(t, "the new password is used", after, secrets...)
				})
			}
		})
	}
}

// TestVaultCertificatesRotate: another authority of the registry, and another
// certificate that it wants to see, hold as soon as the Secret has them.
func TestVaultCertificatesRotate(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(t *testing.T, v *vault){
		"the authority":          func(t *testing.T, v *vault) { v.cert = newAuthority(t) },
		"the client certificate": func(t *testing.T, v *vault) { v.client = newClientCert(t) },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			v := newVault(t, false)
			r := newRoom(t).in(v)
			before, after := r.signed(t, "app:v1"), r.signed(t, "app:v2")
			r.pull(t, r.namespace, "pull", user, password)
			r.enforce(t)
			r.try(t.Context(), withSecrets(pod("app", before.ByTag()), "pull")).admitted(t, before.ByBoth())

			change(t, v)
			err := v.Restart(t.Context(), func(o *registry.ProcessOptions) { o.Cert, o.ClientCA = &v.cert, v.client.CAFile })
			if err != nil {
				t.Fatal(err)
			}
			away(t, r.try(t.Context(), withSecrets(pod("app", after.ByTag()), "pull")))
			r.rewrite(t, env.Namespace, r.tlsSecret(), v.secret())
			r.comesIn(t, "what the Secret holds now is used", after, "pull")
		})
	}
}
