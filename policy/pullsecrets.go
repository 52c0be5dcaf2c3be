// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import "github.com/pratique-dev/pratique/registry/credential"

// shown are the credentials that a place is shown: those of the pull secrets that
// it names in the namespace of the object, in place of the object's own.
func (q *Question) shown(place Place, own *credential.Source) *credential.Source {
	if len(place.PullSecrets) == 0 {
		return own
	}
	if q.Secrets == nil {
		return credential.None()
	}
	return q.Secrets(place.PullSecrets)
}
