// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
	intoto "github.com/in-toto/attestation/go/v1"
	"github.com/sigstore/sigstore-go/pkg/bundle"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/language"
)

// sha256Name is the name of the digest in a statement (in-toto attestation,
// "DigestSet").
const sha256Name = "sha256"

// attesting is evidence with a statement.
type attesting interface {
	// untrustedType is what the statement says it is, if that can be told before
	// it is verified.
	untrustedType() string
	// statement reads the statement. Somebody who counts must have signed it.
	statement() (*statement, error)
}

// statements judges one statement by all authorities that ask for attestations.
func (e *examination) statements(ctx context.Context, place int, p *proofs, from attesting) {
	one := &attested{proofs: p, attesting: from, asked: from.untrustedType() != ""}
	for i, a := range e.authorities {
		if !a.attests() || !a.looksIn(place) {
			continue
		}
		if e.interrupted(ctx) {
			return
		}
		e.attest(ctx, i, a, one)
	}
	if one.asked {
		e.counts(&e.attested)
	} else if one.said != nil {
		e.other(one.said.GetPredicateType())
	}
}

// attested is evidence with its statement, which is read only once somebody is
// known to have signed it who counts.
type attested struct {
	*proofs
	attesting

	said  *statement
	asked bool // somebody asks for its type, or may
}

// attest judges one statement by one authority.
func (e *examination) attest(ctx context.Context, i int, a *authority, one *attested) {
	by, failure := one.signer(ctx, a)
	if failure == nil && one.said == nil {
		one.said, failure = one.statement()
	}
	predicateType, known := one.untrustedType(), one.untrustedType() != ""
	if one.said != nil {
		predicateType, known = one.said.GetPredicateType(), true
	}
	for j, wanted := range a.Attestations {
		// What nobody can read may be of any type.
		if known && predicateType != wanted.PredicateType {
			continue
		}
		one.asked = true
		err := failure
		if err == nil {
			err = e.fulfils(ctx, one.said, a, wanted)
			by.said = one.said.hash
		}
		e.attestation([2]int{i, j}, a, by, err)
	}
}

// fulfils verifies what a statement says, once an authority is known to have
// signed it.
func (e *examination) fulfils(ctx context.Context, said *statement, a *authority, wanted Attestation) error {
	if said.GetPredicateType() != wanted.PredicateType {
		return missed(nearImage, "of another type")
	}
	if err := said.about(e.digest.Hex, a); err != nil {
		return err
	}
	if wanted.Policy == nil {
		return nil
	}
	return e.policies.judge(ctx, said, wanted.Policy)
}

// statement is what was signed in an envelope. It is made of verified envelopes
// only.
type statement struct {
	*intoto.Statement

	// document is the statement as it was signed, which policies judge.
	document []byte
	hash     [sha256.Size]byte
}

func newStatement(verified *bundle.Envelope) (*statement, error) {
	document, err := verified.DecodeB64Payload()
	if err != nil {
		return nil, fmt.Errorf("reading a statement: %w", err)
	}
	// Of two members of one name readers believe this one or that.
	if !jsontext.Value(document).IsValid() {
		return nil, missed(nearImage, "its statement is no JSON, or has a name twice")
	}
	parsed, err := verified.Statement()
	if err != nil {
		return nil, missed(nearImage, "its statement cannot be read")
	}
	return &statement{parsed, document, sha256.Sum256(document)}, nil
}

// about verifies that the statement is about the image, with all the annotations
// of the authority on the very subject that is the image.
func (s *statement) about(hexDigest string, a *authority) error {
	var failure error = missed(nearImage, "%s signed something else than this image", a.whose())
	for _, subject := range s.GetSubject() {
		if subject.GetDigest()[sha256Name] != hexDigest {
			continue
		}
		if annotated(subject, a.Annotations) {
			return nil
		}
		failure = missingAnnotations(a)
	}
	return failure
}

func annotated(subject *intoto.ResourceDescriptor, wanted map[string]string) bool {
	have := subject.GetAnnotations().AsMap()
	for name, value := range wanted {
		if text, ok := have[name].(string); !ok || text != value {
			return false
		}
	}
	return true
}

// judgements remembers what policies said of statements, for one image: the same
// statement may be found in several places, and be asked for by several
// authorities.
type judgements struct {
	evaluator Evaluator
	mutex     sync.Mutex
	made      map[judgementID]func() (language.Result, error)
}

type judgementID struct {
	statement [sha256.Size]byte
	policy    language.Policy
}

// judge evaluates a policy over a verified statement.
func (j *judgements) judge(ctx context.Context, s *statement, p *language.Policy) error {
	j.mutex.Lock()
	id := judgementID{s.hash, *p}
	evaluate, ok := j.made[id]
	if !ok {
		evaluate = sync.OnceValues(func() (language.Result, error) { return j.evaluator.Evaluate(ctx, *p, s.document) })
		j.made[id] = evaluate
	}
	j.mutex.Unlock()
	result, err := evaluate()
	if err != nil {
		return &undecided{policy.VerdictOf(err)}
	}
	if !result.Compliant {
		return missed(nearPolicy, "does not fulfil its policy: %s", oneLine(result.Message))
	}
	return nil
}

// undecided is that it could not be known whether a statement fulfils a policy.
type undecided struct{ verdict policy.Verdict }

func (u *undecided) Error() string { return u.verdict.Message }
