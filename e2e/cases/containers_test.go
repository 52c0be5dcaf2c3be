// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/skopeo"
)

// node is what a node has of a policy: policy.json, registries.d and keys, here
// those that the page of kiOS about signatures shows, without its mistakes. Its
// example.com is a registry of ours.
type node struct {
	*signers

	lookaside          *lookaside
	policy, registries string
	// host is example.com, and staging where signatures of it go.
	host, staging string
	// metrics is the address of the server's.
	metrics string
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{
		signers: newSigners(t, rsaKey, nistKey), lookaside: newLookaside(t),
		policy: filepath.Join(t.TempDir(), "policy.json"), host: shared.distribution.Host,
	}
	writeFile(t, n.keyFile(), n.keyring(t, false, rsaKey))
	writeFile(t, n.policy, n.example())
	n.registries = registriesD(t, fmt.Sprintf("docker:\n  %q:\n    lookaside: %s\n", n.host, n.lookaside.URL))
	n.staging = registriesD(t, fmt.Sprintf("docker:\n  %q:\n    lookaside: %s\n    lookaside-staging: file://%s\n",
		n.host, n.lookaside.URL, n.lookaside.folder))
	return n
}

func (n *node) keyFile() string { return filepath.Join(n.folder, "public-key.gpg") }

// example is the policy of the page.
func (n *node) example() string {
	return n.with(gpgSigned(n.keyFile(), `"signedIdentity": {"type": "matchRepository"}`))
}

// with is the policy of the page with another requirement for example.com.
func (n *node) with(requirement string) string {
	return fmt.Sprintf(`{
  "transports": {
    "docker": {
      "docker.io/library": [{"type": "insecureAcceptAnything"}],
      "quay.io": [{"type": "reject"}],
      %q: [%s]
    }
  },
  "default": [{"type": "reject"}]
}
`, n.host, requirement)
}

// flags are those of pratique.
func (n *node) flags(more ...string) []string {
	return append([]string{"--containers-policy", n.policy, "--registries-d", n.registries}, more...)
}

// served starts a server with the policy, whose name is the label of its rooms.
func (n *node) served(t *testing.T, name string, more ...string) *env.Server {
	t.Helper()
	ports, err := cluster.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	n.metrics = fmt.Sprintf("127.0.0.1:%d", ports[0])
	return shared.beside(t, env.ServerOptions{Name: name, Args: n.flags(append(more, "--metrics-address", n.metrics)...)})
}

// pushed copies an image to the host with skopeo, which signs it by the key;
// without one it does not.
func (n *node) pushed(t *testing.T, r *room, tag, key string) published {
	t.Helper()
	image := publish(t, r.memory.Host+"/"+r.namespace+"/app", tag, false)
	target := published{n.host + "/" + r.namespace + "/app", tag, image.digest}
	if err := n.Copy(t.Context(), image.byTag(), target.byTag(), skopeo.CopyOptions{SignBy: n.keys[key], RegistriesD: n.staging}); err != nil {
		t.Fatal(err)
	}
	return target
}

// counter reads a metric of the server, which has no labels.
func (n *node) counter(ctx context.Context, name string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.metrics+"/metrics", nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindSubmatch(text)
	if found == nil {
		return "", fmt.Errorf("there is no metric %s", name)
	}
	return string(found[1]), nil
}

// TestContainersPolicy: the example that the page of kiOS shows, without its
// mistakes, on the API server.
func TestContainersPolicy(t *testing.T) {
	t.Parallel()
	t.Run("Enforce", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		r := newRoom(t, env.OtherServer+"=kios")
		s := n.served(t, "kios")
		signed, unsigned, another := n.pushed(t, r, "signed", rsaKey), n.pushed(t, r, "unsigned", ""), n.pushed(t, r, "another", nistKey)
		stored := r.create(t.Context(), pod("signed", signed.byTag())).admitted(t, signed.pinned())
		r.try(t.Context(), pod("again", imagesOf(stored)...)).admitted(t, signed.pinned())
		r.try(t.Context(), pod("digest", signed.byDigest())).admitted(t, signed.byDigest())
		by := fmt.Sprintf(" Rejected by policy.json %q", n.host)
		r.create(t.Context(), pod("unsigned", unsigned.byTag())).refused(t, rejected,
			"spec.containers[0].image: "+unsigned.pinned()+by, "no signature", "hint: pratique verify "+unsigned.byTag())
		r.create(t.Context(), pod("another", another.byTag())).refused(t, rejected, another.pinned()+by, "signature")
		// Nobody is asked about these: there is no registry that could be.
		r.try(t.Context(), pod("library", "busybox:1")).admitted(t, "busybox:1")
		r.create(t.Context(), pod("quay", "quay.io/acme/app:v1")).refused(t, rejected, "quay.io/acme/app:v1", `Rejected by policy.json "quay.io"`)
		r.create(t.Context(), pod("rest", "docker.io/acme/app:v1")).refused(t, rejected, `Rejected by policy.json "default"`)
		// Every reason at once.
		r.try(t.Context(), pod("all", unsigned.byTag(), signed.byTag(), "quay.io/acme/app:v1")).refused(t, rejected,
			"spec.containers[0].image: "+unsigned.pinned(), "spec.containers[2].image: quay.io/acme/app:v1")
		n.changes(t, r, s, signed, unsigned)
	})
	t.Run("Audit", func(t *testing.T) {
		t.Parallel()
		n := newNode(t)
		r := newRoom(t, env.OtherServer+"=kios-audit")
		n.served(t, "kios-audit", "--mode=Audit")
		signed, unsigned := n.pushed(t, r, "signed", rsaKey), n.pushed(t, r, "unsigned", "")
		r.create(t.Context(), pod("signed", signed.byTag())).admitted(t, signed.byTag())
		by := fmt.Sprintf("Rejected by policy.json %q", n.host)
		r.create(t.Context(), pod("unsigned", unsigned.byTag())).warned(t, []string{unsigned.byTag()}, by, "no signature")
		r.create(t.Context(), pod("quay", "quay.io/acme/app:v1")).warned(t, []string{"quay.io/acme/app:v1"}, `Rejected by policy.json "quay.io"`)
		r.create(t.Context(), pod("library", "busybox:1")).admitted(t, "busybox:1")
	})
}

// changes has the files of the policy change under the server.
func (n *node) changes(t *testing.T, r *room, s *env.Server, signed, unsigned published) {
	t.Helper()
	holds := func() {
		t.Helper()
		r.try(t.Context(), pod("holds", signed.byTag())).admitted(t, signed.pinned())
		r.try(t.Context(), pod("holds", unsigned.byTag())).refused(t, rejected, "no signature")
	}
	says := func(good, reason, text string) {
		t.Helper()
		r.eventually(t, inForce, "it says "+reason+" "+text, func(ctx context.Context) error {
			got, err := n.counter(ctx, "pratique_containers_policy_good")
			if err != nil || got != good {
				return fmt.Errorf("the metric is %s, want %s: %w", got, good, err)
			}
			return n.event(ctx, r, reason, text)
		})
	}
	// The page as it is printed.
	writeFile(t, n.policy, strings.Replace(n.example(), `"matchRepository"`, `"matchRespository"`, 1))
	says("0", "ContainersPolicyInvalid", "matchRespository")
	if log := logOf(t, s); !strings.Contains(log, "matchRespository") || !strings.Contains(log, n.policy+":6") {
		t.Errorf("the log does not say what to mend, or in which line:\n%s", log)
	}
	if failed, err := n.counter(t.Context(), "pratique_containers_policy_reload_errors_total"); err != nil || failed != "1" {
		t.Errorf("%s failed reloads, want 1: %v", failed, err)
	}
	if !s.Ready(t.Context()) {
		t.Error("it is not ready any more")
	}
	holds()

	writeFile(t, n.policy, n.with(`{"type": "reject"}`))
	r.flips(t, "another policy", signed.byTag(), fmt.Sprintf("Rejected by policy.json %q", n.host))
	says("1", "ContainersPolicyReloaded", "")
	writeFile(t, n.policy, n.example())
	r.comesBack(t, "the policy again", signed)
	holds()

	// What is not in the policy but in files beside it.
	writeFile(t, n.keyFile(), n.keyring(t, false, nistKey))
	r.flips(t, "another key", signed.byTag(), fmt.Sprintf("Rejected by policy.json %q", n.host))
	writeFile(t, n.keyFile(), n.keyring(t, true, nistKey)+n.keyring(t, true, rsaKey))
	r.comesBack(t, "both keys", signed)
	holds()
	writeFile(t, n.keyFile(), "")
	r.flips(t, "no key", signed.byTag(), "it is empty")
	if err := os.Remove(n.keyFile()); err != nil {
		t.Fatal(err)
	}
	r.flips(t, "no key file", signed.byTag(), "it cannot be read")
	r.try(t.Context(), pod("held", signed.byTag())).refused(t, inconclusive, "Inconclusive by policy.json", n.keyFile())
	writeFile(t, n.keyFile(), n.keyring(t, false, rsaKey))
	r.comesBack(t, "the key", signed)

	elsewhere := filepath.Join(n.registries, "default.yaml")
	before, err := os.ReadFile(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	// A folder is for the command line.
	writeFile(t, elsewhere, strings.Replace(string(before), n.lookaside.URL, "file://"+n.lookaside.folder, 1))
	says("0", "ContainersPolicyInvalid", "file://")
	holds()
	writeFile(t, elsewhere, strings.Replace(string(before), n.lookaside.URL, "http://127.0.0.1:1", 1))
	r.flips(t, "another lookaside", signed.byTag(), "Inconclusive by policy.json")
	writeFile(t, elsewhere, string(before))
	r.comesBack(t, "the lookaside", signed)
}

// comesBack waits until an image is admitted and pinned.
func (r *room) comesBack(t *testing.T, what string, image published) {
	t.Helper()
	// What was Rejected is so for a while.
	r.eventually(t, inForce+rejectedFor, what, func(ctx context.Context) error {
		got := r.try(ctx, pod("back", image.byTag()))
		if got.err == nil {
			got.admitted(t, image.pinned())
		}
		return got.err
	})
}

// event looks for an Event about the policy's files.
func (n *node) event(ctx context.Context, r *room, reason, text string) error {
	events, err := r.client.EventsV1().Events(env.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, event := range events.Items {
		if event.Reason == reason && strings.Contains(event.Note, text) {
			return nil
		}
	}
	return fmt.Errorf("there is no Event %s with %q", reason, text)
}

// TestContainersPolicyAtTheStart: a server does not start with a policy that it
// cannot judge by.
func TestContainersPolicyAtTheStart(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	writeFile(t, n.policy, strings.Replace(n.example(), `"default": [{"type": "reject"}]`, `"default": []`, 1))
	flags := n.flags("--policies", t.TempDir(), "--bind-address", "127.0.0.1:0", "--health-address", "0", "--metrics-address", "0")
	output, exit := pratique(t, append([]string{"serve"}, flags...)...)
	if exit != 2 {
		t.Errorf("exit code %d, want 2", exit)
	}
	if !strings.Contains(output, n.policy+":9") || !strings.Contains(output, "default") {
		t.Errorf("it does not say what to mend, or in which line:\n%s", output)
	}
}

// TestLintOfTheSample: the policy as the page of kiOS prints it has five
// mistakes, and each is told with what to write instead.
func TestLintOfTheSample(t *testing.T) {
	t.Parallel()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	sample, err := os.ReadFile(filepath.Join(root, "policy", "containers", "config", "testdata", "kios.json"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "policy.json")
	writeFile(t, file, string(sample))
	output, exit := pratique(t, "lint", file)
	if exit != 2 {
		t.Errorf("exit code %d, want 2", exit)
	}
	for _, mistake := range []string{
		`(?m)^.*policy\.json:\d+: .*comment`,
		`(?m)^.*policy\.json:\d+: .*"type".*keyType`,
		`(?m)^.*policy\.json:\d+: .*exactly one.*keyPath`,
		`(?m)^.*policy\.json:\d+: .*matchRespository.*matchRepository`,
		`(?m)^.*policy\.json:\d+: .*\].*\}`,
	} {
		if found := regexp.MustCompile(mistake).FindAllString(output, -1); len(found) != 1 {
			t.Errorf("%d lines match %s:\n%s", len(found), mistake, output)
		}
	}
	if lines := strings.Count(output, "policy.json:"); lines != 5 {
		t.Errorf("%d mistakes, want 5:\n%s", lines, output)
	}
	// The same without them.
	n := newNode(t)
	if output, exit := pratique(t, "lint", n.policy, n.registries); exit != 0 {
		t.Errorf("exit code %d of the mended one, want 0:\n%s", exit, output)
	}
}
