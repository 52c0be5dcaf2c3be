// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package gnupg_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/e2e/gnupg"
)

// verify is what another keyring, which has only imported the exported keys,
// says of a signed message.
func verify(t *testing.T, keyring, message []byte) string {
	t.Helper()
	home, err := gnupg.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Close(); err != nil {
			t.Error(err)
		}
	})
	run := func(input []byte, args ...string) string {
		command := exec.CommandContext(t.Context(), "gpg", append([]string{"--homedir", home.Dir, "--batch", "--no-autostart", "--status-fd=1"}, args...)...)
		command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home.Dir}
		command.Stdin = bytes.NewReader(input)
		output, _ := command.Output() // a signature that does not hold is an exit code too
		return string(output)
	}
	run(keyring, "--import")
	return run(message, "--decrypt")
}

// TestKeys: each kind of key signs, and what is expired or revoked is so for
// others who have its public key.
func TestKeys(t *testing.T) {
	t.Parallel()
	home, err := gnupg.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(home.Dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the keyring is still there: %v", err)
		}
	})
	if info, err := os.Stat(home.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the keyring's folder: %v, %v", info.Mode(), err)
	}
	past := time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)
	for name, test := range map[string]struct {
		options gnupg.KeyOptions
		signed  time.Time
		revoke  bool
		says    string // gpg's status
	}{
		"RSA":     {options: gnupg.KeyOptions{Algorithm: gnupg.RSA3072}, says: "GOODSIG"},
		"NIST":    {options: gnupg.KeyOptions{Algorithm: gnupg.NISTP256}, says: "GOODSIG"},
		"Ed25519": {options: gnupg.KeyOptions{Algorithm: gnupg.Ed25519}, says: "GOODSIG"},
		"subkey":  {options: gnupg.KeyOptions{Algorithm: gnupg.Ed25519, Subkey: true}, says: "GOODSIG"},
		"expired": {
			options: gnupg.KeyOptions{Algorithm: gnupg.Ed25519, Created: past, Lifetime: 24 * time.Hour},
			signed:  past.Add(time.Hour), says: "EXPKEYSIG",
		},
		"revoked": {options: gnupg.KeyOptions{Algorithm: gnupg.Ed25519}, revoke: true, says: "REVKEYSIG"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := home.Generate(t.Context(), test.options)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := gnupg.Payload("example.com/app:v1", "sha256:00")
			if err != nil {
				t.Fatal(err)
			}
			message, err := home.Sign(t.Context(), key, test.signed, payload)
			if err != nil {
				t.Fatal(err)
			}
			if test.revoke {
				if err := home.Revoke(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			}
			for _, armored := range []bool{false, true} {
				keyring, err := home.Export(t.Context(), armored, key)
				if err != nil {
					t.Fatal(err)
				}
				if got := bytes.HasPrefix(keyring, []byte("-----BEGIN PGP PUBLIC KEY BLOCK-----")); got != armored {
					t.Errorf("in armor is %t, want %t", got, armored)
				}
				got := verify(t, keyring, message)
				if !strings.Contains(got, "[GNUPG:] "+test.says) || !strings.Contains(got, string(payload)) {
					t.Errorf("want %s and the payload, got:\n%s", test.says, got)
				}
				// A subkey is not what the fingerprint is of.
				if bySubkey := !strings.Contains(got, "VALIDSIG "+key); test.options.Subkey != bySubkey {
					t.Errorf("signed by a subkey is %t:\n%s", bySubkey, got)
				}
			}
		})
	}
	if _, err := home.Export(t.Context(), false, "0000000000000000000000000000000000000000"); err == nil {
		t.Error("a key that is not there is exported")
	}
	if entries, err := os.ReadDir(filepath.Join(home.Dir, "private-keys-v1.d")); err != nil || len(entries) != 7 {
		t.Errorf("%d secret keys, want 7: %v", len(entries), err)
	}
}
