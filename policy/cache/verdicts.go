// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pratique-dev/pratique/policy"
)

// Verify implements [policy.Engine]. An Accepted answers everybody who asks
// about the same image under the same rule, and needs no credentials; any other
// verdict answers only those with the same credentials.
func (c *Cache) Verify(ctx context.Context, rule *policy.Rule, image policy.Image) policy.Verdict {
	key := verdictKey{
		imageKey: imageKey{image.Reference.Repository(), image.Digest},
		rule:     rule.Verification.Hash,
	}
	if rule.Verification.ByReference {
		key.evaluated = image.Reference.Tagged()
	}
	if verdict, ok := hit(c, c.accepted, key); ok {
		return verdict
	}
	return c.examine(ctx, rule, image, key)
}

// examine finds a verdict that is not held for everybody. It stands apart so that
// those who find one that is pay nothing for what it keeps of the image.
func (c *Cache) examine(ctx context.Context, rule *policy.Rule, image policy.Image, key verdictKey) policy.Verdict {
	identity, err := c.identifier.Identify(ctx, image)
	if err != nil {
		return policy.VerdictOf(err)
	}
	refusal := refusalKey{key, identity}
	if verdict, ok := hit(c, c.negative, refusal); ok {
		return verdict
	}
	verdict, shared, err := c.verdictFlights.do(ctx, question{fmt.Sprintf("%q", refusal), asker{image.Reference.Host(), identity}},
		func(ctx context.Context) (policy.Verdict, error) {
			// Another flight may have landed since it was looked for.
			if verdict, ok := hit(c, c.accepted, key); ok {
				return verdict, nil
			}
			if verdict, ok := hit(c, c.negative, refusal); ok {
				return verdict, nil
			}
			c.options.Observe(NameVerdicts, Miss)
			verdict := c.engine.Verify(ctx, rule, image)
			c.keep(refusal, verdict)
			return verdict, nil
		})
	c.observeShared(NameVerdicts, shared)
	if err != nil {
		return policy.VerdictOf(err)
	}
	return verdict
}

// hit returns the verdict that is kept for a key, unless its time is over.
func hit[K comparable](c *Cache, in *otter.Cache[K, entry], key K) (policy.Verdict, bool) {
	e, ok := in.GetIfPresent(key)
	if !ok || !c.options.Now().Before(e.expires) {
		return policy.Verdict{}, false
	}
	c.options.Observe(NameVerdicts, Hit)
	return e.verdict, true
}

func (c *Cache) observeShared(name string, shared bool) {
	if shared {
		c.options.Observe(name, Shared)
	}
}

// keep stores a verdict for its time, but never past the end of what it rests on.
func (c *Cache) keep(key refusalKey, verdict policy.Verdict) {
	verdict.Trace = "" // logged once, by those who wait for it
	e := entry{verdict: verdict, expires: c.options.Now().Add(timeOf(verdict.Outcome))}
	if !verdict.Expires.IsZero() && verdict.Expires.Before(e.expires) {
		e.expires = verdict.Expires
	}
	if !e.expires.After(c.options.Now()) {
		return
	}
	if verdict.Outcome != policy.Accepted {
		c.negative.Set(key, e)
		return
	}
	c.accepted.Set(key.verdictKey, e)
	c.vouched.Set(key.imageKey, e.expires)
}

func timeOf(outcome policy.Outcome) time.Duration {
	switch outcome {
	case policy.Accepted:
		return acceptedFor
	case policy.Rejected:
		return rejectedFor
	default:
		return inconclusiveFor
	}
}

// vouches reports whether some rule's Accepted is held for what would run.
func (c *Cache) vouches(image imageKey) bool {
	until, ok := c.vouched.GetIfPresent(image)
	return ok && c.options.Now().Before(until)
}
