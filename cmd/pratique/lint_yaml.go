// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// manifest is one of them: an object in JSON, and where it is written.
type manifest struct {
	file string
	line int
	raw  []byte
	node *yaml.Node // nil if it is not known
	// before is how many lines of the file are before the node's first.
	before int
}

// lineOf is the line of a field, or of what is nearest above it.
func (m manifest) lineOf(path string) int {
	line, n := m.line, m.node
	for _, step := range pathSteps.FindAllStringSubmatch(path, -1) {
		name, index := step[1], step[2]
		if n != nil && n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n == nil {
			break
		}
		if at, err := strconv.Atoi(index); err == nil && n.Kind == yaml.SequenceNode && at < len(n.Content) {
			n = n.Content[at]
			line = m.before + n.Line
			continue
		}
		key := keyOf(n, name+index)
		if key == nil {
			break
		}
		line, n = m.before+key.Line, valueOf(n, name+index)
	}
	return line
}

// pathSteps are the parts of a field's path: names, and [indices] or [keys].
var pathSteps = regexp.MustCompile(`([^.\[\]]+)|\[([^\]]*)\]`)

func keyOf(n *yaml.Node, name string) *yaml.Node {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i]
		}
	}
	return nil
}

type documentPart struct {
	before int // lines of the file
	text   []byte
}

// splitDocuments divides a file where a line is ---, as manifests are divided.
func splitDocuments(content []byte) []documentPart {
	parts := []documentPart{{}}
	line := 0
	for text := range bytes.Lines(content) {
		line++
		rest, dashes := bytes.CutPrefix(text, []byte("---"))
		if rest = bytes.TrimSpace(rest); dashes && (len(rest) == 0 || rest[0] == '#') {
			parts = append(parts, documentPart{before: line})
			continue
		}
		last := &parts[len(parts)-1]
		last.text = append(last.text, text...)
	}
	return parts
}

// documentLine is where the document begins that a message counts.
func documentLine(content []byte, message string) int {
	var number int
	if _, err := fmt.Sscanf(message, "document %d:", &number); err != nil {
		return 0
	}
	for _, part := range splitDocuments(content) {
		if text := bytes.TrimSpace(part.text); len(text) == 0 {
			continue
		}
		if number--; number == 0 {
			return part.before + 1
		}
	}
	return 0
}

// rootOf is what a document holds, nil if that is nothing.
func rootOf(document *yaml.Node) *yaml.Node {
	if document.Kind != yaml.DocumentNode || len(document.Content) == 0 {
		return nil
	}
	return document.Content[0]
}

// valueOf finds a mapping's value.
func valueOf(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

// jsonText writes YAML as JSON in which each value is in the line that it is in.
type jsonText struct {
	out  []byte
	line int
}

func (t *jsonText) node(n *yaml.Node, depth int) {
	const maxDepth = 32 // anchors can make circles
	for ; t.line < n.Line; t.line++ {
		t.out = append(t.out, '\n')
	}
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	if depth > maxDepth {
		t.out = append(t.out, "null"...)
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		t.list(n, depth, "{:,}")
	case yaml.SequenceNode:
		t.list(n, depth, "[,,]")
	default:
		t.scalar(n)
	}
}

// list writes what a mapping or sequence holds between brackets, with each in
// turn of two things between.
func (t *jsonText) list(n *yaml.Node, depth int, marks string) {
	t.out = append(t.out, marks[0])
	for i, part := range n.Content {
		if i > 0 {
			t.out = append(t.out, marks[2-i%2])
		}
		t.node(part, depth+1)
	}
	t.out = append(t.out, marks[3])
}

func (t *jsonText) scalar(n *yaml.Node) {
	if n.ShortTag() == "!!null" {
		t.out = append(t.out, "null"...)
		return
	}
	if n.ShortTag() != "!!str" && json.Valid([]byte(n.Value)) {
		t.out = append(t.out, n.Value...)
		return
	}
	text, err := json.Marshal(n.Value)
	if err != nil {
		text = []byte(`""`) // strings can always be written
	}
	t.out = append(t.out, text...)
}
