// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/pratique-dev/pratique/api/v1alpha1"
)

// schema is what these tests look at in a generated schema.
type schema struct {
	Type                 string            `json:"type"`
	Properties           map[string]schema `json:"properties"`
	Items                *schema           `json:"items"`
	AdditionalProperties *schema           `json:"additionalProperties"`
	Preserve             bool              `json:"x-kubernetes-preserve-unknown-fields"`
	ListType             string            `json:"x-kubernetes-list-type"`
	Default              any               `json:"default"`
	Enum                 []any             `json:"enum"`
	MaxLength            int               `json:"maxLength"`
	MaxItems             int               `json:"maxItems"`
	MaxProperties        int               `json:"maxProperties"`
}

func specSchema(t *testing.T) schema {
	t.Helper()
	text, err := os.ReadFile("../../deploy/crds/pratique.dev_imageconfigs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var crd struct {
		Spec struct {
			Versions []struct {
				Schema struct {
					OpenAPIV3Schema schema `json:"openAPIV3Schema"`
				} `json:"schema"`
			} `json:"versions"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	if len(crd.Spec.Versions) != 1 {
		t.Fatalf("%d versions, want 1", len(crd.Spec.Versions))
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema.Properties["spec"]
}

// TestSchemaPreservesAndBounds: an object that does not preserve unknown
// fields would lose a misspelt name before Decode sees it, and a list or text
// without a bound makes the API server estimate the cost of rules too high.
func TestSchemaPreservesAndBounds(t *testing.T) {
	objects := 0
	var walk func(path string, s schema)
	walk = func(path string, s schema) {
		switch {
		case s.Type == "object" && s.AdditionalProperties != nil:
			if s.MaxProperties == 0 {
				t.Errorf("%s: no maxProperties", path)
			}
		case s.Type == "object":
			objects++
			if !s.Preserve {
				t.Errorf("%s: does not preserve unknown fields", path)
			}
		case s.Type == "array":
			if s.MaxItems == 0 || s.ListType == "" {
				t.Errorf("%s: maxItems %d, list type %q", path, s.MaxItems, s.ListType)
			}
			walk(path+"[]", *s.Items)
		case s.Type == "string":
			if s.MaxLength == 0 && s.Enum == nil {
				t.Errorf("%s: neither maxLength nor enum", path)
			}
		case s.Type != "boolean":
			t.Errorf("%s: type %q", path, s.Type)
		}
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			walk(path+"."+name, s.Properties[name])
		}
	}
	walk("spec", specSchema(t))
	if objects < 30 {
		t.Errorf("only %d objects: the schema is not what this test thinks it is", objects)
	}
}

// TestDefaultsAreTheSchemas compares SetDefaults with the defaults in the
// schema, on an object that has every section and none of the values.
func TestDefaultsAreTheSchemas(t *testing.T) {
	raw, _ := readObject(t, "testdata/good/everything.yaml")
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	s := specSchema(t)
	removed := setDefaults(s, object["spec"], func(node map[string]any, name string, _ any) { delete(node, name) })
	if removed < 6 {
		t.Errorf("only %d defaults in the schema", removed)
	}
	bare, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	got, err := v1alpha1.Decode(bare)
	if err != nil {
		t.Fatal(err)
	}
	setDefaults(s, object["spec"], func(node map[string]any, name string, value any) { node[name] = value })
	full, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	var want v1alpha1.ImageConfig
	if err := json.Unmarshal(full, &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Spec, got.Spec); diff != "" {
		t.Errorf("(-schema +SetDefaults):\n%s", diff)
	}
}

// setDefaults calls set for each property with a default of each object that
// is there, and returns how many those are.
func setDefaults(s schema, value any, set func(node map[string]any, name string, value any)) int {
	n := 0
	switch v := value.(type) {
	case map[string]any:
		for name, property := range s.Properties {
			if property.Default != nil {
				n++
				set(v, name, property.Default)
			}
			if child, ok := v[name]; ok {
				n += setDefaults(property, child, set)
			}
		}
	case []any:
		for _, item := range v {
			n += setDefaults(*s.Items, item, set)
		}
	}
	return n
}

func TestAddToScheme(t *testing.T) {
	s := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	gvk := v1alpha1.GroupVersion().WithKind(v1alpha1.KindImageConfig)
	object, err := s.New(gvk)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := object.(*v1alpha1.ImageConfig); !ok {
		t.Errorf("%v is %T", gvk, object)
	}
}

func labelSet(m map[string]string) labels.Set { return m }

// sameJSON compares by value what is free of form: RawExtension keeps the
// text, and encoding compacts it.
func sameJSON(a, b runtime.RawExtension) bool {
	var left, right any
	if json.Unmarshal(a.Raw, &left) != nil || json.Unmarshal(b.Raw, &right) != nil {
		return false
	}
	return cmp.Equal(left, right, cmpopts.EquateEmpty())
}
