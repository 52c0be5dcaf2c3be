// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/registry/credential"
)

// TestServiceAccounts: their secrets come last, from the same namespace, and
// count with the object's own.
func TestServiceAccounts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	documents := []string{config("one", "x.io/")}
	login := func(namespace, name string) {
		documents = append(documents, secret(namespace, name, credential.TypeDockerConfigJSON, credential.KeyDockerConfigJSON,
			fmt.Sprintf(`{"auths":{"a.io":{"username":%q,"password":"p"}}}`, name)))
	}
	for _, name := range []string{"pod", "sa1", "sa2"} {
		login("shop", name)
	}
	login("other", "theirs")
	documents = append(documents,
		secret("shop", "old", credential.TypeDockercfg, credential.KeyDockercfg, `{"a.io":{"username":"old","password":"p"}}`),
		secret("shop", "malformed", credential.TypeDockerConfigJSON, credential.KeyDockerConfigJSON, `{"auths": hunter2`),
		serviceAccount("shop", "robot", "sa1", "sa2"),
		serviceAccount("shop", "old", "old"),
		serviceAccount("shop", "overlap", "pod", "sa1"),
		serviceAccount("shop", "broken", "malformed"),
		serviceAccount("shop", "careless", "absent", "theirs", "sa1"),
		serviceAccount("other", "default", "theirs"),
		serviceAccount("other", "theirs", "theirs"),
	)
	many := make([]string, 16)
	for i := range many {
		many[i] = fmt.Sprintf("absent-%d", i)
	}
	write(t, dir+"/a.yaml", strings.Join(append(documents, serviceAccount("shop", "many", many...)), "---\n"))
	files := open(t, dir)
	for name, c := range map[string]struct {
		own     []string
		account string
		users   []string // with the ImageConfig's "rule"
		warned  string
		fails   string
	}{
		"none asked for":           {users: []string{"rule"}},
		"after the ImageConfig's":  {own: []string{"pod"}, account: "robot", users: []string{"pod", "rule", "sa1", "sa2"}},
		"alone":                    {account: "robot", users: []string{"rule", "sa1", "sa2"}},
		"the old form":             {account: "old", users: []string{"rule", "old"}},
		"named by the Pod already": {own: []string{"sa1", "pod"}, account: "overlap", users: []string{"sa1", "pod", "rule"}},
		"default, without a manifest": {
			own: []string{"pod"}, account: "default", users: []string{"pod", "rule"},
		},
		"missing":             {own: []string{"pod"}, account: "absent", users: []string{"pod", "rule"}, warned: `ServiceAccount "absent" does not exist`},
		"another namespace's": {account: "theirs", users: []string{"rule"}, warned: `ServiceAccount "theirs" does not exist`},
		"with secrets that are not there": {
			account: "careless", users: []string{"rule", "sa1"},
			warned: `pull secret "absent" does not exist, or is not of the type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg`,
		},
		"malformed": {own: []string{"pod"}, account: "broken", fails: `reading pull secret "malformed"`},
		"sixteen":   {account: "many", users: []string{"rule"}, warned: "absent-15"},
		"seventeen": {own: []string{"pod"}, account: "many", fails: "17 pull secrets, its ServiceAccount's among them, of which at most 16"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := files.Credentials(credential.Names{Namespace: "shop", PullSecrets: c.own, ServiceAccount: c.account})
			rule, err := credential.Parse([]byte(`{"auths":{"a.io":{"username":"rule","password":"p"}}}`))
			if err != nil {
				t.Fatal(err)
			}
			wantFound{c.users, c.warned, c.fails}.check(t, found, rule)
		})
	}
}

// wantFound is what comes of looking for credentials.
type wantFound struct {
	users         []string // for a.io/x
	warned, fails string
}

// check looks for credentials, beside those that a rule brings, and returns
// them.
func (want wantFound) check(t *testing.T, found *credential.Source, more ...credential.Config) credential.Ring {
	t.Helper()
	ring, err := found.Ring(t.Context(), more...)
	if (err != nil) != (want.fails != "") || err != nil && (!strings.Contains(err.Error(), want.fails) || strings.Contains(err.Error(), "hunter2")) {
		t.Fatalf("error %v, want %q", err, want.fails)
	}
	var users []string
	for _, auth := range ring.For(t.Context(), "a.io/x") {
		users = append(users, auth.Username)
	}
	if diff := cmp.Diff(want.users, users); diff != "" {
		t.Errorf("credentials (-want +got):\n%s", diff)
	}
	if warned := strings.Join(found.Warnings(), "\n"); !strings.Contains(warned, want.warned) || want.warned == "" && warned != "" {
		t.Errorf("warnings %q, want %q", warned, want.warned)
	}
	return ring
}

// A cloud that is named is asked in place of a secret, or the ImageConfig says
// that none is.
func TestCompileProvider(t *testing.T) {
	t.Parallel()
	secrets := ownSecrets(t)
	fine := compile(t, newObject(t), secrets)
	asking := compiler
	asking.Clouds = func(p v1alpha1.CredentialProvider) credential.Config {
		return credential.FromChain(func(context.Context, string, string) (authn.AuthConfig, error) {
			return authn.AuthConfig{Username: "of " + string(p), Password: "p"}, nil
		})
	}
	for _, provider := range []string{"AWS", "GCP", "Azure"} {
		object := newObject(t).set(t, "spec.registry.authentication", map[string]any{"provider": provider})
		for name, c := range map[string]struct {
			compiler source.Compiler
			users    []string
			reason   string
			message  string
		}{
			"asked":     {asking, []string{"of " + provider}, v1alpha1.ReasonCompiled, "compiled and in force"},
			"not asked": {compiler, nil, v1alpha1.ReasonNotSupported, "spec.registry.authentication.provider: " + provider + ": no cloud is asked for credentials (--cloud-credentials=false)"},
		} {
			compiled, err := c.compiler.Compile(object.raw(t), lookup(secrets))
			if err != nil || compiled.Ready != (c.users != nil) || compiled.Reason != c.reason || compiled.Message != c.message {
				t.Errorf("%s, %s: ready %t, reason %q, message %q, %v", provider, name, compiled.Ready, compiled.Reason, compiled.Message, err)
			}
			// It is selected in any case, and the images are examined.
			if compiled.Rule.Authentication == nil {
				t.Fatalf("%s, %s: the rule brings no credentials", provider, name)
			}
			var users []string
			for _, auth := range credential.NewRing(compiled.Rule.Authentication.Credentials).For(t.Context(), "registry1.com/acme-co/app") {
				users = append(users, auth.Username)
			}
			if diff := cmp.Diff(c.users, users); diff != "" {
				t.Errorf("%s, %s: credentials (-want +got):\n%s", provider, name, diff)
			}
			if v := compiled.Rule.Verification; v == nil || v.Fixed != nil || v.Hash != fine.Rule.Verification.Hash {
				t.Errorf("%s, %s: verification %+v", provider, name, v)
			}
		}
	}
	both := newObject(t).set(t, "spec.registry.authentication.provider", "AWS")
	compiled, err := asking.Compile(both.raw(t), lookup(secrets))
	if err != nil {
		t.Fatal(err)
	}
	checkHeld(t, compiled, v1alpha1.ReasonInvalid, "pullSecretRef goes with provider Generic only")
}
