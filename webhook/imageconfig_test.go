// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/webhook"
)

// imageConfigs answers reviews of ImageConfigs; in their spec stands what the
// check is to say.
func imageConfigs(t *testing.T) (server *httptest.Server, counted *recorder) {
	t.Helper()
	counted = &recorder{}
	server = httptest.NewServer(&webhook.ImageConfigHandler{
		Check: func(raw []byte) (problems, warnings []string) {
			var object struct {
				Spec struct {
					Problems, Warnings []string
					Panics             bool
				}
			}
			if err := json.Unmarshal(raw, &object); err != nil {
				return []string{err.Error()}, nil
			}
			if object.Spec.Panics {
				panic("boom")
			}
			return object.Spec.Problems, object.Spec.Warnings
		},
		Bodies: webhook.NewBodies(webhook.DefaultBodies), Recorder: counted, Log: logr.Discard(),
	})
	t.Cleanup(server.Close)
	return server, counted
}

func config(operation, object, old string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u",
		"kind":{"group":"pratique.dev","version":"v1alpha1","kind":"ImageConfig"},"name":"acme","operation":%q,"object":%s,"oldObject":%s}}`,
		operation, object, old)
}

func TestImageConfigs(t *testing.T) {
	t.Parallel()
	server, _ := imageConfigs(t)
	const bad = `{"spec":{"problems":["spec.a: is\nbad","spec.b: too"],"warnings":["look"]}}`
	long := fmt.Sprintf(`{"spec":{"problems":[%q],"warnings":[%s"x"]}}`, strings.Repeat("p", 20_000), strings.Repeat(fmt.Sprintf("%q,", strings.Repeat("w", 300)), 20))
	for name, c := range map[string]struct {
		operation, object, old string
		denied                 string
		warnings               []string
	}{
		"good":           {"CREATE", `{"spec":{}}`, "null", "", nil},
		"a warning":      {"CREATE", `{"spec":{"warnings":["look\u001b[31m"]}}`, "null", "", []string{`look\x1b[31m`}},
		"one problem":    {"CREATE", `{"spec":{"problems":["spec.a: is bad"]}}`, "null", "spec.a: is bad", nil},
		"problems":       {"CREATE", bad, "null", "\nspec.a: is\\nbad\nspec.b: too", []string{"look"}},
		"made bad":       {"UPDATE", bad, `{"spec":{}}`, "\nspec.a: is\\nbad\nspec.b: too", []string{"look"}},
		"made good":      {"UPDATE", `{"spec":{}}`, bad, "", nil},
		"a label":        {"UPDATE", `{"metadata":{"labels":{"a":"b"}},` + bad[1:], bad, "", []string{`spec.a: is\nbad`, "spec.b: too", "look"}},
		"other bad spec": {"UPDATE", `{"spec":{"problems":["spec.c: bad"]}}`, bad, "spec.c: bad", nil},
		"going":          {"UPDATE", bad, `{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"}}`, "", []string{`spec.a: is\nbad`, "spec.b: too", "look"}},
		"says it goes":   {"UPDATE", `{"metadata":{"deletionTimestamp":"2026-01-01T00:00:00Z"},` + bad[1:], `{}`, "\nspec.a: is\\nbad\nspec.b: too", []string{"look"}},
		"no old object":  {"UPDATE", bad, "null", "\nspec.a: is\\nbad\nspec.b: too", []string{"look"}},
		"deletion":       {"DELETE", "null", bad, "", nil},
		"connect":        {"CONNECT", "null", "null", "", nil},
		"too long":       {"CREATE", long, "null", strings.Repeat("p", 16<<10-3) + "…", append(slicesOf(14, strings.Repeat("w", 253)+"…"), "and 7 more")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := exchange(t, "", server.URL, "", config(c.operation, c.object, c.old))
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal([]byte(body), &review); err != nil || status != 200 || review.Response.UID != "u" {
				t.Fatalf("%d %s: %v", status, body, err)
			}
			got := review.Response
			if got.Allowed != (c.denied == "") || strings.Join(got.Warnings, "|") != strings.Join(c.warnings, "|") {
				t.Errorf("got %s, warnings %q; want %q, %q", message(got), got.Warnings, c.denied, c.warnings)
			}
			if c.denied != "" && (got.Result.Message != c.denied || got.Result.Code != 422 || got.Result.Reason != "Invalid") {
				t.Errorf("denied with %d %s %.300q, want %.300q", got.Result.Code, got.Result.Reason, got.Result.Message, c.denied)
			}
		})
	}
}

func slicesOf(n int, text string) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = text
	}
	return all
}

// What cannot be answered is an error, for the failurePolicy to decide; nothing of
// the request is in it.
func TestImageConfigErrors(t *testing.T) {
	t.Parallel()
	server, _ := imageConfigs(t)
	for name, c := range map[string]struct {
		method, media, body string
		status              int
		says                string
	}{
		"GET":               {http.MethodGet, "", "", 405, "POST"},
		"YAML":              {"", "application/yaml", "", 415, "application/json"},
		"no review":         {"", "", `{}`, 400, "only AdmissionReview"},
		"largest":           {"", "", strings.Repeat(" ", 1<<20), 400, "malformed"},
		"too large":         {"", "", strings.Repeat(" ", 1<<20+1), 413, "larger than 1048576 bytes"},
		"unknown operation": {"", "", config("PATCH", "{}", "{}"), 400, "operation"},
		"no object":         {"", "", config("CREATE", "null", "null"), 400, "no object"},
		"a panic":           {"", "", config("CREATE", `{"spec":{"panics":true}}`, "null"), 500, "failed unexpectedly"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, body := exchange(t, c.method, server.URL, c.media, c.body)
			if status != c.status || !strings.Contains(body, c.says) || strings.Contains(body, "boom") {
				t.Errorf("got %d %q, want %d %q", status, body, c.status, c.says)
			}
		})
	}
}

// TestImageConfigsAreCounted: as the other reviews are.
func TestImageConfigsAreCounted(t *testing.T) {
	t.Parallel()
	server, counted := imageConfigs(t)
	for _, body := range []string{
		config("CREATE", `{"spec":{}}`, "null"), config("CREATE", `{"spec":{"problems":["bad"]}}`, "null"), config("DELETE", "null", "null"),
		config("CREATE", "null", "null"), config("CREATE", `{"spec":{"panics":true}}`, "null"), "{",
	} {
		exchange(t, "", server.URL, "", body)
	}
	server.Close() // waits for what comes after the answers
	slices.Sort(counted.reviewed)
	want := []string{"validate-imageconfig false", "validate-imageconfig true", "validate-imageconfig true"}
	if diff := cmp.Diff(want, counted.reviewed); diff != "" {
		t.Errorf("answered (-want +got):\n%s", diff)
	}
	slices.Sort(counted.refused)
	want = []string{"validate-imageconfig 400", "validate-imageconfig 400", "validate-imageconfig 500"}
	if diff := cmp.Diff(want, counted.refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
}
