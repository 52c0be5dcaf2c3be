// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"fmt"

	"github.com/pratique-dev/pratique/api/v1alpha1"
)

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
		add(v.Provider == v1alpha1.ProviderContainersPolicy, "verification.provider: ContainersPolicy")
		add(v.Bundle != nil && v.Bundle.Nested == v1alpha1.NestedVerify, "verification.bundle.nested: Verify")
		if v.Cosign != nil {
			for i := range v.Cosign.Authorities {
				unsupportedAuthority(&v.Cosign.Authorities[i],
					func(present bool, path string) {
						add(present, fmt.Sprintf("verification.cosign.authorities[%d].%s", i, path))
					})
			}
		}
	}
	return paths
}

func unsupportedAuthority(a *v1alpha1.Authority, add func(present bool, path string)) {
	add(a.Keyless != nil, "keyless")
	add(a.Key != nil && a.Key.KMS != "", "key.kms")
	add(a.CTLog != nil, "ctlog")
	add(a.RFC3161Timestamp != nil, "rfc3161timestamp")
	add(len(a.Attestations) > 0, "attestations")
	add(len(a.Sources) > 0, "source")
}
