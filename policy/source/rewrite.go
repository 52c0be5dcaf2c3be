// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/reference"
)

// rewrite reads under which name images are found instead. Where the mistake is
// elsewhere it is read all the same: what is rewritten is held back by the name
// that it has then.
func (c *compilation) rewrite() {
	rewrite := c.config.Spec.RewriteImage
	if rewrite == nil {
		return
	}
	to, err := c.rewriteTo(rewrite.Prefix)
	switch {
	case err == nil:
		c.rule.Rewrite = &policy.Rewrite{To: to, Lookup: rewrite.Target == v1alpha1.RewriteLookup}
	case len(c.invalid) == 0:
		c.problems = append(c.problems, wrong(v1alpha1.ReasonInvalid, "spec.rewriteImage%v", err))
	}
}

// rewriteTo reads what takes the place of the prefixes that match. Its error is
// the rest of a sentence.
func (c *compilation) rewriteTo(written string) (reference.Prefix, error) {
	for _, prefix := range c.rule.Prefixes {
		if prefix.Reach != reference.ReachRepository {
			return prefix, fmt.Errorf(": the prefix %s reaches into the tag or digest, and only names are rewritten: match without it", prefix.Text)
		}
	}
	to, err := reference.ParsePrefix(written)
	switch {
	case err != nil:
		return reference.Prefix{}, fmt.Errorf(".prefix: %w", err)
	case to[0].Reach != reference.ReachRepository:
		return reference.Prefix{}, errors.New(".prefix: an image is rewritten to another name and keeps its tag")
	case len(to) > 1:
		return reference.Prefix{}, fmt.Errorf(".prefix: %q may mean %s/ or %s: write one of them out", written, to[0].Text, to[1].Text)
	}
	for _, prefix := range c.rule.Prefixes {
		if !joins(prefix.Text, to[0].Text) {
			return reference.Prefix{}, fmt.Errorf(".prefix: what follows %s would be put behind %s: end both in a slash, or neither", prefix.Text, to[0].Text)
		}
	}
	return to[0], nil
}

// joins reports whether what follows one prefix can follow the other. Where one
// ends at a component, so does the other, or it ends in what joins words: acme/
// and acme-, but not acme/ and acme.
func joins(from, to string) bool {
	if strings.HasSuffix(from, "/") {
		return strings.ContainsAny(to[len(to)-1:], "/-_.")
	}
	return !strings.HasSuffix(to, "/")
}

// forRewritten is the rule for the names that a rule rewrites to, where it asks for
// verification as well: rules judge the rewritten name (spec section 3), under
// which its own prefixes would never be met. What it asks comes on top of what
// others ask of such names.
func forRewritten(rule *policy.Rule) *policy.Rule {
	if rule.Rewrite == nil || rule.Verification == nil {
		return nil
	}
	rewritten := &policy.Rule{
		Kind: rule.Kind, Name: rule.Name, Mode: rule.Mode, Namespaces: rule.Namespaces,
		Prefixes: []reference.Prefix{rule.Rewrite.To}, Adds: true, Verification: rule.Verification,
	}
	if written := rule.Rewrite.Written; written != "" {
		rewritten.Written = []string{written}
		// What has no canonical form is met as it is written.
		rewritten.Prefixes, _ = canonicalPrefixes(written)
	}
	return rewritten
}

// refuseLoops makes those ImageConfigs not ready under which a rewritten name
// would be rewritten again, by themselves or by others: which of several names
// is meant would hang on how often somebody looks. Whether two of them ever
// govern the same namespace is not asked: labels change. Crossplane's own only
// say where to look, once; but what is written into a Pod they would meet again.
func (c Compiler) refuseLoops(compiled []Compiled) {
	again := make([]string, len(compiled))
	for i := range compiled {
		again[i] = rewritingAgain(compiled, compiled[i].Rule)
	}
	for i, by := range again {
		if by == "" {
			continue
		}
		one := &compiled[i]
		message := fmt.Sprintf("spec.rewriteImage: what it rewrites to, %s, %s rewrites again", one.Rule.Rewrite.To.Text, by)
		if !one.Ready {
			message += "; " + one.Message
		}
		one.Ready, one.Reason, one.Message = false, v1alpha1.ReasonConflict, message
		one.Rule.Rewrite = nil
		engine := cosign.Engine
		if v := one.Rule.Verification; v != nil {
			engine = v.Engine
		}
		one.Rule.Verification = c.held(*one, engine)
		if one.Rewritten != nil {
			one.Rewritten.Verification = one.Rule.Verification
		}
		if by == nameOf(one.Rule) {
			one.Rewritten = nil // its own prefixes hold the same images back
		}
	}
}

// rewritingAgain names the first ImageConfig that rewrites what a rule rewrites
// to, "" if none does.
func rewritingAgain(compiled []Compiled, rule *policy.Rule) string {
	rewrite := rule.Rewrite
	if rewrite == nil || rewrite.Written != "" {
		return ""
	}
	for _, other := range compiled {
		if other.Rule.Rewrite == nil || other.Rule.Kind != rule.Kind && rewrite.Lookup {
			continue
		}
		for _, prefix := range other.Rule.Prefixes {
			if strings.HasPrefix(prefix.Text, rewrite.To.Text) || strings.HasPrefix(rewrite.To.Text, prefix.Text) {
				return nameOf(other.Rule)
			}
		}
	}
	return ""
}

// nameOf names a rule for people.
func nameOf(rule *policy.Rule) string { return fmt.Sprintf("%s %q", rule.Kind, rule.Name) }
