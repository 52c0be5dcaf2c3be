// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/registry/tokens"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// pusher is who puts images into a vault. Nobody else has its password.
const pusher, pusherPassword = "pusher", "s3cret-of-the-pusher"

// A vault is a private registry: a process of its own, behind TLS with its own
// authority, that answers only who shows a client certificate, and a password or
// a token.
type vault struct {
	*registry.Process

	cert   cluster.ServingCert
	client cluster.ClientCert
	tokens *tokens.Server    // nil: it asks for passwords
	users  map[string]string // who may use it
}

// newVault starts a vault that knows user by password.
func newVault(t *testing.T, byToken bool) *vault {
	t.Helper()
	v := &vault{
		cert: newAuthority(t), client: newClientCert(t),
		users: map[string]string{pusher: pusherPassword, user: password},
	}
	o := registry.ProcessOptions{Dir: t.TempDir(), Cert: &v.cert, ClientCA: v.client.CAFile, Users: v.users}
	var err error
	if byToken {
		if v.tokens, err = tokens.Start(tokens.Options{Cert: v.cert}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := v.tokens.Stop(); err != nil {
				t.Error(err)
			}
		})
		o.Users, o.Tokens = nil, v.tokens
		for user, password := range v.users {
			v.tokens.Allow(user, password, "")
		}
	}
	if v.Process, err = registry.StartProcess(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := v.Stop(); err != nil {
			t.Error(err)
		}
	})
	return v
}

func newAuthority(t *testing.T) cluster.ServingCert {
	t.Helper()
	cert, err := cluster.NewServingCert(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newClientCert(t *testing.T) cluster.ClientCert {
	t.Helper()
	cert, err := cluster.NewClientCert(t.TempDir(), "pratique")
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// allow gives a user a password, from now on another if it had one.
func (v *vault) allow(t *testing.T, user, password string) {
	t.Helper()
	v.users = maps.Clone(v.users)
	v.users[user] = password
	if v.tokens != nil {
		v.tokens.Allow(user, password, "")
		return
	}
	if err := v.SetUsers(v.users); err != nil {
		t.Fatal(err)
	}
}

// asked lists the users as whom tokens were asked for.
func (v *vault) asked() map[string]bool {
	users := map[string]bool{}
	for _, request := range v.tokens.Requests() {
		users[request.User] = true
	}
	return users
}

// secret is what is needed of a vault's TLS: its authority, and the certificate
// to show it.
func (v *vault) secret() map[string]string {
	return map[string]string{
		"ca.crt": string(v.cert.CAPEM), "tls.crt": string(v.client.CertPEM), "tls.key": string(v.client.KeyPEM),
	}
}

// inVault is the room with images in a vault.
type inVault struct {
	*room

	vault *vault
}

// in is the same room with images in a vault.
func (r *room) in(v *vault) *inVault { return &inVault{r, v} }

// prefix is what the names of the room's images begin with.
func (r *inVault) prefix() string { return r.vault.Host + "/" + r.namespace + "/" }

// signed pushes an image into the vault, with a signature.
func (r *inVault) signed(t *testing.T, written string) registrytest.Image {
	t.Helper()
	// Made where there is a back door, and carried over.
	image := r.room.signed(t, written)
	client := r.vault.Transport(pair(t, r.vault.client))
	defer client.CloseIdleConnections()
	moved := image
	moved.Registry = r.vault.Host
	for _, tag := range []string{image.Tag, image.SignatureTag()} {
		from, err := name.NewTag(image.Name()+":"+tag, name.Insecure)
		if err != nil {
			t.Fatal(err)
		}
		content, err := remote.Image(from, r.registry.BackDoor(), remote.WithContext(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		to, err := name.NewTag(moved.Name() + ":" + tag)
		if err != nil {
			t.Fatal(err)
		}
		err = remote.Write(to, content, remote.WithTransport(client), remote.WithContext(t.Context()),
			remote.WithAuth(&authn.Basic{Username: pusher, Password: pusherPassword}))
		if err != nil {
			t.Fatal(err)
		}
	}
	return moved
}

// tlsSecret is the name of the Secret by which the room's ImageConfig reaches
// the vault.
func (r *inVault) tlsSecret() string { return r.namespace + "-tls" }

// enforce makes the policy by which what lies in the room is signed, and the
// Secret by which the vault is reached. The lines are of spec.registry.
func (r *inVault) enforce(t *testing.T, lines ...string) (name string) {
	t.Helper()
	r.secret(t, env.Namespace, r.tlsSecret(), "Opaque", r.vault.secret())
	access := append([]string{"  registry:", fmt.Sprintf("    tls: {certSecretRef: {name: %s}}", r.tlsSecret())}, lines...)
	return r.policy(t, "", keyed(r.prefix(), r.key, strings.Join(access, "\n")))
}

// pull makes a pull secret for the vault.
func (r *inVault) pull(t *testing.T, namespace, name, user, password string) {
	t.Helper()
	r.dockerSecret(t, namespace, name, r.vault.Host, user, password)
}

// rewrite replaces what a Secret holds.
func (r *room) rewrite(t *testing.T, namespace, name string, data map[string]string) {
	t.Helper()
	secrets := r.client.CoreV1().Secrets(namespace)
	secret, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	secret.Data, secret.StringData = nil, data
	if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// comesIn waits until a Pod with the image is admitted, as soon as a change has
// to be in force.
func (r *room) comesIn(t *testing.T, what string, image registrytest.Image, secrets ...string) {
	t.Helper()
	r.eventually(t, inForce, what, func(ctx context.Context) error {
		got := r.try(ctx, withSecrets(pod("app", image.ByTag()), secrets...))
		if got.err == nil {
			got.admitted(t, image.ByBoth())
		}
		return got.err
	})
}
