// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"crypto/elliptic"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/policy/source"
)

// eventually waits for what must be in force within 5 s (spec section 3).
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after 5 s: not %s", what)
		}
	}
}

const withPolicy = `apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{prefix: registry1.com/acme-co/}]
  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: release
        key: {kms: "k8s://acme-keys/release"}
        attestations:
        - {name: scan, predicateType: vuln, policy: {type: cel, configMapRef: {name: policies, key: scan.cel}}}
`

// ConfigMaps and Secrets with keys are read like other manifests; a change of
// one changes the rule, and a policy is compiled once.
func TestFilesPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var checks atomic.Int32
	w.compiler.Check = func(p language.Policy) error {
		checks.Add(1)
		if p.Text == "bad" {
			return policy.Undecided(policy.ReasonNotReady, "line 1, column 3: undeclared reference").Err()
		}
		return nil
	}
	dir := t.TempDir()
	write(t, dir+"/a.yaml", withPolicy)
	key := write(t, dir+"/key.yaml", secret("acme-keys", "release", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	text := write(t, dir+"/text.yaml", configMap("elsewhere", "policies", "scan.cel", "true"))
	files, err := source.NewFiles(w.compiler, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	checkHeld(t, files.Compiled()[0], "ConfigMapNotFound", `ConfigMap "policies" does not exist in Pratique's namespace "pratique-system"`)
	watching(t, files)
	write(t, text, configMap("", "policies", "scan.cel", "true"))
	becomes(t, files, "acme")
	before := files.Compiled()[0].Rule.Verification.Hash
	changes := func(what string, edit func()) {
		t.Helper()
		edit()
		eventually(t, what, func() bool {
			v := files.Compiled()[0].Rule.Verification
			return v.Fixed == nil && v.Hash != before
		})
		before = files.Compiled()[0].Rule.Verification.Hash
	}
	changes("the new policy", func() { write(t, text, configMap("pratique-system", "policies", "scan.cel", "1 == 1")) })
	if n := checks.Load(); n != 2 {
		t.Errorf("%d policies were compiled", n)
	}
	changes("the new key", func() {
		write(t, key, secret("acme-keys", "release", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	})
	write(t, text, configMap("", "policies", "scan.cel", "bad"))
	becomes(t, files, `acme: spec.verification.cosign.authorities[0].attestations[0].policy.configMapRef: ConfigMap "policies", key "scan.cel": line 1, column 3: undeclared reference`)
	write(t, dir+"/b.yaml", config("two", "b.io/"))
	eventually(t, "the second rule", func() bool { return len(files.Compiled()) == 2 })
	if n := checks.Load(); n != 3 {
		t.Errorf("%d policies were compiled: what was found out once is not kept", n)
	}
}

// What is fetched comes into force when Again tells of it, and no sooner.
func TestFilesAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var there atomic.Bool
	key := []byte(newKey(t, elliptic.P256()))
	w.compiler.Keys = func(string) ([]byte, error) {
		if there.Load() {
			return key, nil
		}
		return nil, errors.New("it is being fetched")
	}
	dir := t.TempDir()
	write(t, dir+"/a.yaml", strings.Replace(withPolicy, "k8s://acme-keys/release", "awskms:///alias/one", 1)+"---\n"+
		configMap("", "policies", "scan.cel", "true")+"---\n"+config("static", "b.io/"))
	files, err := source.NewFiles(w.compiler, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := files.Pending(); !slices.Equal(got, []string{"ImageConfig/acme"}) {
		t.Errorf("pending: %q", got)
	}
	there.Store(true)
	files.Again() // before Watch begins
	watching(t, files)
	becomes(t, files, "acme", "static")
	if got := files.Pending(); got != nil {
		t.Errorf("pending: %q", got)
	}
	there.Store(false)
	files.Again()
	becomes(t, files, "acme: spec.verification.cosign.authorities[0].key.kms: the key is not there yet: it is being fetched", "static")
}

// When the compiler itself had trouble, it is asked again by itself.
func TestFilesTryAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var checks atomic.Int32
	w.compiler.Check = func(language.Policy) error {
		if checks.Add(1) == 1 {
			return errors.New("no process")
		}
		return nil
	}
	dir := t.TempDir()
	write(t, dir+"/a.yaml", withPolicy+"---\n"+configMap("", "policies", "scan.cel", "true")+"---\n"+
		secret("acme-keys", "release", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	files, err := source.NewFiles(w.compiler, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	checkHeld(t, files.Compiled()[0], "Pending", "no process")
	watching(t, files)
	for end := time.Now().Add(15 * time.Second); !files.Compiled()[0].Ready; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it was not tried again")
		}
	}
}
