// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
			ring, err := found.Ring(t.Context(), rule)
			if (err != nil) != (c.fails != "") || err != nil && (!strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), "hunter2")) {
				t.Fatalf("error %v, want %q", err, c.fails)
			}
			var users []string
			for _, auth := range ring.For(t.Context(), "a.io/x") {
				users = append(users, auth.Username)
			}
			if diff := cmp.Diff(c.users, users); diff != "" {
				t.Errorf("credentials (-want +got):\n%s", diff)
			}
			if warned := strings.Join(found.Warnings(), "\n"); !strings.Contains(warned, c.warned) || c.warned == "" && warned != "" {
				t.Errorf("warnings %q, want %q", warned, c.warned)
			}
		})
	}
}
