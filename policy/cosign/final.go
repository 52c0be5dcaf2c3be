// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/registry"
)

// Final is a policy over everything that is known of an image, once an authority
// is satisfied.
type Final struct {
	Policy language.Policy
	// Config says that the configs of the image are known.
	Config bool
	// Spec, Metadata and TypeMeta say what is known of the object that the image
	// is in.
	Spec, Metadata, TypeMeta bool
}

// ReadsObject reports whether it depends on the object that the image is in.
func (f Final) ReadsObject() bool { return f.Spec || f.Metadata || f.TypeMeta }

// Configs reads the configs of an image, by their platform.
type Configs interface {
	Configs(ctx context.Context, image policy.Image) (map[string]json.RawMessage, error)
}

var _ Configs = (*registry.Client)(nil)

// FinalOptions are what a Final works with.
type FinalOptions struct {
	// Verifier satisfies the authorities, and collects what it finds.
	Verifier  policy.Verifier
	Evaluator Evaluator
	Configs   Configs // may be nil where no policy asks for configs
}

// Finished is a Verifier with a Final. What of it looks at the object is its
// [policy.ObjectPolicy]; without that it decides alone.
type Finished struct {
	final   Final
	options FinalOptions
}

// NewFinal puts a Final after a Verifier.
func NewFinal(f Final, o FinalOptions) (*Finished, error) {
	switch {
	case o.Verifier == nil || o.Evaluator == nil:
		return nil, errors.New("it has a policy, and nothing to evaluate it with")
	case f.Config && o.Configs == nil:
		return nil, errors.New("fetchConfigFile: the configs of images are not read here")
	}
	return &Finished{f, o}, nil
}

// The members of the document that a policy is asked about (policy-controller
// v0.13, pkg/webhook, PolicyResult).
const (
	memberAuthorities = "authorityMatches"
	memberConfig      = "config"
	memberSpec        = "spec"
	memberMetadata    = "metadata"
	memberTypeMeta    = "typemeta"
)

// document is what a policy is asked about.
type document map[string]json.RawMessage

// Verify implements [policy.Verifier].
func (f *Finished) Verify(ctx context.Context, image policy.Image) policy.Verdict {
	verdict := f.options.Verifier.Verify(ctx, image)
	if verdict.Outcome != policy.Accepted {
		return verdict
	}
	d := document{memberAuthorities: json.RawMessage(verdict.Evidence)}
	if f.final.Config {
		configs, err := f.options.Configs.Configs(ctx, image)
		if err == nil {
			d[memberConfig], err = json.Marshal(configs)
		}
		if err != nil {
			return policy.VerdictOf(fmt.Errorf("reading the configs of the image: %w", err))
		}
	}
	if !f.final.ReadsObject() {
		if refused := f.ask(ctx, d); refused.Outcome != policy.Accepted {
			return refused
		}
		verdict.Evidence = "" // nobody asks for it any more
		return verdict
	}
	verdict, err := d.evidence(verdict)
	if err != nil {
		return policy.VerdictOf(err)
	}
	return verdict
}

// Fix prepares a verdict that rests on no image for Judge.
func (f *Finished) Fix(verdict policy.Verdict) (policy.Verdict, error) {
	return document{memberAuthorities: json.RawMessage(verdict.Evidence)}.evidence(verdict)
}

// evidence returns a verdict with the document as what Judge is told.
func (d document) evidence(verdict policy.Verdict) (policy.Verdict, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return verdict, fmt.Errorf("writing what was verified: %w", err)
	}
	verdict.Evidence = string(text)
	return verdict, nil
}

// Judge implements [policy.ObjectPolicy].
func (f *Finished) Judge(ctx context.Context, evidence string, object *policy.Object) policy.Verdict {
	var d document
	err := json.Unmarshal([]byte(evidence), &d)
	if err == nil {
		err = f.add(d, object)
	}
	if err != nil {
		return policy.VerdictOf(err)
	}
	return f.ask(ctx, d)
}

// add adds what is to be known of the object.
func (f *Finished) add(d document, object *policy.Object) error {
	spec, err := object.Spec()
	metadata, problem := object.Metadata()
	if err := cmp.Or(err, problem); err != nil {
		return err
	}
	if f.final.Spec && spec != nil {
		d[memberSpec] = spec
	}
	if f.final.Metadata && metadata != nil {
		d[memberMetadata] = metadata
	}
	if f.final.TypeMeta {
		version, kind := object.Kind.ToAPIVersionAndKind()
		if d[memberTypeMeta], err = json.Marshal(map[string]string{"apiVersion": version, "kind": kind}); err != nil {
			return fmt.Errorf("writing what the object is: %w", err)
		}
	}
	return nil
}

func (f *Finished) ask(ctx context.Context, d document) policy.Verdict {
	text, err := json.Marshal(d)
	if err != nil {
		return policy.VerdictOf(fmt.Errorf("writing what is known of the image: %w", err))
	}
	result, err := f.options.Evaluator.Evaluate(ctx, f.final.Policy, text)
	switch {
	case err != nil:
		v := policy.VerdictOf(err)
		v.Message = "its policy could not be evaluated: " + v.Message
		return v
	case !result.Compliant:
		return policy.Refused(policy.ReasonPolicy, "its policy refuses it: %s", cmp.Or(result.Message, "it gives no reason"))
	default:
		return policy.Verdict{Outcome: policy.Accepted}
	}
}
