// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import "net"

// Resolving is o with another resolver.
func Resolving(o Options, resolver *net.Resolver) Options {
	o.resolver = resolver
	return o
}
