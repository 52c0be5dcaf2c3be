// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1

import (
	"encoding/json"
	"errors"
	"fmt"

	kjson "sigs.k8s.io/json"

	"github.com/pratique-dev/pratique/api/strict"
)

// Decode reads one ImageConfig from JSON and sets its defaults.
//
// Its spec is read strictly, as that of Pratique's own is: an unknown name, a
// name in another case, a name given twice, null, or a value of the wrong type is
// an error with its path. What a newer Crossplane has there may say that less is
// to be let in. Only what spec.runtime holds is not looked at, nor a status.
//
// Decode returns the object beside an error whenever it could tell that there is
// an ImageConfig: then it holds what could be read, so that the images that it
// names can be held back. It must not be compiled. The object is nil if raw is
// not JSON or is something else.
func Decode(raw []byte) (*ImageConfig, error) {
	var parts struct {
		APIVersion string          `json:"apiVersion"`
		Kind       string          `json:"kind"`
		Metadata   json.RawMessage `json:"metadata"`
		Spec       json.RawMessage `json:"spec"`
		// Status is there in no version yet.
		Status json.RawMessage `json:"status"`
	}
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
	problems = append(problems, strict.Spec(parts.Spec, &config.Spec)...)
	for i := range config.Spec.MatchImages {
		if match := &config.Spec.MatchImages[i]; match.Type == "" {
			match.Type = MatchPrefix
		}
	}
	if err := errors.Join(problems...); err != nil {
		return config, fmt.Errorf("decoding ImageConfig %q: %w", config.Name, err)
	}
	return config, nil
}
