// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"slices"
	"strings"
)

// index finds the rules whose prefixes a text begins with. It is a radix tree:
// what a look-up costs depends on the text's length and not on how many
// prefixes there are.
type index struct {
	root node
}

type node struct {
	label    string // the bytes from the parent to here
	rules    []*Rule
	children []*node // sorted by the first byte of their labels, all different
}

// insert adds a rule under a prefix. Rules of one prefix are kept by kind and
// name, so that no order of arrival shows.
func (x *index) insert(prefix string, rule *Rule) {
	at := &x.root
	for prefix != "" {
		i, ok := at.child(prefix[0])
		if !ok {
			at.children = slices.Insert(at.children, i, &node{label: prefix})
		}
		next := at.children[i]
		if n := shared(prefix, next.label); n < len(next.label) {
			next = next.split(n)
			at.children[i] = next
		}
		at, prefix = next, prefix[len(next.label):]
	}
	i, found := slices.BinarySearchFunc(at.rules, rule, compareRules)
	if !found {
		at.rules = slices.Insert(at.rules, i, rule)
	}
}

func compareRules(a, b *Rule) int {
	adds := func(r *Rule) int {
		if r.Adds {
			return 1
		}
		return 0
	}
	return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), adds(a)-adds(b))
}

// child finds the child whose label begins with b, or where it would stand.
func (n *node) child(b byte) (int, bool) {
	return slices.BinarySearchFunc(n.children, b, func(c *node, b byte) int {
		return cmp.Compare(c.label[0], b)
	})
}

// split puts a node between n and its parent, at byte i of n's label.
func (n *node) split(i int) *node {
	upper := &node{label: n.label[:i], children: []*node{n}}
	n.label = n.label[i:]
	return upper
}

func shared(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// appendMatches appends to path, from the shortest prefix to the longest, the
// rules of every prefix that text begins with.
func (x *index) appendMatches(path [][]*Rule, text string) [][]*Rule {
	at := &x.root
	for {
		if len(at.rules) > 0 {
			path = append(path, at.rules)
		}
		if text == "" {
			return path
		}
		i, ok := at.child(text[0])
		if !ok || !strings.HasPrefix(text, at.children[i].label) {
			return path
		}
		at = at.children[i]
		text = text[len(at.label):]
	}
}
