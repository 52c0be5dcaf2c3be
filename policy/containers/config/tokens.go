// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"bytes"
	"encoding/json"
	"strings"
)

// token is a part of a text that is meant to be JSON.
type token struct {
	kind tokenKind
	at   int
	text []byte // what JSON has in its place
}

type tokenKind byte

// The kinds of tokens; those of punctuation are the bytes themselves.
const (
	space   tokenKind = ' ' // comments too
	text    tokenKind = '"'
	word    tokenKind = 'w' // null, a number, or what is neither
	opens   tokenKind = '{' // and [
	closes  tokenKind = '}' // and ]
	divides tokenKind = ','
	colon   tokenKind = ':'
)

// lexer divides a text into tokens, and tells of those that JSON does not have.
// Line feeds stay, so that lines do.
type lexer struct {
	*report

	in       []byte
	at       int
	tokens   []token
	comments []int // their lines
}

func (l *lexer) run() []token {
	for l.at < len(l.in) {
		l.next()
	}
	l.tellComments()
	return l.tokens
}

// emit adds the token that ends before end.
func (l *lexer) emit(kind tokenKind, end int, as []byte) {
	l.tokens = append(l.tokens, token{kind: kind, at: l.at, text: as})
	l.at = end
}

func (l *lexer) next() {
	rest := l.in[l.at:]
	switch rest[0] {
	case ' ', '\t', '\r', '\n':
		end := len(rest) - len(bytes.TrimLeft(rest, " \t\r\n"))
		l.emit(space, l.at+end, rest[:end])
	case '{', '[':
		l.emit(opens, l.at+1, rest[:1])
	case '}', ']':
		l.emit(closes, l.at+1, rest[:1])
	case ',', ':':
		l.emit(tokenKind(rest[0]), l.at+1, rest[:1])
	case '"', '\'':
		l.quoted(rest)
	default:
		if n := commentLength(rest); n > 0 {
			l.comment(rest[:n])
			return
		}
		l.word(rest)
	}
}

// commentLength is the length of the comment that a text begins with, 0 if it
// begins with none. One that does not end is all the rest.
func commentLength(rest []byte) int {
	if bytes.HasPrefix(rest, []byte("/*")) {
		if end := bytes.Index(rest[2:], []byte("*/")); end >= 0 {
			return end + len("/**/")
		}
		return len(rest)
	}
	if !bytes.HasPrefix(rest, []byte("//")) && rest[0] != '#' {
		return 0
	}
	if end := bytes.IndexByte(rest, '\n'); end >= 0 {
		return end
	}
	return len(rest)
}

// comment leaves out what people wrote for people.
func (l *lexer) comment(c []byte) {
	l.comments = append(l.comments, l.line(l.at))
	blank := bytes.Map(func(r rune) rune {
		if r == '\n' {
			return r
		}
		return ' '
	}, c)
	l.emit(space, l.at+len(c), blank)
}

// tellComments tells of all comments at once: they are one mistake.
func (l *lexer) tellComments() {
	switch len(l.comments) {
	case 0:
	case 1:
		l.wrongf(l.comments[0], "remove it", "a comment: there are none in a policy.json")
	default:
		l.wrongf(l.comments[0], "remove them", "%d comments, to line %d: there are none in a policy.json",
			len(l.comments), l.comments[len(l.comments)-1])
	}
}

// closing is where a text in quotes ends: after its closing quote, or with its line.
func closing(rest []byte) (end int, closed bool) {
	for end = 1; end < len(rest) && rest[end] != '\n'; end++ {
		if rest[end] == rest[0] {
			return end + 1, true
		}
		if rest[end] == '\\' && end+1 < len(rest) && rest[end+1] != '\n' {
			end++
		}
	}
	return end, false
}

// quoted reads a text in quotes. One that is not closed ends with its line.
func (l *lexer) quoted(rest []byte) {
	end, closed := closing(rest)
	inside := rest[1:end]
	if closed {
		inside = rest[1 : end-1]
	}
	as := rest[:end]
	switch {
	case !closed:
		// What follows a text in a line is hardly meant to be in it.
		inside = bytes.TrimRight(inside, " \t\r,]}")
		end = 1 + len(inside)
		as = asJSON(inside)
		l.wrongf(l.line(l.at), `write "`, "the text %s has no closing quote", quote(string(inside)))
	case rest[0] == '\'':
		as = asJSON(inside)
		l.wrongf(l.line(l.at), "write "+quote(string(inside)), "%s is in single quotes", quote(string(inside)))
	case !json.Valid(as):
		l.wrongf(l.line(l.at), `write \\ for a backslash, \n for a line feed, \t for a tab`,
			"the text %s has what no JSON text has", quote(string(inside)))
		as = asJSON(inside)
	}
	l.emit(text, l.at+end, as)
}

// word reads what has no quotes.
func (l *lexer) word(rest []byte) {
	end := bytes.IndexAny(rest, " \t\r\n{}[],:\"'#")
	if end < 0 {
		end = len(rest)
	}
	as := rest[:end]
	if !json.Valid(as) {
		as = l.unquoted(string(as))
	}
	l.emit(word, l.at+end, as)
}

// unquoted returns what a word is taken for that JSON does not know.
func (l *lexer) unquoted(s string) []byte {
	for _, known := range []string{"true", "false", "null"} {
		if strings.EqualFold(s, known) {
			l.wrongf(l.line(l.at), "write "+known, "%s is nothing that JSON knows", quote(s))
			return []byte(known)
		}
	}
	l.wrongf(l.line(l.at), "write quotes around it if it is a text", "%s is nothing that JSON knows", quote(s))
	return asJSON([]byte(s))
}

// asJSON makes a JSON text of one that is none.
func asJSON(inside []byte) []byte {
	as, err := json.Marshal(string(inside))
	if err != nil {
		return []byte(`""`) // strings can always be written
	}
	return as
}
