// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// poster posts to a server by hand, as the API server would.
func poster(t *testing.T, s *env.Server) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(s.Cert.CAPEM) {
		t.Fatal("no certificate")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// post sends a body and returns the status and what came back.
func post(t *testing.T, client *http.Client, url, contentType string, body io.Reader) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

// review is an AdmissionReview for a new Pod in a namespace.
func review(namespace, object string) string {
	return fmt.Sprintf(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
  "uid": "u", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
  "namespace": %q, "operation": "CREATE", "userInfo": {"username": "me"}, "object": %s}}`, namespace, object)
}

func podJSON(image string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":%q}]}}`, image)
}

// reviewed reads an answer.
func reviewed(t *testing.T, status int, text string) *admissionv1.AdmissionResponse {
	t.Helper()
	var got admissionv1.AdmissionReview
	if err := json.Unmarshal([]byte(text), &got); status != http.StatusOK || err != nil || got.Response == nil || got.Response.UID != "u" {
		t.Fatalf("status %d, %v:\n%s", status, err, text)
	}
	return got.Response
}

// TestMalformedPosts: what is no review is told so, what cannot be examined is
// Inconclusive, and the server answers the next one.
func TestMalformedPosts(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed := r.signed(t, "app:v1")
	client := poster(t, r.Server)
	good := review(r.namespace, podJSON(signed.ByBoth()))
	for name, test := range map[string]struct {
		contentType, body string
		status            int
		text              string // of the answer, or of the denial
	}{
		"empty":             {"application/json", "", 400, "not an AdmissionReview"},
		"no JSON":           {"application/json", "{", 400, "malformed JSON"},
		"a list":            {"application/json", "[]", 400, "not an AdmissionReview"},
		"null":              {"application/json", "null", 400, "AdmissionReview"},
		"no request":        {"application/json", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400, "no request"},
		"another version":   {"application/json", strings.Replace(good, "k8s.io/v1", "k8s.io/v1beta1", 1), 400, `only AdmissionReview of "admission.k8s.io/v1"`},
		"another kind":      {"application/json", strings.Replace(good, `"AdmissionReview"`, `"Pod"`, 1), 400, "AdmissionReview"},
		"a name twice":      {"application/json", strings.Replace(good, `"uid": "u"`, `"uid": "u", "uid": "v"`, 1), 400, "AdmissionReview"},
		"another type":      {"application/yaml", good, 415, "application/json"},
		"no type":           {"", good, 415, "application/json"},
		"huge":              {"application/json", strings.Replace(good, "{", `{"x": "`+strings.Repeat("x", 8<<20)+`",`, 1), 413, "larger than"},
		"very deep":         {"application/json", review(r.namespace, strings.Repeat("[", 200_000)+strings.Repeat("]", 200_000)), 400, "malformed JSON"},
		"no object":         {"application/json", review(r.namespace, "null"), 200, "has no object"},
		"object is a list":  {"application/json", review(r.namespace, "[]"), 200, "expected an object"},
		"containers a text": {"application/json", review(r.namespace, `{"spec":{"containers":"x"}}`), 200, "expected a list"},
		"image a number":    {"application/json", review(r.namespace, `{"spec":{"containers":[{"name":"c","image":1}]}}`), 200, "expected a string"},
		"image twice":       {"application/json", review(r.namespace, `{"spec":{"containers":[{"image":"a","image":"b"}]}}`), 400, "a name comes twice"},
		"unknown kind":      {"application/json", strings.Replace(good, `"kind": "Pod"`, `"kind": "Boat"`, 1), 200, "does not know this kind"},
		"unknown operation": {"application/json", strings.Replace(good, `"CREATE"`, `"SINK"`, 1), 400, "no operation that is known"},
		"no operation":      {"application/json", strings.Replace(good, `"CREATE"`, `""`, 1), 400, "no operation that is known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, path := range []string{"/validate", "/mutate"} {
				status, text := post(t, client, "https://"+r.Address+path+"?timeout=5s", test.contentType, strings.NewReader(test.body))
				switch {
				case status != test.status:
					t.Errorf("%s: status %d, want %d: %.300s", path, status, test.status, text)
				case status != http.StatusOK && !strings.Contains(text, test.text):
					t.Errorf("%s: the answer lacks %q: %.300s", path, test.text, text)
				case status != http.StatusOK:
				default:
					got := reviewed(t, status, text)
					if got.Patch != nil {
						t.Errorf("%s: patched: %s", path, got.Patch)
					}
					if denies := path == "/validate"; got.Allowed == denies {
						t.Errorf("%s: allowed is %t: %+v", path, got.Allowed, got)
					} else if denies && (got.Result.Code != inconclusive && got.Result.Code != rejected || !strings.Contains(got.Result.Message, test.text)) {
						t.Errorf("%s: %+v", path, got.Result)
					}
				}
			}
		})
	}
	t.Cleanup(func() { // after the parallel ones
		got, err := http.Get("http://" + r.Health + "/healthz")
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Body.Close(); err != nil || got.StatusCode != http.StatusOK {
			t.Errorf("not healthy: %s, %v", got.Status, err)
		}
	})
	if got := reviewed(t, 200, second(post(t, client, "https://"+r.Address+"/validate?timeout=5s", "application/json", strings.NewReader(good)))); !got.Allowed {
		t.Errorf("%+v", got)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.Address+"/validate", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: status %d", response.StatusCode)
	}
}

func second(_ int, text string) string { return text }

// TestDeadline: the answer comes within the time that the API server gives, be
// it short.
func TestDeadline(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	r.registry.Fault(registrytest.Manifest(r.namespace+"/hangs"), registrytest.Hang())
	client := poster(t, r.Server)
	for _, timeout := range []time.Duration{time.Second, 3 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			status, text := post(t, client, fmt.Sprintf("https://%s/validate?timeout=%s", r.Address, timeout), "application/json",
				strings.NewReader(review(r.namespace, podJSON(r.prefix()+"hangs:v1"))))
			got := reviewed(t, status, text)
			if took := time.Since(began); got.Allowed || got.Result.Code != inconclusive || took >= timeout {
				t.Errorf("after %s: %+v", took, got)
			}
		})
	}
}

// TestServerStops: it stops being ready first, answers everything that reaches
// it, and is gone in time. Only then does failurePolicy decide.
func TestServerStops(t *testing.T) {
	t.Parallel()
	r := newRoom(t, env.OtherServer+"=stops")
	r.policy(t, "", keyed(r.prefix(), r.key))
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	// In a Pod it goes on for 10 s: until those who route to it have heard.
	s := r.beside(t, env.ServerOptions{Name: "stops", Environment: []string{"KUBERNETES_SERVICE_HOST=127.0.0.1"}})

	type result struct {
		at  time.Time
		err error
	}
	const workers = 4
	results := make([][]result, workers)
	var stopLoad atomic.Bool
	var load sync.WaitGroup
	for worker := range results {
		load.Go(func() {
			for i := 0; !stopLoad.Load(); i++ {
				image, want := signed.ByTag(), ""
				if i%2 == 1 {
					image, want = unsigned.ByTag(), "no signature"
				}
				err := r.try(t.Context(), pod(fmt.Sprintf("p%d-%d", worker, i), image)).err
				if want != "" && err != nil && strings.Contains(err.Error(), want) {
					err = nil
				} else if want != "" && err == nil {
					err = fmt.Errorf("an unsigned image was admitted")
				}
				results[worker] = append(results[worker], result{time.Now(), err})
			}
		})
	}
	time.Sleep(time.Second)
	signalled := time.Now()
	ended := make(chan error, 1)
	go func() { ended <- s.Terminate() }()
	r.eventually(t, 2*time.Second, "it is not ready any more", func(ctx context.Context) error {
		if s.Ready(ctx) {
			return fmt.Errorf("still ready")
		}
		return nil
	})
	// Who routes to it has heard by then, and sends nothing any more: what would
	// arrive in the moment in which it stops listening could not be answered.
	time.Sleep(time.Until(signalled.Add(9 * time.Second)))
	stopLoad.Store(true)
	load.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	gone := time.Now()
	// Else Terminate kills it, and says so.
	if took := gone.Sub(signalled); took < 10*time.Second {
		t.Errorf("it has stopped after %s already", took)
	}
	granted := 0
	for _, one := range results {
		for _, result := range one {
			if result.err != nil {
				t.Errorf("%s after the signal: %v", result.at.Sub(signalled), result.err)
				continue
			}
			granted++
		}
	}
	t.Logf("%d answered; gone %s after the signal", granted, gone.Sub(signalled))
	if err := r.try(t.Context(), pod("late", signed.ByTag())).err; err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("when it is gone: %v, want what failurePolicy says", err)
	}
	if late := slices.IndexFunc(slices.Concat(results...), func(r result) bool { return r.at.Sub(signalled) > 8*time.Second }); late < 0 {
		t.Error("nobody asked until the end")
	}
	if granted < 20 {
		t.Errorf("only %d admissions: that was no load", granted)
	}
}

// TestCertificateIsReplaced: the new files are served without a restart.
func TestCertificateIsReplaced(t *testing.T) {
	t.Parallel()
	s, err := shared.Alone(t.Context(), env.ServerOptions{Name: "certificate"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Terminate(); err != nil {
			t.Error(err)
		}
	})
	served := func(ctx context.Context) (*x509.Certificate, error) {
		dialer := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{InsecureSkipVerify: true}}
		connection, err := dialer.DialContext(ctx, "tcp", s.Address)
		if err != nil {
			return nil, err
		}
		defer func() { _ = connection.Close() }()
		return connection.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
	}
	before, err := served(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cluster.NewServingCert(filepath.Dir(s.Cert.CertFile)); err != nil {
		t.Fatal(err)
	}
	shared.eventually(t, 15*time.Second, "the new certificate is served", func(ctx context.Context) error {
		after, err := served(ctx)
		if err == nil && bytes.Equal(before.Raw, after.Raw) {
			err = fmt.Errorf("still the old one")
		}
		return err
	})
}

// TestStart: the time from start to ready (spec section 12 wants 2 s; the bench
// measures it, here the machine is busy).
func TestStart(t *testing.T) {
	t.Logf("ready after %s", shared.Started)
	if shared.Started > 10*time.Second {
		t.Errorf("ready after %s", shared.Started)
	}
}

// TestVerifyAgrees: the command line says what admission says.
func TestVerifyAgrees(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	forged := r.unsigned(t, "forged:v1")
	r.registry.SignLegacy(t, forged, r.other)
	signed := r.signed(t, "signed:v1")
	for name, test := range map[string]struct {
		image  string
		exit   int
		code   int32
		reason string
	}{
		"signed":    {signed.ByTag(), 0, 0, "Accepted"},
		"digest":    {signed.ByDigest(), 0, 0, "Accepted"},
		"unsigned":  {r.unsigned(t, "unsigned:v1").ByTag(), 1, rejected, "no signature"},
		"other key": {forged.ByTag(), 1, rejected, `authority "release": no signature matches its key (1 found)`},
		"missing":   {r.prefix() + "missing:v1", 3, inconclusive, "answered 404"},
		"uncovered": {"127.0.0.1:1/nobody/app:v1", 0, 0, "no rule covers it"},
		"invalid":   {"127.0.0.1:1/Nobody:v1", 1, rejected, "invalid image reference"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := exec.CommandContext(t.Context(), r.Binary, "verify", "--cluster", "--for-namespace", r.namespace,
				"--registry-allow-cidrs", "127.0.0.0/8", "--insecure-registries", r.registry.Host(), test.image)
			command.Env = append(os.Environ(), "KUBECONFIG="+r.Kubeconfig)
			output, _ := command.CombinedOutput() // its exit code tells
			if exit := command.ProcessState.ExitCode(); exit != test.exit || !strings.Contains(string(output), test.reason) {
				t.Errorf("exit code %d, want %d, and %q in\n%s", exit, test.exit, test.reason, output)
			}
			got := r.try(t.Context(), pod("p", test.image))
			if test.code != 0 {
				got.refused(t, test.code, test.reason)
			} else if got.err != nil {
				t.Error(got.err)
			}
		})
	}
}

// TestWithoutACluster: serve --policies answers reviews posted by hand, and
// follows its files.
func TestWithoutACluster(t *testing.T) {
	t.Parallel()
	r := newRoom(t) // for its images; the server does not know of it
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	folder := t.TempDir()
	write := func(key string) {
		t.Helper()
		manifest := "apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: files}\nspec:" +
			secretSpec(r.prefix(), "keys") +
			fmt.Sprintf("\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: keys, namespace: %s}\nstringData: {cosign.pub: %q}\n", env.Namespace, key)
		if err := os.WriteFile(filepath.Join(folder, "policy.yaml"), []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(r.key.PublicPEM())
	s, err := r.Alone(t.Context(), env.ServerOptions{
		Name: "files", Args: []string{"--policies", folder}, Unset: []string{"KUBECONFIG"}, Environment: []string{"HOME=/nonexistent"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Terminate(); err != nil {
			t.Error(err)
		}
	})
	client := poster(t, s)
	ask := func(path, image string) *admissionv1.AdmissionResponse {
		t.Helper()
		status, text := post(t, client, "https://"+s.Address+path+"?timeout=5s", "application/json; charset=utf-8",
			strings.NewReader(review("anywhere", podJSON(image))))
		return reviewed(t, status, text)
	}
	patch := string(ask("/mutate", signed.ByTag()).Patch)
	if want := fmt.Sprintf(`[{"op":"replace","path":"/spec/containers/0/image","value":%q}]`, signed.ByBoth()); patch != want {
		t.Errorf("patch %s, want %s", patch, want)
	}
	if again := string(ask("/mutate", signed.ByTag()).Patch); again != patch {
		t.Errorf("the same Pod got another patch: %s, then %s", patch, again)
	}
	if got := ask("/mutate", signed.ByBoth()); got.Patch != nil {
		t.Errorf("the patched Pod got a patch: %s", got.Patch)
	}
	if got := ask("/validate", signed.ByBoth()); !got.Allowed {
		t.Errorf("signed: %+v", got.Result)
	}
	if got := ask("/validate", signed.ByTag()); got.Allowed || !strings.Contains(got.Result.Message, "not pinned: the mutating webhook did not run or found no digest, or another one came after it") {
		t.Errorf("signed, not pinned: %+v", got)
	}
	if got := ask("/validate", unsigned.ByBoth()); got.Allowed || got.Result.Code != rejected || got.AuditAnnotations["verdict"] != "Rejected" {
		t.Errorf("unsigned: %+v", got)
	}
	write(r.other.PublicPEM())
	r.eventually(t, inForce, "the new files", func(context.Context) error {
		if got := ask("/validate", signed.ByBoth()); got.Allowed {
			return fmt.Errorf("allowed by the old key")
		}
		return nil
	})
	// What cannot be read leaves the last good rules in force.
	if err := os.WriteFile(filepath.Join(folder, "policy.yaml"), []byte("a: ["), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second)
	if got := ask("/validate", unsigned.ByBoth()); got.Allowed || got.Result.Code != rejected {
		t.Errorf("after broken files: %+v", got)
	}
}
