// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bytes"
	"crypto/elliptic"
	"os"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	policyfiles "github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/policy/trust"
)

// TestDocumentedAuthorities: what docs/spec/imageconfig.md shows of authorities is
// read as it stands there.
func TestDocumentedAuthorities(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/spec/imageconfig.md")
	if err != nil {
		t.Fatal(err)
	}
	key := []byte(newKey(t, elliptic.P256()))
	root := strings.ReplaceAll(source.NewTrustRoot(t), source.LogURL, "https://rekor.sigstore.dev")
	w := newWorld(t)
	w.secrets = map[string]*corev1.Secret{
		"/acme-release":     {Data: map[string][]byte{"cosign.pub": key}},
		"acme-keys/release": {Data: map[string][]byte{"cosign.pub": key}},
		"/acme-signatures":  {Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(pullSecretJSON)}},
	}
	w.configMaps = map[string]*corev1.ConfigMap{
		"/sigstore":      {Data: map[string]string{"trusted_root.json": root}},
		"/acme-policies": {Data: map[string]string{"scan.rego": "package sigstore"}},
	}
	w.keys["awskms:///alias/acme-release"] = string(key)
	if w.root, err = trust.Parse([]byte(root)); err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, block := range strings.Split(string(text), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if !strings.HasPrefix(block, "authorities:") {
			continue
		}
		examples++
		var cosign map[string]any
		if err := yaml.UnmarshalStrict([]byte(block), &cosign); err != nil {
			t.Errorf("%v in\n%s", err, block)
			continue
		}
		if compiled := w.compile(t, fullObject(t).set(t, "spec.verification.cosign", cosign)); !compiled.Ready {
			t.Errorf("%s: %s\n%s", compiled.Reason, compiled.Message, block)
		}
	}
	if examples < 7 {
		t.Errorf("%d examples: the document is not what this test thinks it is", examples)
	}
}

// TestDocumentedContainersPolicy: what docs/spec/containers-policy.md shows is
// read as it stands there, without a word of warning.
func TestDocumentedContainersPolicy(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/spec/containers-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.compiler = ofClient(t)
	w.secrets = map[string]*corev1.Secret{
		"/acme-gpg":    {Data: map[string][]byte{"release.gpg": gpgKey(t)}},
		"/acme-cosign": {Data: map[string][]byte{"cosign.pub": []byte(newKey(t, elliptic.P256()))}},
	}
	seen := map[string]int{}
	for i, part := range strings.Split(string(text), "```") {
		kind, block, _ := strings.Cut(part, "\n")
		var problems []policyfiles.Problem
		switch {
		case i%2 == 0:
			continue
		case kind == "json":
			_, problems = policyfiles.ParsePolicy(policyfiles.File{Name: "policy.json", Content: []byte(block)})
		case strings.HasPrefix(block, "containersPolicy:"):
			kind = "values" // of the chart, whose tests have them
		case kind == "yaml" && strings.Contains(block, "docker:"):
			kind = "registries"
			_, problems = policyfiles.ParseRegistries([]policyfiles.File{{Name: "a.yaml", Content: []byte(block)}})
		case kind == "yaml":
			if compiled := w.compile(t, documented(t, block)); !compiled.Ready {
				t.Errorf("%s: %s\n%s", compiled.Reason, compiled.Message, block)
			}
		}
		seen[kind]++
		for _, problem := range problems {
			t.Errorf("%v in\n%s", problem, block)
		}
	}
	if seen["json"] != 1 || seen["registries"] != 2 || seen["yaml"] != 1 || seen["values"] != 1 {
		t.Errorf("examples %v: the document is not what this test thinks it is", seen)
	}
}

// gpgKey is a public key as gpg --export prints it.
func gpgKey(t *testing.T) []byte {
	t.Helper()
	entity, err := openpgp.NewEntity("release", "", "release@acme.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	var key bytes.Buffer
	if err := entity.Serialize(&key); err != nil {
		t.Fatal(err)
	}
	return key.Bytes()
}
