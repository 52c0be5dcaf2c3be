// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/pratique-dev/pratique/policy"
)

// maxMessage bounds what a policy or a compiler says: it ends up in the answers
// of the API server and in events, which have 1024 bytes.
const maxMessage = 512

// oneLine is what an evaluator said, fit to be shown: a line of printable text
// of at most maxMessage bytes. It may quote the document.
func oneLine(text string) string {
	// Escapes only lengthen: what is beyond can never be shown.
	text = text[:min(len(text), 8*maxMessage)]
	var line strings.Builder
	for _, r := range strings.Join(strings.Fields(text), " ") {
		written := string(r)
		if !strconv.IsPrint(r) {
			written = strings.Trim(strconv.QuoteRune(r), "'")
		}
		if line.Len()+len(written) > maxMessage-len("…") {
			return line.String() + "…"
		}
		line.WriteString(written)
	}
	return line.String()
}

// SyntaxError says that a policy's text cannot be used, and where.
type SyntaxError struct {
	// Line and Column count from 1; they are 0 where the fault has no place.
	Line, Column int
	// Message is one line.
	Message string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return e.Message
	}
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Message)
}

// Verdict implements [policy.Judged]: nothing is known by a policy that does not
// compile.
func (e *SyntaxError) Verdict() policy.Verdict {
	return policy.Undecided(policy.ReasonNotReady, "the policy does not compile: %s", e.Error())
}

var _ policy.Judged = (*SyntaxError)(nil)
