// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
)

// Kind is what people are told that a policy's rules are of.
const Kind = "policy.json"

// What the rules are called that are not for a scope by its name: the policy's
// default, and that of the transport docker, in whose place it is then.
const (
	defaultName   = "default"
	transportName = "docker"
)

// Rules makes the rules of a policy. One whose keys cannot be read holds its
// images back, and is among the problems.
func Rules(o Options, p *config.Policy, read func(path string) ([]byte, error)) ([]*policy.Rule, []config.Problem) {
	// A node looks for attachments only where registries.d says so.
	o.Attached = false
	scopes := maps.Clone(p.Scopes)
	rest, ok := scopes[""]
	delete(scopes, "")
	name := transportName
	if !ok {
		rest, name = p.Default, defaultName
	}
	var rules []*policy.Rule
	var problems []config.Problem
	add := func(scope, name string, list config.Requirements) {
		rule, problem := ruleOf(o, scope, list, read)
		rule.Name = name
		if problem != nil {
			problem.Message = fmt.Sprintf("the images of %q are held back: %s", name, problem.Message)
		}
		rules = append(rules, rule)
		if problem != nil {
			problems = append(problems, *problem)
		}
	}
	for _, scope := range slices.Sorted(maps.Keys(scopes)) {
		add(scope, cmp.Or(scopes[scope].Written, scope), scopes[scope])
	}
	if !acceptsAll(rest.List) {
		add("", name, rest)
	}
	return rules, problems
}

// ruleOf makes the rule of one scope.
func ruleOf(o Options, scope string, list config.Requirements, read func(path string) ([]byte, error)) (*policy.Rule, *config.Problem) {
	rule := &policy.Rule{Kind: Kind, Mode: policy.Enforce, Scope: &policy.Scope{Name: scope}}
	// By its digest an image has no tag (containers-policy.json(5), "docker:").
	byDigest := strings.Contains(scope, "@")
	var err error
	if rule.Verification, err = compile(o, list.List, read, byDigest); err == nil {
		return rule, nil
	}
	held := policy.Undecided(policy.ReasonNotReady, "it is not ready: %s", oneLine(err.Error(), 2*maxReason))
	rule.Verification = &policy.Verification{Engine: Engine, Fixed: &held}
	problem := &config.Problem{Line: list.Line, Message: oneLine(err.Error(), 2*maxReason)}
	if m, ok := errors.AsType[*mistake](err); ok {
		problem.Message, problem.Hint = oneLine(m.text(), 2*maxReason), m.hint
	}
	return rule, problem
}

// acceptsAll reports whether a list accepts every image without looking at it. In
// a policy's default such images are not covered (spec section 4).
func acceptsAll(list []json.RawMessage) bool {
	for _, raw := range list {
		r, err := readRequirement(raw, nothing)
		if err != nil || r.kind != kindAccept {
			return false
		}
	}
	return len(list) > 0
}

// nothing reads no file.
func nothing(string) ([]byte, error) { return nil, errors.New("no file is read") }
