// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/util/cert"

	"github.com/pratique-dev/pratique/internal/metrics"
)

// metric is what is known of one: its type, and its labels with their values. Of a
// label without values those are not listed.
type metric struct {
	Type   string
	Labels map[string][]string
}

// documented reads the tables of docs/metrics.md. hack/promcheck reads them, too.
func documented(t *testing.T) map[string]metric {
	t.Helper()
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\| (.*?) ?\\| .+ \\|$")
	label := regexp.MustCompile("`([a-z]+)`(?: \\((`[^)]*`)\\))?")
	found := map[string]metric{}
	for _, match := range row.FindAllStringSubmatch(string(page), -1) {
		m := metric{Type: match[2], Labels: map[string][]string{}}
		for _, l := range label.FindAllStringSubmatch(match[3], -1) {
			m.Labels[l[1]] = nil
			for value := range strings.SplitSeq(l[2], ", ") {
				if value != "" {
					m.Labels[l[1]] = append(m.Labels[l[1]], strings.TrimSpace(strings.Trim(value, "`")))
				}
			}
		}
		found[match[1]] = m
	}
	return found
}

// exported reads what /metrics answers.
func exported(text string) map[string]metric {
	kind := regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
	sample := regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? `)
	label := regexp.MustCompile(`([a-z_]+)="((?:[^"\\]|\\.)*)"`)
	found := map[string]metric{}
	for _, match := range kind.FindAllStringSubmatch(text, -1) {
		found[match[1]] = metric{Type: match[2], Labels: map[string][]string{}}
	}
	for _, match := range sample.FindAllStringSubmatch(text, -1) {
		name := match[1]
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && found[base].Type == "histogram" {
				name = base
			}
		}
		for _, l := range label.FindAllStringSubmatch(match[2], -1) {
			if m := found[name]; l[1] != "le" && !slices.Contains(m.Labels[l[1]], l[2]) {
				m.Labels[l[1]] = append(m.Labels[l[1]], l[2])
			}
		}
	}
	return found
}

// process is the program as one.
type process struct {
	webhook, metrics string // addresses
	stderr           bytes.Buffer
	ended            error  // how, once it has
	stop             func() // and wait
}

func newProcess(t *testing.T, args ...string) *process {
	t.Helper()
	s := &process{}
	s.start(t, &s.stderr, args...)
	return s
}

// start starts it, with its log somewhere.
func (s *process) start(t *testing.T, log io.Writer, args ...string) {
	t.Helper()
	// Between choosing a port and listening on it somebody else may take it.
	for attempt := 1; !s.startOnce(t, log, args...); attempt++ {
		if said := s.stderr.String(); attempt == 3 || !strings.Contains(said, "address already in use") {
			t.Fatalf("the server ended:\n%s", said)
		}
		s.stderr.Reset()
	}
}

// startOnce waits until it is ready, or has ended.
func (s *process) startOnce(t *testing.T, log io.Writer, args ...string) (ready bool) {
	t.Helper()
	s.webhook, s.metrics = freePort(t), freePort(t)
	health := freePort(t)
	command := exec.CommandContext(t.Context(), os.Args[0], append([]string{
		"serve", "--bind-address", s.webhook, "--metrics-address", s.metrics, "--health-address", health,
	}, args...)...)
	command.Env = append(os.Environ(), asProgram+"=1", "KUBERNETES_SERVICE_HOST=")
	command.Stderr = log
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.ended = command.Wait()
	}()
	s.stop = func() {
		_ = command.Process.Signal(syscall.SIGTERM) // unless it ended by itself
		// What does not end is to fail its test, and no other.
		defer time.AfterFunc(time.Minute, func() { _ = command.Process.Kill() }).Stop()
		<-ended
	}
	t.Cleanup(s.stop)
	for !answers(t.Context(), "http://"+health+"/readyz") {
		select {
		case <-ended:
			return false
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
	return true
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func answers(ctx context.Context, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// send sends a body, or asks without one, and returns the answer's.
func send(t *testing.T, url, body string) string {
	t.Helper()
	method := http.MethodPost
	if body == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

// review asks about a Pod of one image.
func review(image string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"","version":"v1",`+
		`"kind":"Pod"},"operation":"CREATE","namespace":"shop","name":"x","object":{"spec":{"containers":[{"name":"c","image":%q}]}}}}`, image)
}

// served is what a server exports that was asked about everything, what it logged,
// and when its certificate ends.
func served(t *testing.T) (text, log string, ends time.Time) {
	t.Helper()
	f := newFixture(t)
	f.write(t, "broken.yaml", "apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: broken}\nspec: {matchImages: [{prefix: b.io/}], no: such}\n")
	certificates := t.TempDir()
	pair, key, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := cert.ParseCertsPEM(pair)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"tls.crt": pair, "tls.key": key, "ca.crt": pair} {
		if err := os.WriteFile(filepath.Join(certificates, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	const accepts = `[{"type": "insecureAcceptAnything"}]`
	if err := os.WriteFile(policy, []byte(`{"default": `+accepts+`, "transports": {"docker": {"c.io/x": [{"type": "reject"}]}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newProcess(t, f.local("--policies", f.policies, "--cert-dir", certificates, "--containers-policy", policy)...)
	hook := "https://" + s.webhook
	send(t, hook+"/mutate", review(f.signed.ByTag()))
	for _, image := range []string{f.signed.ByDigest(), f.signed.ByDigest(), f.unsigned.ByDigest(), "elsewhere.io/x:1", "b.io/x:1", "c.io/x:1"} {
		send(t, hook+"/validate", review(image))
	}
	send(t, hook+"/validate", "")
	for _, object := range []string{`null`, `{"apiVersion":"pratique.dev/v1alpha1","kind":"ImageConfig","metadata":{"name":"x"},"spec":{"no":"such"}}`} {
		send(t, hook+"/validate-imageconfig", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":`+object+`}}`)
	}
	// A review is counted after it was answered.
	for !strings.Contains(text, `pratique_verdicts_total{engine="ContainersPolicy"`) ||
		!strings.Contains(text, `pratique_reviews_total{allowed="false",pass="validate-imageconfig"} 1`) {
		text = send(t, "http://"+s.metrics+"/metrics", "")
	}
	s.stop()
	return text, s.stderr.String(), parsed[0].NotAfter
}

// TestMetricsAreDocumented holds docs/metrics.md against what the program, as a
// process of its own, exports.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	text, log, ends := served(t)
	got := exported(text)
	// It needs a cluster, and an election.
	alone := prometheus.NewRegistry()
	metrics.New(alone, func(string) bool { return false }).Armed()(true, true)
	recorder := httptest.NewRecorder()
	promhttp.HandlerFor(alone, promhttp.HandlerOpts{}).ServeHTTP(recorder, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	const armed = "pratique_webhooks_armed"
	if _, ok := got[armed]; ok {
		t.Errorf("%s without --manage-webhooks", armed)
	}
	got[armed] = exported(recorder.Body.String())[armed]

	want := documented(t)
	for name, m := range got {
		if _, ok := want[name]; !ok && strings.HasPrefix(name, "pratique_") {
			t.Errorf("docs/metrics.md lacks %s (%s, %v)", name, m.Type, m.Labels)
		}
	}
	for name, m := range want {
		seen, ok := got[name]
		if !ok || seen.Type != m.Type {
			t.Errorf("docs/metrics.md has %s, a %s, of which the program exports %+v", name, m.Type, seen)
			continue
		}
		for label, values := range seen.Labels {
			allowed, ok := m.Labels[label]
			if !ok {
				t.Errorf("docs/metrics.md: %s lacks the label %s", name, label)
			}
			for _, value := range values {
				if allowed != nil && !slices.Contains(allowed, value) {
					t.Errorf("docs/metrics.md: %s lacks the value %q of its label %s", name, value, label)
				}
			}
		}
		for label := range m.Labels {
			if _, ok := seen.Labels[label]; !ok {
				t.Errorf("docs/metrics.md: %s has no label %s", name, label)
			}
		}
	}
	for _, e := range entries(t, log) {
		if e.Level == "ERROR" {
			t.Errorf("logged: %s: %s", e.Msg, e.Err)
		}
	}
	checkValues(t, text, ends)
}

// checkValues: what was asked is what is counted.
func checkValues(t *testing.T, text string, ends time.Time) {
	t.Helper()
	counted := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "} "); ok && strings.HasPrefix(name, "pratique_") {
			counted[name+"}"] = value
		}
	}
	want := map[string]string{
		`pratique_rules{kind="ImageConfig",ready="true"}`:                                              "1",
		`pratique_rules{kind="ImageConfig",ready="false"}`:                                             "1",
		`pratique_rules{kind="policy.json",ready="true"}`:                                              "1",
		`pratique_rules{kind="policy.json",ready="false"}`:                                             "0",
		`pratique_reviews_total{allowed="true",pass="mutate"}`:                                         "1",
		`pratique_refused_reviews_total{code="405",pass="validate"}`:                                   "1",
		`pratique_reviews_total{allowed="false",pass="validate-imageconfig"}`:                          "1",
		`pratique_review_duration_seconds_count{pass="validate-imageconfig"}`:                          "1",
		`pratique_refused_reviews_total{code="400",pass="validate-imageconfig"}`:                       "1",
		`pratique_stage_duration_seconds_count{stage="resolve"}`:                                       "1",
		`pratique_stage_duration_seconds_count{stage="verify"}`:                                        "2",
		`pratique_cache_events_total{cache="verdicts",event="hit"}`:                                    "1",
		`pratique_cache_events_total{cache="verdicts",event="miss"}`:                                   "2",
		`pratique_certificate_expiry_timestamp_seconds{what="leaf"}`:                                   fmt.Sprint(float64(ends.Unix())),
		`pratique_verdicts_total{engine="Cosign",mode="Enforce",outcome="Accepted",reason="Verified"}`: "2",
	}
	got := map[string]string{}
	for name := range want {
		got[name] = counted[name]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
