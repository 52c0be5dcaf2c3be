// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Bounds on what a row may ask for, so that an Image has a fixed size and an object's members fit in a word.
const (
	// maxLists: an Argo WorkflowTemplate has the deepest images of the kinds in spec section 1, at
	// spec.templates[].steps[][].inline.containerSet.containers[].image.
	maxLists = 4
	// maxMembers is the number of bits of visitor.object's seen.
	maxMembers = 64
	// maxSegments bounds the recursion of the visitor.
	maxSegments = 32
)

// use says what a value that the visitor reaches is for.
type use int

const (
	useNone use = iota // on the way to others
	useImage
	usePullSecret
	useServiceAccount
	useName   // of a list's element
	useMirror // there or not, whatever its value
)

// node is a place that a row's paths lead to or through. It holds members or an element, or else is a leaf.
type node struct {
	use      use
	members  []member
	required uint64 // bit i: members[i] is a leaf for an image
	element  *node
	site     *site
}

type member struct {
	name string
	node *node
}

// ofPullSecrets reports whether a list's element names a pull secret.
func (n *node) ofPullSecrets() bool {
	return slices.ContainsFunc(n.members, func(m member) bool { return m.node.use == usePullSecret })
}

// wants is the kind of JSON value that must stand here; null may always.
func (n *node) wants() jsontext.Kind {
	switch {
	case n.element != nil:
		return jsontext.KindBeginArray
	case n.members != nil:
		return jsontext.KindBeginObject
	default:
		return jsontext.KindString
	}
}

// site is a path in print: the parts between the list indexes.
type site struct {
	order    int      // among the row's paths
	paths    []string // "spec.containers", ".image"
	pointers []string // "/spec/containers", "/image"
}

// path writes the path with an index or a name in each pair of brackets.
func (s *site) path(inBrackets func(list int) string) string {
	var path strings.Builder
	for n, part := range s.paths {
		if n > 0 {
			path.WriteByte('[')
			path.WriteString(inBrackets(n - 1))
			path.WriteByte(']')
		}
		path.WriteString(part)
	}
	return path.String()
}

// String is the path as the catalog writes it.
func (s *site) String() string {
	return s.path(func(int) string { return "" })
}

// step is one segment of a path: a member's name, or (empty) the elements of a list.
type step string

const elements step = ""

// segmentPattern is a member's name with any number of lists in it; the names of image-bearing members are plain.
var segmentPattern = regexp.MustCompile(`^([A-Za-z_][A-Za-z0-9_-]*)((?:\[\])*)$`)

// parsePath reads a path of the catalog: spec.containers[].image.
func parsePath(path string) ([]step, error) {
	var steps []step
	lists := 0
	segments := strings.Split(path, ".")
	if len(segments) > maxSegments {
		return nil, fmt.Errorf("path %q: more than %d segments", path, maxSegments)
	}
	for _, segment := range segments {
		parts := segmentPattern.FindStringSubmatch(segment)
		if parts == nil {
			return nil, fmt.Errorf("path %q: %q is not a name, nor a name with [] for each list in it", path, segment)
		}
		steps = append(steps, step(parts[1]))
		for range len(parts[2]) / len("[]") {
			steps = append(steps, elements)
			lists++
		}
	}
	if lists > maxLists {
		return nil, fmt.Errorf("path %q: more than %d lists", path, maxLists)
	}
	return steps, nil
}

// leaf is a path and what is read there.
type leaf struct {
	path string
	use  use
}

// compile writes the shorthands out and builds what the visitor walks by.
func (r *Row) compile() error {
	leaves := r.leaves()
	r.Images, r.PullSecrets = nil, nil
	r.root = &node{site: newSite(nil, -1)}
	for order, leaf := range leaves {
		steps, err := parsePath(leaf.path)
		if err != nil {
			return err
		}
		if err := r.root.insert(steps, leaf.use, order); err != nil {
			return fmt.Errorf("path %q: %w", leaf.path, err)
		}
		switch leaf.use {
		case useImage:
			r.Images = append(r.Images, leaf.path)
		case usePullSecret:
			r.PullSecrets = append(r.PullSecrets, leaf.path)
		case useNone, useServiceAccount, useName, useMirror: // not listed
		}
	}
	if err := r.insertMirror(len(leaves)); err != nil {
		return err
	}
	if err := r.root.nameElements(nil); err != nil {
		return err
	}
	if err := r.compilePlaceholders(); err != nil {
		return err
	}
	return r.root.finish()
}

// insertMirror adds the annotation of mirror Pods. It is no path of the catalog: its name has dots, and only Pods
// have mirrors.
func (r *Row) insertMirror(order int) error {
	if r.Group != "" || r.Kind != "Pod" {
		return nil
	}
	if err := r.root.insert([]step{"metadata", "annotations", mirrorAnnotation}, useMirror, order); err != nil {
		return fmt.Errorf("path of the annotation %q: %w", mirrorAnnotation, err)
	}
	return nil
}

func (r *Row) compilePlaceholders() error {
	for _, placeholder := range r.Placeholders {
		re, err := regexp.Compile(placeholder)
		if err != nil {
			return fmt.Errorf("placeholders: %w", err)
		}
		r.placeholders = append(r.placeholders, re)
	}
	return nil
}

func (r *Row) leaves() []leaf {
	var leaves []leaf
	for _, spec := range r.podSpecs {
		leaves = append(leaves,
			leaf{spec + ".containers[].image", useImage},
			leaf{spec + ".initContainers[].image", useImage},
			leaf{spec + ".ephemeralContainers[].image", useImage},
			leaf{spec + ".volumes[].image.reference", useImage},
			leaf{spec + ".imagePullSecrets[].name", usePullSecret},
			leaf{spec + ".serviceAccountName", useServiceAccount},
			leaf{spec + ".serviceAccount", useServiceAccount})
	}
	for _, path := range r.Images {
		leaves = append(leaves, leaf{path, useImage})
	}
	for _, path := range r.PullSecrets {
		leaves = append(leaves, leaf{path, usePullSecret})
	}
	return leaves
}

var errConflict = errors.New("another path of the row leads to another type of value at the same place")

// insert adds a leaf below n, making the nodes on the way.
func (n *node) insert(steps []step, use use, order int) error {
	for i, s := range steps {
		next, err := n.next(s)
		if err != nil {
			return err
		}
		if next.site == nil {
			next.site = newSite(steps[:i+1], order)
		}
		n = next
	}
	if n.use != useNone {
		return errors.New("listed twice")
	}
	if n.members != nil || n.element != nil {
		return errConflict
	}
	n.use = use
	return nil
}

// next returns the node one step below, new if need be.
func (n *node) next(s step) (*node, error) {
	if n.use != useNone || (s == elements && n.members != nil) || (s != elements && n.element != nil) {
		return nil, errConflict
	}
	if s == elements {
		if n.element == nil {
			n.element = new(node)
		}
		return n.element, nil
	}
	for _, m := range n.members {
		if m.name == string(s) {
			return m.node, nil
		}
	}
	n.members = append(n.members, member{string(s), new(node)})
	return n.members[len(n.members)-1].node, nil
}

// nameElements has the name read of every element that is an object with images in it.
func (n *node) nameElements(steps []step) error {
	if n.element != nil {
		below := slices.Concat(steps, []step{elements})
		if n.element.holdsImage() && n.element.members != nil {
			if n.element.hasMember("name") {
				return fmt.Errorf("path %s.name: is read as the name of the list's element", newSite(below, -1))
			}
			name := slices.Concat(below, []step{"name"})
			n.element.members = append(n.element.members, member{"name", &node{use: useName, site: newSite(name, -1)}})
		}
		if err := n.element.nameElements(below); err != nil {
			return err
		}
	}
	for _, m := range n.members {
		if err := m.node.nameElements(slices.Concat(steps, []step{step(m.name)})); err != nil {
			return err
		}
	}
	return nil
}

func (n *node) hasMember(name string) bool {
	for _, m := range n.members {
		if m.name == name {
			return true
		}
	}
	return false
}

func (n *node) holdsImage() bool {
	if n.element != nil && n.element.holdsImage() {
		return true
	}
	for _, m := range n.members {
		if m.node.holdsImage() {
			return true
		}
	}
	return n.use == useImage
}

// finish sets what is computed of the whole tree.
func (n *node) finish() error {
	if len(n.members) > maxMembers {
		return fmt.Errorf("path %q: more than %d members are looked for", n.site, maxMembers)
	}
	for i, m := range n.members {
		if m.node.use == useImage {
			n.required |= 1 << i
		}
		if err := m.node.finish(); err != nil {
			return err
		}
	}
	if n.element != nil {
		return n.element.finish()
	}
	return nil
}

// newSite prints the steps that lead to a place.
func newSite(steps []step, order int) *site {
	s := &site{order: order, paths: []string{""}, pointers: []string{""}}
	for _, step := range steps {
		last := len(s.paths) - 1
		if step == elements {
			s.paths = append(s.paths, "")
			s.pointers = append(s.pointers, "")
			continue
		}
		if last > 0 || s.paths[0] != "" {
			s.paths[last] += "."
		}
		s.paths[last] += string(step)
		s.pointers[last] += "/" + escapePointer(string(step))
	}
	return s
}

// escapePointer escapes a member's name for a pointer (RFC 6901 section 3).
func escapePointer(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}
