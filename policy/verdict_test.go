// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

func TestOutcomes(t *testing.T) {
	t.Parallel()
	weights := []policy.Outcome{policy.Skipped, policy.Accepted, policy.Inconclusive, policy.Rejected}
	for i, light := range weights {
		for j, heavy := range weights {
			if heavy.Outweighs(light) != (j > i) {
				t.Errorf("%s outweighs %s: %t", heavy, light, j <= i)
			}
		}
		text, err := light.MarshalText()
		if err != nil || string(text) != light.String() || light.String() == "" {
			t.Errorf("%s is written %q, %v", light, text, err)
		}
	}
	if zero := (policy.Verdict{}); zero.Outcome != policy.Inconclusive {
		t.Errorf("the zero verdict is %s", zero.Outcome)
	}
	for outcome, denies := range map[policy.Outcome][2]bool{ // decides here, later
		policy.Rejected: {true, true}, policy.Inconclusive: {true, false}, policy.Accepted: {}, policy.Skipped: {},
		policy.Outcome(9): {true, true},
	} {
		if got := [2]bool{outcome.Denies(false), outcome.Denies(true)}; got != denies {
			t.Errorf("%s denies %v, want %v", outcome, got, denies)
		}
	}
	if got := (policy.Decision{}).Outcome(); got != policy.Skipped {
		t.Errorf("a decision without findings is %s", got)
	}
}

func TestTemporary(t *testing.T) {
	t.Parallel()
	temporary := []policy.Reason{policy.ReasonUnreachable, policy.ReasonDeadline, policy.ReasonRegistryError, policy.ReasonRateLimited}
	for _, reason := range []policy.Reason{
		policy.ReasonVerified, policy.ReasonStatic, policy.ReasonNotCovered, policy.ReasonNoSignature, policy.ReasonNoMatch,
		policy.ReasonInvalidReference, policy.ReasonNotPinned, policy.ReasonUnmatched, policy.ReasonDigestMismatch, policy.ReasonNotFound,
		policy.ReasonUnauthorized, policy.ReasonRateLimited, policy.ReasonRegistryError, policy.ReasonUnreachable, policy.ReasonDeadline,
		policy.ReasonLimit, policy.ReasonCredentials, policy.ReasonNotReady, policy.ReasonNamespace, policy.ReasonInternal, "",
	} {
		if got := reason.Temporary(); got != slices.Contains(temporary, reason) {
			t.Errorf("%s.Temporary() = %t", reason, got)
		}
	}
}

func TestVerdictOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err     error
		outcome policy.Outcome
		reason  policy.Reason
	}{
		"deadline":           {fmt.Errorf("asking: %w", context.DeadlineExceeded), policy.Inconclusive, policy.ReasonDeadline},
		"canceled":           {context.Canceled, policy.Inconclusive, policy.ReasonDeadline},
		"unknown":            {errors.New("boom"), policy.Inconclusive, policy.ReasonInternal},
		"judged":             {fmt.Errorf("asking: %w", judged(down)), policy.Inconclusive, policy.ReasonUnreachable},
		"judged, rejected":   {judged(policy.Refused(policy.ReasonDigestMismatch, "x")), policy.Rejected, policy.ReasonDigestMismatch},
		"judged good, a lie": {judged(good), policy.Inconclusive, policy.ReasonVerified},
		"judged skipped":     {judged(policy.Verdict{Outcome: policy.Skipped}), policy.Inconclusive, ""},
		"joined":             {errors.Join(errors.New("x"), judged(down)), policy.Inconclusive, policy.ReasonUnreachable},
	} {
		if got := policy.VerdictOf(c.err); got.Outcome != c.outcome || got.Reason != c.reason {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := policy.Panicked(strings.Repeat("x", 10_000)); got.Outcome != policy.Inconclusive || len(got.Message) > 300 {
		t.Errorf("a panic is %s, in %d bytes", got.Outcome, len(got.Message))
	}
}

// scenario is a policy about one repository, and what is true of its digests.
type scenario struct {
	dice

	rules []*policy.Rule
	truth map[string]policy.Verdict // by rule and digest
}

func (s *scenario) rule(tb testing.TB, i int) {
	prefix := s.pick("a.io", "a.io/x", "a.io/x", "a.io/x:1", "a.io/x:", "a.io/x@"+digestA, "a.io/x@"+digestB)
	r := verifying(tb, fmt.Sprintf("r%d", i), prefix)
	if s.IntN(3) == 0 {
		audited(r)
	}
	if s.IntN(5) == 0 {
		inProd(r)
	}
	results := []policy.Verdict{good, good, bad, down}
	if s.IntN(3) == 0 {
		v := []policy.Verdict{fixedP, fixedP, fixedF, policy.Undecided(policy.ReasonNotReady, "x")}[s.IntN(4)]
		r.Verification = &policy.Verification{Fixed: &v}
		results = []policy.Verdict{v}
	}
	for _, digest := range []string{digestA, digestB} {
		s.truth[r.Name+digest] = results[s.IntN(len(results))]
	}
	if r.Verification.Fixed == nil {
		r.Verification.Verifier = verifier(func(_ context.Context, i policy.Image) policy.Verdict {
			if v := s.truth[r.Name+i.Digest]; v != down || i.Digest == digestA {
				return v
			}
			panic("boom")
		})
	}
	s.rules = append(s.rules, r)
}

// TestNothingGetsIn: whatever the rules are, and whatever the registry says of
// a tag: if a Pod's image is let in, then every rule in Enforce that applies to
// any digest that may run accepts exactly that digest.
func TestNothingGetsIn(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	allowed := map[bool]int{}
	for n := range uint64(20_000) {
		s := &scenario{dice: dice{rand.New(rand.NewPCG(seed, n))}, truth: map[string]policy.Verdict{}}
		for i := range 1 + s.IntN(4) {
			s.rule(t, i)
		}
		ns := policy.Namespace{Name: "n", Unreadable: s.IntN(6) == 0}
		written := "a.io/x" + s.pick("", ":1", ":2") + s.pick("", "@"+digestA, "@"+digestB)
		pointsTo := s.pick("", digestA, digestB)
		d := policy.Decider{
			Server: policy.Server{Mode: policy.Enforce, Unmatched: policy.UnmatchedAllow}, Engine: policy.Direct{},
			Resolver: resolver(func(context.Context, policy.Image) (policy.Resolution, error) {
				if pointsTo == "" {
					return policy.Resolution{Digest: digestA}, judged(good) // an error with an answer, and a lie
				}
				return policy.Resolution{Digest: pointsTo}, nil
			}),
		}
		set := policy.NewSet(s.rules)
		q := policy.Question{Set: set, Namespace: ns, Credentials: credential.None(), Images: ask(written), Pinned: true}
		got := d.Decide(t.Context(), q)[0]
		in := !slices.ContainsFunc(got.Findings, func(f policy.Finding) bool {
			return f.Mode == policy.Enforce && f.Verdict.Outcome.Denies(false)
		})
		allowed[in]++
		if len(got.Findings) == 0 {
			t.Fatalf("seed %d, %d: %s: no finding", seed, n, written)
		}
		if !in {
			continue
		}
		ref := parse(t, written)
		digests := []string{ref.Digest()}
		if ref.Digest() == "" {
			digests = []string{digestA, digestB} // tags move
		}
		for _, digest := range digests {
			selection := set.Select(ref.Pin(digest), ns)
			apply := selection.Verification
			if ref.Digest() == "" || pointsTo == digest || pointsTo == "" {
				apply = slices.Concat(apply, selection.Tagged)
			}
			for _, r := range apply {
				if r.Mode == policy.Audit {
					continue
				}
				if s.truth[r.Name+digest].Outcome != policy.Accepted || r.Namespaces != nil && ns.Unreadable ||
					ref.Digest() == "" && r.Verification.Fixed == nil {
					t.Fatalf("seed %d, %d: %s (tag at %.12q) was let in, although rule %q (%v) does not accept %.12s\nfindings %v",
						seed, n, written, pointsTo, r.Name, r.Prefixes, digest, describe(got))
				}
			}
		}
	}
	if allowed[true] < 1000 || allowed[false] < 1000 {
		t.Errorf("let in %d, kept out %d: the test sees too little of one", allowed[true], allowed[false])
	}
}
