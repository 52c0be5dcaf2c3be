// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"crypto/elliptic"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
)

// ofClient is a compiler whose rules have somebody to ask.
func ofClient(t *testing.T) source.Compiler {
	t.Helper()
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return source.Compiler{Cosign: compiler.Cosign, ContainersSource: client}
}

// requiring is an ImageConfig with a list of requirements.
func requiring(requirements string) string {
	return fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: acme}
spec:
  matchImages: [{prefix: registry1.com/acme-co/}]
  verification: {provider: ContainersPolicy, containersPolicy: {requirements: %s}}
`, requirements)
}

// signedBy is a requirement with a key under a path.
func signedBy(path string) string {
	return fmt.Sprintf(`[{type: sigstoreSigned, keyPath: %q, signedIdentity: {type: matchRepository}}]`, path)
}

func TestRequirements(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		requirements string
		want         func(*policy.Verification) bool
	}{
		"reject":        {"[{type: reject}]", func(v *policy.Verification) bool { return v.Fixed.Outcome == policy.Rejected }},
		"accept":        {"[{type: insecureAcceptAnything}]", func(v *policy.Verification) bool { return v.Fixed.Outcome == policy.Accepted }},
		"a Secret's":    {signedBy("secret://keys/cosign.pub"), func(v *policy.Verification) bool { return v.Fixed == nil && v.Verifier != nil }},
		"several paths": {`[{type: sigstoreSigned, keyPaths: ["secret://keys/cosign.pub", "secret://keys/other.pub"]}]`, func(v *policy.Verification) bool { return v.Verifier != nil && v.ByReference }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.compiler = ofClient(t)
			w.secrets["/keys"] = &corev1.Secret{Data: map[string][]byte{
				"cosign.pub": []byte(newKey(t, elliptic.P256())), "other.pub": []byte(newKey(t, elliptic.P256())),
			}}
			compiled := w.compile(t, documented(t, requiring(test.requirements)))
			if v := compiled.Rule.Verification; !compiled.Ready || v.Engine != containers.Engine || !test.want(v) {
				t.Errorf("compiled %+v, to %+v", compiled, v)
			}
		})
	}
}

// TestRequirementsMistakes: what cannot be used holds the images back, in the
// name of the engine that would have judged.
func TestRequirementsMistakes(t *testing.T) {
	t.Parallel()
	const elsewhere = "write secret://NAME/KEY, of a Secret in Pratique's own namespace"
	for name, test := range map[string]struct{ requirements, reason, message string }{
		"no such type":         {"[{type: rejct}]", "Invalid", "spec.verification.containersPolicy.requirements[0]"},
		"no requirement":       {"[]", "Invalid", "spec.verification.containersPolicy.requirements"},
		"no such Secret":       {signedBy("secret://gone/cosign.pub"), "SecretNotFound", `secret "gone" does not exist in Pratique's namespace`},
		"no such key":          {signedBy("secret://keys/gone.pub"), "SecretInvalid", `secret "keys" has no key "gone.pub"`},
		"unreadable":           {signedBy("secret://unreadable/cosign.pub"), "ReadFailed", "the API server is away"},
		"no key at all":        {signedBy("secret://keys/garbage"), "Invalid", "requirements[0]"},
		"a file":               {signedBy("/etc/keys/cosign.pub"), "Invalid", "ImageConfigs name no files: " + elsewhere},
		"a file of a name":     {signedBy("cosign.pub"), "Invalid", elsewhere},
		"another scheme":       {signedBy("Secret://keys/cosign.pub"), "Invalid", elsewhere},
		"no key's name":        {signedBy("secret://keys"), "Invalid", elsewhere},
		"an empty key's name":  {signedBy("secret://keys/"), "Invalid", elsewhere},
		"another's namespace":  {signedBy("secret://other/keys/cosign.pub"), "Invalid", elsewhere},
		"a path in the Secret": {signedBy("secret://keys/../cosign.pub"), "Invalid", elsewhere},
		"no Secret's name":     {signedBy("secret:///cosign.pub"), "Invalid", elsewhere},
		"the second":           {`[{type: reject}, {type: signedBy}]`, "Invalid", "requirements[1]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.compiler = ofClient(t)
			w.secrets["/keys"] = &corev1.Secret{Data: map[string][]byte{
				"cosign.pub": []byte(newKey(t, elliptic.P256())), "garbage": []byte("c2VjcmV0"),
			}}
			compiled := w.compile(t, documented(t, requiring(test.requirements)))
			checkHeld(t, compiled, test.reason, test.message)
			if engine := compiled.Rule.Verification.Engine; engine != containers.Engine {
				t.Errorf("held back by %s", engine)
			}
		})
	}
}

// TestRequirementsFollowSecrets: a change of a key is a change of the rule.
func TestRequirementsFollowSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/acme.yaml", requiring(signedBy("secret://keys/cosign.pub")))
	keys := write(t, dir+"/keys.yaml", secret("", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	files, err := source.NewFiles(ofClient(t), "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	watching(t, files)
	becomes(t, files, "acme")
	first := files.Compiled()[0].Rule.Verification.Hash
	write(t, keys, secret("", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	eventually(t, "the new key", func() bool {
		v := files.Compiled()[0].Rule.Verification
		return v.Fixed == nil && v.Hash != first
	})
	write(t, keys, secret("elsewhere", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	eventually(t, "held back without it", func() bool {
		c := files.Compiled()[0]
		return !c.Ready && c.Reason == "SecretNotFound" && c.Rule.Verification.Fixed != nil
	})
}

// scoped is a rule as a policy.json has them.
func scoped(name string, outcome policy.Outcome) *policy.Rule {
	return &policy.Rule{
		Kind: containers.Kind, Name: name, Mode: policy.Enforce, Scope: &policy.Scope{Name: name},
		Verification: &policy.Verification{Engine: containers.Engine, Fixed: &policy.Verdict{Outcome: outcome, Reason: policy.ReasonStatic}},
	}
}

// TestContainersRules: those of the policy.json in force are beside the compiled
// ones, and follow it.
func TestContainersRules(t *testing.T) {
	t.Parallel()
	var loaded atomic.Pointer[containers.Loaded]
	c := ofClient(t)
	c.Containers = loaded.Load
	dir := t.TempDir()
	write(t, dir+"/a.yaml", config("acme", "a.io/"))
	files, err := source.NewFiles(c, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	watching(t, files)
	if got := state(files); len(got) != 1 {
		t.Errorf("rules without one: %q", got)
	}
	loaded.Store(&containers.Loaded{Rules: []*policy.Rule{scoped("b.io/team", policy.Rejected), scoped("a.io", policy.Accepted)}})
	files.Again()
	eventually(t, "the policy's rules", func() bool { return len(files.Set().Rules()) == 3 })
	if n := len(files.Compiled()); n != 1 {
		t.Errorf("%d objects have a status", n)
	}
	if !files.Set().KnowsHost("b.io") || files.Set().KnowsHost("c.io") {
		t.Error("its hosts are not known, or others are")
	}
	ref, err := reference.Parse("a.io/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, rule := range files.Set().Select(ref, policy.Namespace{Name: "team", Unreadable: true}).Verification {
		kinds = append(kinds, rule.Kind)
	}
	if got := strings.Join(kinds, ", "); got != "ImageConfig, policy.json" {
		t.Errorf("%s must accept", got)
	}
	// A change of a manifest keeps them.
	write(t, dir+"/b.yaml", config("two", "b.io/"))
	eventually(t, "both", func() bool { return len(files.Compiled()) == 2 && len(files.Set().Rules()) == 4 })
	loaded.Store(nil)
	files.Again()
	eventually(t, "gone", func() bool { return len(files.Set().Rules()) == 2 })
}

// TestContainersAlone: without manifests the rules are those of the policy.json.
func TestContainersAlone(t *testing.T) {
	t.Parallel()
	c := ofClient(t)
	c.Containers = func() *containers.Loaded {
		return &containers.Loaded{Rules: []*policy.Rule{scoped("", policy.Rejected)}}
	}
	files, err := source.NewFiles(c, "pratique-system")
	if err != nil {
		t.Fatal(err)
	}
	if n := len(files.Set().Rules()); n != 1 {
		t.Errorf("%d rules", n)
	}
}

func documented(t *testing.T, document string) object {
	t.Helper()
	o := object{}
	if err := yaml.Unmarshal([]byte(document), &o); err != nil {
		t.Fatal(err)
	}
	return o
}
