// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"reflect"
	"slices"

	"github.com/pratique-dev/pratique/policy"
)

// place is where authorities look, and what for. The first of a verifier's is
// beside the image.
type place struct {
	policy.Place

	signatures, attestations bool
}

// asked reports whether any authority looks there.
func (p place) asked() bool { return p.signatures || p.attestations }

// locate finds an authority's places among those of all, and adds them.
func (c *compiler) locate(wanted []policy.Place) []bool {
	if len(wanted) == 0 {
		return []bool{true}
	}
	in := make([]bool, len(c.places))
	for _, one := range wanted {
		i := slices.IndexFunc(c.places, func(known policy.Place) bool { return samePlace(known, one) })
		if i < 0 {
			i = len(c.places)
			c.places = append(c.places, one)
		}
		for len(in) <= i {
			in = append(in, false)
		}
		in[i] = true
	}
	return in
}

// samePlace reports whether two places are one: what the reference of a
// repository has besides does not count.
func samePlace(a, b policy.Place) bool {
	return a.Repository.Repository() == b.Repository.Repository() && a.TagPrefix == b.TagPrefix &&
		len(a.Credentials) == len(b.Credentials) &&
		(len(a.Credentials) == 0 || reflect.DeepEqual(a.Credentials, b.Credentials))
}

// looksIn reports whether the authority looks in a place.
func (a *authority) looksIn(place int) bool { return place < len(a.in) && a.in[place] }

// survey says what is looked for in which place.
func survey(places []policy.Place, authorities []*authority) []place {
	surveyed := make([]place, len(places))
	for i := range places {
		surveyed[i].Place = places[i]
		for _, a := range authorities {
			if a.looksIn(i) {
				surveyed[i].signatures = surveyed[i].signatures || !a.attests()
				surveyed[i].attestations = surveyed[i].attestations || a.attests()
			}
		}
	}
	return surveyed
}

// Places are the places besides the image's own where the authorities look. The
// images that are verified have them as Elsewhere, in this order.
func (v *Verifier) Places() []policy.Place {
	var elsewhere []policy.Place
	for _, p := range v.places[1:] {
		elsewhere = append(elsewhere, p.Place)
	}
	return elsewhere
}
