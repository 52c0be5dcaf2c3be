// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
)

// notServed are versions of k8s.io/api that Kubernetes 1.30 and later do not serve; an object of another version of
// the kind reaches the webhook in a listed version (matchPolicy Equivalent).
var notServed = map[schema.GroupVersion]string{
	{Group: "apps", Version: "v1beta1"}:       "not served since 1.16",
	{Group: "apps", Version: "v1beta2"}:       "not served since 1.16",
	{Group: "extensions", Version: "v1beta1"}: "not served since 1.22, its workloads since 1.16",
	{Group: "batch", Version: "v1beta1"}:      "not served since 1.25",
}

// noImage are the fields whose name or type says image and that hold no reference which anything pulls or mounts. The
// key is the Go type that has the field, and the field's JSON name.
var noImage = map[string]string{
	"v1.Container.imagePullPolicy":                "when to pull, not what",
	"v1.EphemeralContainerCommon.imagePullPolicy": "when to pull, not what",
	"v1.ImageVolumeSource.pullPolicy":             "when to pull, not what",
	"v1.ContainerStatus.image":                    "status: what the runtime says it runs",
	"v1.ContainerStatus.imageID":                  "status: what the runtime says it runs",
	"v1.ImageVolumeStatus.imageRef":               "status: the digest that the kubelet mounted",
	"v1.NodeSystemInfo.osImage":                   "status: the name of the node's operating system",
	"v1.ContainerImage.names":                     "status of a Node: what its runtime has on disk",
	"v1.RBDVolumeSource.image":                    "a block device of a Ceph cluster",
	"v1.RBDPersistentVolumeSource.image":          "a block device of a Ceph cluster",
	"v1.LocalObjectReference.name":                "of imagePullSecrets: the name of a Secret",
}

// field is a string that the walk came by.
type field struct {
	path  string // of the catalog's shape
	owner string // Type.jsonName
}

// walk collects the string fields below typ that could hold an image: those with "image" or "artifact" in their name, and every
// string in a struct that is named for images or reached through a field that is. A type inside itself is not
// entered again.
func walk(typ reflect.Type, path string, imagery bool, above []reflect.Type, out *[]field) {
	switch typ.Kind() {
	case reflect.Pointer:
		walk(typ.Elem(), path, imagery, above, out)
	case reflect.Slice, reflect.Array:
		if typ.Elem().Kind() == reflect.Uint8 {
			return
		}
		walk(typ.Elem(), path+"[]", imagery, above, out)
	case reflect.Map:
		walk(typ.Elem(), path+"{}", imagery, above, out)
	case reflect.String:
		if imagery {
			*out = append(*out, field{path: path})
		}
	case reflect.Struct:
		if slices.Contains(above, typ) {
			return
		}
		above = append(slices.Clip(above), typ)
		for field := range typ.Fields() {
			walkField(typ, field, path, imagery, above, out)
		}
	}
}

func walkField(owner reflect.Type, f reflect.StructField, path string, imagery bool, above []reflect.Type, out *[]field) {
	name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	if name == "-" || !f.IsExported() {
		return
	}
	if name == "" || f.Anonymous && strings.Contains(options, "inline") {
		walk(f.Type, path, imagery, above, out)
		return
	}
	says := func(s string) bool {
		s = strings.ToLower(s)
		return strings.Contains(s, "image") || strings.Contains(s, "artifact")
	}
	below := strings.TrimPrefix(path+"."+name, ".")
	first := len(*out)
	walk(f.Type, below, imagery || says(name) || says(owner.Name()), above, out)
	for i := range (*out)[first:] {
		// The innermost struct comes first, and stays.
		if (*out)[first+i].owner == "" {
			pkg := owner.PkgPath()
			(*out)[first+i].owner = pkg[strings.LastIndex(pkg, "/")+1:] + "." + owner.Name() + "." + name
		}
	}
}

// TestCoverage walks every kind of k8s.io/api: each string that could hold an image is in the catalog, or has its
// reason here.
func TestCoverage(t *testing.T) {
	catalog := load(t)
	usedReasons := map[string]bool{}
	usedVersions := map[schema.GroupVersion]bool{}
	reached := map[string]bool{} // kind and path
	kinds := scheme.Scheme.AllKnownTypes()
	if len(kinds) < 500 {
		t.Fatalf("the scheme has only %d kinds", len(kinds))
	}
	for _, gvk := range slices.SortedFunc(maps.Keys(kinds), func(a, b schema.GroupVersionKind) int {
		return strings.Compare(a.String(), b.String())
	}) {
		if gvk.Version == runtime.APIVersionInternal || strings.HasSuffix(gvk.Kind, "List") {
			continue // a list is never sent to admission
		}
		var fields []field
		walk(kinds[gvk], "", false, nil, &fields)
		for _, f := range fields {
			if _, ok := noImage[f.owner]; ok {
				usedReasons[f.owner] = true
				continue
			}
			if _, ok := notServed[gvk.GroupVersion()]; ok {
				usedVersions[gvk.GroupVersion()] = true
				continue
			}
			row, ok := catalog.Lookup(gvk.Group, gvk.Version, gvk.Kind, "")
			if !ok {
				t.Errorf("%s: %s (%s) could hold an image, and the kind is not in the catalog", gvk, f.path, f.owner)
				continue
			}
			if !slices.Contains(row.Images, f.path) {
				t.Errorf("%s: %s (%s) could hold an image, and is neither in the catalog nor on the list of reasons", gvk, f.path, f.owner)
			}
			reached[gvk.Kind+" "+f.path] = true
		}
	}
	for owner := range noImage {
		if !usedReasons[owner] {
			t.Errorf("the reason for %s is needed no more", owner)
		}
	}
	for gv := range notServed {
		if !usedVersions[gv] {
			t.Errorf("the reason for %s is needed no more", gv)
		}
	}
	// The other way round: no path of the catalog leads to nothing, save for Crossplane, whose types are not here.
	for _, row := range catalog.Rows() {
		for _, path := range row.Images {
			if row.Group != "pkg.crossplane.io" && !reached[row.Kind+" "+path] {
				t.Errorf("%s has no string at %s", row.Kind, path)
			}
		}
	}
}
