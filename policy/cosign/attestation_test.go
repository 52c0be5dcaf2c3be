// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/language"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

var cue = language.Policy{Language: language.CUE, Text: "x"}

// evaluator says of documents what its function does, and counts.
type evaluator struct {
	says func(p language.Policy, document string) (language.Result, error)

	mutex sync.Mutex
	asked []string
}

func (e *evaluator) Evaluate(_ context.Context, p language.Policy, document []byte) (language.Result, error) {
	e.mutex.Lock()
	e.asked = append(e.asked, string(document))
	e.mutex.Unlock()
	return e.says(p, string(document))
}

// holding is the policy that a document has its text in it.
func holding() *evaluator {
	return &evaluator{says: func(p language.Policy, document string) (language.Result, error) {
		if strings.Contains(document, p.Text) {
			return language.Result{Compliant: true}, nil
		}
		return language.Result{Message: "there is no " + p.Text}, nil
	}}
}

func text(s string) *language.Policy { return &language.Policy{Language: language.CEL, Text: s} }

// attested judges an image by authorities with policies.
func attested(t *testing.T, r *registrytest.Registry, e cosign.Evaluator, image registrytest.Image, authorities ...cosign.Authority) policy.Verdict {
	t.Helper()
	v, err := cosign.New(cosign.Options{Source: newClient(t, r), Evaluator: e}, authorities)
	must(t, err)
	return v.Verify(t.Context(), asked(t, image))
}

const (
	vuln       = "https://cosign.sigstore.dev/attestation/vuln/v1"
	provenance = "https://slsa.dev/provenance/v0.2"
)

// pushed are the ways to attest by key: the DSSE envelope under .att, the bundle.
var pushed = map[string]func(*testing.T, *registrytest.Registry, registrytest.Image, *registrytest.Key, registrytest.Attestation){
	".att": func(t *testing.T, r *registrytest.Registry, i registrytest.Image, k *registrytest.Key, a registrytest.Attestation) {
		r.AttestLegacy(t, i, k, a)
	},
	"bundle": func(t *testing.T, r *registrytest.Registry, i registrytest.Image, k *registrytest.Key, a registrytest.Attestation) {
		r.AttestBundle(t, i, k, a)
	},
}

func predicate(predicateType, a string) registrytest.Attestation {
	return registrytest.Attestation{PredicateType: predicateType, Predicate: map[string]any{"a": a}}
}

func TestAttestations(t *testing.T) {
	t.Parallel()
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP384)
	type wanted []cosign.Attestation
	type said []registrytest.Attestation
	refused := func(says string) want { return want{policy.Rejected, policy.ReasonNoMatch, says} }
	missing := func(says string) want { return want{policy.Rejected, policy.ReasonNoSignature, says} }
	for name, test := range map[string]struct {
		said   said // by key
		others said // by somebody else
		wanted wanted
		all    want
		one    want // if any one of those wanted is enough
	}{
		"one":                    {said{predicate(sbom, "")}, nil, wanted{{"s", sbom, nil}}, accepted("attestations verified"), accepted("")},
		"none":                   {nil, nil, wanted{{"s", sbom, nil}}, missing(`no attestation of type "` + sbom + `"`), missing("")},
		"by somebody else":       {nil, said{predicate(sbom, "")}, wanted{{"s", sbom, nil}}, refused(`attestation "s": no attestation matches its key (1 found)`), refused("")},
		"two of two":             {said{predicate(sbom, ""), predicate(vuln, "")}, nil, wanted{{"s", sbom, nil}, {"v", vuln, nil}}, accepted(""), accepted("")},
		"one of two":             {said{predicate(vuln, "")}, nil, wanted{{"s", sbom, nil}, {"v", vuln, nil}}, refused(`no attestation of type "` + sbom + `"`), accepted("")},
		"one of two by key":      {said{predicate(vuln, "")}, said{predicate(sbom, "")}, wanted{{"s", sbom, nil}, {"v", vuln, nil}}, refused(`attestation "s": no attestation matches its key`), accepted("")},
		"a longer type":          {said{predicate(sbom+"/v2", "")}, nil, wanted{{"s", sbom, nil}}, missing(`(found: "` + sbom + `/v2")`), missing("")},
		"a shorter type":         {said{predicate(sbom[:len(sbom)-1], "")}, nil, wanted{{"s", sbom, nil}}, missing("no attestation of type"), missing("")},
		"a type in another case": {said{predicate(strings.ToUpper(sbom), "")}, nil, wanted{{"s", sbom, nil}}, missing("no attestation of type"), missing("")},
		"no type":                {said{predicate("", "")}, nil, wanted{{"s", sbom, nil}}, missing("no attestation of type"), missing("")},
		"annotated as the type": {said{{PredicateType: vuln, Predicate: map[string]any{}, Annotated: sbom}}, nil, wanted{{"s", sbom, nil}},
			missing("no attestation of type"), missing("")},
		"a policy that holds":        {said{predicate(sbom, "good")}, nil, wanted{{"s", sbom, text("good")}}, accepted(""), accepted("")},
		"a policy that does not":     {said{predicate(sbom, "bad")}, nil, wanted{{"s", sbom, text("good")}}, refused(`attestation "s": does not fulfil its policy: there is no good`), refused("")},
		"one that fails beside":      {said{predicate(sbom, "bad"), predicate(sbom, "good"), predicate(sbom, "worse")}, nil, wanted{{"s", sbom, text("good")}}, accepted(""), accepted("")},
		"what holds is not by key":   {said{predicate(sbom, "bad")}, said{predicate(sbom, "good")}, wanted{{"s", sbom, text("good")}}, refused("does not fulfil its policy"), refused("")},
		"each its own":               {said{predicate(sbom, "good"), predicate(vuln, "bad")}, nil, wanted{{"s", sbom, text("good")}, {"v", vuln, text("good")}}, refused(`attestation "v": does not fulfil`), accepted("")},
		"twice wanted, by two":       {said{predicate(sbom, "good"), predicate(sbom, "better")}, nil, wanted{{"s", sbom, text("good")}, {"t", sbom, text("better")}}, accepted(""), accepted("")},
		"twice wanted, one there":    {said{predicate(sbom, "good")}, nil, wanted{{"s", sbom, text("good")}, {"t", sbom, text("better")}}, refused(`attestation "t": does not fulfil`), accepted("")},
		"a signature's, not wanted":  {said{predicate(registrytest.SignPredicateType, "")}, nil, wanted{{"s", sbom, nil}}, missing("no attestation of type"), missing("")},
		"a signature's, if wanted":   {said{predicate(registrytest.SignPredicateType, "")}, nil, wanted{{"s", registrytest.SignPredicateType, nil}}, accepted(""), accepted("")},
		"a provenance as its policy": {said{predicate(provenance, "good")}, nil, wanted{{"s", sbom, text("good")}}, missing("no attestation of type"), missing("")},
	} {
		for form, push := range pushed {
			for mode, options := range modes {
				t.Run(strings.Join([]string{name, form, mode}, ", "), func(t *testing.T) {
					t.Parallel()
					r := registrytest.New(t, options...)
					image := r.PushImage(t, "acme/app:v1")
					for _, a := range test.said {
						push(t, r, image, key, a)
					}
					for _, a := range test.others {
						push(t, r, image, other, a)
					}
					a := by("release", key)
					a.Attestations = test.wanted
					test.all.check(t, attested(t, r, holding(), image, a))
					a.AnyAttestation = true
					test.one.check(t, attested(t, r, holding(), image, a))
					// A signature does not take their place.
					if test.all.outcome == policy.Rejected {
						r.SignLegacy(t, image, key)
						r.SignBundle(t, image, key)
						a.AnyAttestation = false
						if name == "a signature's, not wanted" || name == "none" {
							test.all.check(t, attested(t, r, holding(), image, a))
						} else if got := attested(t, r, holding(), image, a); got.Outcome != policy.Rejected {
							t.Errorf("with a signature beside it: %+v, want Rejected", got)
						}
					}
				})
			}
		}
	}
}

// An attestation is no signature, in any form and of any type.
func TestAttestationWhereASignatureIsWanted(t *testing.T) {
	t.Parallel()
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for form, push := range pushed {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			lying := predicate(sbom, "")
			lying.Annotated = registrytest.SignPredicateType
			push(t, r, image, key, predicate(vuln, ""))
			push(t, r, image, key, lying)
			unsigned.check(t, verdict(t, r, image, by("release", key)))
			// Its envelope as a .sig layer, with its own signature beside it.
			envelope := registrytest.NewEnvelope(t, image, key, predicate(sbom, ""))
			for _, annotation := range []string{"", "AAAA", signatureIn(t, envelope)} {
				r.PushSignatureLayer(t, image, envelope, map[string]string{"dev.cosignproject.cosign/signature": annotation})
			}
			noMatch.check(t, verdict(t, r, image, by("release", key)))
		})
	}
	t.Run("a signature as .att", func(t *testing.T) {
		t.Parallel()
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		s := newSigstore(t)
		content, annotations := s.Layer(&leaf{Key: newECDSA(t)}, payloadOf(image, ""), nil, vouching{})
		r.PushAttestationLayer(t, image, content, annotations)
		a := by("release", key)
		a.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}}
		want{policy.Rejected, policy.ReasonNoMatch, "no attestation matches its key"}.check(t, verdict(t, r, image, a))
	})
}

// signatureIn is the first signature in an envelope.
func signatureIn(t *testing.T, envelope []byte) string {
	t.Helper()
	var e struct{ Signatures []struct{ Sig string } }
	must(t, json.Unmarshal(envelope, &e))
	return e.Signatures[0].Sig
}

// Each envelope has one thing wrong; the one member of it that counts is signed
// by the right key all the same.
func TestBadEnvelopes(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	by := &leaf{Key: newECDSA(t)}
	authority := cosign.Authority{Name: "release", Keys: [][]byte{by.PEM(t)}, Attestations: []cosign.Attestation{{Name: "s", PredicateType: sbom}}}
	twin := registrytest.New(t).PushImage(t, "acme/other:v1")
	for name, make := range map[string]func(image registrytest.Image) (statement []byte, bend func(map[string]any)){
		"an empty statement":  func(registrytest.Image) ([]byte, func(map[string]any)) { return []byte("{}"), nil },
		"no statement":        func(registrytest.Image) ([]byte, func(map[string]any)) { return []byte{}, nil },
		"null":                func(registrytest.Image) ([]byte, func(map[string]any)) { return []byte("null"), nil },
		"a list":              func(registrytest.Image) ([]byte, func(map[string]any)) { return []byte("[]"), nil },
		"about another image": func(registrytest.Image) ([]byte, func(map[string]any)) { return statement(twin, sbom, "{}"), nil },
		"about nothing": func(registrytest.Image) ([]byte, func(map[string]any)) {
			return []byte(`{"predicateType":"` + sbom + `","subject":[],"predicate":{}}`), nil
		},
		"about an empty digest": func(registrytest.Image) ([]byte, func(map[string]any)) {
			return []byte(`{"predicateType":"` + sbom + `","subject":[{"digest":{"sha256":""}}],"predicate":{}}`), nil
		},
		"the digest as another's": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return []byte(strings.Replace(string(statement(i, sbom, "{}")), `"sha256"`, `"sha512"`, 1)), nil
		},
		"the type twice": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return []byte(strings.Replace(string(statement(i, sbom, "{}")), `"predicateType"`, `"predicateType":"`+vuln+`","predicateType"`, 1)), nil
		},
		"a predicate's name twice": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, `{"a":1,"a":2}`), nil
		},
		"the type in another case": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return []byte(strings.Replace(string(statement(i, sbom, "{}")), "predicateType", "predicatetype", 1)), nil
		},
		"something after it": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return append(statement(i, sbom, "{}"), "{}"...), nil
		},
		"no signature": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, "{}"), func(e map[string]any) { e["signatures"] = []any{} }
		},
		"null signatures": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, "{}"), func(e map[string]any) { e["signatures"] = nil }
		},
		"an empty signature": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, "{}"), func(e map[string]any) { e["signatures"] = []any{map[string]any{"sig": ""}} }
		},
		"a signature that is none": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, "{}"), func(e map[string]any) { e["signatures"] = []any{map[string]any{"sig": "AAAA"}} }
		},
		"another payload": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, "{}"), func(e map[string]any) { e["payload"] = statement(i, sbom, `{"b":2}`) }
		},
		"another payload type": func(i registrytest.Image) ([]byte, func(map[string]any)) {
			return statement(i, sbom, "{}"), func(e map[string]any) { e["payloadType"] = "application/json" }
		},
	} {
		for _, form := range []string{".att", "bundle"} {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				said, bend := make(image)
				envelope := dsse(said, sign(t, by.Key, preAuthentication(said)))
				if bend != nil {
					bend(envelope)
				}
				if form == ".att" {
					r.PushAttestationLayer(t, image, toJSON(t, envelope), nil)
				} else {
					b := s.Bundle(by, said, vouching{})
					b["dsseEnvelope"] = envelope
					r.PushBundle(t, image, toJSON(t, b))
				}
				e := holding()
				a := authority
				a.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom, Policy: text("")}}
				if got := attested(t, r, e, image, a); got.Outcome != policy.Rejected {
					t.Errorf("verdict = %+v, want Rejected", got)
				}
				if len(e.asked) > 0 {
					t.Errorf("policies were asked of %q", e.asked)
				}
				// A good one beside it still counts.
				sigstoreForms[".att"].push(s, r, image, by, vouching{})
				accepted("").check(t, attested(t, r, e, image, a))
			})
		}
	}
}

// Policies see the statement as it was signed, once each, and nothing that was
// not verified.
func TestWhatPoliciesSee(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	key, stranger := &leaf{Key: newECDSA(t)}, &leaf{Key: newECDSA(t)}
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	const odd = `{ "z" : 1.50, "a":"\u003c", "big":12345678901234567890 }`
	said := statement(image, sbom, odd)
	for _, by := range []*leaf{stranger, key, key} {
		content, annotations := s.Layer(by, nil, said, vouching{})
		r.PushAttestationLayer(t, image, content, annotations)
		r.PushBundle(t, image, toJSON(t, s.Bundle(by, said, vouching{})))
	}
	unread, annotations := s.Layer(stranger, nil, statement(image, sbom, `{"secret":1}`), vouching{})
	r.PushAttestationLayer(t, image, unread, annotations)
	e := &evaluator{says: func(language.Policy, string) (language.Result, error) { return language.Result{Message: "no"}, nil }}
	var authorities []cosign.Authority
	for range 3 {
		authorities = append(authorities, cosign.Authority{
			Keys: [][]byte{key.PEM(t)}, Attestations: []cosign.Attestation{{"a", sbom, text("p")}, {"b", sbom, text("p")}},
		})
	}
	want{policy.Rejected, policy.ReasonNoMatch, "does not fulfil its policy: no"}.check(t, attested(t, r, e, image, authorities...))
	if len(e.asked) != 1 || e.asked[0] != string(said) {
		t.Errorf("asked %d times, of %q; want once, of %q", len(e.asked), e.asked, said)
	}
}

// Policies that do not compile, run away or panic leave it undecided, whatever
// they say of the verdict, unless something else satisfies.
func TestPoliciesThatCannotBeEvaluated(t *testing.T) {
	t.Parallel()
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	accepting := policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonVerified, Message: "fine"}
	for name, test := range map[string]struct {
		err    error
		panics bool
		want   want
	}{
		"does not compile": {errors.New("line 3, column 7: expected operand"), false, want{policy.Inconclusive, policy.ReasonInternal, `attestation "s": its policy could not be evaluated: line 3, column 7`}},
		"runs away":        {policy.Undecided(policy.ReasonLimit, "it takes longer than 1s").Err(), false, want{policy.Inconclusive, policy.ReasonLimit, "it takes longer than 1s"}},
		"judged accepted":  {accepting.Err(), false, want{policy.Inconclusive, policy.ReasonVerified, "could not be evaluated"}},
		"judged rejected":  {policy.Refused(policy.ReasonNoMatch, "x").Err(), false, want{policy.Inconclusive, policy.ReasonNoMatch, "could not be evaluated"}},
		"several lines":    {errors.New("a\r\n\x1b[2J" + strings.Repeat("b", 10_000)), false, want{policy.Inconclusive, policy.ReasonInternal, "a"}},
		"the time is over": {fmt.Errorf("evaluating: %w", context.DeadlineExceeded), false, want{policy.Inconclusive, policy.ReasonDeadline, "could not be evaluated"}},
		"panics":           {nil, true, want{policy.Inconclusive, policy.ReasonInternal, "failed unexpectedly"}},
	} {
		for form, push := range pushed {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				e := &evaluator{says: func(_ language.Policy, document string) (language.Result, error) {
					switch {
					case strings.Contains(document, "good"):
						return language.Result{Compliant: true}, nil
					case test.panics:
						panic("boom")
					default:
						// What comes with an error counts for nothing.
						return language.Result{Compliant: true}, test.err
					}
				}}
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				push(t, r, image, key, predicate(sbom, "bad"))
				a := by("release", key)
				a.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom, Policy: &cue}}
				test.want.check(t, attested(t, r, e, image, a))
				// Another authority, and another attestation.
				r.SignLegacy(t, image, key)
				accepted(`"b"`).check(t, attested(t, r, e, image, a, by("b", key)))
				push(t, r, image, key, predicate(sbom, "good"))
				accepted("").check(t, attested(t, r, e, image, a))
			})
		}
	}
}

// Annotations are asked for on the very subject that is the image.
func TestAttestationAnnotations(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	by := &leaf{Key: newECDSA(t)}
	for form, f := range sigstoreForms {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			f.push(s, r, image, by, vouching{}) // with env=prod
			a := f.asks(cosign.Authority{Name: "release", Keys: [][]byte{by.PEM(t)}})
			for annotations, good := range map[[2]string]bool{{"env", "prod"}: true, {"env", "Prod"}: false, {"env", ""}: false, {"Env", "prod"}: false, {"x", "y"}: false} {
				a.Annotations = map[string]string{annotations[0]: annotations[1]}
				expected := accepted("")
				if !good {
					expected = want{policy.Rejected, policy.ReasonNoMatch, "by its key has all the annotations"}
				}
				expected.check(t, verdict(t, r, image, a))
			}
		})
	}
	t.Run("on another subject", func(t *testing.T) {
		t.Parallel()
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		said := fmt.Appendf(nil, `{"predicateType":%q,"subject":[{"digest":{"sha256":"ab"},"annotations":{"env":"prod"}},{"digest":{"sha256":%q}}],"predicate":{}}`,
			sbom, strings.TrimPrefix(image.Digest, "sha256:"))
		content, annotations := s.Layer(by, nil, said, vouching{})
		r.PushAttestationLayer(t, image, content, annotations)
		r.PushBundle(t, image, toJSON(t, s.Bundle(by, said, vouching{})))
		a := cosign.Authority{Keys: [][]byte{by.PEM(t)}, Attestations: []cosign.Attestation{{Name: "s", PredicateType: sbom}}}
		accepted("").check(t, verdict(t, r, image, a))
		a.Annotations = map[string]string{"env": "prod"}
		want{policy.Rejected, policy.ReasonNoMatch, "no attestation by its key has all the annotations"}.check(t, verdict(t, r, image, a))
	})
}
