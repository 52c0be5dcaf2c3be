// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// crossplaneKinds are those whose images are examined, with their plurals.
func crossplaneKinds() map[string]string {
	return map[string]string{
		"Provider": "providers", "Configuration": "configurations", "Function": "functions",
		"ProviderRevision": "providerrevisions", "ConfigurationRevision": "configurationrevisions",
		"FunctionRevision": "functionrevisions", "DeploymentRuntimeConfig": "deploymentruntimeconfigs",
	}
}

// crossplaneCRD is as much of a Crossplane kind as the cases need. The version
// v1alpha1 is one that the webhook rules do not name.
const crossplaneCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[2]s.pkg.crossplane.io}
spec:
  group: pkg.crossplane.io
  names: {kind: %[1]s, plural: %[2]s, singular: %[3]s}
  scope: Cluster
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v1beta1, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
  - {name: v1alpha1, served: true, storage: false, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
---
`

// installCrossplane makes the kinds known to the API server.
func (w *world) installCrossplane(ctx context.Context) error {
	var manifests strings.Builder
	for kind, plural := range crossplaneKinds() {
		fmt.Fprintf(&manifests, crossplaneCRD, kind, plural, strings.ToLower(kind))
	}
	if _, stderr, exit := w.Apply(ctx, manifests.String()); exit != 0 {
		return fmt.Errorf("applying Crossplane's CRDs: %s", stderr)
	}
	if _, stderr, exit := w.Kubectl(ctx, "wait", "--for=condition=Established", "--timeout=20s", "crd", "--all"); exit != 0 {
		return fmt.Errorf("waiting for Crossplane's CRDs: %s", stderr)
	}
	return nil
}

func (w *world) crossplane(plural string) dynamic.ResourceInterface {
	return w.dynamic.Resource(schema.GroupVersionResource{Group: "pkg.crossplane.io", Version: "v1", Resource: plural})
}

// TestCrossplanePackage: a package and its revision, stored, updated and never
// rewritten.
func TestCrossplanePackage(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed, unsigned := r.signed(t, "provider:v1"), r.unsigned(t, "rogue:v1")
	for _, test := range []struct {
		kind, plural, field string
		code                int32 // of what cannot be examined; 0: a warning
		floats              bool
	}{
		{"Provider", "providers", "package", 0, false},
		{"ProviderRevision", "providerrevisions", "image", inconclusive, true},
	} {
		t.Run(test.kind, func(t *testing.T) {
			resource := r.crossplane(test.plural)
			const manifest = "apiVersion: pkg.crossplane.io/v1\nkind: %s\nmetadata: {name: %s}\nspec: {%s: %q}"
			create := func(image string) ([]string, error) {
				ctx, warnings := collecting(t.Context())
				_, err := resource.Create(ctx, parse(t, fmt.Sprintf(manifest, test.kind, r.namespace, test.field, image)), metav1.CreateOptions{})
				return warnings(), err
			}
			_, err := create(unsigned.ByTag())
			refused(t, err, rejected, "spec."+test.field+": "+unsigned.ByBoth()+" Rejected", "no signature")
			warnings, err := create(signed.ByTag())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = resource.Delete(context.Background(), r.namespace, metav1.DeleteOptions{}) })
			if floats := strings.Contains(strings.Join(warnings, " "), "its tag can move after this: name the digest too"); floats != test.floats || len(warnings) > 1 {
				t.Errorf("warnings %q", warnings)
			}

			stored, err := resource.Get(t.Context(), r.namespace, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if image := imageIn(t, stored); image != signed.ByTag() {
				t.Errorf("rewritten to %q", image)
			}
			update := func(image string) ([]string, error) {
				changed := stored.DeepCopy()
				changed.Object["spec"].(map[string]any)[test.field] = image
				ctx, warnings := collecting(t.Context())
				_, err := resource.Update(ctx, changed, metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}})
				return warnings(), err
			}
			_, err = update(unsigned.ByTag())
			refused(t, err, rejected, "no signature")
			warnings, err = update(r.prefix() + "missing:v1")
			if test.code != 0 {
				refused(t, err, test.code, "answered 404")
			} else if err != nil || !strings.Contains(strings.Join(warnings, " "), "Inconclusive by ImageConfig") {
				t.Errorf("%v, warnings %q", err, warnings)
			}
			if warnings, err := update(signed.ByDigest()); err != nil || len(warnings) > 0 {
				t.Errorf("by digest: %v, warnings %q", err, warnings)
			}
			r.silent(t, func() {
				changed := stored.DeepCopy()
				changed.SetLabels(map[string]string{"a": "b"})
				if _, err := resource.Update(t.Context(), changed, metav1.UpdateOptions{}); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// TestCrossplanePullSecret: a package has no namespace; its secrets are in
// Crossplane's.
func TestCrossplanePullSecret(t *testing.T) {
	t.Parallel()
	r := newRoom(t).at(shared.private)
	r.enforce(t)
	create := func(image registrytest.Image) error {
		_, err := r.crossplane("providerrevisions").Create(t.Context(), parse(t, fmt.Sprintf(
			"apiVersion: pkg.crossplane.io/v1\nkind: ProviderRevision\nmetadata: {name: %s}\nspec: {image: %q, packagePullSecrets: [{name: %s}]}",
			r.namespace, image.ByTag(), r.namespace)), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	first, second := r.signed(t, "provider:v1"), r.signed(t, "provider:v2")
	refused(t, create(first), inconclusive, "answered 401")
	r.dockerSecret(t, crossplaneNamespace, r.namespace, r.registry.Host(), user, password)
	// That it was missing is remembered for a moment.
	r.eventually(t, 2*inForce, "the secret is used", func(context.Context) error { return create(second) })
}
