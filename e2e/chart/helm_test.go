// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/helm"
)

const (
	release   = "pratique"
	namespace = "pratique-system"
)

// path is that of a file in the checkout.
func path(t *testing.T, elements ...string) string {
	t.Helper()
	root, err := env.Root()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(append([]string{root}, elements...)...)
}

// run runs Helm, and fails the test if Helm fails.
func run(t *testing.T, kubeconfig string, args ...string) string {
	t.Helper()
	stdout, err := helm.Run(t.Context(), kubeconfig, args...)
	if err != nil {
		t.Fatal(err)
	}
	return stdout
}

// rendered is what the chart makes with these values, hooks and all.
func rendered(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, os.DevNull, append([]string{"template", release, path(t, "charts", "pratique"), "--namespace", namespace}, args...)...)
}

func full(t *testing.T) []string {
	t.Helper()
	return []string{"--values", path(t, "e2e", "chart", "testdata", "full.yaml")}
}

// objects of a manifest.
func objects(t *testing.T, manifest string) []*unstructured.Unstructured {
	t.Helper()
	var all []*unstructured.Unstructured
	for decoder := utilyaml.NewYAMLToJSONDecoder(strings.NewReader(manifest)); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
}

// decode reads a YAML or JSON document into anything.
func decode(t *testing.T, content string, into any) {
	t.Helper()
	raw, err := utilyaml.ToJSON([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, elements ...string) string {
	t.Helper()
	content, err := os.ReadFile(path(t, elements...))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}
