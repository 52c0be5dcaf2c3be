// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
)

// predicateTypes are cosign's short names (cosign v2, cmd/cosign/cli/options,
// PredicateTypeMap).
var predicateTypes = map[string]string{
	"custom":           "https://cosign.sigstore.dev/attestation/v1",
	"slsaprovenance":   "https://slsa.dev/provenance/v0.2",
	"slsaprovenance02": "https://slsa.dev/provenance/v0.2",
	"slsaprovenance1":  "https://slsa.dev/provenance/v1",
	"spdx":             "https://spdx.dev/Document",
	"spdxjson":         "https://spdx.dev/Document",
	"cyclonedx":        "https://cyclonedx.org/bom",
	"link":             "https://in-toto.io/Link/v1",
	"vuln":             "https://cosign.sigstore.dev/attestation/vuln/v1",
	"openvex":          "https://openvex.dev/ns",
}

// predicateType reads a type as a user writes it: a short name or a URI, which
// stays as it is.
func predicateType(written string) (string, bool) {
	if known, ok := predicateTypes[written]; ok {
		return known, true
	}
	// A misspelt short name has no scheme, and would be a type that nobody has.
	parsed, err := url.Parse(written)
	return written, err == nil && parsed.IsAbs() && (parsed.Host != "" || parsed.Opaque != "" || parsed.Path != "")
}

func (c *compilation) attestations(list []v1alpha1.Attestation, path string) ([]cosign.Attestation, *mistake) {
	var all []cosign.Attestation
	for i := range list {
		at := fmt.Sprintf("%s.attestations[%d]", path, i)
		kind, ok := predicateType(list[i].PredicateType)
		if !ok {
			return nil, wrong(v1alpha1.ReasonInvalid, "%s.predicateType: unknown predicate type %q: write one of %s, or a URI",
				at, list[i].PredicateType, strings.Join(slices.Sorted(maps.Keys(predicateTypes)), ", "))
		}
		attestation := cosign.Attestation{Name: list[i].Name, PredicateType: kind}
		if list[i].Policy != nil {
			var problem *mistake
			if attestation.Policy, problem = c.policy(list[i].Policy, at+".policy"); problem != nil {
				return nil, problem
			}
		}
		all = append(all, attestation)
	}
	return all, nil
}

// languages are those that policies are written in.
var languages = map[v1alpha1.PolicyType]language.Language{
	v1alpha1.PolicyCUE:  language.CUE,
	v1alpha1.PolicyRego: language.Rego,
	v1alpha1.PolicyCEL:  language.CEL,
}

// policy reads what a statement must fulfil, and tries whether it can be
// evaluated at all.
func (c *compilation) policy(p *v1alpha1.AttestationPolicy, path string) (*language.Policy, *mistake) {
	kind, ok := languages[p.Type]
	if !ok {
		return nil, wrong(v1alpha1.ReasonInvalid, "%s.type: %q is unknown", path, p.Type)
	}
	text := p.Data
	unusable := func(err error) *mistake { return wrong(v1alpha1.ReasonInvalid, "%s.data: %s", path, short(err)) }
	if p.ConfigMapRef != nil {
		e := entry{
			path: path + ".configMapRef", kind: v1alpha1.TrustRootConfigMap,
			name: string(p.ConfigMapRef.Name), key: string(p.ConfigMapRef.Key),
		}
		data, problem := c.read(e)
		if problem != nil {
			return nil, problem
		}
		text, unusable = string(data), e.wrong
	}
	return c.checked(language.Policy{Language: kind, Text: text}, path, unusable)
}

// checked tries whether a policy can be evaluated at all; unusable is the mistake
// of its text.
func (c *compilation) checked(found language.Policy, path string, unusable func(error) *mistake) (*language.Policy, *mistake) {
	switch {
	// Some languages let an empty policy pass everything.
	case strings.TrimSpace(found.Text) == "":
		return nil, unusable(errors.New("the policy is empty"))
	// Two texts would have one hash.
	case !utf8.ValidString(found.Text):
		return nil, unusable(errors.New("not text in UTF-8"))
	case c.compiler.Check == nil:
		return nil, wrong(v1alpha1.ReasonNotSupported, "%s: policies are not evaluated here", path)
	}
	err := c.compiler.Check(found)
	switch {
	case err == nil:
		return &found, nil
	case final(err):
		return nil, unusable(err)
	default:
		c.retry = true
		return nil, wrong(v1alpha1.ReasonPending, "%s: it is not known yet whether the policy can be evaluated: %s", path, short(err))
	}
}

// final reports whether an error says that a policy does not compile. That it
// took too long, or too much, may have been the machine's fault: it is tried
// again.
func final(err error) bool { return policy.VerdictOf(err).Reason == policy.ReasonNotReady }

// maxChecked bounds of how many policies it is remembered whether they can be
// evaluated: more than the ImageConfigs of a large cluster have.
const maxChecked = 1000

// remembered checks each policy once: each change of anything compiles all.
func remembered(check func(language.Policy) error) func(language.Policy) error {
	if check == nil {
		return nil
	}
	type answer struct {
		err   error
		until time.Time // zero for good
	}
	var mutex sync.Mutex
	known := map[[sha256.Size]byte]answer{}
	return func(p language.Policy) error {
		key := hashParts(string(p.Language), p.Text)
		mutex.Lock()
		defer mutex.Unlock()
		if got, ok := known[key]; ok && (got.until.IsZero() || time.Now().Before(got.until)) {
			return got.err
		}
		got := answer{err: check(p)}
		if got.err != nil && !final(got.err) {
			// A policy that takes long must not hold up each change of another.
			got.until = time.Now().Add(compileAgain / 2)
		}
		if len(known) >= maxChecked {
			clear(known)
		}
		known[key] = got
		return got.err
	}
}
