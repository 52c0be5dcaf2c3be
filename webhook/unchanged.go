// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// unchanged returns the images that the object had before, if a rule looks at
// objects of its namespace: to that one they are as good as new when something
// else of the object changes. No other rule is asked about them.
func (h *Handler) unchanged(ctx context.Context, r *request, s *subject) []Image {
	if r.Operation != admissionv1.Update || len(s.images) == len(s.found.Images) {
		return nil
	}
	s.set = h.Surroundings.Set()
	if s.set == nil || !s.set.ReadsObjectsAnywhere() {
		return nil
	}
	var namespace policy.Namespace
	if r.Namespace != "" {
		namespace = h.Surroundings.Namespace(ctx, r.Namespace)
	}
	if !s.set.ReadsObjects(namespace) || r.goes() {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(s.found.Images), func(i Image) bool {
		return i.Skip != SkipNone || slices.Contains(s.images, i)
	})
}

// object is what rules may look at, nil if none would.
func (r *request) object(set *policy.Set) *policy.Object {
	if !set.NeedsObject() {
		return nil
	}
	return &policy.Object{Kind: schema.GroupVersionKind(r.Kind), JSON: r.Object}
}

// secrets finds pull secrets that rules name, where the object's own are.
func (h *Handler) secrets(namespace string) func(names []string) *credential.Source {
	return func(names []string) *credential.Source {
		if namespace == "" {
			return credential.None()
		}
		return h.Surroundings.Credentials(credential.Names{Namespace: namespace, PullSecrets: names})
	}
}

// goes reports whether the object is on its way out: it is being deleted, and
// its finalizers must be removable, or nothing but fewer replicas are asked for.
// What breaks a rule must not be kept by it.
func (r *request) goes() bool {
	var before, after map[string]any
	if json.Unmarshal(r.OldObject, &before) != nil || json.Unmarshal(r.Object, &after) != nil {
		return false
	}
	// The API server keeps the time of deletion from being written by anyone.
	if valueAt(before, "metadata", "deletionTimestamp") != nil {
		return true
	}
	was, one := valueAt(before, "spec", "replicas").(float64)
	is, other := valueAt(after, "spec", "replicas").(float64)
	return one && other && is < was && reflect.DeepEqual(unscaled(before), unscaled(after))
}

// valueAt finds a value in an object, nil if it is not there.
func valueAt(object map[string]any, path ...string) any {
	var value any = object
	for _, name := range path {
		object, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = object[name]
	}
	return value
}

// scaling are the annotations that are written together with a number of
// replicas: by the controller of Deployments to the ReplicaSets that it scales
// down (k8s.io/kubernetes pkg/controller/deployment/util, SetReplicasAnnotations),
// and by kubectl apply.
func scaling(annotation string, _ any) bool {
	return strings.HasPrefix(annotation, "deployment.kubernetes.io/") || annotation == "kubectl.kubernetes.io/last-applied-configuration"
}

// unscaled is an object without its replicas, and without what the API server
// and others note of them.
func unscaled(object map[string]any) map[string]any {
	object = without(object, "status")
	if spec, ok := object["spec"].(map[string]any); ok {
		object["spec"] = without(spec, "replicas")
	}
	metadata, ok := object["metadata"].(map[string]any)
	if !ok {
		return object
	}
	metadata = without(metadata, "generation", "resourceVersion", "managedFields")
	if annotations, ok := metadata["annotations"].(map[string]any); ok {
		annotations = maps.Clone(annotations)
		maps.DeleteFunc(annotations, scaling)
		metadata["annotations"] = annotations
	}
	object["metadata"] = metadata
	return object
}

func without(object map[string]any, names ...string) map[string]any {
	object = maps.Clone(object)
	for _, name := range names {
		delete(object, name)
	}
	return object
}
