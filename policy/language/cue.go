// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"cuelang.org/go/cue"
	"cuelang.org/go/cue/cuecontext"
	"cuelang.org/go/cue/errors"
)

// cueFile is what positions in a CUE policy are told by.
const cueFile = "policy.cue"

// cueErrors is how many of CUE's errors are told: the others are often of the
// same cause.
const cueErrors = 3

// cuePolicy is a CUE text that compiles. It is compiled anew for each document:
// what was made in a context lives as long as that, and grows with each document
// that is united with it.
type cuePolicy string

func compileCUE(_ context.Context, text string) (program, error) {
	_, err := cuePolicy(text).compile(cuecontext.New())
	return cuePolicy(text), err
}

func (p cuePolicy) compile(c *cue.Context) (cue.Value, error) {
	value := c.CompileString(string(p), cue.Filename(cueFile))
	if err := value.Err(); err != nil {
		return value, cueSyntax(err)
	}
	return value, nil
}

// evaluate unites the policy and the document, as policy-controller does: it is
// compliant unless the two contradict each other. What the policy names and the
// document lacks is no contradiction, not even where its field is required
// (name!).
func (p cuePolicy) evaluate(_ context.Context, document []byte) (Result, error) {
	c := cuecontext.New()
	wanted, err := p.compile(c)
	if err != nil {
		return Result{}, err
	}
	value, err := decode(document)
	if err != nil {
		return Result{Message: err.Error()}, nil //nolint:nilerr // such a document does not comply
	}
	// Not compiled as CUE, as policy-controller does it, but encoded: the same
	// values for two thirds of the memory. A null is a null here, not anything.
	given := c.Encode(cueNumbers(value), cue.NilIsAny(false))
	if err := given.Err(); err != nil {
		return Result{Message: cueMessage(err)}, nil
	}
	if err := wanted.Unify(given).Validate(); err != nil {
		return Result{Message: cueMessage(err)}, nil
	}
	return Result{Compliant: true}, nil
}

// cueNumber is a number that CUE reads as it is written: 1.0 is no int there.
type cueNumber string

// MarshalJSON implements [json.Marshaler].
func (n cueNumber) MarshalJSON() ([]byte, error) { return []byte(n), nil }

// cueNumbers turns numbers, in place, into what CUE encodes as numbers.
func cueNumbers(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			value[name] = cueNumbers(field)
		}
	case []any:
		for i, item := range value {
			value[i] = cueNumbers(item)
		}
	case json.Number:
		return cueNumber(value)
	}
	return value
}

func cueSyntax(err error) error {
	syntax := &SyntaxError{Message: cueMessage(err)}
	for _, e := range errors.Errors(err) {
		for _, position := range append(errors.Positions(e), e.Position()) {
			if position.IsValid() && position.Filename() == cueFile {
				syntax.Line, syntax.Column = position.Line(), position.Column()
				return syntax
			}
		}
	}
	return syntax
}

// cueMessage tells errors by the paths of the fields that they are about.
func cueMessage(err error) string {
	list := errors.Errors(err)
	told := make([]string, 0, cueErrors+1)
	for _, e := range list[:min(len(list), cueErrors)] {
		format, args := e.Msg()
		message := fmt.Sprintf(format, args...)
		if path := strings.Join(e.Path(), "."); path != "" && !strings.HasPrefix(message, path) {
			message = path + ": " + message
		}
		told = append(told, message)
	}
	if more := len(list) - len(told); more > 0 {
		told = append(told, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(told, "; ")
}
