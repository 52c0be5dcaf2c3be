// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
	"cel.dev/cel-go/interpreter"
)

// celCost is how much one evaluation may cost, in CEL's own units: what the API
// server grants the rules of one object, which takes about a second.
const celCost = 10_000_000

// celInterrupt is after how many steps of a loop the time is looked at: as often
// as the API server does.
const celInterrupt = 100

// celEnvironment has what policies can name. Nothing in it reads a clock or
// reaches anything.
var celEnvironment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("statement", cel.DynType),
		cel.Variable("predicate", cel.DynType),
		cel.Variable("predicateType", cel.StringType),
		cel.Variable("subject", cel.ListType(cel.DynType)),
		ext.Strings(), ext.Lists(), ext.Sets(), ext.Math(),
	)
})

type celPolicy struct {
	program cel.Program
}

func compileCEL(_ context.Context, text string) (program, error) {
	environment, err := celEnvironment()
	if err != nil {
		return nil, err
	}
	tree, issues := environment.Compile(text)
	if list := issues.Errors(); len(list) > 0 {
		return nil, celSyntax(list[0])
	}
	if is := tree.OutputType(); !is.IsExactType(cel.BoolType) {
		return nil, &SyntaxError{1, 1, "the expression must be a bool; its type is " + is.String()}
	}
	compiled, err := environment.Program(tree, cel.CostLimit(celCost), cel.InterruptCheckFrequency(celInterrupt))
	if err != nil {
		return nil, &SyntaxError{Message: err.Error()}
	}
	return &celPolicy{compiled}, nil
}

func celSyntax(e *cel.Error) error {
	at := e.Location
	if at.Line() < 1 {
		return &SyntaxError{Message: e.Message}
	}
	return &SyntaxError{at.Line(), at.Column() + 1, e.Message}
}

func (p *celPolicy) evaluate(ctx context.Context, document []byte) (Result, error) {
	value, err := decode(document)
	if err != nil {
		return Result{Message: err.Error()}, nil //nolint:nilerr // such a document does not comply
	}
	out, _, err := p.program.ContextEval(ctx, celVariables(celNumbers(value)))
	var canceled interpreter.EvalCancelledError
	switch {
	case errors.As(err, &canceled) && canceled.Cause == interpreter.CostLimitExceeded:
		return Result{}, errCost
	case ctx.Err() != nil:
		return Result{}, errOvertime
	case err != nil:
		return Result{Message: strings.TrimSpace(err.Error())}, nil // the policy fails for this document
	case out != types.True:
		return Result{Message: "the expression is false"}, nil
	default:
		return Result{Compliant: true}, nil
	}
}

// celVariables are what an expression can name: the parts of a statement only
// if the document has them, and as what they are declared.
func celVariables(document any) map[string]any {
	variables := map[string]any{"statement": document}
	object, _ := document.(map[string]any)
	if predicate, ok := object["predicate"]; ok {
		variables["predicate"] = predicate
	}
	if kind, ok := object["predicateType"].(string); ok {
		variables["predicateType"] = kind
	}
	if subject, ok := object["subject"].([]any); ok {
		variables["subject"] = subject
	}
	return variables
}

// celNumbers turns numbers, in place, into what CEL calculates with: an int if
// they are written as one and fit, else a double.
func celNumbers(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, field := range value {
			value[name] = celNumbers(field)
		}
	case []any:
		for i, item := range value {
			value[i] = celNumbers(item)
		}
	case json.Number:
		if n, err := value.Int64(); err == nil {
			return n
		}
		n, _ := value.Float64() // out of range: infinite, which compares as it should
		return n
	}
	return value
}
