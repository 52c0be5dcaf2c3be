// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/pratique-dev/pratique/registry/registrytest"

// images are what the story is about.
type images struct {
	key, other *registrytest.Key

	signed   registrytest.Image // .sig, as cosign 2 signs
	bundle   registrytest.Image // a bundle, as cosign 3 signs; an index of two platforms
	unsigned registrytest.Image
	forged   registrytest.Image // signed by another key
	moving   registrytest.Image // its tag will point at moved
	moved    registrytest.Image // unsigned, in the same repository
	provider registrytest.Image // a signed Crossplane package
}

// sign pushes the images and signs them with cosign's own code.
func sign(tb registrytest.TB, r *registrytest.Registry) images {
	i := images{
		key: registrytest.NewKey(tb, registrytest.ECDSAP256), other: registrytest.NewKey(tb, registrytest.ECDSAP256),
		signed:   r.PushImage(tb, "acme/shop:v1"),
		bundle:   r.PushIndex(tb, "acme/cart:v1").Image,
		unsigned: r.PushImage(tb, "acme/unsigned:v1"),
		forged:   r.PushImage(tb, "acme/forged:v1"),
		moving:   r.PushImage(tb, "acme/moving:v1"),
		moved:    r.PushImage(tb, "acme/moving:v2"),
		provider: r.PushImage(tb, "acme/provider-ships:v1"),
	}
	for _, image := range []registrytest.Image{i.signed, i.moving, i.provider} {
		r.SignLegacy(tb, image, i.key)
	}
	r.SignBundle(tb, i.bundle, i.key)
	r.SignLegacy(tb, i.forged, i.other)
	return i
}
