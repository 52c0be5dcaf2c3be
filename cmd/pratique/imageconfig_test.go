// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestCheckImageConfig(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: acme}\n"
	const passes = "verification: {provider: Cosign, cosign: {authorities: [{name: a, static: {action: pass}}]}}"
	for name, c := range map[string]struct {
		manifest           string
		problems, warnings []string // each the beginning of one
	}{
		"good": {head + "spec: {matchImages: [{prefix: a.io/x/}, {prefix: b.io}, {prefix: b.io/}, {prefix: 'c.io/x:'}, {prefix: 'c.io/x:v1'}], " + passes + "}", nil, nil},
		"inside": {
			head + "spec: {matchImages: [{prefix: a.io/}, {prefix: b.io/acme/provider-aws}, {prefix: docker.io/ngin}], " + passes + "}", nil,
			[]string{"spec.matchImages[1].prefix: also matches names that go on, as b.io/acme/provider-aws-other; end it in / or :", "spec.matchImages[2].prefix: "},
		},
		"misspelt":       {head + "spec: {matchImages: [{prefix: a.io/}], verifcation: {}, mod: Audit}", []string{`unknown field "spec.`, `unknown field "spec.`}, nil},
		"twice as wrong": {head + "spec: {mode: Watch, matchImages: [{prefix: 'https://a.io'}], " + passes + "}", []string{"spec.matchImages[0].prefix: ", "spec.mode: Unsupported value"}, nil},
		// The schema does not see it, the compiler does.
		"a host that is none": {head + "spec: {matchImages: [{prefix: 'a.io:x/'}], " + passes + "}", []string{`spec.matchImages[0].prefix: "a.io:x" is not a registry's host`}, nil},
		"another kind":        {"apiVersion: v1\nkind: Secret\n", []string{"decoding ImageConfig: apiVersion"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			raw, err := yaml.YAMLToJSON([]byte(c.manifest))
			if err != nil {
				t.Fatal(err)
			}
			problems, warnings := checkImageConfig(raw)
			for what, pair := range map[string][2][]string{"problems": {problems, c.problems}, "warnings": {warnings, c.warnings}} {
				got, want := pair[0], pair[1]
				if len(got) != len(want) {
					t.Errorf("%s %q, want %q", what, got, want)
					continue
				}
				for i := range want {
					if !strings.HasPrefix(got[i], want[i]) {
						t.Errorf("%s[%d]: %q, want %q", what, i, got[i], want[i])
					}
				}
			}
		})
	}
}
