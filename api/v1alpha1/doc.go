// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package v1alpha1 holds the types of the API group pratique.dev, version
// v1alpha1: [ImageConfig].
//
// The markers on the types are the source of the CustomResourceDefinition and
// of the deep copies (make generate). What a schema can refuse is refused
// there: lengths, bounds, enumerations, and by CEL what concerns several
// fields. Every list has maxItems and every string that a rule reads has
// maxLength, because the API server estimates the cost of CEL from them and
// refuses a definition whose estimate is too high.
//
// Where the bounds come from: spec section 3 (256 prefixes of 512 bytes, 32
// authorities, 32 identities, 16 attestations, 8 sources); Kubernetes (names
// 253, label keys 253+1+63, label values 63); RFC 1035 and a port (hosts
// 253+6); the 128 characters of a tag less the 75 of sha256-, 64 digits and
// .sig (tagPrefix 53); twice what an RSA key of 16384 bits needs in PEM (data
// 8192). The others are far above what anyone writes. Schema lengths are in
// characters; patterns hold prefixes to ASCII, where that is bytes.
//
// # Unknown fields
//
// An API server removes the fields that a schema does not know, silently for
// most clients. Of a rule about signatures that must not happen: a misspelt
// "annotatons" would be gone, and the rule that is stored would ask for less
// than the one that was written. So every object of the spec carries
// x-kubernetes-preserve-unknown-fields, not only its root: pruning resumes at
// each level that has properties of its own. The unknown names are then stored,
// and [Decode], through which every reader of an ImageConfig goes, finds them
// and says where they are.
//
// +groupName=pratique.dev
// +kubebuilder:object:generate=true
package v1alpha1
