// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sigstore/policy-controller/pkg/apis/glob"
	pc "github.com/sigstore/policy-controller/pkg/apis/policy/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"knative.dev/pkg/apis"
	kjson "sigs.k8s.io/json"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
)

// KindClusterImagePolicy is what rules from policy-controller's policies are
// called.
const KindClusterImagePolicy = "ClusterImagePolicy"

// imagePolicy is one of policy-controller's policies on its way to a rule. It is
// judged as policy-controller judges, save where that would let in what nobody
// vouches for (docs/spec/clusterimagepolicy.md).
type imagePolicy struct {
	compilation

	object *pc.ClusterImagePolicy
	roots  *trustRoots
}

// imagePolicy compiles a ClusterImagePolicy, given as JSON, in either version. It
// never fails: every mistake makes a rule under which what it may be for is
// Inconclusive.
func (c Compiler) imagePolicy(raw []byte, roots *trustRoots) Compiled {
	object, images, err := decodeImagePolicy(raw)
	one := &imagePolicy{object: object, roots: roots}
	one.compilation = compilation{
		compiler: c, objects: roots.objects, config: &v1alpha1.ImageConfig{ObjectMeta: object.ObjectMeta},
		rule: &policy.Rule{Kind: KindClusterImagePolicy, Name: object.Name, Mode: policy.Enforce, Globs: c.PolicyController.globs()},
	}
	one.rule.Namespaces = c.PolicyController.selector()
	if object.Spec.Mode == modeWarn && err == nil {
		one.rule.Mode = policy.Audit
	}
	if err != nil {
		one.invalid = []error{err}
	} else {
		one.validate()
	}
	one.images(images)
	if len(one.invalid) == 0 {
		one.match()
		one.verification()
	}
	return one.finish()
}

// modeWarn is the mode in which nothing is refused.
const modeWarn = "warn"

// decodeImagePolicy reads a policy. Its error says that something in it is not
// what it may have been meant to be. images are those of the spec so far as that
// is sure to list all, nil if it is not.
//
// Both versions have the same fields, and are read into the types of the one that
// is stored: policy-controller's own conversion drops some of them.
func decodeImagePolicy(raw []byte) (object *pc.ClusterImagePolicy, images []pc.ImagePattern, err error) {
	object = &pc.ClusterImagePolicy{}
	var whole struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        json.RawMessage `json:"metadata"`
		Spec            json.RawMessage `json:"spec"`
		Status          json.RawMessage `json:"status"`
	}
	if err := strictly(raw, &whole); err != nil {
		object.Name = objectName(raw)
		return object, nil, err
	}
	object.TypeMeta = whole.TypeMeta
	if err := kjson.UnmarshalCaseSensitivePreserveInts(whole.Metadata, &object.ObjectMeta); err != nil {
		return object, nil, fmt.Errorf("reading metadata: %w", err)
	}
	err = strictly(whole.Spec, &object.Spec)
	// What is wrong with another field does not hide which images are meant.
	if err == nil || !strings.Contains(strings.ToLower(err.Error()), "image") {
		images = object.Spec.Images
	}
	if err != nil {
		err = fmt.Errorf("reading spec: %w", err)
	}
	return object, images, err
}

func objectName(raw []byte) string {
	var object metav1.PartialObjectMetadata
	_ = json.Unmarshal(raw, &object) // it is for messages
	return object.Name
}

// nowhere is the context of what takes one only to look values up: it neither
// waits nor asks anybody.
var nowhere = context.Background() //nolint:forbidigo // see above

// validate is policy-controller's own validation, at creation.
func (p *imagePolicy) validate() {
	spec := p.object.Spec.DeepCopy()
	// It would ask its environment which namespace it runs in.
	for i := range spec.Authorities {
		p.ownNamespace(spec.Authorities[i].Key, fmt.Sprintf("spec.authorities[%d].key", i))
		if k := spec.Authorities[i].Keyless; k != nil {
			p.ownNamespace(k.CACert, fmt.Sprintf("spec.authorities[%d].keyless.ca-cert", i))
		}
	}
	spec.SetDefaults(nowhere)
	p.object.Spec.SetDefaults(nowhere)
	if problem := spec.Validate(nowhere).ViaField("spec").Filter(apis.ErrorLevel); problem != nil {
		p.invalid = append(p.invalid, errors.New(short(problem)))
	}
}

// ownNamespace checks the namespace of a key's Secret, and takes it away.
func (p *imagePolicy) ownNamespace(key *pc.KeyRef, path string) {
	if key == nil || key.SecretRef == nil {
		return
	}
	if own := p.compiler.PolicyController.Namespace; key.SecretRef.Namespace != "" && key.SecretRef.Namespace != own {
		p.invalid = append(p.invalid, fmt.Errorf("%s.secretRef.namespace: %q is not policy-controller's namespace %q (set by --policy-controller-namespace)",
			path, key.SecretRef.Namespace, own))
	}
	key.SecretRef.Namespace = ""
}

// images reads which images are meant. If that cannot be read, it may be any.
func (p *imagePolicy) images(list []pc.ImagePattern) {
	if len(list) == 0 {
		p.rule.Globs.Everything = true
	}
	for _, image := range list {
		compiled, err := compileGlob(image.Glob)
		if err != nil {
			p.rule.Globs.Everything = true
			continue
		}
		p.rule.Globs.Patterns = append(p.rule.Globs.Patterns, compiled)
		if matchesNothing(image.Glob) {
			p.notes = append(p.notes, fmt.Sprintf(
				"the glob %q matches nothing: images are called index.docker.io/… on Docker Hub, and by their digest, without a tag", image.Glob))
		}
	}
	if p.rule.Globs.Everything && len(p.invalid) == 0 {
		p.invalid = append(p.invalid, errors.New("spec.images: it cannot be read"))
	}
}

// matchesNothing reports whether a glob names images as they are never called.
func matchesNothing(written string) bool {
	if strings.HasPrefix(written, "docker.io/") {
		return true
	}
	at := strings.LastIndexByte(written, '/')
	name, _, tagged := strings.Cut(written[at+1:], ":")
	return at >= 0 && tagged && !strings.ContainsAny(name, "*@")
}

func compileGlob(written string) (policy.Glob, error) {
	if written == "" {
		return policy.Glob{}, errors.New("empty")
	}
	exact, err := glob.Compile(written)
	if err != nil {
		return policy.Glob{}, err
	}
	return policy.NewGlob(written, exact)
}

// match reads in which objects images are meant.
func (p *imagePolicy) match() {
	for i, m := range p.object.Spec.Match {
		one := policy.Match{Group: m.Group, Version: m.Version, Resource: m.Resource}
		if m.ResourceSelector != nil {
			selector, err := metav1.LabelSelectorAsSelector(m.ResourceSelector)
			if err != nil {
				p.invalid = append(p.invalid, fmt.Errorf("spec.match[%d].selector: %w", i, err))
				continue
			}
			one.Selector = selector
		}
		if m.Resource == "" || m.Version == "" {
			p.notes = append(p.notes, fmt.Sprintf("spec.match[%d] selects nothing: it needs a resource and a version, which may be *", i))
		}
		p.rule.Globs.Matches = append(p.rule.Globs.Matches, one)
	}
}

// finish is what came of it all.
func (p *imagePolicy) finish() Compiled {
	compiled := Compiled{Rule: p.rule, Ready: true, Reason: v1alpha1.ReasonCompiled, Message: inForce, retry: p.retry}
	for _, note := range p.notes {
		compiled.Message += "; " + note
	}
	for _, err := range p.invalid {
		problem := wrong(v1alpha1.ReasonInvalid, "%s", short(err))
		if p.rule.Globs.Everything {
			problem.message += "; which images it is for cannot be read, so all are held back"
		}
		p.problems = append([]*mistake{problem}, p.problems...)
	}
	if len(p.problems) == 0 {
		return compiled
	}
	compiled.Ready, compiled.Reason, compiled.Message = false, p.problems[0].reason, p.problems[0].message
	if more := len(p.problems) - 1; more > 0 {
		compiled.Message = fmt.Sprintf("%s (and %d more)", compiled.Message, more)
	}
	compiled.Pending = slices.ContainsFunc(p.problems, func(m *mistake) bool { return m.reason == v1alpha1.ReasonPending })
	// Whatever the mistake is, the rule might have asked for more, of more objects.
	p.rule.Globs.Matches = nil
	verdict := policy.Undecided(policy.ReasonNotReady, "it is not ready: %s", oneLine(compiled.Message))
	p.rule.Verification = &policy.Verification{Engine: cosign.Engine, Fixed: &verdict}
	return compiled
}

// selector selects the namespaces that policy-controller's policies govern, nil
// for all.
func (o PolicyController) selector() labels.Selector {
	if o.All {
		return nil
	}
	return labels.SelectorFromSet(labels.Set{includeLabel: "true"})
}

// includeLabel is on the namespaces that policy-controller is asked about.
const includeLabel = "policy.sigstore.dev/include"

func (o PolicyController) globs() *policy.Globs { return &policy.Globs{Namespaced: !o.All} }
