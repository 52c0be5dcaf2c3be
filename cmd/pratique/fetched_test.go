// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/refresh"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// trustRoot is a trusted_root.json, with transparency logs or without.
func trustRoot(t *testing.T, logs bool) string {
	t.Helper()
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	tlogs := sigstore.RekorLogs()
	if !logs {
		tlogs = nil
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01,
		sigstore.FulcioCertificateAuthorities(), sigstore.CTLogs(), sigstore.TimestampingAuthorities(), tlogs)
	if err != nil {
		t.Fatal(err)
	}
	text, err := made.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// withAuthority replaces the fixture's rule by one with another authority.
func (f fixture) withAuthority(t *testing.T, authority string) {
	t.Helper()
	f.write(t, "acme.yaml", fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{prefix: %s/acme/}]
  verification: {provider: Cosign, cosign: {authorities: [{name: release, %s}]}}
`, f.registry.Host(), authority))
}

// TestTrustedRoot: a rule that names no trust root goes by the file's.
func TestTrustedRoot(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.withAuthority(t, fmt.Sprintf("key: {data: %q}, ctlog: {}", registrytest.NewKey(t, registrytest.ECDSAP256).PublicPEM()))
	for name, test := range map[string]struct {
		root string
		code int
		want string
	}{
		"good":           {trustRoot(t, true), exitRejected, "Rejected"},
		"without logs":   {trustRoot(t, false), exitInconclusive, "the server's trust root has no transparency log"},
		"not a root":     {`{"mediaType":"x"}`, exitUsage, "reading --trusted-root: "},
		"nothing at all": {"", exitUsage, "reading --trusted-root: "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := f.write(t, strings.ReplaceAll(name, " ", "-")+".trust", test.root)
			stdout, stderr, code := call(t, f.local("verify", "-f", f.policies+"/acme.yaml", "--trusted-root", file, f.unsigned.ByTag())...)
			if code != test.code || !strings.Contains(stdout+stderr, test.want) {
				t.Errorf("exit code %d, want %d and %q\n%s%s", code, test.code, test.want, stdout, stderr)
			}
		})
	}
	for name, args := range map[string][]string{
		"no such file": {"verify", "x", "-f", f.policies, "--trusted-root", "/no/such/file"},
		"no file":      {"verify", "x", "-f", f.policies, "--trusted-root="},
		"serve":        {"serve", "--policies", f.policies, "--trusted-root="},
		"config":       {"serve", "--policies", f.policies, "--config", f.write(t, "config", "trusted-root: ''")},
	} {
		if _, stderr, code := call(t, args...); code != exitUsage || !strings.Contains(stderr, "reading --trusted-root: ") {
			t.Errorf("%s: exit code %d\n%s", name, code, stderr)
		}
	}
}

// TestVerifyPolicyMistake: the policies of attestations are compiled when they
// are read, in a process of their own.
func TestVerifyPolicyMistake(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	key := registrytest.NewKey(t, registrytest.ECDSAP256).PublicPEM()
	for policy, want := range map[string]string{
		"predicate.x ==":      "acme: Inconclusive: it is not ready: spec.verification.cosign.authorities[0].attestations[0].policy.data: line 1, column ",
		"predicate.x == true": "acme: Rejected",
	} {
		f.withAuthority(t, fmt.Sprintf("key: {data: %q}, attestations: [{name: x, predicateType: custom, policy: {type: cel, data: %q}}]", key, policy))
		stdout, stderr, _ := call(t, f.local("verify", "-f", f.policies, f.unsigned.ByTag())...)
		if !strings.Contains(stdout, want) {
			t.Errorf("%s: want %q\n%s%s", policy, want, stdout, stderr)
		}
	}
}

// pendingRules are rules by a key of a key service, which is not there before
// release is closed, and by a key that never is.
func pendingRules(t *testing.T, release <-chan struct{}) rules {
	t.Helper()
	f := &fetched{changed: make(chan struct{}, 1), stale: func() error { return nil }}
	key := []byte(registrytest.NewKey(t, registrytest.ECDSAP256).PublicPEM())
	keys := refresh.NewMap(func(ctx context.Context, reference string) ([]byte, error) {
		if strings.HasSuffix(reference, "never") {
			return nil, errors.New("no such key")
		}
		select {
		case <-release:
			return key, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, refresh.Options[[]byte]{Changed: f.tell, Equal: bytes.Equal})
	f.loops = append(f.loops, keys.Run)
	rule := func(name, reference string) string {
		return fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  matchImages: [{prefix: %s.io/}]
  verification: {provider: Cosign, cosign: {authorities: [{name: release, key: {kms: "awskms:///alias/%s"}}]}}
`, name, name, reference)
	}
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/a.yaml", []byte(rule("soon", "soon")+"---\n"+rule("never", "never")), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := source.NewFiles(source.Compiler{Cosign: cosign.Options{}, Keys: keys.Get}, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	r := rules{Surroundings: files, run: files.Watch, ready: func() error { return nil }, again: files.Again, pending: files.Pending}
	r.run = f.beside(r)
	return r
}

// selectedBy decides without a registry: a rule that is ready is of no interest.
func selectedBy(t *testing.T, r rules, image string) func() []policy.Decision {
	t.Helper()
	ref, err := reference.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return func() []policy.Decision {
		var d policy.Decision
		for _, rule := range r.Set().Select(ref, policy.Namespace{}).Verification {
			verdict := policy.Verdict{Outcome: policy.Accepted}
			if rule.Verification.Fixed != nil {
				verdict = *rule.Verification.Fixed
			}
			d.Findings = append(d.Findings, policy.Finding{Rule: rule, Verdict: verdict})
		}
		return []policy.Decision{d}
	}
}

// TestSettled: a command waits for what is being fetched, if its images need it.
func TestSettled(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	r := pendingRules(t, release)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.run(ctx) }()

	other := r.settled(ctx, &bytes.Buffer{}, selectedBy(t, r, "other.io/x"))
	if len(other[0].Findings) != 0 {
		t.Errorf("findings %+v", other[0].Findings)
	}

	looks := 0
	decide := selectedBy(t, r, "soon.io/x")
	settled := r.settled(ctx, &bytes.Buffer{}, func() []policy.Decision {
		if looks++; looks == 1 {
			close(release) // it was pending at first
		}
		return decide()
	})
	if got := settled[0].Outcome(); got != policy.Accepted || looks < 2 {
		t.Errorf("%v after %d looks: %+v", got, looks, settled)
	}

	// What does not come is not waited for any longer than there is time.
	short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	defer stop()
	never := r.settled(short, &bytes.Buffer{}, selectedBy(t, r, "never.io/x"))
	if v := never[0].Findings[0].Verdict; v.Reason != policy.ReasonNotReady || !strings.Contains(v.Message, "no such key") && !strings.Contains(v.Message, "it is being fetched") {
		t.Errorf("verdict %+v", v)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A file that is spoilt later is told in the log, once, and the last good root
// stays in force.
func TestTrustedRootLater(t *testing.T) {
	t.Parallel()
	file := t.TempDir() + "/root.json"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(trustRoot(t, true))
	f, err := newFetched(settings{trustedRoot: file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	before, err := f.trust()
	if err != nil {
		t.Fatal(err)
	}
	lines, again := make(chan string, 100), make(chan *trust.Root, 100)
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), funcr.New(func(_, line string) { lines <- line }, funcr.Options{})))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx, func() {
			now, _ := f.trust()
			again <- now
		})
	}()
	write("{")
	select {
	case line := <-lines:
		if !strings.Contains(line, "the last good one") || !strings.Contains(line, file) {
			t.Errorf("logged: %s", line)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("after 5 s nothing is logged")
	}
	if now := <-again; now.Hash != before.Hash {
		t.Error("the last good root is not in force any more")
	}
	write(trustRoot(t, true))
	select {
	case now := <-again:
		if now.Hash == before.Hash {
			t.Error("told again, and the old root is in force")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("after 5 s the new root is not in force")
	}
	cancel()
	<-ended
	if len(lines) != 0 {
		t.Errorf("logged besides: %s", <-lines)
	}
}
