// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import "github.com/pratique-dev/pratique/api/v1alpha1"

// unsupported lists the fields of a spec that are in the API and not yet in the
// code. They are never ignored: whoever writes one relies on it.
func unsupported(spec *v1alpha1.ImageConfigSpec) []string {
	var paths []string
	add := func(present bool, path string) {
		if present {
			paths = append(paths, "spec."+path)
		}
	}
	if v := spec.Verification; v != nil {
		add(v.Bundle != nil && v.Bundle.Nested == v1alpha1.NestedVerify, "verification.bundle.nested: Verify")
	}
	return paths
}
