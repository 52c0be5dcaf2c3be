// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"iter"
	"strings"
)

// AnySubdomain begins the name of a scope that takes in the hosts of a domain.
const AnySubdomain = "*."

// Scopes are the names of the scopes that take in the reference whatever its tag or
// digest, from the most specific one: its repository, what that is below, its
// host, that host's domains without a port, and at last the empty name, which takes
// in everything (containers-policy.json(5), "docker:"). The second value says
// that the name is a domain, which is written after [AnySubdomain].
func (r Reference) Scopes() iter.Seq2[string, bool] {
	return func(yield func(name string, domain bool) bool) {
		name := r.repository
		for {
			if !yield(name, false) {
				return
			}
			at := strings.LastIndexByte(name, '/')
			if at < 0 {
				break
			}
			name = name[:at]
		}
		domain, _, _ := strings.Cut(name, ":")
		for {
			_, above, ok := strings.Cut(domain, ".")
			if !ok {
				break
			}
			if !yield(above, true) {
				return
			}
			domain = above
		}
		yield("", false)
	}
}
