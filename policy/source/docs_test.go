// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"crypto/elliptic"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

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
