// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1beta1 is as much of Crossplane's API pkg.crossplane.io/v1beta1 as
// Pratique reads: its ImageConfig, which says how the images of packages are
// pulled, found and verified. Pratique never writes one.
package v1beta1

import "k8s.io/apimachinery/pkg/runtime/schema"

const (
	// GroupName is the API group of Crossplane's packages.
	GroupName = "pkg.crossplane.io"
	// Version is the version of it that is read; no other has an ImageConfig.
	Version = "v1beta1"
	// KindImageConfig is the kind.
	KindImageConfig = "ImageConfig"
	// Resource is how the API server calls it.
	Resource = "imageconfigs"
)

// GroupVersion returns the group and version of this package.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: Version}
}
