// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pratique-dev/pratique/e2e/env"
	"github.com/pratique-dev/pratique/e2e/helm"
)

const (
	release   = helm.Release
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
	manifest, err := helm.Template(t.Context(), namespace, args...)
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

func full(t *testing.T) []string {
	t.Helper()
	return []string{"--values", path(t, "e2e", "chart", "testdata", "full.yaml")}
}

// objects of a manifest.
func objects(t *testing.T, manifest string) []*unstructured.Unstructured {
	t.Helper()
	all, err := helm.Objects(manifest)
	if err != nil {
		t.Fatal(err)
	}
	return all
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
