// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"fmt"

	"github.com/maypok86/otter/v2"
)

// Memo remembers what [Parse] said of a bounded number of strings: the same
// images are admitted again and again, and two parsers cost more than the rest
// of a cached admission. It is safe for concurrent use.
type Memo struct {
	parsed *otter.Cache[string, result]
}

type result struct {
	reference Reference
	err       error
}

// NewMemo returns a Memo of that many entries.
func NewMemo(entries int) (*Memo, error) {
	parsed, err := otter.New(&otter.Options[string, result]{MaximumSize: entries})
	if err != nil {
		return nil, fmt.Errorf("making the memo of references: %w", err)
	}
	return &Memo{parsed: parsed}, nil
}

// Parse is [Parse], remembered. What is too long for a reference is not kept.
func (m *Memo) Parse(written string) (Reference, error) {
	if held, ok := m.parsed.GetIfPresent(written); ok {
		return held.reference, held.err
	}
	r, err := Parse(written)
	if len(written) <= maxLength {
		m.parsed.Set(written, result{r, err})
	}
	return r, err
}
