// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/tailscale/hujson"
	"go.podman.io/image/v5/signature"
)

// docker is the transport of images in registries.
const docker = "docker"

// elsewhere are the library's other transports: no image of a Pod comes by them.
var elsewhere = []string{
	"atomic", "containers-storage", "dir", "docker-archive", "docker-daemon", "oci", "oci-archive", "ostree", "sif", "tarball",
}

const defaultHint = `write "default": [{"type": "reject"}]`

// ParsePolicy reads a policy. There is none if one of the problems is more than a
// warning.
//
// Whether a policy is good is for the library to say. What is wrong with one that
// it refuses is found here, because the library stops at the first mistake and
// does not say where that is.
func ParsePolicy(file File) (*Policy, []Problem) {
	r := &report{file: file.Name}
	r.read(file.Content)
	policy := r.policy(file.Content)
	if r.errors > 0 {
		policy = nil
	}
	return policy, r.all()
}

// CheckRequirements checks a list of requirements as an ImageConfig has it, in
// JSON: there key files may be in Secrets.
func CheckRequirements(file File) []Problem {
	r := &report{file: file.Name}
	r.read(file.Content)
	if len(file.Content) > maxPolicy {
		r.wrongf(0, "", "larger than %d bytes", maxPolicy)
		return r.all()
	}
	c := &checker{report: r, secrets: true}
	tree, err := hujson.Parse(file.Content)
	if err != nil {
		c.syntax(err)
		return r.all()
	}
	c.list(tree, "the list of requirements")
	r.judge(slices.Concat([]byte(`{"default": `), file.Content, []byte("}")))
	return r.all()
}

func (r *report) policy(content []byte) *Policy {
	if len(content) > maxPolicy {
		r.wrongf(0, "", "larger than %d bytes", maxPolicy)
		return nil
	}
	content = r.mark(content)
	begins := bytes.TrimLeft(content, " \t\r\n")
	if len(begins) == 0 {
		r.wrongf(0, "write {"+strings.TrimPrefix(defaultHint, "write ")+"}", "the file is empty")
		return nil
	}
	l := &lexer{report: r, in: content}
	tokens := l.run()
	first := slices.IndexFunc(tokens, func(t token) bool { return t.kind != space })
	if first < 0 || tokens[first].kind != opens {
		at := 0
		if first >= 0 {
			at = tokens[first].at
		}
		r.problems, r.errors = nil, 0 // those of a text that is no policy explain nothing
		r.wrongf(r.line(at), "write {"+strings.TrimPrefix(defaultHint, "write ")+"}", "not a policy: it does not begin with {")
		return nil
	}
	fixed := &repairer{report: r, tokens: tokens}
	text := fixed.run()
	if text == nil {
		return nil
	}
	r.read(text)
	tree, err := hujson.Parse(text)
	c := &checker{report: r, unsure: err != nil || fixed.cut}
	if err != nil {
		c.syntax(err)
	}
	policy := c.policy(tree, text)
	r.judge(content)
	return policy
}

// mark takes away the mark that some editors put before a text.
func (r *report) mark(content []byte) []byte {
	rest, ok := bytes.CutPrefix(content, []byte("\ufeff"))
	if !ok {
		return content
	}
	r.wrongf(1, "save it as UTF-8 without one", "the file begins with a byte order mark")
	return slices.Concat([]byte("   "), rest)
}

// syntax tells why the text is no JSON after all that could be repaired.
func (c *checker) syntax(err error) {
	line, message := 0, strings.TrimPrefix(err.Error(), "hujson: ")
	if rest, ok := strings.CutPrefix(message, "line "); ok {
		number, _, _ := strings.Cut(rest, ",")
		if n, err := strconv.Atoi(number); err == nil {
			line = n
		}
		_, message, _ = strings.Cut(rest, ": ")
	}
	c.wrongf(line, "", "not JSON: %s", plain(message))
}

// judge asks the library, whose word is the last. That it refuses what nothing
// was found in is not expected.
func (r *report) judge(content []byte) {
	_, err := signature.NewPolicyFromBytes(content)
	if err == nil || r.errors > 0 {
		return
	}
	line, message := 0, err.Error()
	// What it quotes may be found.
	if from := strings.IndexByte(message, '"'); from >= 0 {
		if quoted, err := strconv.QuotedPrefix(message[from:]); err == nil && bytes.Count(content, []byte(quoted)) == 1 {
			line = r.line(bytes.Index(content, []byte(quoted)))
		}
	}
	r.wrongf(line, "", "%s", plain(message))
}

// policy checks all of it, and returns what it says of registries.
func (c *checker) policy(tree hujson.Value, text []byte) *Policy {
	f, ok := c.object(tree, "the policy", []string{"default", "transports"})
	if !ok {
		return nil
	}
	p := &Policy{Scopes: map[string]Requirements{}}
	if m, ok := f["default"]; ok {
		c.list(m.value, `"default"`)
		p.Default = c.requirements("default", m, text)
	} else {
		c.missingf(tree.StartOffset, defaultHint, `the policy has no "default"`)
	}
	if m, ok := f["transports"]; ok {
		c.transports(m, p, text)
	}
	return p
}

// requirements takes a list as it is written.
func (c *checker) requirements(written string, m member, text []byte) Requirements {
	r := Requirements{Written: written, Line: c.line(m.at)}
	array, ok := m.value.Value.(*hujson.Array)
	if !ok {
		return r
	}
	for _, element := range array.Elements {
		r.List = append(r.List, json.RawMessage(bytes.Clone(text[element.StartOffset:element.EndOffset])))
	}
	return r
}

func (c *checker) transports(m member, p *Policy, text []byte) {
	list, ok := c.members(m.value, `"transports"`, `write an object such as {"docker": {}}, or leave it out`)
	if !ok {
		return
	}
	seen := map[string]int{}
	for _, transport := range list {
		if !c.once(seen, transport, "the transport") {
			continue
		}
		if transport.name != docker {
			c.otherTransport(transport)
			continue
		}
		c.scopes(transport, func(scope member) {
			c.scope(scope, p, text)
		})
	}
}

// otherTransport checks one that no Pod's images come by.
func (c *checker) otherTransport(m member) {
	switch meant := nearest(m.name, append([]string{docker}, elsewhere...)); {
	case slices.Contains(elsewhere, m.name):
		c.advisef(m.at, "", "the transport %s does not concern images of Pods: its scopes are not read", m.name)
	case meant != "":
		c.advisef(m.at, "write "+quote(meant), "there is no transport %s: its scopes never match", quote(m.name))
	default:
		c.advisef(m.at, `write "docker" for images in registries`, "there is no transport %s: its scopes never match", quote(m.name))
	}
	silent := *c
	silent.quiet = true
	silent.scopes(m, nil)
}

// scopes checks those of a transport, and hands on each once.
func (c *checker) scopes(transport member, take func(member)) {
	list, ok := c.members(transport.value, "the transport "+quote(transport.name),
		`write an object that maps scopes to lists, such as {"registry.example.com": [{"type": "reject"}]}`)
	if !ok {
		return
	}
	seen := map[string]int{}
	for _, scope := range list {
		what := "the scope " + quote(scope.name)
		c.list(scope.value, what)
		if c.once(seen, scope, "the scope") && take != nil {
			take(scope)
		}
	}
}

// once tells if a name comes twice.
func (c *checker) once(seen map[string]int, m member, what string) bool {
	if line, twice := seen[m.name]; twice {
		c.mistakef(m.at, "keep one", "%s %s is there twice, first in line %d", what, quote(m.name), line)
		return false
	}
	seen[m.name] = c.line(m.at)
	return true
}

// scope takes one of registries into the policy, by its canonical name: two of
// which nodes would apply one to some spellings of a host, and the other to others,
// cannot both apply to all.
func (c *checker) scope(m member, p *Policy, text []byte) {
	r := c.requirements(m.name, m, text)
	name := m.name
	if name != "" {
		why, instead := neverMatches(name)
		if why != "" {
			c.advisef(m.at, instead, "the scope %s never matches: %s", quote(name), why)
		} else {
			name = canonicalScope(name)
		}
	}
	if other, twice := p.Scopes[name]; twice {
		c.mistakef(m.at, "keep one", "the scope %s is the same as %s in line %d: both are %s",
			quote(m.name), quote(other.Written), other.Line, quote(name))
		return
	}
	p.Scopes[name] = r
}
