// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"encoding/json"
	"fmt"
)

// File is a configuration file that was read.
type File struct {
	Name    string
	Content []byte
}

// Problem is something to mend in a file.
type Problem struct { //nolint:errname // it may be a warning
	File string
	Line int // from 1; 0 if it is about the whole file
	// Warning says that the file is good all the same.
	Warning bool
	Message string // one line
	Hint    string // what to write instead; may be empty
}

// Error implements [error], on one line.
func (p Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	if p.Hint == "" {
		return where + ": " + p.Message
	}
	return where + ": " + p.Message + "; " + p.Hint
}

// Policy is a containers-policy.json(5), as far as it is about images in
// registries.
type Policy struct {
	// Default is what images have to satisfy that are in none of the Scopes.
	Default Requirements
	// Scopes are those of the transport docker, by their names in the form of
	// policy.Scope: with canonical hosts. The empty one is the transport's default.
	Scopes map[string]Requirements
}

// Requirements is what one scope asks of images: all of a list, which is not empty.
type Requirements struct {
	// Written is the scope as the file has it.
	Written string
	Line    int
	List    []json.RawMessage
}
