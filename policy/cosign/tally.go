// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/pratique-dev/pratique/policy"
)

// tally is what is known of one image: what was found, and how near that came
// to satisfying each authority. All look-ups write into one.
type tally struct {
	mutex sync.Mutex
	// ended is closed when an authority is satisfied.
	ended      chan struct{}
	satisfied  []*satisfied
	states     []state // one for each authority
	signatures int     // that say they are one
	attested   int     // statements that authorities ask for
	others     int     // other statements, and what cannot be read
	types      []string
	// err is why there may be more than was seen: the first of the reasons, as
	// it names the cause; what comes after it often only that the time was over.
	err error
	// collection is what was verified, nil if one authority that is satisfied is
	// enough.
	collection *collection
}

// satisfied is an authority, and who satisfied it.
type satisfied struct {
	authority *authority
	by        signer
}

// state is how near an authority is to being satisfied.
type state struct {
	// signature is the nearest miss of an authority that asks for a signature.
	signature error
	// attestations are those of an authority that asks for attestations, in
	// their order.
	attestations []attestationState
}

type attestationState struct {
	found  int // statements of its type
	by     *signer
	missed error
}

func newTally(authorities []*authority) *tally {
	t := &tally{ended: make(chan struct{}), states: make([]state, len(authorities))}
	for i, a := range authorities {
		t.states[i].attestations = make([]attestationState, len(a.Attestations))
	}
	return t
}

// failed notes why there may be more than was seen.
func (t *tally) failed(err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// counts notes that something was found.
func (t *tally) counts(of *int) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	*of++
}

// other notes a statement that no authority asks for.
func (t *tally) other(untrustedType string) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	t.others++
	if untrustedType != "" && !slices.Contains(t.types, untrustedType) && len(t.types) <= maxTypes {
		t.types = append(t.types, untrustedType)
	}
}

// unreadable notes something that no verdict can rest on; a bound that it
// exceeds leaves it unknown what it would have said.
func (t *tally) unreadable(err error) {
	if judged, ok := errors.AsType[policy.Judged](err); ok {
		t.failed(judged)
		return
	}
	t.other("")
}

// done reports whether an authority is satisfied.
func (t *tally) done() bool {
	select {
	case <-t.ended:
		return true
	default:
		return false
	}
}

// signature notes what an authority says of one signature.
func (t *tally) signature(i int, a *authority, by signer, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if err != nil {
		t.states[i].signature = nearer(t.states[i].signature, err)
		return
	}
	t.collection.signature(i, by)
	t.satisfy(a, by)
}

// attestation notes what an authority says of one statement of the type of its
// j-th attestation. Of several statements one is enough.
func (t *tally) attestation(at [2]int, a *authority, by signer, err error) {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	states := t.states[at[0]].attestations
	one := &states[at[1]]
	one.found++
	if err != nil {
		if unknown, ok := errors.AsType[*undecided](err); ok && t.err == nil {
			t.err = unknown.about(a, a.Attestations[at[1]])
		}
		one.missed = nearer(one.missed, err)
		return
	}
	one.by = &by
	t.collection.attestation(at[0], a.Attestations[at[1]], by)
	lacks := func(s attestationState) bool { return s.by == nil }
	if a.AnyAttestation || !slices.ContainsFunc(states, lacks) {
		t.satisfy(a, by)
	}
}

// satisfy notes that an authority is satisfied. The first one ends the look-ups;
// those that are under way may add to it.
func (t *tally) satisfy(a *authority, by signer) {
	t.satisfied = append(t.satisfied, &satisfied{a, by})
	if len(t.satisfied) == 1 && t.collection == nil {
		close(t.ended)
	}
}

// recovered makes a panic of a parser an error: bytes from a registry must not
// end the process. It must be deferred directly.
func (t *tally) recovered() {
	if p := recover(); p != nil {
		t.failed(policy.Panicked(p).Err())
	}
}

// verdict is what is known so far: Accepted if an authority is satisfied, else
// Inconclusive if it is not known whether there is more, else nil.
func (t *tally) verdict() *policy.Verdict {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	if len(t.satisfied) > 0 && t.collection == nil {
		accepted := t.satisfied[0].verdict()
		return &accepted
	}
	if t.err != nil {
		unknown := policy.VerdictOf(t.err)
		return &unknown
	}
	return nil
}

// verdict is Accepted. It does not expire: a certificate is judged at the time
// of its signature, which does not change any more.
func (s *satisfied) verdict() policy.Verdict {
	what := "signature verified"
	if s.authority.attests() {
		what = "attestations verified"
	}
	if by := s.by.String(); by != "" {
		what += ", " + by
	}
	return policy.Verdict{
		Outcome: policy.Accepted, Reason: policy.ReasonVerified, Signer: s.authority.Name,
		Message: fmt.Sprintf("authority %q: %s", s.authority.Name, what),
	}
}

// refuse says of every authority why nothing satisfied it.
func (t *tally) refuse(authorities []*authority) policy.Verdict {
	t.mutex.Lock()
	defer t.mutex.Unlock()
	reason := policy.ReasonNoMatch
	if t.signatures == 0 && t.attested == 0 {
		reason = policy.ReasonNoSignature
		if !slices.ContainsFunc(authorities, (*authority).attests) {
			found := ""
			if t.others > 0 {
				found = fmt.Sprintf(" (%d attestations or unreadable bundles are no signatures)", t.others)
			}
			return policy.Refused(reason, "no signature%s", found)
		}
	}
	var lines []string
	for i, a := range authorities {
		lines = append(lines, fmt.Sprintf("authority %q: %s", a.Name, t.lacks(i, a)))
	}
	return policy.Refused(reason, "%s", strings.Join(lines, "; "))
}

// lacks says why nothing satisfied an authority.
func (t *tally) lacks(i int, a *authority) string {
	switch {
	case a.Static != "":
		return a.refusal()
	case a.attests():
		return t.lacksAttestations(i, a)
	case t.signatures == 0:
		return "no signature"
	}
	return t.nearest(t.states[i].signature, a, "signature", t.signatures)
}

func (t *tally) lacksAttestations(i int, a *authority) string {
	var lines []string
	for j, state := range t.states[i].attestations {
		asked := a.Attestations[j]
		switch {
		case state.by != nil:
		case state.found == 0:
			lines = append(lines, fmt.Sprintf("no attestation of type %s%s", quoted(asked.PredicateType), t.foundTypes()))
		default:
			lines = append(lines, fmt.Sprintf("attestation %q: %s", asked.Name, t.nearest(state.missed, a, "attestation", state.found)))
		}
	}
	if a.AnyAttestation && len(lines) > 1 {
		return "none of its attestations: " + strings.Join(lines, ", ")
	}
	return strings.Join(lines, ", ")
}

// nearest is the text of the nearest miss; without one that says anything, that
// none is of the authority's.
func (t *tally) nearest(err error, a *authority, what string, found int) string {
	if near := nearnessOf(err); near > nearNothing {
		return err.Error()
	}
	if a.terms.keyless {
		return fmt.Sprintf("no %s with a certificate that holds (%d found)", what, found)
	}
	return fmt.Sprintf("no %s matches %s (%d found)", what, a.whose(), found)
}

// maxTypes is how many predicate types a message lists: whoever mistook one for
// another finds it among them.
const maxTypes = 3

// foundTypes lists the types of statements that were found and not asked for, as
// they call themselves.
func (t *tally) foundTypes() string {
	if len(t.types) == 0 {
		return ""
	}
	var listed []string
	for _, untrustedType := range t.types[:min(len(t.types), maxTypes)] {
		listed = append(listed, quoted(untrustedType))
	}
	if len(t.types) > maxTypes {
		listed = append(listed, "and more")
	}
	return fmt.Sprintf(" (found: %s)", strings.Join(listed, ", "))
}

// about is the verdict of an authority's attestation that could not be judged.
func (u *undecided) about(a *authority, asked Attestation) error {
	v := u.verdict
	v.Outcome = policy.Inconclusive
	v.Message = fmt.Sprintf("authority %q: attestation %q: its policy could not be evaluated: %s", a.Name, asked.Name, oneLine(v.Message))
	return v.Err()
}

// nearnessOf is how near a miss is; what is no miss is none.
func nearnessOf(err error) nearness {
	if m, ok := errors.AsType[*miss](err); ok {
		return m.near
	}
	return nearNothing
}

// whose names in messages what an authority's signatures are made with.
func (a *authority) whose() string {
	switch {
	case a.Keyless != nil:
		return "its identity"
	case len(a.Keys) > 1:
		return "any of its keys"
	default:
		return "its key"
	}
}

// refusal is what an authority says that refuses every image.
func (a *authority) refusal() string {
	if a.Message == "" {
		return "refuses every image"
	}
	return "refuses every image: " + oneLine(a.Message)
}

func missingAnnotations(a *authority) error {
	var pairs []string
	for name, value := range a.Annotations {
		pairs = append(pairs, fmt.Sprintf("%s=%s", name, value))
	}
	slices.Sort(pairs)
	what := "signature"
	if a.attests() {
		what = "attestation"
	}
	return missed(nearAnnotations, "no %s by %s has all the annotations %q", what, a.whose(), strings.Join(pairs, ","))
}
