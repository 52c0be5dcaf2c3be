// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
	"github.com/pratique-dev/pratique/webhook"
)

// setting changes how a stack is made. The zero value is a server that
// enforces, with the policies of standard.
type setting struct {
	server    policy.Server
	registry  []registrytest.Option
	secure    bool                     // the registry speaks HTTPS: what it takes for it to be shown credentials
	policies  func(host string) string // appended
	secrets   string
	catalog   []string
	cache     cache.Options
	inject    []string        // into these namespaces
	decider   webhook.Decider // in place of the real one
	surrounds func(webhook.Surroundings) webhook.Surroundings
	bodies    *webhook.Bodies // in place of the usual room
	log       logr.Logger
}

// stack is the server as cmd/pratique wires it, on a real registry.
type stack struct {
	host  *registrytest.Registry
	key   *registrytest.Key // of the authority "release"
	other *registrytest.Key
	url   string
	rec   *recorder
	// handler is what url leads to.
	handler http.Handler

	client *registry.Client
}

// recorder keeps what is counted.
type recorder struct {
	mu       sync.Mutex
	reviewed []string
	refused  []string
	found    []policy.Finding
}

func (r *recorder) Reviewed(pass string, allowed bool, reading, whole time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reviewed = append(r.reviewed, fmt.Sprintf("%s %t", pass, allowed))
	if reading <= 0 || whole < reading {
		r.reviewed = append(r.reviewed, fmt.Sprintf("%s of reading in %s", reading, whole))
	}
}

func (r *recorder) Refused(pass string, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, fmt.Sprintf("%s %d", pass, status))
}

func (r *recorder) Found(f policy.Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.found = append(r.found, f)
}

// await waits until so many findings of one review were counted, which happens
// after the answer, and returns the review.
func (r *recorder) await(tb testing.TB, findings int) string {
	tb.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		reviewed, found := slices.Clone(r.reviewed), len(r.found)
		r.mu.Unlock()
		if len(reviewed) > 0 && found >= findings {
			if len(reviewed) > 1 || found > findings {
				break
			}
			return reviewed[0]
		}
	}
	tb.Fatalf("not one review and %d findings: %q, %d", findings, r.reviewed, len(r.found))
	return ""
}

// plainHTTP lets the registry, which speaks plain HTTP, be shown credentials.
const plainHTTP = "  registry: {insecurePlainHTTP: true}\n"

// imageConfig asks for a signature by a key.
func imageConfig(name, prefix, mode string, key *registrytest.Key) string {
	return fmt.Sprintf(`---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  matchImages: [{prefix: %q}]
  mode: %s
%s  verification:
    provider: Cosign
    cosign: {authorities: [{name: release, key: {data: %q}}]}
`, name, prefix, mode, plainHTTP, key.PublicPEM())
}

func staticConfig(name, prefix, action string) string {
	return fmt.Sprintf(`---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  matchImages: [{prefix: %q}]
  verification: {provider: Cosign, cosign: {authorities: [{name: any, static: {action: %s}}]}}
`, name, prefix, action)
}

func newStack(tb testing.TB, s setting) *stack {
	tb.Helper()
	options := registry.Options{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	if s.secure {
		authority := registrytest.NewAuthority(tb)
		options.RootCAs = authority.Pool()
		s.registry = append(s.registry, registrytest.WithTLS(authority))
	}
	made := &stack{
		host: registrytest.New(tb, s.registry...), rec: &recorder{},
		key: registrytest.NewKey(tb, registrytest.ECDSAP256), other: registrytest.NewKey(tb, registrytest.ECDSAP256),
	}
	host := made.host.Host()
	policies := imageConfig("acme", host+"/acme/", "Enforce", made.key) + imageConfig("audit", host+"/audit/", "Audit", made.key) +
		staticConfig("static", host+"/static/", "pass") + s.secrets
	if s.policies != nil {
		policies += s.policies(host)
	}
	if s.secure {
		policies = strings.ReplaceAll(policies, plainHTTP, "")
	}
	dir := tb.TempDir()
	if err := os.WriteFile(dir+"/policies.yaml", []byte(policies), 0o600); err != nil {
		tb.Fatal(err)
	}
	if !s.secure {
		options.Insecure = []string{host}
	}
	client, err := registry.New(options)
	if err != nil {
		tb.Fatal(err)
	}
	made.client = client
	cached, err := cache.New(policy.Direct{}, client, client, s.cache)
	if err != nil {
		tb.Fatal(err)
	}
	files, err := source.NewFiles(source.Compiler{Cosign: cosign.Options{Source: client}, InjectInto: s.inject}, "pratique-system", dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, c := range files.Compiled() {
		if !c.Ready && !strings.HasPrefix(c.Rule.Name, "broken") {
			tb.Fatalf("ImageConfig %q: %s", c.Rule.Name, c.Message)
		}
	}
	references, err := reference.NewMemo(100)
	if err != nil {
		tb.Fatal(err)
	}
	handler := &webhook.Handler{
		Catalog: load(tb, s.catalog...), References: references, Decider: &policy.Decider{Server: s.server, Resolver: cached, Engine: cached},
		Surroundings: files, Server: s.server, Recorder: made.rec, Log: s.log, Bodies: s.bodies,
		SecretNamespaces: map[webhook.SecretNamespace]string{webhook.SecretNamespaceCrossplane: "crossplane-system"},
	}
	if handler.Bodies == nil {
		handler.Bodies = webhook.NewBodies(webhook.DefaultBodies)
	}
	if s.decider != nil {
		handler.Decider = s.decider
	}
	if s.surrounds != nil {
		handler.Surroundings = s.surrounds(files)
	}
	mux := http.NewServeMux()
	mux.Handle("/mutate", handler.Mutate())
	mux.Handle("/validate", handler.Validate())
	server := httptest.NewServer(mux)
	tb.Cleanup(server.Close)
	made.url, made.handler = server.URL, mux
	return made
}

// ask is what an AdmissionReview says besides its object.
type ask struct {
	group, version, kind string // Pod if empty
	subresource          string
	operation            string // CREATE unless there is an old object
	namespace            string // shop; - means none
	groups               []string
	object, old          string // JSON
	uid                  string
}

func (a ask) body() []byte {
	if a.kind == "" {
		a.version, a.kind = "v1", "Pod"
	}
	if a.operation == "" {
		a.operation = "CREATE"
		if a.old != "" {
			a.operation = "UPDATE"
		}
	}
	if a.namespace == "" {
		a.namespace = "shop"
	}
	if a.uid == "" {
		a.uid = "705ab4f5-6393-11e8-b7cc-42010a800002"
	}
	request := map[string]any{
		"uid": a.uid, "kind": map[string]string{"group": a.group, "version": a.version, "kind": a.kind},
		"resource": map[string]string{"group": a.group, "version": a.version, "resource": "whatever"}, "subResource": a.subresource,
		"name": "x", "namespace": strings.TrimPrefix(a.namespace, "-"), "operation": a.operation,
		"userInfo": map[string]any{"username": "somebody", "groups": a.groups}, "dryRun": false,
		"options": map[string]any{"kind": "CreateOptions"},
	}
	if a.object != "" {
		request["object"] = json.RawMessage(a.object)
	}
	if a.old != "" {
		request["oldObject"] = json.RawMessage(a.old)
	}
	body, err := json.Marshal(map[string]any{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request})
	if err != nil {
		panic(err)
	}
	return body
}

// post sends a body and returns status and answer.
func post(tb testing.TB, url string, body []byte) (int, []byte) {
	tb.Helper()
	request, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		tb.Fatal(err)
	}
	return response.StatusCode, got
}

// send posts a review and returns the answer, which must be well formed.
func (s *stack) send(tb testing.TB, path string, a ask) *admissionv1.AdmissionResponse {
	tb.Helper()
	status, body := post(tb, s.url+path, a.body())
	if status != http.StatusOK {
		tb.Fatalf("%s: status %d: %s", path, status, body)
	}
	var review admissionv1.AdmissionReview
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&review); err != nil {
		tb.Fatalf("%s: %v: %s", path, err, body)
	}
	got := review.Response
	switch {
	case review.APIVersion != "admission.k8s.io/v1" || review.Kind != "AdmissionReview" || review.Request != nil || got == nil || got.UID == "":
		tb.Fatalf("%s: not an answer: %s", path, body)
	case strings.HasPrefix(path, "/mutate") && !got.Allowed:
		tb.Fatalf("the mutating pass denied: %s", body)
	case strings.HasPrefix(path, "/validate") && got.Patch != nil:
		tb.Fatalf("the validating pass patches: %s", body)
	case (got.Patch != nil) != (got.PatchType != nil):
		tb.Fatalf("%s: patch without a type: %s", path, body)
	case got.Allowed == (got.Result != nil):
		tb.Fatalf("%s: allowed %t with the result %v", path, got.Allowed, got.Result)
	}
	return got
}

// apply is what the API server does with a patch.
func apply(tb testing.TB, object string, got *admissionv1.AdmissionResponse) string {
	tb.Helper()
	if got.Patch == nil {
		return object
	}
	patch, err := jsonpatch.DecodePatch(got.Patch)
	if err != nil {
		tb.Fatalf("%s: %v", got.Patch, err)
	}
	for _, operation := range patch {
		path, err := operation.Path()
		if kind := operation.Kind(); err != nil || kind != "replace" && (kind != "add" || !strings.HasPrefix(path, "/spec/imagePullSecrets")) {
			tb.Fatalf("the patch does more than replace images and add pull secrets: %s", got.Patch)
		}
	}
	patched, err := patch.Apply([]byte(object))
	if err != nil {
		tb.Fatalf("%s: %v", got.Patch, err)
	}
	return string(patched)
}

// admit sends an object through both passes, as the API server does.
func (s *stack) admit(tb testing.TB, a ask) (stored string, validated *admissionv1.AdmissionResponse) {
	tb.Helper()
	a.object = apply(tb, a.object, s.send(tb, "/mutate", a))
	return a.object, s.send(tb, "/validate", a)
}

// pod is a Pod with these images.
func pod(images ...string) string {
	var containers []string
	for i, image := range images {
		containers = append(containers, fmt.Sprintf(`{"name":"c%d","image":%q}`, i, image))
	}
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[%s]}}`, strings.Join(containers, ","))
}

// message is the denial's code and text.
func message(got *admissionv1.AdmissionResponse) string {
	if got.Allowed {
		return "allowed"
	}
	return fmt.Sprintf("%d %s", got.Result.Code, got.Result.Message)
}

func quoted(tb testing.TB, s string) string {
	tb.Helper()
	text, err := json.Marshal(s)
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}
