// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"github.com/pratique-dev/pratique/webhook"
)

// template is a manifest of each kind of the catalog, with %q for an image.
func template(kind string) string {
	const podTemplate = `{metadata: {labels: {app: x}}, spec: {containers: [{name: main, image: %q}]}}`
	const jobTemplate = `{metadata: {labels: {app: x}}, spec: {restartPolicy: Never, containers: [{name: main, image: %q}]}}`
	const selected = "{selector: {matchLabels: {app: x}}, template: " + podTemplate + "}"
	switch kind {
	case "Pod":
		return `spec: {containers: [{name: main, image: %q}]}`
	case "ReplicationController":
		return "spec: {selector: {app: x}, template: " + podTemplate + "}"
	case "PodTemplate":
		return "template: " + podTemplate
	case "Deployment", "ReplicaSet", "DaemonSet", "StatefulSet":
		return "spec: " + selected
	case "Job":
		return "spec: {template: " + jobTemplate + "}"
	case "CronJob":
		return "spec: {schedule: '0 0 1 1 *', jobTemplate: {spec: {template: " + jobTemplate + "}}}"
	case "Provider", "Configuration", "Function":
		return "spec: {package: %q}"
	case "ProviderRevision", "ConfigurationRevision", "FunctionRevision":
		return "spec: {image: %q, desiredState: Active, revision: 1}"
	case "DeploymentRuntimeConfig":
		return "spec: {deploymentTemplate: {spec: {template: " + podTemplate + "}}}"
	}
	return ""
}

// object is a manifest of a kind whose images are signed.
func object(t *testing.T, row *webhook.Row, version, name, image string) *unstructured.Unstructured {
	t.Helper()
	body := template(row.Kind)
	if body == "" {
		t.Fatalf("the catalog has a kind that this test does not: %s", row.Kind)
	}
	apiVersion := schema.GroupVersion{Group: row.Group, Version: version}.String()
	return parse(t, fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\n", apiVersion, row.Kind, name)+fmt.Sprintf(body, image))
}

func (r *room) resource(row *webhook.Row, version string) dynamic.ResourceInterface {
	resource := r.dynamic.Resource(schema.GroupVersionResource{Group: row.Group, Version: version, Resource: row.Resource})
	if row.Group == "pkg.crossplane.io" {
		return resource
	}
	return resource.Namespace(r.namespace)
}

// put writes an image at a path of the catalog, into a new element of the last
// list on the way: spec.initContainers[].image.
func put(t *testing.T, object map[string]any, path, image string) {
	t.Helper()
	head, tail, inList := cutLast(path, "[].")
	if !inList {
		if err := unstructured.SetNestedField(object, image, strings.Split(path, ".")...); err != nil {
			t.Fatal(err)
		}
		return
	}
	fields := strings.Split(head, ".")
	list, _, err := unstructured.NestedSlice(object, fields...)
	if err != nil {
		t.Fatal(err)
	}
	element := map[string]any{"name": "put"}
	if err := unstructured.SetNestedField(element, image, strings.Split(tail, ".")...); err != nil {
		t.Fatal(err)
	}
	if err := unstructured.SetNestedSlice(object, append(list, element), fields...); err != nil {
		t.Fatal(err)
	}
}

func cutLast(s, sep string) (head, tail string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// TestEveryKindIsIntercepted: the API server asks about every kind of the
// catalog, in every version, and the visitor finds every path: so the webhook
// rules, the paths and the API agree.
func TestEveryKindIsIntercepted(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	catalog, err := webhook.LoadCatalog()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range catalog.Rows() {
		versions := row.Versions
		if row.Group == "pkg.crossplane.io" {
			versions = append(slices.Clone(versions), "v1alpha1") // by matchPolicy Equivalent
		}
		for _, version := range versions {
			t.Run(row.Kind+"/"+version, func(t *testing.T) {
				resource := r.resource(row, version)
				dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
				name := r.namespace + "-" + version

				good := object(t, row, version, name, signed.ByTag())
				ctx, warnings := collecting(t.Context())
				stored, err := resource.Create(ctx, good, dryRun)
				if err != nil {
					t.Fatalf("signed: %v", err)
				}
				if got, pinned := imageIn(t, stored), row.Pinned; pinned != (got == signed.ByBoth()) || !pinned && got != signed.ByTag() {
					t.Errorf("pinned is %t, and the image became %q", pinned, got)
				}
				if floats := row.Decides == webhook.DecidesHere && !row.Pinned; floats != strings.Contains(fmt.Sprint(warnings()), "its tag can move") {
					t.Errorf("warnings: %q", warnings())
				}

				for _, path := range row.Images {
					if strings.Contains(path, "ephemeralContainers") && row.Group != "pkg.crossplane.io" {
						continue // the API server refuses them here, or has a subresource for them
					}
					bad := object(t, row, version, name, signed.ByTag())
					put(t, bad.Object, path, unsigned.ByTag())
					_, err := resource.Create(t.Context(), bad, dryRun)
					prefix, _, _ := strings.Cut(path, "[]")
					refused(t, err, rejected, prefix, unsigned.ByBoth()+" Rejected", "no signature")
				}
			})
		}
	}
}

// imageIn finds the only image of an object.
func imageIn(t *testing.T, object *unstructured.Unstructured) string {
	t.Helper()
	var found []string
	var walk func(value any)
	walk = func(value any) {
		switch v := value.(type) {
		case map[string]any:
			for name, child := range v {
				if text, ok := child.(string); ok && (name == "image" || name == "package") {
					found = append(found, text)
				}
				walk(child)
			}
		case []any:
			for _, child := range v {
				walk(child)
			}
		}
	}
	object.SetManagedFields(nil)
	walk(object.Object)
	if len(found) != 1 {
		t.Fatalf("found the images %q", found)
	}
	return found[0]
}

// TestInconclusiveLater: what is examined again is let in with a warning.
func TestInconclusiveLater(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	catalog, err := webhook.LoadCatalog()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range catalog.Rows() {
		t.Run(row.Kind, func(t *testing.T) {
			ctx, warnings := collecting(t.Context())
			_, err := r.resource(row, row.Versions[0]).Create(ctx,
				object(t, row, row.Versions[0], r.namespace+"-missing", r.prefix()+"missing:v1"),
				metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			if row.Decides == webhook.DecidesHere {
				refused(t, err, inconclusive, "Inconclusive by ImageConfig", "404")
				return
			}
			if all := strings.Join(warnings(), "\n"); err != nil || !strings.Contains(all, "Inconclusive by ImageConfig") {
				t.Errorf("%v, warnings %q", err, all)
			}
		})
	}
}

// TestPodsOfControllers: what stays as it is in Git makes Pods that are pinned.
func TestPodsOfControllers(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	signed := r.signed(t, "signed:v1")
	// A DaemonSet makes Pods for nodes. This one never reports itself.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: r.namespace}}
	if _, err := r.client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.client.CoreV1().Nodes().Delete(context.Background(), node.Name, metav1.DeleteOptions{})
	})
	catalog, err := webhook.LoadCatalog()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range catalog.Rows() {
		switch row.Kind {
		case "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob":
		default:
			continue
		}
		t.Run(row.Kind, func(t *testing.T) {
			name := strings.ToLower(row.Kind)
			made := object(t, row, row.Versions[0], name, signed.ByTag())
			relabel(made.Object, name)
			stored, err := r.resource(row, row.Versions[0]).Create(t.Context(), made, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if image := imageIn(t, stored); image != signed.ByTag() {
				t.Errorf("the %s was rewritten to %q", row.Kind, image)
			}
			if row.Kind == "CronJob" {
				if output, ok := r.kubectl(t, "create", "job", "by-hand", "--from=cronjob/"+name); !ok {
					t.Fatal(output)
				}
			}
			r.awaitPods(t, "app="+name, signed.ByBoth())
		})
	}
	t.Run("scale", func(t *testing.T) {
		r.silent(t, func() {
			if output, ok := r.kubectl(t, "scale", "deployment/deployment", "--replicas=3"); !ok {
				t.Fatal(output)
			}
			r.awaitPods(t, "app=deployment", signed.ByBoth(), signed.ByBoth(), signed.ByBoth())
		})
	})
}

// relabel gives every label and selector app: x another value.
func relabel(value any, to string) {
	switch v := value.(type) {
	case map[string]any:
		for name, child := range v {
			if name == "app" && child == "x" {
				v[name] = to
			}
			relabel(child, to)
		}
	case []any:
		for _, child := range v {
			relabel(child, to)
		}
	}
}

// awaitPods waits until there are Pods with exactly these images.
func (r *room) awaitPods(t *testing.T, labels string, images ...string) {
	t.Helper()
	r.eventually(t, settled, "the Pods "+labels, func(ctx context.Context) error {
		pods, err := r.client.CoreV1().Pods(r.namespace).List(ctx, metav1.ListOptions{LabelSelector: labels})
		if err != nil {
			return err
		}
		var got []string
		for _, p := range pods.Items {
			got = append(got, imagesOf(&p)...)
		}
		if diff := cmp.Diff(images, got); diff != "" {
			return errors.New(diff)
		}
		return nil
	})
}
