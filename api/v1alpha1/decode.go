// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"errors"
	"fmt"

	kjson "sigs.k8s.io/json"

	"github.com/pratique-dev/pratique/api/strict"
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
	problems, err := kjson.UnmarshalStrict(raw, &parts)
	if err != nil {
		return nil, fmt.Errorf("decoding ImageConfig: %w", err)
	}
	if parts.APIVersion != GroupVersion().String() || parts.Kind != KindImageConfig {
		return nil, fmt.Errorf("decoding ImageConfig: apiVersion %q and kind %q: expected %q and %q",
			parts.APIVersion, parts.Kind, GroupVersion().String(), KindImageConfig)
	}
	config := &ImageConfig{}
	config.APIVersion, config.Kind = parts.APIVersion, parts.Kind
	problems = append(problems, strict.Loosely(parts.Metadata, "metadata", &config.ObjectMeta)...)
	problems = append(problems, strict.Loosely(parts.Status, "status", &config.Status)...)
	problems = append(problems, strict.Spec(parts.Spec, &config.Spec)...)
	config.SetDefaults()
	if err := errors.Join(problems...); err != nil {
		return config, fmt.Errorf("decoding ImageConfig %q: %w", config.Name, err)
	}
	return config, nil
}
