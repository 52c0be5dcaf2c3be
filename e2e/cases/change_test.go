// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// rejectedFor is how long a Rejected is remembered (spec section 5).
const rejectedFor = 10 * time.Second

// flips waits until what was admitted is refused with the text, and holds it to
// that: a verdict under the old rules must not come back.
func (r *room) flips(t *testing.T, what, image, text string) {
	t.Helper()
	began := time.Now()
	r.eventually(t, inForce, what, func(ctx context.Context) error {
		return mustRefuse(r.try(ctx, pod("flips", image)), text)
	})
	t.Logf("%s: in force after %s", what, time.Since(began).Round(time.Millisecond))
	for range 5 {
		if err := mustRefuse(r.try(t.Context(), pod("flips", image)), text); err != nil {
			t.Errorf("%s, and then: %v", what, err)
		}
	}
}

// TestChangeOfTheKey: an Accepted, which is kept for an hour, does not outlive
// the rule under which it was reached.
func TestChangeOfTheKey(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	name := r.enforce(t)
	old, renewed := r.signed(t, "old:v1"), r.unsigned(t, "new:v1")
	r.registry.SignBundle(t, renewed, r.other)
	r.try(t.Context(), pod("old", old.ByTag())).admitted(t, old.ByBoth())
	r.try(t.Context(), pod("new", renewed.ByTag())).refused(t, rejected, "no signature matches its key")
	r.change(t, name, keyed(r.prefix(), r.other))
	r.flips(t, "the other key", old.ByTag(), "no signature matches its key")
	// Nor does the Rejected.
	r.try(t.Context(), pod("new", renewed.ByTag())).admitted(t, renewed.ByBoth())
}

// secretSpec asks for a signature by a key in a Secret.
func secretSpec(prefix, secret string) string {
	return fmt.Sprintf(`
  matchImages: [{prefix: %q}]
  verification:
    provider: Cosign
    cosign: {authorities: [{name: release, key: {secretRef: {name: %s, key: cosign.pub}}}]}`, prefix, secret)
}

func (r *room) keySecret(t *testing.T, name string, key *registrytest.Key) {
	t.Helper()
	r.secret(t, env.Namespace, name, "Opaque", map[string]string{"cosign.pub": key.PublicPEM()})
}

// TestRotationOfASecret: the ImageConfig itself does not change.
func TestRotationOfASecret(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.keySecret(t, r.namespace, r.key)
	name := r.policy(t, "", secretSpec(r.prefix(), r.namespace))
	old := r.signed(t, "old:v1")
	r.try(t.Context(), pod("old", old.ByTag())).admitted(t, old.ByBoth())

	secrets := r.client.CoreV1().Secrets(env.Namespace)
	write := func(data map[string][]byte) {
		t.Helper()
		secret, err := secrets.Get(t.Context(), r.namespace, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		secret.Data = data
		if _, err := secrets.Update(t.Context(), secret, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	write(map[string][]byte{"cosign.pub": []byte(r.other.PublicPEM())})
	r.flips(t, "the rotated key", old.ByTag(), "no signature matches its key")

	write(map[string][]byte{"cosign.pub": []byte("nonsense")})
	r.flips(t, "a broken key", old.ByTag(), "it is not ready")
	if message := r.awaitReady(t, name, metav1.ConditionFalse, "SecretInvalid"); !strings.Contains(message, r.namespace) {
		t.Errorf("the message does not name the secret: %s", message)
	}
	write(map[string][]byte{"other": []byte(r.key.PublicPEM())})
	r.eventually(t, inForce, "the message says that the key is missing", func(ctx context.Context) error {
		return mustRefuse(r.try(ctx, pod("flips", old.ByTag())), `has no key "cosign.pub"`)
	})
	if err := secrets.Delete(t.Context(), r.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.awaitReady(t, name, metav1.ConditionFalse, "SecretNotFound")
	r.try(t.Context(), pod("gone", old.ByTag())).refused(t, inconclusive, "does not exist in Pratique's namespace")
}

// TestSecretThatComesLater: the ImageConfig waits for it, and lets nothing in.
func TestSecretThatComesLater(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	name := r.unreadyPolicy(t, "", secretSpec(r.prefix(), r.namespace))
	if message := r.awaitReady(t, name, metav1.ConditionFalse, "SecretNotFound"); !strings.Contains(message, r.namespace) {
		t.Errorf("the message does not name the secret: %s", message)
	}
	signed := r.signed(t, "app:v1")
	r.try(t.Context(), pod("early", signed.ByTag())).refused(t, inconclusive, "Inconclusive by ImageConfig", "it is not ready", "does not exist")
	// One of that name elsewhere does not count.
	r.secret(t, r.namespace, r.namespace, "Opaque", map[string]string{"cosign.pub": r.key.PublicPEM()})
	r.keySecret(t, r.namespace, r.key)
	r.awaitReady(t, name, metav1.ConditionTrue, "Compiled")
	r.try(t.Context(), pod("now", signed.ByTag())).admitted(t, signed.ByBoth())
}

// TestDeletionOfAnImageConfig: what it covered is nobody's any more, and made
// again it holds again.
func TestDeletionOfAnImageConfig(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	name := r.enforce(t)
	unsigned := r.unsigned(t, "unsigned:v1")
	r.try(t.Context(), pod("before", unsigned.ByTag())).refused(t, rejected)
	if err := r.dynamic.Resource(imageConfigs()).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually(t, inForce, "the deletion", func(ctx context.Context) error {
		return r.try(ctx, pod("after", unsigned.ByTag())).err
	})
	r.enforce(t)
	r.try(t.Context(), pod("again", unsigned.ByTag())).refused(t, rejected, "no signature")
}

// TestChangeOfMode: Enforce to Audit and back.
func TestChangeOfMode(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	name := r.enforce(t)
	unsigned := r.unsigned(t, "unsigned:v1")
	r.change(t, name, keyed(r.prefix(), r.key, "  mode: Audit"))
	r.awaitReady(t, name, metav1.ConditionTrue, "Compiled")
	r.try(t.Context(), pod("audited", unsigned.ByTag())).warned(t, []string{unsigned.ByTag()}, "no signature")
	r.change(t, name, keyed(r.prefix(), r.key, "  mode: Enforce"))
	r.flips(t, "Enforce", unsigned.ByTag(), "no signature")
}

// TestNotReady: what this version does not do yet, or what it waits for, is never
// ignored.
func TestNotReady(t *testing.T) {
	t.Parallel()
	// The public trust root cannot be fetched here.
	const pending, unsupported = "Pending", "NotSupported"
	for name, test := range map[string]struct{ spec, path, reason string }{
		"keyless": {`
  verification:
    provider: Cosign
    cosign: {authorities: [{name: a, keyless: {identities: [{issuer: https://a.io, subject: me}]}}]}`, "keyless", pending},
		"nested bundles": {`
  verification:
    provider: Cosign
    bundle: {nested: Verify}
    cosign: {authorities: [{name: a, key: {data: KEY}}]}`, "bundle.nested: Verify", unsupported},
		"ctlog": {`
  verification:
    provider: Cosign
    cosign: {authorities: [{name: a, key: {data: KEY}, ctlog: {}}]}`, "ctlog", pending},
		// One authority that can be used does not make up for the other.
		"one of two": {`
  verification:
    provider: Cosign
    cosign:
      authorities:
      - {name: a, static: {action: pass}}
      - {name: b, keyless: {identities: [{issuer: https://a.io, subject: me}]}}`, "authorities[1].keyless", pending},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			signed := r.signed(t, "app:v1")
			spec := strings.ReplaceAll(test.spec, "KEY", fmt.Sprintf("%q", r.key.PublicPEM()))
			config := r.unreadyPolicy(t, "", fmt.Sprintf("\n  matchImages: [{prefix: %q}]%s", r.prefix(), spec))
			if message := r.awaitReady(t, config, metav1.ConditionFalse, test.reason); !strings.Contains(message, test.path) {
				t.Errorf("the message lacks %q: %s", test.path, message)
			}
			r.try(t.Context(), pod("tag", signed.ByTag())).refused(t, inconclusive, "it is not ready", test.path)
			r.try(t.Context(), pod("digest", signed.ByDigest())).refused(t, inconclusive, "it is not ready", test.path)
		})
	}
}
