// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"testing"

	"github.com/pratique-dev/pratique/api/crossplane/v1beta1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
)

// CrossplaneAuthorities compiles the authorities of one of Crossplane's
// ImageConfigs, and returns with them what is noted of them.
func CrossplaneAuthorities(tb testing.TB, c Compiler, raw []byte, objects Objects) ([]cosign.Authority, []string) {
	tb.Helper()
	config, err := v1beta1.Decode(raw)
	if err != nil {
		tb.Fatal(err)
	}
	one := &crossplane{config: config, namespace: c.CrossplaneNamespace}
	one.compilation = compilation{compiler: c, objects: objects, rule: &policy.Rule{}}
	if one.checkVerification(); len(one.invalid) > 0 {
		tb.Fatal(one.invalid)
	}
	var all []cosign.Authority
	list := config.Spec.Verification.Cosign.Authorities
	for i := range list {
		authority, problem := one.authority(&list[i], "a")
		if problem != nil {
			tb.Fatal(problem)
		}
		all = append(all, authority)
	}
	return all, one.notes
}
