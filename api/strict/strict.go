// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package strict reads objects of Kubernetes so that nothing that is written in
// them is passed over: what cannot be read as it is meant may be what makes a
// rule stronger.
package strict

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	kjson "sigs.k8s.io/json"
)

// Loosely reads a part whose unknown names do not matter.
func Loosely(raw json.RawMessage, path string, into any) []error {
	if len(raw) == 0 {
		return nil
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, into); err != nil {
		return []error{describe(err, path)}
	}
	return nil
}

// Spec reads a spec: an unknown name, a name in another case, a name given
// twice, null, or a value of the wrong type is an error with its path. It reads
// in two ways. The first, without types, sees what the second does not: null,
// and names given twice inside what is free of form.
func Spec(raw json.RawMessage, into any) []error {
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
