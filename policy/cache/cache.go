// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

// The room of the caches (spec section 5).
const (
	DefaultVerdicts = 100_000
	DefaultBytes    = 128 << 20
	DefaultTags     = 50_000

	// negativeShare is which part of the room negative verdicts get; they have
	// it for themselves and take none from Accepted.
	negativeShare = 10
)

// How long answers are kept (spec section 5).
const (
	acceptedFor     = time.Hour
	rejectedFor     = 10 * time.Second
	inconclusiveFor = 2 * time.Second
	tagFor          = 30 * time.Second
	DefaultStaleFor = time.Hour
)

// Event is something that metrics count.
type Event string

// The events of a cache.
const (
	Hit     Event = "hit"
	Miss    Event = "miss"
	Shared  Event = "shared"  // joined a question that was under way
	Stale   Event = "stale"   // an expired tag served, the registry being away
	Evicted Event = "evicted" // left for want of room
)

// The names of the caches in metrics.
const (
	NameVerdicts = "verdicts"
	NameTags     = "tags"
)

// Identifier tells whether two requests may share what a registry refused.
type Identifier interface {
	Identify(ctx context.Context, image policy.Image) (credential.Identity, error)
}

// Options are the bounds of a Cache. The zero value of each means its default.
type Options struct {
	Verdicts int // entries
	Bytes    int
	Tags     int // entries
	// StaleFor is how much longer than its time a tag may serve while its
	// registry is away; negative means not at all.
	StaleFor time.Duration
	Now      func() time.Time
	// Observe is told of every event, if set. It must not block.
	Observe func(cache string, event Event)
}

// Cache decorates an engine and a resolver. It implements both interfaces and
// is safe for concurrent use.
type Cache struct {
	engine     policy.Engine
	resolver   policy.Resolver
	identifier Identifier
	options    Options

	accepted *otter.Cache[verdictKey, entry]
	negative *otter.Cache[refusalKey, entry]
	vouched  *otter.Cache[imageKey, time.Time]
	tags     *otter.Cache[tagKey, tagEntry]

	verdictFlights *flights[policy.Verdict]
	tagFlights     *flights[policy.Resolution]
}

var (
	_ policy.Engine   = (*Cache)(nil)
	_ policy.Resolver = (*Cache)(nil)
)

// imageKey is what runs.
type imageKey struct{ repository, digest string }

// verdictKey is everything that an Accepted rests on. evaluated is the
// reference by which it was judged, where that mattered.
type verdictKey struct {
	imageKey
	evaluated string
	rule      [32]byte
}

// refusalKey adds who asked: what one was refused says nothing to another.
type refusalKey struct {
	verdictKey
	identity credential.Identity
}

type tagKey struct {
	tagged   string
	identity credential.Identity
}

type entry struct {
	verdict policy.Verdict
	expires time.Time
}

type tagEntry struct {
	digest   string
	resolved time.Time
}

// New returns a Cache in front of an engine and a resolver.
func New(engine policy.Engine, resolver policy.Resolver, identifier Identifier, o Options) (*Cache, error) {
	o.Verdicts = cmp.Or(o.Verdicts, DefaultVerdicts)
	o.Bytes = cmp.Or(o.Bytes, DefaultBytes)
	o.Tags = cmp.Or(o.Tags, DefaultTags)
	o.StaleFor = cmp.Or(o.StaleFor, DefaultStaleFor)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Observe == nil {
		o.Observe = func(string, Event) {}
	}
	// One bound on questions under way, whatever they are about.
	slots := newSlots()
	c := &Cache{
		engine: engine, resolver: resolver, identifier: identifier, options: o,
		verdictFlights: newFlights[policy.Verdict](slots),
		tagFlights:     newFlights[policy.Resolution](slots),
	}
	return c, c.allocate()
}

func (c *Cache) allocate() error {
	var err error
	o := c.options
	if c.accepted, err = weighed[verdictKey](c, o.Verdicts, o.Bytes); err != nil {
		return err
	}
	if c.negative, err = weighed[refusalKey](c, o.Verdicts/negativeShare, o.Bytes/negativeShare); err != nil {
		return err
	}
	if c.vouched, err = otter.New(&otter.Options[imageKey, time.Time]{
		MaximumSize:      o.Verdicts,
		ExpiryCalculator: otter.ExpiryWriting[imageKey, time.Time](acceptedFor),
	}); err != nil {
		return fmt.Errorf("making the cache of accepted images: %w", err)
	}
	if c.tags, err = otter.New(&otter.Options[tagKey, tagEntry]{
		MaximumSize:      o.Tags,
		ExpiryCalculator: otter.ExpiryWriting[tagKey, tagEntry](tagFor + max(o.StaleFor, 0)),
		OnDeletion: func(e otter.DeletionEvent[tagKey, tagEntry]) {
			if e.WasEvicted() && e.Cause == otter.CauseOverflow {
				o.Observe(NameTags, Evicted)
			}
		},
	}); err != nil {
		return fmt.Errorf("making the cache of tags: %w", err)
	}
	return nil
}

// weighed makes a cache of verdicts with both bounds: an entry weighs what it
// takes in memory, and at least its share of all, so that neither the number
// nor the bytes are exceeded.
func weighed[K comparable](c *Cache, entries, bytes int) (*otter.Cache[K, entry], error) {
	entries = max(1, entries)
	least := uint32(max(1, (bytes+entries-1)/entries)) //nolint:gosec // both are configured, and small
	made, err := otter.New(&otter.Options[K, entry]{
		MaximumWeight: uint64(bytes), //nolint:gosec // not negative
		Weigher:       func(_ K, e entry) uint32 { return max(least, e.size()) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[K, entry]) time.Duration {
			return max(e.Value.expires.Sub(c.options.Now()), time.Nanosecond)
		}),
		OnDeletion: func(e otter.DeletionEvent[K, entry]) {
			if e.WasEvicted() && e.Cause == otter.CauseOverflow {
				c.options.Observe(NameVerdicts, Evicted)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of verdicts: %w", err)
	}
	return made, nil
}

// overhead is what an entry takes besides its texts, in bytes: key, value and
// the caches' own nodes. make bench measures 113 MiB for 100,000 of them.
const overhead = 1100

func (e entry) size() uint32 {
	return uint32(overhead + len(e.verdict.Message) + len(e.verdict.Signer) + len(e.verdict.Evidence)) //nolint:gosec // all are bounded
}

// Sizes reports how many entries the caches hold, by name.
func (c *Cache) Sizes() map[string]int {
	return map[string]int{
		NameVerdicts: c.accepted.EstimatedSize() + c.negative.EstimatedSize(),
		NameTags:     c.tags.EstimatedSize(),
	}
}
