// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"context"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
)

// asks is a policy about objects that counts how often it is asked.
type asks struct{ times int }

func (a *asks) Judge(_ context.Context, evidence string, o *policy.Object) policy.Verdict {
	a.times++
	set, err := o.Labels()
	if err != nil || evidence != "evidence" || !set.Has("ok") {
		return policy.Refused(policy.ReasonPolicy, "not so")
	}
	return policy.Verdict{Outcome: policy.Accepted}
}

// TestObjectPolicyIsAskedEveryTime: the cache keeps what the registry says, and
// nothing that rests on the object.
func TestObjectPolicyIsAskedEveryTime(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	evident := good
	evident.Evidence = "evidence"
	b.says(evident)
	judge := &asks{}
	r := rule(1)
	r.Mode, r.Verification.Object = policy.Enforce, judge
	r.Globs = &policy.Globs{Everything: true}
	d := policy.Decider{Server: policy.Server{Mode: policy.Enforce}, Engine: made, Resolver: made}
	about := image(t, "a.io/b@"+digestA)
	for i, c := range []struct {
		labels string
		want   policy.Outcome
	}{{`{"ok":""}`, policy.Accepted}, {`{}`, policy.Rejected}, {`{"ok":""}`, policy.Accepted}} {
		got := d.Decide(t.Context(), policy.Question{
			Set: policy.NewSet([]*policy.Rule{r}), Credentials: about.Credentials,
			Object: &policy.Object{JSON: []byte(`{"metadata":{"labels":` + c.labels + `}}`)},
			Images: []policy.Asked{{Reference: about.Reference}},
		})[0]
		if got.Outcome() != c.want || judge.times != i+1 {
			t.Errorf("request %d: %v, and the policy was asked %d times", i, got.Findings, judge.times)
		}
	}
	if verified, _ := b.counts(); verified != 1 {
		t.Errorf("the image was verified %d times", verified)
	}
}

// TestEvidenceHasRoom: what is kept for policies about objects counts like what
// is kept for people.
func TestEvidenceHasRoom(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{Bytes: 1 << 20})
	evident := good
	evident.Evidence = strings.Repeat("x", 64<<10)
	b.says(evident)
	fill(t, made, "a.io/x", 200)
	if got := settled(t, made, 16); got > 16 {
		t.Errorf("%d verdicts of 64 KiB are held in 1 MiB", got)
	}
}
