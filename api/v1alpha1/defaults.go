// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// SetDefaults fills in the values that an API server fills in from the schema,
// for objects that come from files. It changes nothing else, and nothing the
// second time.
func (c *ImageConfig) SetDefaults() {
	spec := &c.Spec
	setDefault(&spec.Mode, ModeEnforce)
	for i := range spec.MatchImages {
		setDefault(&spec.MatchImages[i].Type, MatchPrefix)
	}
	if spec.Registry != nil && spec.Registry.Authentication != nil {
		setDefault(&spec.Registry.Authentication.Provider, ProviderGeneric)
	}
	if spec.RewriteImage != nil {
		setDefault(&spec.RewriteImage.Target, RewritePod)
	}
	if spec.Verification != nil {
		spec.Verification.setDefaults()
	}
}

func (v *Verification) setDefaults() {
	if v.Bundle != nil {
		setDefault(&v.Bundle.Nested, NestedIgnore)
	}
	if v.Cosign == nil {
		return
	}
	for _, a := range v.Cosign.Authorities {
		if a.Key != nil {
			setDefault(&a.Key.HashAlgorithm, SHA256)
		}
	}
}

func setDefault[T ~string](field *T, value T) {
	if *field == "" {
		*field = value
	}
}
