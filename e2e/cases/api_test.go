// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/pratique-dev/pratique/e2e/env"
)

// testdata lists ImageConfigs that the API's own tests read too, by name, and
// what the first line of each wants.
func testdata(t *testing.T, folder string) map[string]string {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(root, "api", "v1alpha1", "testdata", folder, "*.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	manifests := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		manifests[strings.TrimSuffix(filepath.Base(file), ".yaml")] = string(text)
	}
	return manifests
}

// wanted is the text that a manifest says an error has.
func wanted(t *testing.T, manifest string) string {
	t.Helper()
	line, _, _ := strings.Cut(manifest, "\n")
	want, ok := strings.CutPrefix(line, "# want: ")
	if !ok {
		t.Fatalf("the first line is %q, and should be # want: …", line)
	}
	return want
}

func (w *world) createConfig(ctx context.Context, config *unstructured.Unstructured, dryRun ...string) error {
	_, err := w.dynamic.Resource(imageConfigs()).Create(ctx, config,
		metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict, DryRun: dryRun})
	return err
}

// TestAPIAccepts: the schema and its rules let every good ImageConfig in, also
// with what this version does not do yet.
func TestAPIAccepts(t *testing.T) {
	t.Parallel()
	for name, manifest := range testdata(t, "good") {
		t.Run(name, func(t *testing.T) {
			if err := shared.createConfig(t.Context(), parse(t, manifest), metav1.DryRunAll); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestAPIRefuses: the API server itself refuses what the schema can see.
func TestAPIRefuses(t *testing.T) {
	t.Parallel()
	for name, manifest := range testdata(t, "bad") {
		t.Run(name, func(t *testing.T) {
			want := wanted(t, manifest)
			err := shared.createConfig(t.Context(), parse(t, manifest), metav1.DryRunAll)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("want an error with %q, got %v", want, err)
			}
		})
	}
}

// TestAPIUnknownFields: a misspelt name is refused by the webhook of ImageConfigs.
// Past that, as a newer version of the API might have it, it is stored, and holds
// back what the ImageConfig selects.
func TestAPIUnknownFields(t *testing.T) {
	t.Parallel()
	for name, manifest := range testdata(t, "unknown") {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			want := wanted(t, manifest)
			config := parse(t, strings.NewReplacer("registry1.com/acme-co/", r.prefix(), "registry1.com/", r.prefix()).Replace(manifest))
			config.SetName(r.namespace)
			err := r.createConfig(t.Context(), config, metav1.DryRunAll)
			if err == nil || !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), `"imageconfigs.pratique.dev" denied the request`) || !strings.Contains(err.Error(), want) {
				t.Errorf("want it to be refused with %q, got %v", want, err)
			}
			config.SetLabels(map[string]string{env.Unchecked: ""})
			if err := r.createConfig(t.Context(), config); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = r.dynamic.Resource(imageConfigs()).Delete(context.Background(), r.namespace, metav1.DeleteOptions{})
			})
			if message := r.awaitReady(t, r.namespace, metav1.ConditionFalse, "Invalid"); !strings.Contains(message, want) {
				t.Errorf("the message lacks %q: %s", want, message)
			}
			const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
			r.try(t.Context(), pod("held", r.prefix()+"app"+digest)).refused(t, inconclusive,
				"Inconclusive by ImageConfig", "it is not ready", want, "kubectl describe imageconfigs.pratique.dev "+r.namespace)
		})
	}
}
