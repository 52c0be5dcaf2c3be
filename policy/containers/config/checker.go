// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/tailscale/hujson"
)

// checker goes through a policy and explains its mistakes, each by itself. It
// does not decide whether a policy is good: the library does that. Where the
// checker is stricter, a requirement would read well and reject everything.
type checker struct {
	*report

	// unsure says that parts of the policy could not be read: nothing is said to
	// be missing that may be there.
	unsure bool
	// quiet says that the requirements are not about registries: there are no
	// warnings of them.
	quiet bool
	// secrets says that paths may name Secrets.
	secrets bool
}

// advisef warns, unless what it is about does not matter here.
func (c *checker) advisef(at int, hint, format string, args ...any) {
	if !c.quiet {
		c.warnf(c.line(at), hint, format, args...)
	}
}

func (c *checker) mistakef(at int, hint, format string, args ...any) {
	c.wrongf(c.line(at), hint, format, args...)
}

// missingf tells of what is not there.
func (c *checker) missingf(at int, hint, format string, args ...any) {
	if !c.unsure {
		c.mistakef(at, hint, format, args...)
	}
}

// member is what an object has under a name.
type member struct {
	name  string
	at    int // of the name
	value hujson.Value
}

// fields are an object's members by their names, each once.
type fields map[string]member

func (f fields) has(name string) bool { _, ok := f[name]; return ok }

// present are those of the names that there are.
func (f fields) present(list []string) []string {
	var found []string
	for _, name := range list {
		if f.has(name) {
			found = append(found, name)
		}
	}
	return found
}

// kindOf says what a value is, with what people call it.
func kindOf(v hujson.Value) string {
	if v.Value == nil {
		return "nothing"
	}
	switch v.Value.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a text"
	case 'n':
		return "null"
	case '0':
		return "a number"
	}
	return "true or false"
}

// members lists an object's members as they are written; ok is false, and it is
// told of, if the value is no object.
func (c *checker) members(v hujson.Value, what, hint string) (list []member, ok bool) {
	object, ok := v.Value.(*hujson.Object)
	if !ok {
		c.mistakef(v.StartOffset, hint, "%s is %s, not an object", what, kindOf(v))
		return nil, false
	}
	for _, m := range object.Members {
		list = append(list, member{name: textOf(m.Name), at: m.Name.StartOffset, value: m.Value})
	}
	if n := len(object.Members); n > 0 {
		c.trailing(object.Members[n-1].Value)
	}
	return list, true
}

// elements are those of a list, like members.
func (c *checker) elements(v hujson.Value, what, hint string) (list []hujson.Value, ok bool) {
	array, ok := v.Value.(*hujson.Array)
	if !ok {
		c.mistakef(v.StartOffset, hint, "%s is %s, not a list", what, kindOf(v))
		return nil, false
	}
	if n := len(array.Elements); n > 0 {
		c.trailing(array.Elements[n-1])
	}
	return array.Elements, true
}

// trailing tells of the comma after the last value of a list: the syntax tree
// keeps what is between the two only then.
func (c *checker) trailing(last hujson.Value) {
	if last.AfterExtra != nil {
		c.mistakef(last.EndOffset+len(last.AfterExtra), "remove it", "a comma after the last value")
	}
}

// object reads an object that may have certain members. A name that is nearly
// one of them is told of and taken for it, so that it is not missing as well.
func (c *checker) object(v hujson.Value, what string, known []string) (fields, bool) {
	list, ok := c.members(v, what, "")
	if !ok {
		return nil, false
	}
	return c.named(list, what, known), true
}

func (c *checker) named(list []member, what string, known []string) fields {
	found := fields{}
	for _, m := range list {
		if !slices.Contains(known, m.name) {
			continue
		}
		if first, twice := found[m.name]; twice {
			c.mistakef(m.at, "keep one", "%q is there twice in %s, first in line %d", m.name, what, c.line(first.at))
			continue
		}
		found[m.name] = m
	}
	for _, m := range list {
		if !slices.Contains(known, m.name) {
			c.unknown(m, what, known, found)
		}
	}
	return found
}

// unknown tells of a name that there is not.
func (c *checker) unknown(m member, what string, known []string, found fields) {
	meant := nearest(m.name, known)
	switch {
	case meant == "":
		const few = 6
		hint := "remove it"
		if len(known) > 1 && len(known) <= few {
			hint += ", or write one of " + names(known)
		}
		c.mistakef(m.at, hint, "%s knows no %s", what, quote(m.name))
		return
	case strings.EqualFold(m.name, meant):
		c.mistakef(m.at, "write "+quote(meant), "%s is in the wrong case: %s has no such name", quote(m.name), what)
	default:
		c.mistakef(m.at, "write "+quote(meant), "%s knows no %s", what, quote(m.name))
	}
	if !found.has(meant) {
		m.name = meant
		found[meant] = m
	}
}

// textOf is what a text says.
func textOf(v hujson.Value) string {
	if literal, ok := v.Value.(hujson.Literal); ok && literal.Kind() == '"' {
		return literal.String()
	}
	return ""
}

// text reads a member that must be a text; ok is false if it is none, or empty.
func (c *checker) text(m member) (string, bool) {
	if m.value.Value == nil || m.value.Value.Kind() != '"' {
		c.mistakef(m.value.StartOffset, "write a text in double quotes", "%q is %s, not a text", m.name, kindOf(m.value))
		return "", false
	}
	return textOf(m.value), true
}

// written reads a member that must be a text and not empty.
func (c *checker) written(m member) (string, bool) {
	s, ok := c.text(m)
	if ok && s == "" {
		c.mistakef(m.value.StartOffset, "", "%q is empty", m.name)
		return "", false
	}
	return s, ok
}

// required reads a member that must be there.
func (c *checker) required(f fields, at int, what, name, hint string) (string, bool) {
	m, ok := f[name]
	if !ok {
		c.missingf(at, hint, "%s has no %q", what, name)
		return "", false
	}
	return c.written(m)
}

// exactlyOne tells if there is not one of some members. Of an object all but one
// of them have to go, so nothing else is said of them.
func (c *checker) exactlyOne(f fields, at int, what string, list []string) (member, bool) {
	found := f.present(list)
	switch len(found) {
	case 0:
		c.missingf(at, "write one of them", "%s has none of %s", what, names(list))
		return member{}, false
	case 1:
		return f[found[0]], true
	}
	c.mistakef(f[found[1]].at, keep(found), "%s has %s, but must have exactly one of them", what, names(found))
	return member{}, false
}

// keep says which of several members to keep: the one that can list what the
// others say too, if it is among them.
func keep(found []string) string {
	at := max(slices.IndexFunc(found, func(name string) bool { return strings.HasSuffix(name, "Paths") }), 0)
	hint := "keep " + found[at]
	if strings.HasSuffix(found[at], "s") {
		hint += ", which can list all keys,"
	}
	return hint + " and remove " + names(slices.Delete(slices.Clone(found), at, at+1))
}

// atMostOne tells if there are more.
func (c *checker) atMostOne(f fields, what string, list []string) (m member, one bool) {
	found := f.present(list)
	if len(found) > 1 {
		c.mistakef(f[found[1]].at, keep(found), "%s has %s, but may have only one of them", what, names(found))
	}
	if len(found) != 1 {
		return member{}, false
	}
	return f[found[0]], true
}

// material reads a member that says where key material is: ‥Path, ‥Paths, ‥Data or ‥Datas.
func (c *checker) material(m member, name string) {
	switch {
	case strings.HasSuffix(name, "Paths"):
		c.each(m, c.path)
	case strings.HasSuffix(name, "Datas"):
		c.each(m, c.data)
	case strings.HasSuffix(name, "Path"):
		c.path(m)
	default:
		c.data(m)
	}
}

// each reads the texts of a list.
func (c *checker) each(m member, read func(member)) {
	list, ok := c.elements(m.value, quote(m.name), "write a list of texts")
	if ok && len(list) == 0 {
		c.mistakef(m.value.StartOffset, "write one or more into it", "%q is an empty list", m.name)
	}
	for _, v := range list {
		read(member{name: m.name, at: m.at, value: v})
	}
}

// secretScheme begins the paths of ImageConfigs that name a Secret.
const secretScheme = "secret://"

// path reads where a file is.
func (c *checker) path(m member) {
	path, ok := c.written(m)
	switch {
	case !ok || strings.HasPrefix(path, "/"):
	case strings.HasPrefix(path, secretScheme) && c.secrets:
		if name, key, ok := strings.Cut(path[len(secretScheme):], "/"); !ok || name == "" || key == "" || strings.Contains(key, "/") {
			c.mistakef(m.value.StartOffset, "write secret://name/key", "%s names no key of a Secret", quote(path))
		}
	case strings.HasPrefix(path, secretScheme):
		c.mistakef(m.value.StartOffset, "write the path of a file, or the key's text into "+strings.Replace(strings.TrimSuffix(m.name, "s"), "Path", "Data", 1),
			"%s names a Secret: only ImageConfigs can", quote(path))
	default:
		c.advisef(m.value.StartOffset, "write the path from /",
			"%s is a relative path: it depends on where the program runs", quote(path))
	}
}

// data reads key material in base64.
func (c *checker) data(m member) {
	s, ok := c.text(m)
	if !ok {
		return
	}
	switch _, err := base64.StdEncoding.DecodeString(s); {
	case s == "":
		c.advisef(m.value.StartOffset, "write the base64 of the key into it", "%q is empty: nothing can be verified with it", m.name)
	case err == nil:
	case strings.HasPrefix(s, "-----BEGIN"):
		c.mistakef(m.value.StartOffset, "write the base64 of all of that, as base64 -w0 prints it",
			"%q is a key as it is in a file, not the base64 of it", m.name)
	default:
		c.mistakef(m.value.StartOffset, "write the base64 of the key, as base64 -w0 prints it", "%q is no base64", m.name)
	}
}
