// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containerstest_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"go.podman.io/image/v5/signature"

	"github.com/pratique-dev/pratique/policy/containers/containerstest"
)

// verify asks the library itself, by a keyring that it reads as a policy's.
func verify(t *testing.T, keyring, message []byte) (string, error) {
	t.Helper()
	mechanism, identities, err := signature.NewEphemeralGPGSigningMechanism(keyring)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = mechanism.Close() }()
	if len(identities) != 1 {
		t.Fatalf("%d keys in the keyring, want 1", len(identities))
	}
	content, signer, err := mechanism.Verify(message)
	if err == nil && signer != identities[0] {
		t.Errorf("signer = %s, want the primary key %s", signer, identities[0])
	}
	return string(content), err
}

// What is signed here is what the library verifies, with keys of every sort.
func TestSign(t *testing.T) {
	t.Parallel()
	claim := containerstest.Claim{Digest: "sha256:" + strings.Repeat("ab", 32), Reference: "example.com/acme/app:v1"}
	for name, options := range map[string]containerstest.KeyOptions{
		"RSA":     {Algorithm: containerstest.RSA},
		"NIST":    {Algorithm: containerstest.NIST},
		"Ed25519": {},
		"subkey":  {Subkey: true},
		"old":     {Age: 48 * time.Hour, Lifetime: 72 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			key := containerstest.NewGPG(t, options)
			message := key.Sign(t, claim)
			for form, keyring := range map[string][]byte{"binary": key.Public(t), "armored": key.Armored(t)} {
				content, err := verify(t, keyring, message)
				if want := string(claim.Simple(t)); err != nil || content != want {
					t.Errorf("by the %s key: %q, %v; want %s", form, content, err, want)
				}
			}
			if _, err := verify(t, containerstest.NewGPG(t, containerstest.KeyOptions{}).Public(t), message); err == nil {
				t.Error("another key verifies it")
			}
			if !bytes.HasPrefix(key.Armored(t), []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----\n")) {
				t.Errorf("armored = %s", key.Armored(t))
			}
		})
	}
}

// What should not hold does not, and for the reason that it was made for.
func TestSignBadly(t *testing.T) {
	t.Parallel()
	claim := containerstest.Claim{Digest: "sha256:" + strings.Repeat("ab", 32), Reference: "example.com/acme/app:v1"}
	key := containerstest.NewGPG(t, containerstest.KeyOptions{})
	ended := containerstest.NewGPG(t, containerstest.KeyOptions{Age: 48 * time.Hour, Lifetime: 24 * time.Hour})
	endedSub := containerstest.NewGPG(t, containerstest.KeyOptions{Age: 48 * time.Hour, Lifetime: 24 * time.Hour, Subkey: true})
	for name, row := range map[string]struct {
		keyring, message []byte
		says             string
	}{
		"expired":           {ended.Public(t), ended.Sign(t, claim), "key expired"},
		"expired, a subkey": {endedSub.Public(t), endedSub.Sign(t, claim), "key expired"},
		"revoked":           {key.Revoked(t).Public(t), key.Sign(t, claim), "revoked key"},
		"detached":          {key.Public(t), key.Detached(t, claim), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := verify(t, row.keyring, row.message)
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Errorf("error = %v, want …%s…", err, row.says)
			}
		})
	}
	// To revoke it changes nothing of the key itself.
	if _, err := verify(t, key.Public(t), key.Sign(t, claim)); err != nil {
		t.Error(err)
	}
}
