// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of Pratique's own kinds.
const GroupName = "pratique.dev"

// Version is the version of the group that this package holds.
const Version = "v1alpha1"

// KindImageConfig is the kind of an ImageConfig.
const KindImageConfig = "ImageConfig"

// GroupVersion returns pratique.dev/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: Version}
}

// Resource returns pratique.dev/v1alpha1, resource imageconfigs.
func Resource() schema.GroupVersionResource {
	return GroupVersion().WithResource("imageconfigs")
}

// AddToScheme adds the kinds of this package to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	b := runtime.NewSchemeBuilder(addKnownTypes)
	return b.AddToScheme(s)
}

func addKnownTypes(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &ImageConfig{}, &ImageConfigList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
