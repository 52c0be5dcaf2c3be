// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/reference"
)

// checkImageConfig says what the compiler would find wrong with an ImageConfig,
// given as JSON, as far as it can be told without the Secrets and ConfigMaps that
// it names; and which prefixes may match more than was meant.
func checkImageConfig(raw []byte) (problems, warnings []string) {
	config, err := v1alpha1.Decode(raw)
	if err != nil {
		// What could be read of it beside the error must not be judged further.
		return texts(err), nil
	}
	named := map[string]bool{}
	for _, problem := range config.Validate() {
		problems = append(problems, problem.Error())
		named[problem.Field] = true
	}
	for i, match := range config.Spec.MatchImages {
		path := field.NewPath("spec", "matchImages").Index(i).Child("prefix").String()
		prefixes, err := reference.ParsePrefix(match.Prefix)
		switch {
		case err != nil && !named[path]:
			problems = append(problems, fmt.Sprintf("%s: %v", path, err))
		case err == nil && endsInside(prefixes[0]):
			warnings = append(warnings, fmt.Sprintf("%s: also matches names that go on, as %s-other; end it in / or : to stop there", path, match.Prefix))
		}
	}
	return problems, warnings
}

// endsInside reports whether a prefix ends where a component of a name may go
// on: neither after a host, nor at a slash, nor in the tag.
func endsInside(p reference.Prefix) bool {
	return p.Reach == reference.ReachRepository && !strings.HasSuffix(p.Text, "/")
}

// texts are an error's own, each by itself where it is several.
func texts(err error) []string {
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		if several, ok := inner.(interface{ Unwrap() []error }); ok {
			var all []string
			for _, one := range several.Unwrap() {
				all = append(all, one.Error())
			}
			return all
		}
	}
	return []string{err.Error()}
}
