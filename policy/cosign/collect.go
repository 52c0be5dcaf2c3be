// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/pratique-dev/pratique/policy"
)

// Match is what satisfied an authority, as policies are told of it
// (policy-controller v0.13, pkg/webhook, AuthorityMatch).
type Match struct {
	Signatures   []SignatureMatch              `json:"signatures,omitempty"`
	Attestations map[string][]AttestationMatch `json:"attestations,omitempty"`
	Static       bool                          `json:"static,omitempty"`
}

// SignatureMatch is one verified signature.
type SignatureMatch struct {
	// ID tells it from others: of what is signed, and by whom. The same signed
	// again by the same is the same.
	ID      string `json:"id,omitempty"`
	Subject string `json:"subject,omitempty"`
	Issuer  string `json:"issuer,omitempty"`

	WorkflowTrigger string `json:"githubWorkflowTrigger,omitempty"`
	WorkflowSHA     string `json:"githubWorkflowSha,omitempty"`
	WorkflowName    string `json:"githubWorkflowName,omitempty"`
	WorkflowRepo    string `json:"githubWorkflowRepo,omitempty"`
	WorkflowRef     string `json:"githubWorkflowRef,omitempty"`
}

// AttestationMatch is one verified attestation that fulfils its policy.
type AttestationMatch struct {
	SignatureMatch

	PredicateType string `json:"predicateType,omitempty"`
	Digest        string `json:"digest,omitempty"`
}

// collection is what was verified of one image, by authority; nil if nobody wants
// to know. The lock of the tally it is in guards it.
type collection struct {
	of      []*authority
	matches []Match
}

func newCollection(authorities []*authority) *collection {
	c := &collection{of: authorities, matches: make([]Match, len(authorities))}
	for i, a := range authorities {
		c.matches[i].Static = a.Static == StaticPass
	}
	return c
}

// signature notes that one was verified.
func (c *collection) signature(i int, by signer) {
	if c == nil {
		return
	}
	m := by.match()
	known := func(o SignatureMatch) bool { return o.ID == m.ID }
	if !slices.ContainsFunc(c.matches[i].Signatures, known) {
		c.matches[i].Signatures = append(c.matches[i].Signatures, m)
	}
}

// attestation notes that one was verified, and fulfils its policy.
func (c *collection) attestation(i int, asked Attestation, by signer) {
	if c == nil {
		return
	}
	if c.matches[i].Attestations == nil {
		c.matches[i].Attestations = map[string][]AttestationMatch{}
	}
	m := AttestationMatch{by.match(), cmp.Or(c.of[i].Written[asked.Name], asked.PredicateType), "sha256:" + hex.EncodeToString(by.said[:])}
	list := c.matches[i].Attestations[asked.Name]
	known := func(o AttestationMatch) bool { return o.ID == m.ID }
	if !slices.ContainsFunc(list, known) {
		c.matches[i].Attestations[asked.Name] = append(list, m)
	}
}

// match is the signer as policies are told of him.
func (s signer) match() SignatureMatch {
	m := SignatureMatch{Issuer: s.issuer}
	if len(s.subjects) > 0 {
		m.Subject = s.subjects[0]
	}
	m.WorkflowTrigger, m.WorkflowSHA, m.WorkflowName = s.github.GithubWorkflowTrigger, s.github.GithubWorkflowSHA, s.github.GithubWorkflowName
	m.WorkflowRepo, m.WorkflowRef = s.github.GithubWorkflowRepository, s.github.GithubWorkflowRef
	// The parts are quoted, so that they can be read in one way only.
	text := fmt.Sprintf("%x %q", s.said, m)
	if s.key != nil {
		text += fmt.Sprintf(" %x", s.key.id.public)
	}
	sum := sha256.Sum256([]byte(text))
	m.ID = hex.EncodeToString(sum[:])
	return m
}

// collected adds to Accepted what was verified of all authorities that are
// satisfied. What could not be read may be what a policy asks for, or what it
// refuses: then nothing is known.
func (t *tally) collected() *policy.Verdict {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.collection == nil {
		return nil
	}
	if t.err != nil {
		unknown := policy.VerdictOf(t.err)
		return &unknown
	}
	names := map[string]Match{}
	var first *authority
	accepted := policy.Verdict{}
	for i, a := range t.collection.of {
		by := slices.IndexFunc(t.satisfied, func(s *satisfied) bool { return s.authority == a })
		if by < 0 && a.Static != StaticPass {
			continue
		}
		// Of two of one name the last is told of, as by policy-controller.
		names[a.Name] = t.collection.matches[i]
		switch {
		case first != nil:
		case by >= 0:
			first, accepted = a, t.satisfied[by].verdict()
		default:
			first, accepted = a, a.passes()
		}
	}
	if first == nil {
		return nil
	}
	text, err := json.Marshal(names)
	if err != nil {
		unknown := policy.VerdictOf(fmt.Errorf("writing what was verified: %w", err))
		return &unknown
	}
	accepted.Evidence = string(text)
	return &accepted
}

// passes is the verdict of an authority that accepts every image.
func (a *authority) passes() policy.Verdict {
	return policy.Verdict{
		Outcome: policy.Accepted, Reason: policy.ReasonStatic, Signer: a.Name,
		Message: fmt.Sprintf("authority %q: accepts every image", a.Name),
	}
}

// decreed is the verdict of authorities all of which are static, with the evidence;
// nil if there are others, which have to be asked too.
func (v *Verifier) decreed() *policy.Verdict {
	if slices.ContainsFunc(v.authorities, func(a *authority) bool { return a.Static == "" }) {
		return nil
	}
	t := newTally(v.authorities)
	t.collection = newCollection(v.authorities)
	if verdict := t.collected(); verdict != nil {
		return verdict
	}
	refused := policy.Refused(policy.ReasonStatic, "authority %q: %s", v.authorities[0].Name, v.authorities[0].refusal())
	return &refused
}
