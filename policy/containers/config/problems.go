// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxPolicy bounds a policy, in bytes. One for a thousand scopes, each with
	// a key in it, is smaller; so is every ConfigMap.
	maxPolicy = 1 << 20
	// maxRegistries bounds one file of a registries.d folder, in bytes.
	maxRegistries = 1 << 20
	// maxProblems bounds how many errors, and how many warnings, are told of one file:
	// nobody reads more, and what makes them may be no policy at all.
	maxProblems = 50
	// maxQuoted is how much of what a file says a message repeats, in bytes.
	maxQuoted = 80
)

// report collects what there is to say of one file.
type report struct {
	file string
	// breaks are the offsets of the line feeds of the text that offsets are in.
	breaks   []int
	problems []Problem
	errors   int
	warnings int
	// folders are lookasides that are folders.
	folders []Problem
}

// read makes a text the one that offsets are in.
func (r *report) read(text []byte) {
	r.breaks = r.breaks[:0]
	for i, b := range text {
		if b == '\n' {
			r.breaks = append(r.breaks, i)
		}
	}
}

// line is the line of an offset, from 1.
func (r *report) line(offset int) int {
	before, _ := slices.BinarySearch(r.breaks, offset)
	return 1 + before
}

// wrongf tells of an error in a line.
func (r *report) wrongf(line int, hint, format string, args ...any) {
	r.errors++
	if r.errors > maxProblems {
		return
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// warnf tells of what is allowed and hardly meant.
func (r *report) warnf(line int, hint, format string, args ...any) {
	r.warnings++
	if r.warnings > maxProblems {
		return
	}
	r.problems = append(r.problems, Problem{File: r.file, Line: line, Warning: true, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// all are the problems in the order of their lines.
func (r *report) all() []Problem {
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
	if left := max(r.errors-maxProblems, 0) + max(r.warnings-maxProblems, 0); left > 0 {
		r.problems = append(r.problems, Problem{
			File: r.file, Warning: r.errors == 0,
			Message: fmt.Sprintf("there are %d more mistakes like these", left),
		})
	}
	return r.problems
}

// quote repeats what a file says, on one line and not at any length.
func quote(s string) string {
	if len(s) <= maxQuoted {
		return strconv.Quote(s)
	}
	s = s[:maxQuoted]
	for !utf8.ValidString(s[max(len(s)-utf8.UTFMax, 0):]) && len(s) > maxQuoted-utf8.UTFMax {
		s = s[:len(s)-1]
	}
	return strconv.Quote(s + "…")
}

// plain brings a library's message to one line, and not to any length.
func plain(message string) string {
	const maxMessage = 300
	message = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, message)
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return message
}

// names lists names for people: a, b and c.
func names(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " and " + list[len(list)-1]
}

// nearest is the known word that another may have been meant to be: the same in
// another case, or one that a few strokes lead to. It is empty if there is none.
func nearest(word string, known []string) string {
	const maxWord = 40 // bytes: the longest known word is shorter
	if len(word) > maxWord {
		return ""
	}
	best, at := "", 1+max(len(word)/3, 1)
	for _, candidate := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(candidate)); d < at {
			best, at = candidate, d
		}
	}
	return best
}

// distance counts the bytes to insert, remove or replace, and neighbours to
// exchange, that make b of a (optimal string alignment).
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, above, row := rows[0], rows[1], rows[2]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			other := 1
			if a[i-1] == b[j-1] {
				other = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+other)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = above, row, before
	}
	return rows[1][len(b)]
}
