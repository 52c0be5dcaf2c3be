// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"context"
	"crypto/elliptic"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/registry/credential"
)

func config(name, prefix string) string {
	return fmt.Sprintf(`apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  matchImages: [{prefix: %s}]
  verification: {provider: Cosign, cosign: {authorities: [{name: none, static: {action: fail}}]}}
`, name, prefix)
}

func secret(namespace, name, kind, key, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %q}\ntype: %s\nstringData: {%q: %q}\n",
		name, namespace, kind, key, value)
}

func configMap(namespace, name, key, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: %q}\ndata: {%q: %q}\n", name, namespace, key, value)
}

func namespace(name, env string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Namespace\nmetadata: {name: %s, labels: {env: %s}}\n", name, env)
}

func serviceAccount(namespace, name string, secrets ...string) string {
	var list strings.Builder
	for _, name := range secrets {
		fmt.Fprintf(&list, "{name: %s}, ", name)
	}
	return fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\nimagePullSecrets: [%s]\n", name, namespace, list.String())
}

func write(tb testing.TB, path, content string) string {
	tb.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func open(tb testing.TB, paths ...string) *source.Files {
	tb.Helper()
	files, err := source.NewFiles(compiler, "pratique-system", paths...)
	if err != nil {
		tb.Fatal(err)
	}
	return files
}

// state lists the rules in force, those that are not ready with their message.
func state(files *source.Files) []string {
	var all []string
	for _, c := range files.Compiled() {
		text := c.Rule.Name
		if !c.Ready {
			text += ": " + c.Message
		}
		all = append(all, text)
	}
	slices.Sort(all)
	if n := len(files.Set().Rules()); n != len(all) {
		all = append(all, fmt.Sprintf("but %d rules", n))
	}
	return all
}

// TestFilesRead is what a folder may hold.
func TestFilesRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.yaml", "# a comment\n---\n"+config("one", "a.io/")+"---\n\n---\n"+config("two", "b.io/")+"--- \n")
	write(t, dir+"/b.yml", config("three", "c.io/"))
	write(t, dir+"/c.json", `{"apiVersion":"pratique.dev/v1alpha1","kind":"ImageConfig","metadata":{"name":"four"},"spec":{"matchImages":[{"prefix":"d.io/"}]}}`)
	write(t, dir+"/list.yaml", "apiVersion: v1\nkind: List\nitems:\n"+indent(config("five", "e.io/"))+indent(secret("n", "listed", "Opaque", "k", "v")))
	write(t, dir+"/other.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {anything: true}\n")
	write(t, dir+"/foreign.yaml", "apiVersion: pkg.crossplane.io/v1\nkind: Provider\nmetadata: {name: crossplane}\n")
	write(t, dir+"/notes.txt", "not: [yaml")
	write(t, dir+"/.hidden.yaml", "not: [yaml")
	write(t, dir+"/sub/deeper.yaml", config("not-read", "f.io/"))
	if err := os.Symlink(dir+"/gone", dir+"/dangling.yaml"); err != nil {
		t.Fatal(err)
	}
	files := open(t, dir)
	if diff := cmp.Diff([]string{"five", "four", "one", "three", "two"}, state(files)); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
	// A file may be named by itself, whatever it is called.
	files = open(t, write(t, t.TempDir()+"/policy", config("one", "a.io/")), dir+"/b.yml")
	if diff := cmp.Diff([]string{"one", "three"}, state(files)); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func indent(document string) string {
	lines := strings.Split(strings.TrimRight(document, "\n"), "\n")
	return "- " + strings.Join(lines, "\n  ") + "\n"
}

// TestFilesRefuse is what must not be passed over without a word.
func TestFilesRefuse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ content, message string }{
		"no YAML":              {"not: [yaml", "document 1"},
		"second document":      {config("one", "a.io/") + "---\nnot: [yaml", "document 2"},
		"a name twice":         {config("one", "a.io/") + "kind: Secret\n", `"kind" already set`},
		"no object":            {"[]", "not a Kubernetes object"},
		"a text":               {"ImageConfig", "not a Kubernetes object"},
		"no kind":              {"metadata: {name: x}", "no apiVersion and kind"},
		"no apiVersion":        {"kind: ImageConfig\nmetadata: {name: x}", "no apiVersion and kind"},
		"kind misspelt":        {"apiVersion: pratique.dev/v1alpha1\nkind: ImageConfg\nmetadata: {name: x}", "no such kind"},
		"kind in lower case":   {"apiVersion: pratique.dev/v1alpha1\nkind: imageconfig\nmetadata: {name: x}", "no such kind"},
		"another version":      {"apiVersion: pratique.dev/v1\nkind: ImageConfig\nmetadata: {name: x}", "no such kind"},
		"secret, misspelt":     {"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringDat: {a: b}", `reading secret "x"`},
		"secret, no base64":    {"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\ndata: {a: \"!\"}", `reading secret "x"`},
		"account, misspelt":    {"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x, namespace: z}\nimagePullSecret: []", `reading ServiceAccount "x"`},
		"account, no name":     {"apiVersion: v1\nkind: ServiceAccount\nmetadata: {namespace: z}", "ServiceAccount: metadata.name"},
		"account, nowhere":     {"apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: x}", `ServiceAccount "x": it has no namespace`},
		"account twice":        {serviceAccount("a", "x") + "---\n" + serviceAccount("a", "x"), `ServiceAccount "a/x" is there twice`},
		"duplicate":            {config("one", "a.io/") + "---\n" + config("one", "b.io/"), `ImageConfig "one" is there twice`},
		"in a list":            {"apiVersion: v1\nkind: List\nitems:\n" + indent("apiVersion: pratique.dev/v1\nkind: ImageConfig"), "items[0]: no such kind"},
		"list of something":    {"apiVersion: v1\nkind: List\nitems: {a: b}\n", "List"},
		"a list of its own":    {"apiVersion: pratique.dev/v1alpha1\nkind: ImageConfigList\nitems: []\n", "no such kind"},
		"null item":            {"apiVersion: v1\nkind: List\nitems: [null]\n", "items[0]"},
		"many aliases":         {"a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]\n", "document 1"},
		"nothing":              {"", "a.yaml: no document in it"},
		"only comments":        {"# to do\n---\n# later\n--- \n", "a.yaml: no document in it"},
		"config, no name":      {strings.Replace(config("x", "a.io/"), "{name: x}", "{}", 1), `ImageConfig: metadata.name: ""`},
		"config, another name": {config("Acme_X", "a.io/"), `ImageConfig: metadata.name: "Acme_X"`},
		"secret, no name":      {"apiVersion: v1\nkind: Secret\nmetadata: {}\n", `Secret: metadata.name: ""`},
		"secret, another case": {"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nType: Opaque", `unknown field "Type"`},
		"secret, Namespace":    {"apiVersion: v1\nkind: Secret\nmetadata: {name: x, Namespace: shop}", `unknown field "metadata.Namespace"`},
		"secret twice":         {secret("shop", "x", "Opaque", "k", "v") + "---\n" + secret("shop", "x", "Opaque", "k", "v"), `Secret "shop/x" is there twice`},
		"own secret twice":     {secret("", "x", "Opaque", "k", "v") + "---\n" + secret("pratique-system", "x", "Opaque", "k", "v"), `Secret "pratique-system/x" is there twice`},
		"configmap, misspelt":  {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndat: {a: b}", `reading ConfigMap "x"`},
		"configmap, no text":   {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: {b: c}}", `reading ConfigMap "x"`},
		"configmap, no name":   {"apiVersion: v1\nkind: ConfigMap\nmetadata: {}\n", `ConfigMap: metadata.name: ""`},
		"configmap, two datas": {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: {a: b}\nbinaryData: {a: YQ==}", `ConfigMap "x": the key "a" is in both`},
		"configmap twice":      {configMap("", "x", "k", "v") + "---\n" + configMap("pratique-system", "x", "k", "v"), `ConfigMap "pratique-system/x" is there twice`},
		"namespace twice":      {namespace("shop", "prod") + "---\n" + namespace("shop", "test"), `Namespace "shop" is there twice`},
		"namespace, misspelt":  {"apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, lables: {env: prod}}", `unknown field "metadata.lables"`},
		"namespace, no name":   {"apiVersion: v1\nkind: Namespace\nmetadata: {labels: {env: prod}}", `Namespace: metadata.name: ""`},
		"list, another case":   {"apiVersion: v1\nkind: List\nItems:\n" + indent(config("one", "a.io/")), `unknown field "Items"`},
		"secrets are not told": {"apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData: {a: {hunter2: hunter2}}", `reading secret "x"`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir+"/a.yaml", c.content)
			files, err := source.NewFiles(compiler, "pratique-system", dir)
			if err == nil {
				t.Fatalf("read: %q", state(files))
			}
			if !strings.Contains(err.Error(), c.message) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %q, want %q", err, c.message)
			}
		})
	}
	if _, err := source.NewFiles(compiler, "pratique-system", t.TempDir()+"/absent"); err == nil {
		t.Error("an absent folder was read")
	}
	dir := t.TempDir()
	write(t, dir+"/a.yaml", config("one", "a.io/"))
	write(t, dir+"/b.yaml", config("one", "b.io/"))
	if _, err := source.NewFiles(compiler, "pratique-system", dir); err == nil || !strings.Contains(err.Error(), "there twice") {
		t.Errorf("two files with one name: %v", err)
	}
}

// A misspelt field does not keep the file from being read: the rule is held.
func TestFilesHold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.yaml", strings.Replace(config("acme", "registry1.com/"), "verification:", "verificaton:", 1))
	compiled := open(t, dir).Compiled()
	if len(compiled) != 1 {
		t.Fatalf("%d rules", len(compiled))
	}
	checkHeld(t, compiled[0], "Invalid", "spec.verificaton")
}

// watching runs Watch until the test ends.
func watching(t *testing.T, files *source.Files) {
	t.Helper()
	watchingIn(t.Context(), t, files)
}

func watchingIn(ctx context.Context, t *testing.T, files *source.Files) {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- files.Watch(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Watch: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Watch does not end")
		}
	})
}

// becomes waits for rules. Changes are in force within 5 s (spec section 3).
func becomes(t *testing.T, files *source.Files, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if got = state(files); slices.Equal(got, want) {
			return
		}
	}
	t.Fatalf("after 5 s the rules are %q, want %q", got, want)
}

func TestFilesReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.yaml", config("one", "a.io/"))
	files := open(t, dir)
	watching(t, files)
	before := files.Set()
	write(t, dir+"/b.yaml", config("two", "b.io/"))
	becomes(t, files, "one", "two")
	if len(before.Rules()) != 1 {
		t.Error("a Set was changed in place")
	}

	// What cannot be read leaves everything as it was.
	for _, broken := range []string{"", "# nothing\n", "not: [yaml", config("one", "c.io/"), "apiVersion: pratique.dev/v2\nkind: ImageConfig"} {
		last := files.Set()
		write(t, dir+"/b.yaml", broken)
		time.Sleep(400 * time.Millisecond)
		if files.Set() != last {
			t.Errorf("%.30q came into force", broken)
		}
	}
	write(t, dir+"/b.yaml", config("three", "b.io/"))
	becomes(t, files, "one", "three")
	if err := os.Remove(dir + "/a.yaml"); err != nil {
		t.Fatal(err)
	}
	becomes(t, files, "three")

	// A Set is not replaced by an equal one.
	last := files.Set()
	write(t, dir+"/b.yaml", config("three", "b.io/"))
	time.Sleep(400 * time.Millisecond)
	if files.Set() != last {
		t.Error("nothing changed, and another Set is in force")
	}
}

// The whole folder may go away for a while.
func TestFilesFolderGone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/policies"
	write(t, dir+"/a.yaml", config("one", "a.io/"))
	files := open(t, dir)
	watching(t, files)
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if got := state(files); !slices.Equal(got, []string{"one"}) {
		t.Errorf("rules %q", got)
	}
	write(t, dir+"/a.yaml", config("two", "a.io/"))
	becomes(t, files, "two")
}

// Kubernetes mounts a ConfigMap as links through ..data, which it swaps.
func TestFilesConfigMap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(name, content string) {
		write(t, dir+"/"+name+"/a.yaml", content)
		if err := os.Symlink(name, dir+"/..data_tmp"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"/..data_tmp", dir+"/..data"); err != nil {
			t.Fatal(err)
		}
	}
	version("..2026_1", config("one", "a.io/"))
	if err := os.Symlink("..data/a.yaml", dir+"/a.yaml"); err != nil {
		t.Fatal(err)
	}
	files := open(t, dir)
	if got := state(files); !slices.Equal(got, []string{"one"}) {
		t.Fatalf("rules %q", got)
	}
	watching(t, files)
	version("..2026_2", config("two", "a.io/"))
	if err := os.RemoveAll(dir + "/..2026_1"); err != nil {
		t.Fatal(err)
	}
	becomes(t, files, "two")
}

// A Secret that rules name is theirs only in Pratique's own namespace, and a
// new key changes the rule.
func TestFilesSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.yaml", good)
	keys := write(t, dir+"/keys.yaml", secret("elsewhere", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	write(t, dir+"/pull.yaml", secret("pratique-system", "acme-pull", credential.TypeDockerConfigJSON, ".dockerconfigjson", pullSecretJSON))
	files := open(t, dir)
	checkHeld(t, files.Compiled()[0], "SecretNotFound", `secret "keys" does not exist in Pratique's namespace "pratique-system"`)
	watching(t, files)
	write(t, keys, secret("pratique-system", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	becomes(t, files, "acme")
	before := files.Compiled()[0].Rule.Verification.Hash
	write(t, keys, secret("pratique-system", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	for end := time.Now().Add(5 * time.Second); files.Compiled()[0].Rule.Verification.Hash == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("after 5 s the old key is still in force")
		}
	}
}

// A Secret that says of no namespace is Pratique's own, as the one that rules name.
func TestFilesOwnSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := secret("pratique-system", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256()))
	write(t, dir+"/a.yaml", good+"---\n"+strings.Replace(key, `, namespace: "pratique-system"`, "", 1)+
		"---\n"+secret("", "acme-pull", credential.TypeDockerConfigJSON, ".dockerconfigjson", pullSecretJSON))
	if got := state(open(t, dir)); !slices.Equal(got, []string{"acme"}) {
		t.Errorf("rules %q", got)
	}
}

// logged collects the lines of a log.
type logged struct {
	mu    sync.Mutex
	lines []string
}

func (l *logged) context(ctx context.Context) context.Context {
	return logr.NewContext(ctx, funcr.New(func(_, line string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.lines = append(l.lines, line)
	}, funcr.Options{}))
}

// with lists the lines that hold a text.
func (l *logged) with(text string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []string
	for _, line := range l.lines {
		if strings.Contains(line, text) {
			found = append(found, line)
		}
	}
	return found
}

// TestFilesLog: what is in force is logged from the beginning, and what keeps
// it from changing once.
func TestFilesLog(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/policies"
	absent := strings.Replace(good, "name: acme-pull", "name: absent", 1)
	write(t, dir+"/a.yaml", absent+"---\n"+secret("", "keys", "Opaque", "cosign.pub", newKey(t, elliptic.P256())))
	write(t, dir+"/b.yaml", config("broken", "nginx"))
	files := open(t, dir)
	log := &logged{}
	watchingIn(log.context(t.Context()), t, files)
	await := func(text string) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); len(log.with(text)) == 0; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("not logged: %s; but %q", text, log.with(""))
			}
		}
	}
	await(`"policies in force" "imageConfigs"=2`)
	await(`"name"="broken"`)
	await(`secret \"absent\" does not exist`)

	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	await("cannot reload")
	time.Sleep(5 * time.Second) // two polls
	if n := len(log.with("cannot reload")); n != 1 {
		t.Errorf("the same error is logged %d times", n)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	await("every image is let in")
	if line := log.with("every image is let in")[0]; !strings.Contains(line, `"error"`) {
		t.Errorf("not an error: %s", line)
	}
}

// The labels of a namespace without a manifest are unknown, not absent.
func TestFilesNamespace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir+"/a.yaml", namespace("shop", "prod"))
	write(t, dir+"/b.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: liar, labels: {kubernetes.io/metadata.name: shop}}\n")
	files := open(t, dir)
	for name, want := range map[string]policy.Namespace{
		"shop":  {Name: "shop", Labels: labels.Set{"env": "prod", "kubernetes.io/metadata.name": "shop"}},
		"liar":  {Name: "liar", Labels: labels.Set{"kubernetes.io/metadata.name": "liar"}},
		"other": {Name: "other", Unreadable: true},
	} {
		if diff := cmp.Diff(want, files.Namespace(t.Context(), name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestPullSecrets: an object's own secrets come from the request's namespace only.
func TestPullSecrets(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	dockerConfig := func(namespace, name, content string) string {
		return "---\n" + secret(namespace, name, credential.TypeDockerConfigJSON, ".dockerconfigjson", content)
	}
	write(t, dir+"/a.yaml", dockerConfig("shop", "one", `{"auths":{"a.io":{"username":"one","password":"p"}}}`)+
		dockerConfig("shop", "two", `{"auths":{"a.io":{"username":"two","password":"p"}}}`)+
		dockerConfig("other", "theirs", `{"auths":{"a.io":{"username":"theirs","password":"p"}}}`)+
		dockerConfig("pratique-system", "ours", `{"auths":{"a.io":{"username":"ours","password":"p"}}}`)+
		dockerConfig("", "nobodys", `{"auths":{"a.io":{"username":"nobodys","password":"p"}}}`)+
		dockerConfig("shop", "malformed", `{"auths": hunter2`)+
		"---\n"+secret("shop", "no-key", credential.TypeDockerConfigJSON, "x", "{}")+
		"---\n"+secret("shop", "opaque", "Opaque", ".dockerconfigjson", `{"auths":{"a.io":{"username":"opaque","password":"p"}}}`))
	files := open(t, dir)
	many := make([]string, 17)
	for i := range many {
		many[i] = fmt.Sprintf("absent-%d", i)
	}
	for name, c := range map[string]struct {
		secrets []string
		users   []string
		warned  string
		fails   string
	}{
		"none":                    {},
		"in their order":          {secrets: []string{"two", "one"}, users: []string{"two", "one"}},
		"missing":                 {secrets: []string{"absent", "one"}, users: []string{"one"}, warned: `pull secret "absent" does not exist`},
		"another namespace's":     {secrets: []string{"theirs"}, warned: `pull secret "theirs" does not exist`},
		"Pratique's own":          {secrets: []string{"ours"}, warned: `pull secret "ours" does not exist`},
		"of no namespace":         {secrets: []string{"nobodys"}, warned: `pull secret "nobodys" does not exist`},
		"path into another":       {secrets: []string{"../other/theirs"}, warned: "does not exist"},
		"control characters":      {secrets: []string{"a\nb\x1b"}, warned: `"a\nb\x1b"`},
		"wrong type":              {secrets: []string{"opaque", "one"}, users: []string{"one"}, warned: `pull secret "opaque" does not exist, or is not of the type`},
		"malformed":               {secrets: []string{"one", "malformed"}, fails: `reading pull secret "malformed"`},
		"without its key":         {secrets: []string{"no-key"}, fails: `reading pull secret "no-key"`},
		"sixteen":                 {secrets: many[:16], warned: "absent-15"},
		"seventeen":               {secrets: many, fails: "17 pull secrets"},
		"seventeen of one name":   {secrets: slices.Repeat([]string{"one"}, 17), fails: "17 pull secrets"},
		"the same one twice":      {secrets: []string{"one", "one"}, users: []string{"one"}},
		"empty name among others": {secrets: []string{"", "one"}, users: []string{"one"}, warned: `pull secret "" does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			found := files.Credentials(credential.Names{Namespace: "shop", PullSecrets: c.secrets})
			ring := wantFound{c.users, c.warned, c.fails}.check(t, found)
			if auths := ring.For(t.Context(), "b.io/x"); len(auths) > 0 {
				t.Error("a credential goes to another host")
			}
		})
	}
	// What the API server cannot be asked for is unknown, not absent.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := files.Credentials(credential.Names{Namespace: "shop", PullSecrets: []string{"one"}}).Ring(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("unexpected %v", err)
	}
}
