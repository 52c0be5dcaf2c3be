// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/client-go/rest"

	"github.com/pratique-dev/pratique/internal/metrics"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// containersFixture is a registry with images, and a node's files for them.
type containersFixture struct {
	fixture
	policy, registries string
}

// newContainersFixture has a policy.json that asks for a signature below acme/,
// which the fixture's ImageConfig is about too, refuses bad/, and lets in the rest.
func newContainersFixture(t *testing.T) containersFixture {
	t.Helper()
	f := containersFixture{fixture: newFixture(t), registries: t.TempDir()}
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	f.registry.SignLegacy(t, f.signed, key)
	keyFile := f.write(t, "cosign.pub", key.PublicPEM())
	f.policy = f.write(t, "policy.txt", fmt.Sprintf(`{
  "default": [{"type": "insecureAcceptAnything"}],
  "transports": {"docker": {
    "%[1]s/acme": [{"type": "sigstoreSigned", "keyPath": %[2]q, "signedIdentity": {"type": "matchRepository"}}],
    "%[1]s/bad": [{"type": "reject"}]
  }}
}`, f.registry.Host(), keyFile))
	f.attachments(t, "true")
	return f
}

func (f containersFixture) attachments(t *testing.T, use string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.registries, "all.yaml"), []byte("default-docker: {use-sigstore-attachments: "+use+"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// away leads to no cluster: a test that needs one fails.
func away(t *testing.T) {
	t.Helper()
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
}

// Nothing is read of what the user of this machine has for other programs.
func TestNothingOfHome(t *testing.T) { //nolint:paralleltest // see away
	away(t)
	f := newContainersFixture(t)
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	for name, content := range map[string]string{
		"policy.json":                   `{"default": [{"type": "insecureAcceptAnything"}]}`,
		"registries.d/attachments.yaml": "default-docker: {use-sigstore-attachments: true}\n",
	} {
		path := filepath.Join(home, ".config", "containers", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	stdout, _, code := call(t, f.local("verify", "--containers-policy", f.policy, f.signed.ByTag())...)
	if code != exitRejected || !strings.Contains(stdout, "are not looked for") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	if stdout, stderr, code := call(t, f.local("verify", f.signed.ByTag())...); code != exitUsage {
		t.Errorf("without a policy: exit code %d\n%s%s", code, stdout, stderr)
	}
}

// It changes the environment, so that no test runs beside it.
func TestVerifyContainersPolicy(t *testing.T) { //nolint:paralleltest // see above
	away(t)
	f := newContainersFixture(t)
	alone := func(args ...string) []string {
		return f.local(append([]string{"verify", "--containers-policy", f.policy, "--registries-d", f.registries}, args...)...)
	}
	scope := "policy.json/" + f.registry.Host() + "/acme: "
	for name, test := range map[string]struct { //nolint:paralleltest // see above
		args []string
		code int
		out  []string
	}{
		"signed":       {alone(f.signed.ByTag()), exitOK, []string{"Accepted  ", f.signed.Digest, scope + "Accepted: "}},
		"by digest":    {alone(f.signed.ByDigest()), exitOK, []string{scope + "Accepted: "}},
		"unsigned":     {alone(f.unsigned.ByTag()), exitRejected, []string{"Rejected  ", scope + "Rejected: "}},
		"a namespace":  {alone("-n", "team", f.unsigned.ByTag()), exitRejected, []string{scope + "Rejected: "}},
		"refused":      {alone(f.registry.Host() + "/bad/app:v1"), exitRejected, []string{"policy.json/" + f.registry.Host() + "/bad: Rejected: "}},
		"the rest":     {alone("a.example/other:v1"), exitOK, []string{"Skipped  ", "no rule covers it"}},
		"in Audit":     {alone("--mode=Audit", f.unsigned.ByTag()), exitRejected, []string{"acme (Audit): Rejected: "}},
		"beside files": {alone("-f", filepath.Join(f.policies, "acme.yaml"), f.signed.ByTag()), exitOK, []string{"  ImageConfig/acme: Accepted: ", "  " + scope + "Accepted: "}},
		"both refuse":  {alone("-f", filepath.Join(f.policies, "acme.yaml"), f.unsigned.ByTag()), exitRejected, []string{"  ImageConfig/acme: Rejected: ", "  " + scope + "Rejected: "}},
		"no objects":   {alone("-f", t.TempDir(), f.unsigned.ByTag()), exitRejected, []string{scope + "Rejected: "}},
	} {
		t.Run(name, func(t *testing.T) {
			stdout, stderr, code := call(t, test.args...)
			if code != test.code {
				t.Errorf("exit code %d, want %d\n%s%s", code, test.code, stdout, stderr)
			}
			for _, want := range test.out {
				if !strings.Contains(stdout, want) {
					t.Errorf("the output lacks %q:\n%s", want, stdout)
				}
			}
		})
	}
	// Who asks for a cluster besides is not answered without it.
	for _, args := range [][]string{alone("--cluster", f.signed.ByTag()), f.local("verify", "--registries-d", f.registries, f.signed.ByTag())} {
		if stdout, stderr, code := call(t, args...); code != exitUsage || !strings.Contains(stderr, "finding the cluster: ") {
			t.Errorf("%q: exit code %d\n%s%s", args, code, stdout, stderr)
		}
	}
}

// TestVerifyContainersJSON: two engines about one image are two findings.
func TestVerifyContainersJSON(t *testing.T) {
	t.Parallel()
	f := newContainersFixture(t)
	f.attachments(t, "false") // so that one of them finds nothing
	stdout, stderr, code := call(t, f.local("verify", "-o", "json", "-f", filepath.Join(f.policies, "acme.yaml"),
		"--containers-policy", f.policy, "--registries-d", f.registries, f.signed.ByTag())...)
	var reports []report
	if err := json.Unmarshal([]byte(stdout), &reports); err != nil || code != exitRejected {
		t.Fatalf("exit code %d, %v in\n%s%s", code, err, stdout, stderr)
	}
	var got []string
	for _, f := range reports[0].Findings {
		got = append(got, f.Rule+" "+f.Engine+" "+f.Outcome)
	}
	want := "ImageConfig/acme Cosign Accepted, policy.json/" + f.registry.Host() + "/acme ContainersPolicy Rejected"
	if text := strings.Join(got, ", "); text != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
}

// gpgSigned signs an image by a new key, into a lookaside folder, and returns the
// public key. GnuPG makes messages of the same form with --sign.
func gpgSigned(t *testing.T, folder string, image registrytest.Image) []byte {
	t.Helper()
	entity, err := openpgp.NewEntity("release", "", "release@acme.example", nil)
	if err != nil {
		t.Fatal(err)
	}
	var signature, key bytes.Buffer
	message, err := openpgp.Sign(&signature, entity, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(message, `{"critical": {"type": "atomic container signature", "image": {"docker-manifest-digest": %q},
		"identity": {"docker-reference": %q}}, "optional": {}}`, image.Digest, image.ByTag())
	if err := errors.Join(message.Close(), entity.Serialize(&key)); err != nil {
		t.Fatal(err)
	}
	_, repository, _ := strings.Cut(image.Name(), "/")
	dir := filepath.Join(folder, repository+"@"+strings.Replace(image.Digest, ":", "=", 1))
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(dir+"/signature-1", signature.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return key.Bytes()
}

// TestVerifyContainersLookaside: a GPG signature, on a server and, as nowhere but
// here, in a folder.
func TestVerifyContainersLookaside(t *testing.T) {
	t.Parallel()
	f := newContainersFixture(t)
	folder := t.TempDir()
	key := f.write(t, "release.gpg", string(gpgSigned(t, folder, f.signed)))
	f.policy = f.write(t, "policy.txt", fmt.Sprintf(`{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": %q}]}`, key))
	server := httptest.NewServer(http.FileServer(http.Dir(folder)))
	t.Cleanup(server.Close)
	for _, lookaside := range []string{"file://" + folder, server.URL} {
		registries := t.TempDir()
		if err := os.WriteFile(registries+"/a.yaml", []byte("default-docker: {lookaside: '"+lookaside+"'}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for image, want := range map[string]int{f.signed.ByTag(): exitOK, f.signed.ByDigest(): exitOK, f.unsigned.ByTag(): exitRejected} {
			stdout, stderr, code := call(t, f.local("verify", "--containers-policy", f.policy, "--registries-d", registries, image)...)
			if code != want || !strings.Contains(stdout, "policy.json/default: ") {
				t.Errorf("%s by %s: exit code %d, want %d\n%s%s", image, lookaside, code, want, stdout, stderr)
			}
		}
	}
}

// TestVerifyContainersKey: a key that cannot be read lets nothing in, and keeps
// nobody from asking about other images.
func TestVerifyContainersKey(t *testing.T) {
	t.Parallel()
	f := newContainersFixture(t)
	key := filepath.Join(f.policies, "cosign.pub")
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	verify := func(image string) (string, int) {
		stdout, _, code := call(t, f.local("verify", "--containers-policy", f.policy, "--registries-d", f.registries, image)...)
		return stdout, code
	}
	if out, code := verify(f.signed.ByTag()); code != exitInconclusive || !strings.Contains(out, key) {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if out, code := verify("a.example/other:v1"); code != exitOK {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// TestContainersMistakes: what cannot be put in force at the start ends the
// program, and says where the mistake is.
func TestContainersMistakes(t *testing.T) {
	t.Parallel()
	f := newContainersFixture(t)
	bad := f.write(t, "bad.txt", "{\n  \"default\": [{\"type\": \"reject\"]]\n}")
	twice := f.write(t, "twice.txt", "{\"default\": [\n{\"type\": \"rejct\"},\n{\"type\": \"acceptAnything\"}]}")
	wrong, local := t.TempDir(), t.TempDir()
	for dir, text := range map[string]string{wrong: "docker:\n  a.example: {lookaside: x}\n", local: "default-docker:\n  lookaside: file:///sigs\n"} {
		if err := os.WriteFile(filepath.Join(dir, "a.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Without an address nobody serves, whatever the files say.
	serve := func(args ...string) []string {
		return append([]string{"serve", "--policies", f.policies, "--bind-address", "none"}, args...)
	}
	verify := func(args ...string) []string { return append([]string{"verify", "x"}, args...) }
	const help, serveHelp = "\nhint: pratique verify --help", "\nhint: pratique serve --help"
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"verify":         {verify("--containers-policy", bad), []string{"reading --containers-policy:\n" + bad + ":2: "}},
		"serve":          {serve("--containers-policy", bad), []string{"reading --containers-policy:\n" + bad + ":2: "}},
		"config":         {serve("--config", f.write(t, "config", "containers-policy: "+bad)), []string{"reading --containers-policy:\n" + bad + ":2: "}},
		"several":        {verify("--containers-policy", twice, "--registries-d", wrong), []string{"reading --containers-policy, --registries-d:\n" + twice + ":2: ", "\n" + twice + ":3: ", "\n" + wrong + "/a.yaml:2: "}},
		"registries":     {serve("--registries-d", wrong), []string{"reading --registries-d:\n" + wrong + "/a.yaml:2: "}},
		"no such file":   {verify("--containers-policy", "/no/such/file"), []string{"/no/such/file: it cannot be read: no such file or directory"}},
		"no such folder": {serve("--registries-d", "/no/such/folder"), []string{"/no/such/folder: it cannot be read: no such file or directory"}},
		"no file":        {verify("--containers-policy="), []string{"reading --containers-policy: it names no file" + help}},
		"no folder":      {serve("--registries-d="), []string{"reading --registries-d: it names no folder" + serveHelp}},
		"a folder here":  {serve("--registries-d", local), []string{local + `/a.yaml:2: lookaside: "file:///sigs" is a folder`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stdout, stderr, code := call(t, test.args...)
			if code != exitUsage {
				t.Errorf("exit code %d\n%s", code, stdout)
			}
			for _, want := range test.want {
				if !strings.Contains(stderr, want) {
					t.Errorf("%q lacks %q", stderr, want)
				}
			}
		})
	}
	// On the command line a folder is somebody's.
	if _, stderr, code := call(t, verify("--containers-policy", f.policy, "--registries-d", local)...); code != exitOK {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

// events is an API server that takes Events.
func events(t *testing.T) (*rest.Config, <-chan eventsv1.Event) {
	t.Helper()
	created := make(chan eventsv1.Event, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var event eventsv1.Event
		if err := json.NewDecoder(r.Body).Decode(&event); err != nil {
			t.Error(err)
		}
		created <- event
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(event)
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: "application/json"}}, created
}

// next waits for what has to come within 5 s (spec section 3).
func next[T any](t *testing.T, what string, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(5 * time.Second):
		t.Fatalf("after 5 s: no %s", what)
	}
	return value
}

// TestContainersReload: what is spoilt later is told in the log, by a metric and
// by an Event, and the last good policy stays in force.
func TestContainersReload(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "policy.json")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"default": [{"type": "reject"}]}`)
	registerer := prometheus.NewRegistry()
	gauge := func(name string) float64 {
		t.Helper()
		families, err := registerer.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if family.GetName() == name {
				return family.GetMetric()[0].GetCounter().GetValue() + family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatalf("no metric %s", name)
		return 0
	}
	config, posted := events(t)
	s := settings{writes: true, namespace: "pratique-system", containers: containersSettings{policy: file}}
	told, err := newReloads(config, s, metrics.New(registerer, func(string) bool { return false }))
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 100)
	told.log = funcr.New(func(_, line string) { lines <- line }, funcr.Options{})
	client, err := registry.New(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFetched(settings{trustedRoot: trustRootFile(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.containersPolicy(s.containers, client, told); err != nil {
		t.Fatal(err)
	}
	if line := next(t, "line", lines); !strings.Contains(line, "policy.json in force") {
		t.Errorf("logged %s", line)
	}
	again := make(chan struct{}, 100)
	ctx, cancel := context.WithCancel(logr.NewContext(t.Context(), told.log))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.run(ctx, func() { again <- struct{}{} })
	}()

	first := f.containers.Loaded()
	write("{\n\"default\": []}")
	if line := next(t, "line", lines); !strings.Contains(line, "the last good ones stay") || !strings.Contains(line, file+":2: ") {
		t.Errorf("logged %s", line)
	}
	event := next(t, "Event", posted)
	if event.Type != "Warning" || event.Reason != "ContainersPolicyInvalid" || !strings.Contains(event.Note, file+":2: ") || event.Namespace != "pratique-system" {
		t.Errorf("%+v", event)
	}
	if gauge("pratique_containers_policy_good") != 0 || gauge("pratique_containers_policy_reload_errors_total") != 1 || f.containers.Loaded() != first {
		t.Error("the metrics, or what is in force, are not as they should be")
	}
	write(`{"default": [{"type": "insecureAcceptAnything"}]}`)
	next(t, "compilation", again)
	if event := next(t, "Event", posted); event.Type != "Normal" || event.Reason != "ContainersPolicyReloaded" {
		t.Errorf("%+v", event)
	}
	if gauge("pratique_containers_policy_good") != 1 || gauge("pratique_containers_policy_reload_errors_total") != 1 || f.containers.Loaded() == first {
		t.Error("the metrics, or what is in force, are not as they should be")
	}
	cancel()
	<-ended
}

// TestNoBoard: only who serves a cluster writes Events there.
func TestNoBoard(t *testing.T) {
	t.Parallel()
	config, _ := events(t)
	files := containersSettings{policy: "x"}
	for name, test := range map[string]struct {
		config *rest.Config
		s      settings
		want   bool
	}{
		"serves a cluster":  {config, settings{writes: true, containers: files}, true},
		"serves from files": {nil, settings{writes: true, containers: files}, false},
		"a command":         {config, settings{containers: files}, false},
		"no policy.json":    {config, settings{writes: true}, false},
	} {
		told, err := newReloads(test.config, test.s, nil)
		if err != nil || (told.board != nil) != test.want {
			t.Errorf("%s: %+v, %v", name, told, err)
		}
	}
}

func trustRootFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(path, []byte(trustRoot(t, true)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
