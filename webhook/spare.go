// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
)

// builtInGroups are the API groups whose kinds the API server itself decodes
// into its own types. Only there is a list sure to be a list and an image a
// string when a match condition reads it: a condition that fails to evaluate
// would refuse the request, or under failurePolicy Ignore leave it unexamined.
var builtInGroups = []string{"", "apps", "batch"}

// podSpecImages is how many paths of images stand for one Pod spec (leaves).
const podSpecImages = 4

// conditionName is what the API server's metrics and messages call the condition.
const conditionName = "may-change-images"

// plainPath is a path that CEL can spell with its own selections, and that
// leads through no list.
var plainPath = regexp.MustCompile(`^[a-z][A-Za-z]*(\.[a-z][A-Za-z]*)*$`)

// sparable reports whether a match condition can see everything that the visitor
// sees in objects of this kind: a built-in kind, and no image but in its Pod
// specs. Rows that an admin extended by other paths are never spared.
func (r *Row) sparable() bool {
	return slices.Contains(builtInGroups, r.Group) &&
		len(r.podSpecs) > 0 && len(r.Images) == podSpecImages*len(r.podSpecs) &&
		!slices.ContainsFunc(r.podSpecs, func(path string) bool { return !plainPath.MatchString(path) })
}

// spare returns the match condition of rows that are sparable: true for whatever
// may have images that the old object does not have.
//
// It spares an UPDATE only if each list of containers and of image volumes holds
// the same names with the same references in the same order, for which Changed
// finds nothing ([FuzzSpare] holds it to that). A new order alone and a removal
// are not spared, although nothing is examined then: they are rare, and to see
// them would be dearer than the call.
//
// All paths of all rows are compared in every object. A kind that has nothing at
// one of them has nothing there before and after.
func spare(rows []*Row) []admissionregistrationv1.MatchCondition {
	var sizes, images []string
	var seen []string
	for _, row := range rows {
		for _, spec := range row.podSpecs {
			if slices.Contains(seen, spec) {
				continue
			}
			seen = append(seen, spec)
			for _, list := range []string{"containers", "initContainers", "ephemeralContainers"} {
				elements := elementsAt(spec, list)
				sizes = append(sizes, elements+".size()")
				images = append(images, elements+".map(c, [c.?name.orValue(''), c.?image.orValue('')])")
			}
			// What an image volume refers to may be absent; that it is one may not.
			volumes := elementsAt(spec, "volumes")
			sizes = append(sizes, volumes+".size()")
			images = append(images, volumes+".map(v, v.?image.orValue(null) != null, [v.?name.orValue(''), v.?image.?reference.orValue('')])")
		}
	}
	// The visitor refuses objects with more images than maxFound. They are not
	// compared either: so the cost has a bound far below what the API server
	// allows, and nobody can make an object that is too dear to compare.
	expression := fmt.Sprintf("request.operation != 'UPDATE' ||\n"+
		"[object, oldObject].exists(o, %s > %d) ||\n"+
		"[[object, oldObject].map(o, [\n  %s])].exists(both, both[0] != both[1])",
		strings.Join(sizes, " + "), maxFound, strings.Join(images, ",\n  "))
	return []admissionregistrationv1.MatchCondition{{Name: conditionName, Expression: expression}}
}

// elementsAt is a list in the object o. One that is absent, or null as the API
// server writes a Pod's absent containers, is empty.
func elementsAt(spec, list string) string {
	path := "o.?" + strings.ReplaceAll(spec+"."+list, ".", ".?")
	return "optional.ofNonZeroValue(" + path + ".orValue([])).orValue([])"
}
