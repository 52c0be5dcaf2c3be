// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import "slices"

// maxDepth bounds how deep a policy is nested: transports, transport, scope,
// list, requirement, identity make six. The parsers that come after call
// themselves once for each level.
const maxDepth = 32

// repairer makes JSON, but for commas at the end of a list, of what is nearly
// that, and tells of each repair. One bracket that is wrong does not hide the
// mistakes after it. What it makes is only read to explain more of them: it is
// never in force.
type repairer struct {
	*report

	tokens []token
	out    []byte
	stack  []bracket
	// value says that what comes last is a value, or a name.
	value bool
	// comma is where the last one was put.
	comma int
	// last is where the last token is that is no space.
	last int
	// cut says that something was left out, and what is missing may have been there.
	cut bool
}

// bracket is one that is open.
type bracket struct {
	kind byte // { or [
	line int
	// named says that there is a colon since the last comma.
	named bool
}

// closing is what closes a bracket.
func (b bracket) closing() byte {
	if b.kind == '{' {
		return '}'
	}
	return ']'
}

// run returns the text that offsets are in from now on; nil if it is nested too deep.
func (r *repairer) run() []byte {
	for i, t := range r.tokens {
		if t.kind == space {
			r.out = append(r.out, t.text...)
			continue
		}
		if r.take(i, t); r.cut {
			break
		}
		if r.errors > maxProblems {
			r.cut = true // nobody is told of more
			break
		}
		if len(r.stack) > maxDepth {
			r.wrongf(r.line(t.at), "", "nested more than %d deep: no policy is", maxDepth)
			return nil
		}
		r.last = t.at
	}
	r.finish()
	return r.out
}

func (r *repairer) take(at int, t token) {
	if t.kind == closes {
		r.close(at, t)
		return
	}
	if t.kind == colon || t.kind == divides {
		r.divide(t)
		return
	}
	if r.begin(t); r.cut {
		return
	}
	r.out = append(r.out, t.text...)
	r.value = t.kind != opens
	if t.kind == opens {
		r.stack = append(r.stack, bracket{kind: t.text[0], line: r.line(t.at)})
	}
}

// begin puts what is missing before a value.
func (r *repairer) begin(t token) {
	if !r.value {
		return
	}
	if len(r.stack) == 0 {
		r.follows(t)
		return
	}
	top := &r.stack[len(r.stack)-1]
	if top.kind == '{' && !top.named {
		r.wrongf(r.line(t.at), `write ":"`, "no colon after a name")
		r.out = append(r.out, ':')
		top.named = true
		return
	}
	r.wrongf(r.line(r.last), `write "," after the first`, "no comma between two values")
	r.out = append(r.out, ',')
	top.named = false
}

// divide takes a comma or a colon, and leaves out what divides nothing.
func (r *repairer) divide(t token) {
	switch {
	case len(r.stack) == 0:
		r.follows(t)
		return
	case t.kind == colon:
		r.unclosed(t)
	default:
		if r.complete(t); !r.value {
			r.wrongf(r.line(t.at), "remove it", "a comma that follows nothing")
			return
		}
		r.comma = len(r.out)
	}
	r.stack[len(r.stack)-1].named = t.kind == colon
	r.value = false
	r.out = append(r.out, t.text...)
}

// complete puts what is missing between a name and what ends it.
func (r *repairer) complete(t token) {
	top := r.stack[len(r.stack)-1]
	if top.kind != '{' || top.named == r.value {
		return
	}
	r.wrongf(r.line(t.at), "", "a name without a value")
	if !top.named {
		r.out = append(r.out, ':')
	}
	r.out = append(r.out, "null"...)
	r.value = true
}

// unclosed closes a list in which there is a name, before the name.
func (r *repairer) unclosed(t token) {
	top := len(r.stack) - 1
	if r.stack[top].kind != '[' || top == 0 || r.stack[top-1].kind != '{' || r.comma == 0 || !r.value {
		return
	}
	r.wrongf(r.line(t.at), "write ] before this name", "the \"[\" of line %d is not closed", r.stack[top].line)
	r.out = slices.Insert(r.out, r.comma, ']')
	r.stack = r.stack[:top]
}

// follows leaves out what is in no bracket, and all after it.
func (r *repairer) follows(t token) {
	r.wrongf(r.line(t.at), "remove it, or one of the brackets before it", "something follows the end of the policy")
	r.cut = true
}

// close takes a bracket that closes. If it is not the one that is due, either it
// is a wrong one, or one before it is missing: the reading counts under which
// fewer of the brackets that follow are wrong.
func (r *repairer) close(at int, t token) {
	written := t.text[0]
	if len(r.stack) == 0 {
		r.wrongf(r.line(t.at), "remove it", "%q closes nothing", string(written))
		return
	}
	r.complete(t)
	for len(r.stack) > 0 {
		top := r.stack[len(r.stack)-1]
		due := top.closing()
		r.stack = r.stack[:len(r.stack)-1]
		r.value = true
		r.out = append(r.out, due)
		if written == due {
			return
		}
		missing := slices.ContainsFunc(r.stack, func(b bracket) bool { return b.closing() == written }) &&
			r.trial(at) < r.trial(at+1)
		if !missing {
			r.wrongf(r.line(t.at), "write "+string(due), "%q closes the %q of line %d", string(written), string(top.kind), top.line)
			return
		}
		r.wrongf(r.line(t.at), "write "+string(due)+" before it", "the %q of line %d is not closed before %q", string(top.kind), top.line, string(written))
	}
}

// trial counts the brackets that do not fit, from a token on.
func (r *repairer) trial(from int) int {
	if r.errors > maxProblems {
		return 0 // nobody is told, and this takes time
	}
	open := make([]byte, 0, len(r.stack))
	for _, b := range r.stack {
		open = append(open, b.closing())
	}
	wrong := 0
	for _, t := range r.tokens[from:] {
		switch {
		case t.kind == opens:
			open = append(open, bracket{kind: t.text[0]}.closing())
		case t.kind == closes && len(open) == 0:
			wrong++
		case t.kind == closes:
			if open[len(open)-1] != t.text[0] {
				wrong++
			}
			open = open[:len(open)-1]
		}
	}
	return wrong + len(open)
}

// finish closes what is open at the end.
func (r *repairer) finish() {
	for len(r.stack) > 0 {
		top := r.stack[len(r.stack)-1]
		r.stack = r.stack[:len(r.stack)-1]
		r.wrongf(top.line, "write "+string(top.closing())+" where it ends", "the %q is not closed", string(top.kind))
		r.out = append(r.out, top.closing())
		r.cut = true
	}
}
