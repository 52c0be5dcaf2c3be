// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package registry asks registries: which digest a tag names, whether an image
// is there, which signatures lie beside it.
//
// It is the only room that dials. Every byte that it returns is untrusted: it
// is bounded in size, and nothing more is known of it. What went wrong is an
// [*Error], which knows what it means for the image.
package registry
