// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The names in files of a registries.d folder (containers-registries.d(5)).
const (
	defaultDocker   = "default-docker"
	useAttachments  = "use-sigstore-attachments"
	lookasideName   = "lookaside"
	lookasideWrites = "lookaside-staging"
	// These are older names of the two above.
	sigstoreName   = "sigstore"
	sigstoreWrites = "sigstore-staging"
)

var (
	topNames     = []string{docker, defaultDocker}
	sectionNames = []string{lookasideName, lookasideWrites, sigstoreName, sigstoreWrites, useAttachments}
)

// folder is what the files read so far say.
type folder struct {
	registries *Registries
	places     map[string]place // of sections, by their canonical names
}

// place is where something is written.
type place struct {
	file string
	line int
	name string // as written
}

func (p place) String() string { return fmt.Sprintf("%s:%d", p.file, p.line) }

// read reads one file.
func (f *folder) read(r *report, file File) {
	if filepath.Ext(file.Name) != ".yaml" {
		r.warnf(0, "name it *.yaml, or remove it", "not read: its name does not end in .yaml")
		return
	}
	if len(file.Content) > maxRegistries {
		r.wrongf(0, "", "larger than %d bytes", maxRegistries)
		return
	}
	y := &yamlReader{report: r}
	root, ok := y.parse(file.Content)
	if !ok || root == nil {
		return
	}
	for _, m := range y.mapping(root, "the file", topNames) {
		switch m.name {
		case docker:
			for _, namespace := range y.mapping(m.value, `"docker"`, nil) {
				f.namespace(y, namespace)
			}
		case defaultDocker:
			if !isNull(m.value) {
				f.section(y, m, "")
			}
		}
	}
	f.registries.folders = append(f.registries.folders, r.folders...)
	if r.errors == 0 {
		y.judge(file.Content)
	}
}

// namespace reads one of the sections below docker.
func (f *folder) namespace(y *yamlReader, m yamlMember) {
	why, instead := neverMatches(m.name)
	if m.name == "" {
		why, instead = "it is empty", "write "+defaultDocker+" for all registries"
	}
	if why != "" {
		y.warnf(m.line, instead, "the namespace %s never matches: %s", quote(m.name), why)
		y.section(m.value, quote(m.name))
		return
	}
	f.section(y, m, canonicalScope(m.name))
}

// section takes in a section that is there once in the whole folder.
func (f *folder) section(y *yamlReader, m yamlMember, name string) {
	s := y.section(m.value, quote(m.name))
	if first, twice := f.places[name]; twice {
		y.wrongf(m.line, "keep one", "%s is there twice: %s in %s says it too", quote(m.name), quote(first.name), first)
		return
	}
	f.places[name] = place{file: y.file, line: m.line, name: m.name}
	f.registries.sections[name] = s
}

// yamlReader reads one file and tells of its mistakes.
type yamlReader struct{ *report }

type yamlMember struct {
	name  string
	line  int
	value *yaml.Node
}

// yamlLine is where the library's messages have a line.
var yamlLine = regexp.MustCompile(`line (\d+): `)

// failed tells of an error of the YAML library, each part in its line.
func (y *yamlReader) failed(err error) {
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = typed.Errors
	}
	for _, text := range texts {
		line := 0
		if at := yamlLine.FindStringSubmatchIndex(text); at != nil {
			if n, err := strconv.Atoi(text[at[2]:at[3]]); err == nil {
				line = n
			}
			text = text[at[1]:]
		}
		y.wrongf(line, "", "not YAML as it is meant: %s", plain(text))
	}
}

// parse returns the first document's node, nil if there is none. The library
// reads no further.
func (y *yamlReader) parse(content []byte) (root *yaml.Node, ok bool) {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	var document, next yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, true
	case err != nil:
		y.failed(err)
		return nil, false
	}
	if err := decoder.Decode(&next); !errors.Is(err, io.EOF) {
		y.warnf(next.Line, "remove the line ---", "only what is before the next document is read")
	}
	if len(document.Content) != 1 || isNull(document.Content[0]) {
		return nil, true
	}
	return document.Content[0], true
}

// judge decodes the file as the library does: what it refuses is no good.
func (y *yamlReader) judge(content []byte) {
	type section struct {
		Lookaside      string `yaml:"lookaside"`
		Staging        string `yaml:"lookaside-staging"`
		Sigstore       string `yaml:"sigstore"`
		SigstoreWrites string `yaml:"sigstore-staging"`
		Attachments    *bool  `yaml:"use-sigstore-attachments"`
	}
	var file struct {
		Default *section           `yaml:"default-docker"`
		Docker  map[string]section `yaml:"docker"`
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		y.failed(err)
	}
}

// resolve follows an alias. Anchors are of nodes and not of other aliases.
func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	n = resolve(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// mapping lists the members of a mapping, each name once. Names that are not
// known, if any are, are warned of: the library passes them over.
func (y *yamlReader) mapping(n *yaml.Node, what string, known []string) []yamlMember {
	if isNull(n) {
		return nil
	}
	n = resolve(n)
	if n.Kind != yaml.MappingNode {
		y.wrongf(n.Line, "write names and values, as name: value", "%s is no mapping", what)
		return nil
	}
	seen := map[string]int{}
	var list []yamlMember
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := resolve(n.Content[i])
		line := n.Content[i].Line
		switch first, twice := seen[name.Value]; {
		case name.Kind != yaml.ScalarNode:
			y.wrongf(line, "write a text", "a name in %s is no text", what)
			continue
		case name.ShortTag() == "!!merge":
			y.wrongf(line, "write out what it stands for", "a merge (<<) in %s", what)
			continue
		case twice:
			y.wrongf(line, "keep one", "%s is there twice in %s, first in line %d", quote(name.Value), what, first)
			continue
		}
		seen[name.Value] = line
		if known != nil && !y.known(name.Value, line, what, known) {
			continue
		}
		list = append(list, yamlMember{name: name.Value, line: line, value: n.Content[i+1]})
	}
	return list
}

// known warns of a name that is not.
func (y *yamlReader) known(name string, line int, what string, known []string) bool {
	if slices.Contains(known, name) {
		return true
	}
	hint := "remove it, or write one of " + names(known)
	if meant := nearest(name, known); meant != "" {
		hint = "write " + meant
	}
	y.warnf(line, hint, "%s knows no %s: it is passed over", what, quote(name))
	return false
}

// section reads what a namespace says.
func (y *yamlReader) section(n *yaml.Node, what string) section {
	var s section
	var older, newer *yamlMember
	for _, m := range y.mapping(n, what, sectionNames) {
		switch m.name {
		case lookasideName:
			newer = &m
		case sigstoreName:
			y.warnf(m.line, "write "+lookasideName, "%s is the old name of %s", sigstoreName, lookasideName)
			older = &m
		case sigstoreWrites:
			y.warnf(m.line, "write "+lookasideWrites, "%s is the old name of %s", sigstoreWrites, lookasideWrites)
		case useAttachments:
			s.attachments = y.boolean(m)
		}
	}
	if newer != nil {
		s.lookaside = y.lookaside(*newer)
	}
	if older == nil {
		return s
	}
	// The old name counts only without the new one.
	if u := y.lookaside(*older); s.lookaside == nil {
		s.lookaside = u
	} else {
		y.warnf(older.line, "remove it", "%s beside %s is passed over", sigstoreName, lookasideName)
	}
	return s
}

// boolean reads true or false as the library does; null says nothing.
func (y *yamlReader) boolean(m yamlMember) *bool {
	if isNull(m.value) {
		return nil
	}
	var b bool
	if n := resolve(m.value); n.Kind != yaml.ScalarNode || n.Decode(&b) != nil {
		y.wrongf(m.value.Line, "write true or false", "%s is neither true nor false", m.name)
		return nil
	}
	return &b
}

// lookaside reads where signatures are. An empty one says nothing.
func (y *yamlReader) lookaside(m yamlMember) *url.URL {
	n := resolve(m.value)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.ScalarNode {
		y.wrongf(m.value.Line, "write a URL", "%s is no text", m.name)
		return nil
	}
	if n.Value == "" {
		y.warnf(m.line, "remove it, or write a URL", "%s is empty, and what a wider section says counts", m.name)
		return nil
	}
	u, mistake, hint := checkLookaside(n.Value)
	if mistake != "" {
		y.wrongf(m.value.Line, hint, "%s is %s", m.name, mistake)
		return nil
	}
	switch u.Scheme {
	case "file":
		y.folders = append(y.folders, Problem{
			File: y.file, Line: m.line, Hint: "serve it, and write https://…",
			Message: fmt.Sprintf("%s: %s is a folder, and folders are read on the command line only", m.name, quote(n.Value)),
		})
	case "http":
		y.warnf(m.value.Line, "write https:// if the server has it",
			"%s is without TLS: signatures cannot be forged on the way, but held back, or replaced by older ones", m.name)
	}
	return u
}
