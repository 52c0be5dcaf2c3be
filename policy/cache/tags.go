// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"context"
	"fmt"

	"github.com/pratique-dev/pratique/policy"
)

// Resolve implements [policy.Resolver]. An answer serves those who have the
// same credentials. While the registry is away an expired answer goes on
// serving, if its digest is known to be good: the digest, not the tag, is what
// is verified, so the worst that happens is that a tag is followed late.
func (c *Cache) Resolve(ctx context.Context, image policy.Image) (policy.Resolution, error) {
	identity, err := c.identifier.Identify(ctx, image)
	if err != nil {
		return policy.Resolution{}, err
	}
	key := tagKey{image.Reference.Tagged(), identity}
	if held, fresh := c.tag(key); fresh {
		return policy.Resolution{Digest: held.digest}, nil
	}
	return c.resolve(ctx, image, key)
}

// resolve finds what a tag names of which nothing fresh is held. It stands apart
// so that those who find it held pay nothing for what it keeps of the image.
func (c *Cache) resolve(ctx context.Context, image policy.Image, key tagKey) (policy.Resolution, error) {
	held, ok := c.tags.GetIfPresent(key)
	resolution, shared, err := c.tagFlights.do(ctx, question{fmt.Sprintf("%q", key), asker{image.Reference.Host(), key.identity}},
		func(ctx context.Context) (policy.Resolution, error) {
			// Another flight may have landed since it was looked for.
			if held, fresh := c.tag(key); fresh {
				return policy.Resolution{Digest: held.digest}, nil
			}
			c.options.Observe(NameTags, Miss)
			resolution, err := c.resolver.Resolve(ctx, image)
			if err == nil {
				c.tags.Set(key, tagEntry{digest: resolution.Digest, resolved: c.options.Now()})
			}
			return resolution, err
		})
	c.observeShared(NameTags, shared)
	if err == nil {
		return resolution, nil
	}
	serves := ok && c.options.Now().Before(held.resolved.Add(tagFor+c.options.StaleFor)) &&
		policy.VerdictOf(err).Reason.Temporary() &&
		c.vouches(imageKey{image.Reference.Repository(), held.digest})
	if !serves {
		return policy.Resolution{}, err
	}
	c.options.Observe(NameTags, Stale)
	return policy.Resolution{Digest: held.digest, Stale: true}, nil
}

// tag returns what is held for a key, if it is fresh, which counts as a hit.
func (c *Cache) tag(key tagKey) (held tagEntry, fresh bool) {
	held, ok := c.tags.GetIfPresent(key)
	fresh = ok && c.options.Now().Before(held.resolved.Add(tagFor))
	if fresh {
		c.options.Observe(NameTags, Hit)
	}
	return held, fresh
}
