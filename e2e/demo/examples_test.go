// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// exampleRegistry is where the examples say that images are.
const exampleRegistry = "127.0.0.1:5000"

// examples are those of the checkout, for a registry that is there.
type examples struct {
	binary, policies string
	review           []byte
	flags            []string
	registry         *registrytest.Registry
	image            registrytest.Image // what the review asks for
	key              *registrytest.Key  // by which it is signed
}

func newExamples(t *testing.T) *examples {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	e := &examples{
		binary: filepath.Join(root, "bin", "pratique"), policies: t.TempDir(),
		registry: registrytest.New(t), key: registrytest.NewKey(t, registrytest.ECDSAP256),
	}
	if path := os.Getenv("PRATIQUE"); path != "" {
		e.binary = path
	}
	if err := os.CopyFS(e.policies, os.DirFS(filepath.Join(root, "examples", "policies"))); err != nil {
		t.Fatal(err)
	}
	e.edit(t, "imageconfig.yaml", func(s string) string { return strings.ReplaceAll(s, exampleRegistry, e.registry.Host()) })
	review, err := os.ReadFile(filepath.Join(root, "examples", "review.json"))
	if err != nil {
		t.Fatal(err)
	}
	e.review = bytes.ReplaceAll(review, []byte(exampleRegistry), []byte(e.registry.Host()))
	e.image = e.registry.PushImage(t, "acme/shop:v1")
	e.registry.SignLegacy(t, e.image, e.key)
	e.flags = []string{"--registry-allow-cidrs=127.0.0.0/8", "--insecure-registries=" + e.registry.Host()}
	return e
}

func (e *examples) edit(t *testing.T, file string, change func(string) string) {
	t.Helper()
	path := filepath.Join(e.policies, file)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := change(string(before))
	if after == string(before) {
		t.Fatalf("%s is not what this test takes it for", file)
	}
	if err := os.WriteFile(path, []byte(after), 0o600); err != nil {
		t.Fatal(err)
	}
}

// trust puts the key that signed in the place of the example's.
func (e *examples) trust(t *testing.T) {
	t.Helper()
	e.edit(t, "secret.yaml", func(s string) string {
		before, _, _ := strings.Cut(s, "    -----BEGIN")
		return before + indent(e.key.PublicPEM(), "    ") + "\n"
	})
}

func (e *examples) verify(t *testing.T, namespace string) string {
	t.Helper()
	args := append([]string{"verify", e.image.ByTag(), "-f", e.policies, "-n", namespace}, e.flags...)
	output, _ := exec.CommandContext(t.Context(), e.binary, args...).CombinedOutput() // the text tells
	return string(output)
}

func TestExamplesVerify(t *testing.T) {
	t.Parallel()
	e := newExamples(t)
	if got, want := e.verify(t, "shop"), "no signature matches its key (1 found)"; !strings.Contains(got, want) {
		t.Errorf("with the example's key: got %s, want %q", got, want)
	}
	if got, want := e.verify(t, "elsewhere"), `the labels of namespace "elsewhere" could not be read`; !strings.Contains(got, want) {
		t.Errorf("in a namespace without a manifest: got %s, want %q", got, want)
	}
	e.trust(t)
	if got, want := e.verify(t, "shop"), "signature verified"; !strings.Contains(got, want) {
		t.Errorf("with the key that signed: got %s, want %q", got, want)
	}
}

func TestExamplesReview(t *testing.T) {
	t.Parallel()
	e := newExamples(t)
	e.trust(t)
	address := e.serve(t)

	mutated := e.post(t, address+"/mutate", e.review)
	var patch []struct{ Op, Path, Value string }
	if err := json.Unmarshal(mutated.Patch, &patch); err != nil || len(patch) != 1 || patch[0].Value != e.image.ByBoth() {
		t.Fatalf("/mutate answered %+v, %v; want a patch to %s", mutated, err, e.image.ByBoth())
	}
	if got := e.post(t, address+"/validate", e.review); got.Allowed || !strings.Contains(got.Result.Message, "not pinned") {
		t.Errorf("/validate of what is not pinned answered %+v", got)
	}
	pinned := bytes.ReplaceAll(e.review, []byte(e.image.ByTag()), []byte(patch[0].Value))
	if got := e.post(t, address+"/validate", pinned); !got.Allowed || got.AuditAnnotations["verdict"] != "Accepted" {
		t.Errorf("/validate of what is pinned answered %+v", got)
	}
}

// serve starts pratique serve --policies and returns its address, once it is
// ready.
func (e *examples) serve(t *testing.T) string {
	t.Helper()
	ports, err := cluster.FreePorts(2)
	if err != nil {
		t.Fatal(err)
	}
	server := exec.CommandContext(t.Context(), e.binary, append([]string{
		"serve", "--policies", e.policies, "--metrics-address=0",
		fmt.Sprintf("--bind-address=127.0.0.1:%d", ports[0]), fmt.Sprintf("--health-address=127.0.0.1:%d", ports[1]),
	}, e.flags...)...)
	server.Stderr = os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Wait() }) // the test's context kills it
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(poll) {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/readyz", ports[1]))
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return fmt.Sprintf("https://127.0.0.1:%d", ports[0])
			}
		}
		if time.Now().After(end) {
			t.Fatalf("pratique serve is not ready: %v", err)
		}
	}
}

func (*examples) post(t *testing.T, url string, review []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // as curl -k
	response, err := client.Post(url, "application/json", bytes.NewReader(review))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(body, &answer); err != nil || answer.Response == nil {
		t.Fatalf("%s answered %s: %s", url, response.Status, body)
	}
	return answer.Response
}
