// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

// Replacement is an image and what to write in its place.
type Replacement struct {
	Image Image
	With  string
}

// Patch returns an RFC 6902 patch with one "replace" for each replacement, in their order, that touches nothing else.
// A replacement that changes nothing, or whose image is blank (there may be no member to replace), is left out;
// nothing left to replace gives nil.
//
// There is no "test" beside a replacement: the API server applies the patch to the very bytes that it sent, so a test
// could only ever repeat them.
func Patch(replacements []Replacement) []byte {
	var out []byte
	for _, r := range replacements {
		if r.With == r.Image.Written || strings.TrimSpace(r.Image.Written) == "" {
			continue
		}
		if out == nil {
			out = append(out, '[')
		} else {
			out = append(out, ',')
		}
		out = append(out, `{"op":"replace","path":`...)
		out = appendString(out, r.Image.Pointer())
		out = append(out, `,"value":`...)
		out = appendString(out, r.With)
		out = append(out, '}')
	}
	if out == nil {
		return nil
	}
	return append(out, ']')
}

// appendString quotes s for JSON. Both strings that come here are valid UTF-8 already: pointers are made of the
// catalog's names and of numbers, and what replaces an image is a parsed reference. Anything else would be written
// with U+FFFD, which is no reference either.
func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s)
	return dst
}
