// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	kjson "sigs.k8s.io/json"
)

// envelope is the outermost level of an object, with its parts still in JSON,
// because they are not read with the same strictness.
type envelope struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Metadata   json.RawMessage `json:"metadata"`
	Spec       json.RawMessage `json:"spec"`
	Status     json.RawMessage `json:"status"`
}

// Decode reads one ImageConfig from JSON and sets its defaults, as an API
// server does (see [ImageConfig.SetDefaults]).
//
// The outermost level and spec are read strictly: an unknown name, a name in
// another case, a name given twice, null, or a value of the wrong type is an
// error with its path. metadata and status are not, because API servers and
// other versions of Pratique add to them.
//
// Decode returns the object beside an error whenever it could tell that there
// is an ImageConfig: then it holds what could be read, so that the images that
// it names can be held back. It must not be compiled. It must not be taken for
// one without verification either, whatever it holds: verification may be the
// very name that is misspelt. The object is nil if raw is not JSON or is
// something else than an ImageConfig of this version.
//
// Decode does not check what the schema checks; an API server has done that,
// and [ImageConfig.Validate] does it for objects from elsewhere.
func Decode(raw []byte) (*ImageConfig, error) {
	var parts envelope
	strict, err := kjson.UnmarshalStrict(raw, &parts)
	if err != nil {
		return nil, fmt.Errorf("decoding ImageConfig: %w", err)
	}
	if parts.APIVersion != GroupVersion().String() || parts.Kind != KindImageConfig {
		return nil, fmt.Errorf("decoding ImageConfig: apiVersion %q and kind %q: expected %q and %q",
			parts.APIVersion, parts.Kind, GroupVersion().String(), KindImageConfig)
	}
	config := &ImageConfig{}
	config.APIVersion, config.Kind = parts.APIVersion, parts.Kind
	problems := strict
	problems = append(problems, decodeLoosely(parts.Metadata, "metadata", &config.ObjectMeta)...)
	problems = append(problems, decodeLoosely(parts.Status, "status", &config.Status)...)
	problems = append(problems, decodeSpec(parts.Spec, &config.Spec)...)
	config.SetDefaults()
	if err := errors.Join(problems...); err != nil {
		return config, fmt.Errorf("decoding ImageConfig %q: %w", config.Name, err)
	}
	return config, nil
}

// decodeLoosely reads a part whose unknown names do not matter.
func decodeLoosely(raw json.RawMessage, path string, into any) []error {
	if len(raw) == 0 {
		return nil
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, into); err != nil {
		return []error{describe(err, path)}
	}
	return nil
}

// decodeSpec reads a spec in two ways. The first, without types, sees what the
// second does not: null, and names given twice inside what is free of form.
func decodeSpec(raw json.RawMessage, into *ImageConfigSpec) []error {
	if len(raw) == 0 {
		return []error{errors.New("spec: Required value")}
	}
	var tree any
	problems, err := kjson.UnmarshalStrict(raw, &tree, kjson.DisallowDuplicateFields)
	if err != nil {
		return []error{describe(err, "spec")}
	}
	unknown, err := kjson.UnmarshalStrict(raw, into, kjson.DisallowUnknownFields)
	problems = append(problems, unknown...)
	for i, problem := range problems {
		problems[i] = describe(problem, "spec")
	}
	if err != nil {
		problems = append(problems, describe(err, "spec"))
	}
	return append(problems, nulls(tree, "spec")...)
}

// describe puts the path of the part it is about before an error of the JSON
// package, which does not know it.
func describe(err error, part string) error {
	if field, ok := errors.AsType[kjson.FieldError](err); ok {
		field.SetFieldPath(part + "." + field.FieldPath())
		return field
	}
	if mistyped, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		if mistyped.Field != "" {
			part += "." + mistyped.Field
		}
		return fmt.Errorf("%s: %s where %s is expected", part, mistyped.Value, jsonName(mistyped.Type.Kind()))
	}
	return fmt.Errorf("%s: %w", part, err)
}

// jsonName says what JSON calls the values that a Go kind is read from.
func jsonName(kind reflect.Kind) string {
	switch kind {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Slice:
		return "array"
	case reflect.Struct, reflect.Map:
		return "object"
	default:
		return kind.String()
	}
}

// nulls returns an error for each null in a tree of JSON values. An API server
// takes null for absent and drops it; where a rule about signatures says null,
// something is missing that was meant to be there.
func nulls(tree any, path string) []error {
	var problems []error
	switch node := tree.(type) {
	case nil:
		return []error{fmt.Errorf("%s: null: leave it out, or give it a value", path)}
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(node)) {
			problems = append(problems, nulls(node[name], path+"."+name)...)
		}
	case []any:
		for i, item := range node {
			problems = append(problems, nulls(item, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return problems
}
