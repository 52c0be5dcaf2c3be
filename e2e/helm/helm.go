// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package helm runs Helm as people do: the program itself, built from its module,
// with no settings of whoever runs the tests.
package helm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

// Run runs it and returns what it printed, and an error with its complaint if it
// failed. Its settings are in a folder that is gone afterwards.
func Run(ctx context.Context, kubeconfig string, args ...string) (stdout string, err error) {
	root, err := cluster.Checkout()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(root, "bin", "helm")
	if _, err := os.Stat(binary); err != nil {
		return "", fmt.Errorf("finding Helm: %w; build it with: make %s", err, binary)
	}
	home, err := os.MkdirTemp("", "pratique-helm-")
	if err != nil {
		return "", fmt.Errorf("making a folder for Helm: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(home)) }()
	command := exec.CommandContext(ctx, binary, args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "HELM_CONFIG_HOME="+home, "HELM_CACHE_HOME="+home, "HELM_DATA_HOME="+home)
	var complaint strings.Builder
	command.Stderr = &complaint
	out, err := command.Output()
	if err != nil {
		return string(out), fmt.Errorf("helm %s: %w: %s", strings.Join(args, " "), err, complaint.String())
	}
	return string(out), nil
}

// Release is what Template calls the release.
const Release = "pratique"

// Template is what the chart makes for a release in a namespace, hooks and all.
func Template(ctx context.Context, namespace string, args ...string) (manifest string, err error) {
	root, err := cluster.Checkout()
	if err != nil {
		return "", err
	}
	chart := filepath.Join(root, "charts", "pratique")
	return Run(ctx, os.DevNull, append([]string{"template", Release, chart, "--namespace", namespace}, args...)...)
}

// Objects of a manifest.
func Objects(manifest string) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for decoder := yaml.NewYAMLToJSONDecoder(strings.NewReader(manifest)); ; {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading a manifest: %w", err)
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
}
