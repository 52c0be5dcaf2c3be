// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
	"github.com/pratique-dev/pratique/webhook"
)

// fixture is a registry with images, and a folder with a policy for them.
type fixture struct {
	registry         *registrytest.Registry
	signed, unsigned registrytest.Image
	policies         string
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	r := registrytest.New(t)
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	f := fixture{
		registry: r,
		signed:   r.PushImage(t, "acme/signed:v1"),
		unsigned: r.PushImage(t, "acme/unsigned:v1"),
		policies: t.TempDir(),
	}
	r.SignLegacy(t, f.signed, key)
	f.write(t, "acme.yaml", fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{prefix: %s/acme/}]
  verification:
    provider: Cosign
    cosign: {authorities: [{name: release, key: {data: %q}}]}
`, r.Host(), key.PublicPEM()))
	return f
}

func (f fixture) write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(f.policies, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// local are the flags by which a registry on this machine may be asked.
func (f fixture) local(args ...string) []string {
	return append(args, "--registry-allow-cidrs=127.0.0.0/8", "--insecure-registries="+f.registry.Host())
}

// call runs the program without a process.
func call(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errOut bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errOut)
	err := root.ExecuteContext(t.Context())
	if exit, ok := errors.AsType[*exitError](err); ok {
		code = exit.code
	} else if err != nil {
		code = exitUsage
		errOut.WriteString(err.Error())
	}
	return out.String(), errOut.String(), code
}

func TestVerify(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	verify := func(args ...string) []string {
		return f.local(append([]string{"verify", "-f", f.policies}, args...)...)
	}
	for name, test := range map[string]struct {
		args []string
		code int
		out  []string
	}{
		"signed": {
			verify(f.signed.ByTag()), exitOK,
			[]string{"Accepted  ", f.signed.Digest, `ImageConfig/acme: Accepted: authority "release": signature verified`},
		},
		"by digest":     {verify(f.signed.ByDigest()), exitOK, []string{"Accepted"}},
		"unsigned":      {verify(f.unsigned.ByTag()), exitRejected, []string{"Rejected", "no signature"}},
		"both":          {verify(f.signed.ByTag(), f.unsigned.ByTag()), exitRejected, []string{"Accepted", "Rejected"}},
		"missing":       {verify(f.registry.Host() + "/acme/none:v1"), exitInconclusive, []string{"Inconclusive", "404"}},
		"not a name":    {verify("Nope//"), exitRejected, []string{"Rejected", "invalid image reference"}},
		"not covered":   {verify(f.registry.Host() + "/other/app:v1"), exitOK, []string{"Skipped", "no rule covers it"}},
		"denied":        {verify("--unmatched=Deny", f.registry.Host()+"/other/app:v1"), exitRejected, []string{"Rejected"}},
		"plain HTTP":    {[]string{"verify", "-f", f.policies, f.signed.ByTag(), "--registry-allow-cidrs=127.0.0.0/8"}, exitInconclusive, []string{"Inconclusive"}},
		"egress guard":  {[]string{"verify", "-f", f.policies, f.signed.ByTag(), "--insecure-registries=" + f.registry.Host()}, exitInconclusive, []string{"--registry-allow-cidrs"}},
		"mode is shown": {verify("--mode=Audit", f.unsigned.ByTag()), exitRejected, []string{"(Audit)"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := call(t, test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d\n%s%s", code, test.code, stdout, stderr)
			}
			for _, want := range test.out {
				if !strings.Contains(stdout, want) {
					t.Errorf("the output lacks %q:\n%s", want, stdout)
				}
			}
			if strings.Contains(stdout, "\x1b") {
				t.Errorf("colours, and no terminal:\n%q", stdout)
			}
		})
	}
}

func TestVerifyJSON(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	stdout, _, code := call(t, f.local("verify", "-o", "json", "-f", f.policies, f.signed.ByTag(), f.unsigned.ByTag())...)
	if code != exitRejected {
		t.Errorf("exit code %d", code)
	}
	var reports []report
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil {
		t.Fatalf("%v in\n%s", err, stdout)
	}
	if len(reports) != 2 || reports[0].Outcome != "Accepted" || reports[0].Digest != f.signed.Digest ||
		reports[0].Findings[0].Rule != "ImageConfig/acme" || reports[0].Findings[0].Signer != "release" ||
		reports[1].Findings[0].Reason != "NoSignature" {
		t.Errorf("got %+v", reports)
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	stdout, _, code := call(t, "version", "-o", "json")
	var info struct{ Version, Go, Platform string }
	if err := json.Unmarshal([]byte(stdout), &info); err != nil || code != exitOK || info.Version == "" || info.Go == "" {
		t.Errorf("exit code %d, %v: %s", code, err, stdout)
	}
	if stdout, _, _ = call(t, "version"); !strings.HasPrefix(stdout, "pratique "+info.Version+" (go") {
		t.Errorf("got %q", stdout)
	}
}

// TestPrintText: what a user wrote reaches the terminal as text, whoever
// repeats it.
func TestPrintText(t *testing.T) {
	t.Parallel()
	rule := &policy.Rule{Kind: "ImageConfig", Name: "acme\x1b[2J"}
	decision := policy.Decision{
		Findings: []policy.Finding{{Rule: rule, Mode: policy.Enforce, Verdict: policy.Refused(policy.ReasonNoMatch, "bad\n\x1b[31m \u202e“Ä”\x7f")}},
		Warnings: []string{"odd\r\x9b31m\tname"},
	}
	var out bytes.Buffer
	printText(&out, []string{"a\x1b[1m"}, []policy.Decision{decision})
	want := `Rejected  "a\x1b[1m"
  ImageConfig/acme\x1b[2J: Rejected: bad\n\x1b[31m \u202e“Ä”\x7f
  warning: odd\r�31m\tname
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestSecretNamespaces: an object without a namespace has no Secrets of its
// own; above all not those of Pratique.
func TestSecretNamespaces(t *testing.T) {
	t.Parallel()
	f := serveFlags{policyFlags: policyFlags{namespace: "pratique-system", crossplaneNamespace: "crossplane-system"}}
	handler, err := f.handler(&parts{}, nil, logr.Discard())
	if err != nil {
		t.Fatal(err)
	}
	want := map[webhook.SecretNamespace]string{webhook.SecretNamespaceCrossplane: "crossplane-system"}
	if diff := cmp.Diff(want, handler.SecretNamespaces); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
