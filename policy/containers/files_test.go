// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers"
	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
)

const (
	rejecting = `{"default": [{"type": "reject"}]}`
	accepting = `{"default": [{"type": "insecureAcceptAnything"}], "transports": {"docker": {"a.example/x": [{"type": "reject"}]}}}`
	// mistyped has a mistake in its second line.
	mistyped = "{\n\"default\": [{\"type\": \"rejct\"}]}"
)

// keyed is a policy with a key file.
func keyed(path string) string {
	return fmt.Sprintf(`{"default": [{"type": "sigstoreSigned", "keyPath": %q, "signedIdentity": {"type": "matchRepository"}}]}`, path)
}

func newPublicKey(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	// At once, as whoever is careful does: Run reads all the time.
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return path
}

// watched is Files that run, and what they tell.
type watched struct {
	*containers.Files

	mu      sync.Mutex
	changed int
	failed  []string // "" for nil
}

// watch reads files for the first time, and then again and again.
func watch(t *testing.T, o containers.FilesOptions) *watched {
	t.Helper()
	w := &watched{}
	o.Every, o.Verify.Source = 2*time.Millisecond, source(t)
	o.Changed = func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.changed++
	}
	o.Failed = func(err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		text := ""
		if err != nil {
			text = err.Error()
		}
		w.failed = append(w.failed, text)
	}
	files, err := containers.NewFiles(o)
	if err != nil {
		t.Fatal(err)
	}
	w.Files = files
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { files.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return w
}

// source is somebody to ask, whom nobody asks here.
func source(t *testing.T) containers.Source {
	t.Helper()
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// told waits for so many changes and failures, and returns the failures.
func (w *watched) told(t *testing.T, changed, failed int) []string {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		n, failures := w.changed, slices.Clone(w.failed)
		w.mu.Unlock()
		if n >= changed && len(failures) >= failed {
			if n > changed || len(failures) > failed {
				t.Fatalf("told of %d changes and of %q; want %d and %d", n, failures, changed, failed)
			}
			return failures
		}
		if time.Now().After(end) {
			t.Fatalf("after 5 s: told of %d changes and of %q; want %d and %d", n, failures, changed, failed)
		}
	}
}

// rules are those in force: their scopes, each with what is decided already.
func (w *watched) rules() []string {
	var all []string
	for _, rule := range w.Loaded().Rules {
		what := "verified"
		if v := rule.Verification; v.Fixed != nil {
			what = v.Fixed.Outcome.String()
		}
		all = append(all, rule.Name+": "+what)
	}
	slices.Sort(all)
	return all
}

func (w *watched) want(t *testing.T, rules ...string) {
	t.Helper()
	if diff := cmp.Diff(rules, w.rules()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

// TestFilesReload: what is bad stays out, and is told of once.
func TestFilesReload(t *testing.T) {
	t.Parallel()
	path := write(t, t.TempDir()+"/policy.json", rejecting)
	w := watch(t, containers.FilesOptions{Policy: path})
	w.want(t, "default: Rejected")
	first := w.Loaded()

	write(t, path, mistyped)
	if got := w.told(t, 0, 1)[0]; !strings.HasPrefix(got, path+":2: ") {
		t.Errorf("told of %q, which does not begin with %s:2", got, path)
	}
	write(t, path, "{")
	w.told(t, 0, 2)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got := w.told(t, 0, 3)[2]; got != path+": it cannot be read: no such file or directory" {
		t.Errorf("told of %q", got)
	}
	if w.Loaded() != first {
		t.Error("something else is in force than was good last")
	}
	// The same as before is no change.
	write(t, path, rejecting)
	if got := w.told(t, 0, 4)[3]; got != "" || w.Loaded() != first {
		t.Errorf("told of %q, and the first policy is in force: %t", got, w.Loaded() == first)
	}

	write(t, path, mistyped)
	w.told(t, 0, 5)
	write(t, path, accepting)
	if got := w.told(t, 1, 6)[5]; got != "" {
		t.Errorf("told of %q", got)
	}
	w.want(t, "a.example/x: Rejected") // by default nothing is asked
	// The same mistake as before is a new one by now.
	write(t, path, mistyped)
	w.told(t, 1, 7)
	w.want(t, "a.example/x: Rejected") // by default nothing is asked
}

// TestFilesKeys: keys are read again, and one that cannot be holds back its scope
// alone.
func TestFilesKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	key := write(t, dir+"/key.pem", newPublicKey(t))
	path := write(t, dir+"/policy.json", keyed(key))
	w := watch(t, containers.FilesOptions{Policy: path})
	w.want(t, "default: verified")
	hash := func() [32]byte { return w.Loaded().Rules[0].Verification.Hash }
	first := hash()

	write(t, key, newPublicKey(t))
	w.told(t, 1, 0)
	second := hash()
	if second == first {
		t.Error("another key, and the same hash")
	}
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	w.told(t, 2, 0)
	w.want(t, "default: Inconclusive")
	if notes := w.Loaded().Notes; len(notes) != 1 || notes[0].Warning || !strings.Contains(notes[0].Error(), key) || notes[0].File != path {
		t.Errorf("notes: %v", notes)
	}
	write(t, key, newPublicKey(t))
	w.told(t, 3, 0)
	w.want(t, "default: verified")
	if len(w.Loaded().Notes) != 0 {
		t.Errorf("notes: %v", w.Loaded().Notes)
	}

	// A key that was taken away does not count on because the policy is bad meanwhile.
	write(t, path, mistyped)
	w.told(t, 3, 1)
	write(t, key, "no key at all")
	w.told(t, 4, 1)
	w.want(t, "default: Inconclusive")
}

// TestFilesKeyAtStart: a key that is missing keeps nobody from starting.
func TestFilesKeyAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := watch(t, containers.FilesOptions{Policy: write(t, dir+"/policy.json", keyed(dir+"/key.pem"))})
	w.want(t, "default: Inconclusive")
	if len(w.Loaded().Notes) != 1 {
		t.Errorf("notes: %v", w.Loaded().Notes)
	}
	write(t, dir+"/key.pem", newPublicKey(t))
	w.told(t, 1, 0)
	w.want(t, "default: verified")
}

// swapped mounts files as a kubelet does: links that lead through ..data, which
// is a link to a folder that is never written again.
func swapped(t *testing.T, dir, version string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		write(t, filepath.Join(dir, version, name), content)
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Symlink(version, next); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
}

// TestFilesMounted: what a kubelet mounts changes all at once.
func TestFilesMounted(t *testing.T) {
	t.Parallel()
	policies, keys := t.TempDir(), t.TempDir()
	swapped(t, keys, "..1", map[string]string{"a.pem": newPublicKey(t), "b.pem": newPublicKey(t)})
	swapped(t, policies, "..1", map[string]string{"policy.json": keyed(keys + "/a.pem")})
	w := watch(t, containers.FilesOptions{Policy: policies + "/policy.json"})
	hash := func() [32]byte { return w.Loaded().Rules[0].Verification.Hash }
	seen := map[[32]byte]bool{hash(): true}
	swapped(t, policies, "..2", map[string]string{"policy.json": keyed(keys + "/b.pem")})
	w.told(t, 1, 0)
	seen[hash()] = true
	swapped(t, keys, "..2", map[string]string{"a.pem": newPublicKey(t), "b.pem": newPublicKey(t)})
	w.told(t, 2, 0)
	seen[hash()] = true
	// Nobody asks for this one any more.
	swapped(t, keys, "..3", map[string]string{"a.pem": newPublicKey(t)})
	w.told(t, 3, 0) // b.pem is gone
	w.want(t, "default: Inconclusive")
	if len(seen) != 3 {
		t.Errorf("%d different rules of 3", len(seen))
	}
}

// TestFilesRegistries: the folder is read again too, with files that come and go.
func TestFilesRegistries(t *testing.T) {
	t.Parallel()
	folder, dir := t.TempDir(), t.TempDir()
	image, err := reference.Parse("a.example/team/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	write(t, folder+"/default.yaml", "default-docker: {lookaside: 'https://default.example/s'}\n")
	write(t, folder+"/README", "not: [yaml")
	w := watch(t, containers.FilesOptions{Policy: write(t, dir+"/policy.json", rejecting), Registries: folder})
	where := func() string {
		if u := w.Loaded().Registries.Lookaside(image); u != nil {
			return u.String()
		}
		return ""
	}
	if got := where(); got != "https://default.example/s" {
		t.Errorf("lookaside %q", got)
	}
	write(t, folder+"/a.yaml", "docker: {a.example/team: {lookaside: 'https://team.example/s'}}\n")
	w.told(t, 1, 0)
	if got := where(); got != "https://team.example/s" {
		t.Errorf("lookaside %q", got)
	}
	write(t, folder+"/a.yaml", "docker: {a.example/team: {lookaside: 'ftp://team.example/s'}}\n")
	if got := w.told(t, 1, 1)[0]; !strings.HasPrefix(got, folder+"/a.yaml:1: ") {
		t.Errorf("told of %q", got)
	}
	write(t, folder+"/a.yaml", "docker: {a.example/team: {lookaside: 'file:///var/lib/sigs'}}\n")
	w.told(t, 1, 2)
	if got := where(); got != "https://team.example/s" {
		t.Errorf("lookaside %q", got)
	}
	if err := os.Remove(folder + "/a.yaml"); err != nil {
		t.Fatal(err)
	}
	if got := w.told(t, 2, 3)[2]; got != "" || where() != "https://default.example/s" {
		t.Errorf("told of %q; lookaside %q", got, where())
	}
}

// TestFilesWithout: what nobody named is not there, and says nothing.
func TestFilesWithout(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]containers.FilesOptions{
		"nothing":       {},
		"only a folder": {Registries: t.TempDir()},
	} {
		files, err := containers.NewFiles(o)
		if err != nil {
			t.Fatal(err)
		}
		loaded := files.Loaded()
		if len(loaded.Rules) != 0 || len(loaded.Notes) != 0 || (loaded.Registries != nil) != (o.Registries != "") {
			t.Errorf("%s: %+v", name, loaded)
		}
	}
}

// TestFilesAtStart: nothing that cannot be read is passed over.
func TestFilesAtStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good := write(t, dir+"/good.json", rejecting)
	long := write(t, dir+"/long.json", rejecting+strings.Repeat(" ", 1<<20))
	folder := func(files map[string]string) string {
		at := t.TempDir()
		for name, content := range files {
			write(t, at+"/"+name, content)
		}
		return at
	}
	many := map[string]string{}
	for i := range 257 {
		many[fmt.Sprintf("%d.yaml", i)] = ""
	}
	nested := t.TempDir()
	if err := os.Mkdir(nested+"/a.yaml", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		o    containers.FilesOptions
		want []string // in these lines
	}{
		"no policy":       {containers.FilesOptions{Policy: dir + "/none.json"}, []string{dir + "/none.json: it cannot be read: no such file or directory"}},
		"a folder":        {containers.FilesOptions{Policy: dir}, []string{dir + ": it cannot be read: not a file"}},
		"too long":        {containers.FilesOptions{Policy: long}, []string{long + ": it cannot be read: longer than 1 MiB"}},
		"no folder":       {containers.FilesOptions{Policy: good, Registries: dir + "/none.d"}, []string{dir + "/none.d: it cannot be read: no such file or directory"}},
		"a file":          {containers.FilesOptions{Policy: good, Registries: good}, []string{good + ": it cannot be read: not a directory"}},
		"many files":      {containers.FilesOptions{Policy: good, Registries: folder(many)}, []string{"it has 257 files, of which at most 256 are read"}},
		"a folder inside": {containers.FilesOptions{Policy: good, Registries: nested}, []string{"/a.yaml: it cannot be read: not a file"}},
		"a bad file":      {containers.FilesOptions{Policy: good, Registries: folder(map[string]string{"a.yaml": "docker: ["})}, []string{"/a.yaml"}},
		"mistakes in all": {
			containers.FilesOptions{
				Policy: write(t, dir+"/bad.json", mistyped),
				Registries: folder(map[string]string{
					"a.yaml": "default-docker: []\n",
					"b.yaml": "docker: {a.example: {lookaside: x}}\n",
				}),
			},
			[]string{"/bad.json:2: ", "/a.yaml:1: ", "/b.yaml:1: "},
		},
		"a folder of signatures": {
			containers.FilesOptions{Policy: good, Registries: folder(map[string]string{"a.yaml": "default-docker:\n  lookaside: file:///sigs\n"})},
			[]string{`/a.yaml:2: lookaside: "file:///sigs" is a folder, and folders are read on the command line only; serve it, and write https://…`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := containers.NewFiles(c.o)
			if err == nil {
				t.Fatal("no error")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d problems in\n%s", len(lines), err)
			}
			for i, want := range c.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("line %d is %q; want %q", i, lines[i], want)
				}
			}
		})
	}
}

// TestLocalLookasides: folders are read where they are somebody's, and nowhere
// else, however they are written.
func TestLocalLookasides(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		yaml string
		line int // 0 if there is nothing to mend
	}{
		"served":      {"default-docker: {lookaside: 'https://a.example/s'}", 0},
		"a folder":    {"docker:\n  a.example:\n    lookaside: file:///sigs\n", 3},
		"the old way": {"default-docker: {sigstore: 'file:///sigs'}", 1},
		"upper case":  {"default-docker: {lookaside: 'FILE:///sigs'}", 1},
		"an alias":    {"sigs: &x 'file:///sigs'\ndocker:\n  b.example: {lookaside: *x}\n", 3},
		// It is for who writes signatures.
		"staging": {"default-docker: {lookaside-staging: 'file:///sigs'}", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			folder := t.TempDir()
			file := write(t, folder+"/a.yaml", c.yaml)
			_, err := containers.NewFiles(containers.FilesOptions{Registries: folder})
			if c.line == 0 {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("%s:%d: ", file, c.line)) {
				t.Errorf("%v; want line %d", err, c.line)
			}
			if _, err := containers.NewFiles(containers.FilesOptions{Registries: folder, Local: true}); err != nil {
				t.Errorf("on the command line: %v", err)
			}
		})
	}
}

// TestFilesRules: the rules are those of a policy, for each namespace.
func TestFilesRules(t *testing.T) {
	t.Parallel()
	w := watch(t, containers.FilesOptions{Policy: write(t, t.TempDir()+"/policy.json", accepting)})
	for _, rule := range w.Loaded().Rules {
		if rule.Kind != containers.Kind || rule.Scope == nil || rule.Namespaces != nil || rule.Mode != policy.Enforce ||
			rule.Verification.Engine != containers.Engine {
			t.Errorf("%+v", rule)
		}
	}
	if notes := w.Loaded().Notes; slices.ContainsFunc(notes, func(p config.Problem) bool { return !p.Warning }) {
		t.Errorf("notes: %v", notes)
	}
}
