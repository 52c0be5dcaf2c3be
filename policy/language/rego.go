// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package language

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// The names that policies for Sigstore go by.
const (
	regoPackage = "sigstore"
	regoRule    = "isCompliant"
	regoFile    = "policy.rego"
)

// regoRemoved are the built-in functions that a policy cannot call although they
// are not marked as nondeterministic: schemas may refer to others by URL, and
// these fetch them, from the network or from a file.
var regoRemoved = []string{ast.JSONMatchSchema.Name, ast.JSONSchemaVerify.Name}

// regoKept are the nondeterministic built-in functions that a policy can call:
// the clock, by which policies ask for scans that are not old, and those that
// compare tokens with it.
var regoKept = []string{ast.NowNanos.Name, ast.JWTDecodeVerify.Name}

// regoCapabilities is Rego without what reaches a network, a file or the
// environment. Whatever OPA adds to these it marks as nondeterministic.
func regoCapabilities() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		return slices.Contains(regoRemoved, b.Name) || b.Nondeterministic && !slices.Contains(regoKept, b.Name)
	})
	c.AllowNet = []string{}
	return c
}

type regoPolicy struct {
	query rego.PreparedEvalQuery
}

func compileRego(ctx context.Context, text string) (program, error) {
	capabilities := regoCapabilities()
	// Version 0 of the language, as policy-controller reads it.
	module, err := ast.ParseModuleWithOpts(regoFile, text, ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: capabilities})
	if err != nil {
		return nil, regoSyntax(err)
	}
	if err := checkRegoModule(module); err != nil {
		return nil, err
	}
	query, err := rego.New(
		rego.Query(fmt.Sprintf("%[2]s = data.%[1]s.%[2]s", regoPackage, regoRule)),
		rego.ParsedModule(module),
		rego.SetRegoVersion(ast.RegoV0),
		rego.Capabilities(capabilities),
	).PrepareForEval(ctx)
	if err != nil {
		return nil, regoSyntax(err)
	}
	return &regoPolicy{query}, nil
}

// checkRegoModule finds what would leave the rule without a value for every
// document.
func checkRegoModule(module *ast.Module) error {
	at := module.Package.Location
	if !module.Package.Path.Equal(ast.MustParseRef("data." + regoPackage)) {
		return &SyntaxError{at.Row, at.Col, fmt.Sprintf("the package must be %s", regoPackage)}
	}
	if !slices.ContainsFunc(module.Rules, func(r *ast.Rule) bool {
		return r.Head.Ref()[0].Value.Compare(ast.Var(regoRule)) == 0
	}) {
		return &SyntaxError{at.Row, at.Col, fmt.Sprintf("there is no rule %s", regoRule)}
	}
	return nil
}

func regoSyntax(err error) error {
	list, ok := errors.AsType[ast.Errors](err)
	if !ok || len(list) == 0 {
		return &SyntaxError{Message: err.Error()}
	}
	syntax := &SyntaxError{Message: list[0].Message}
	if at := list[0].Location; at != nil {
		syntax.Line, syntax.Column = at.Row, at.Col
	}
	return syntax
}

func (p *regoPolicy) evaluate(ctx context.Context, document []byte) (Result, error) {
	input, err := decode(document)
	if err != nil {
		return Result{Message: err.Error()}, nil //nolint:nilerr // such a document does not comply
	}
	results, err := p.query.Eval(ctx, rego.EvalInput(input))
	switch {
	case topdown.IsCancel(err), ctx.Err() != nil:
		return Result{}, errOvertime
	case err != nil:
		return Result{Message: err.Error()}, nil //nolint:nilerr // the policy fails for this document
	}
	for _, result := range results {
		switch value := result.Bindings[regoRule].(type) {
		case []any:
			return regoList(value), nil
		case bool:
			if value {
				return Result{Compliant: true}, nil
			}
			return Result{Message: regoRule + " is false"}, nil
		default:
			return Result{Message: regoRule + " is neither a bool nor a list"}, nil
		}
	}
	return Result{Message: regoRule + " has no value for this document"}, nil
}

// regoEntry is an entry of a list that a rule yields.
type regoEntry struct {
	Result  bool   `json:"result"`
	Error   string `json:"error"`
	Warning string `json:"warning"`
}

// regoList reads a list as policy-controller does: the first entry that is good
// decides, whatever the others say.
func regoList(entries []any) Result {
	var faults []string
	for _, entry := range entries {
		object, ok := entry.(map[string]any)
		if !ok {
			return Result{Message: regoRule + " holds what is not an object"}
		}
		var read regoEntry
		text, err := json.Marshal(object)
		if err == nil {
			err = json.Unmarshal(text, &read)
		}
		switch {
		case err != nil:
			return Result{Message: regoRule + " holds what is not a bool result with an error and a warning"}
		case read.Result:
			return Result{Compliant: true, Message: read.Warning}
		}
		faults = append(faults, read.Error, read.Warning)
	}
	faults = slices.DeleteFunc(faults, func(s string) bool { return s == "" })
	if len(faults) == 0 {
		faults = []string{regoRule + " holds no good result"}
	}
	return Result{Message: strings.Join(faults, "; ")}
}
