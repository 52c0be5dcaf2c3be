// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cache_test

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

var (
	good = policy.Verdict{Outcome: policy.Accepted, Reason: policy.ReasonVerified, Signer: "release"}
	bad  = policy.Refused(policy.ReasonNoSignature, "no signature")
	down = policy.Undecided(policy.ReasonUnreachable, "a.io cannot be reached")
)

// clock is a time that moves only when told.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// behind stands behind the cache: it counts what gets there.
type behind struct {
	mu       sync.Mutex
	verify   func(context.Context, *policy.Rule, policy.Image) policy.Verdict
	resolve  func(context.Context, policy.Image) (policy.Resolution, error)
	verified int
	resolved int
	events   map[string]int
}

func (b *behind) Verify(ctx context.Context, r *policy.Rule, i policy.Image) policy.Verdict {
	b.mu.Lock()
	b.verified++
	verify := b.verify
	b.mu.Unlock()
	return verify(ctx, r, i)
}

func (b *behind) Resolve(ctx context.Context, i policy.Image) (policy.Resolution, error) {
	b.mu.Lock()
	b.resolved++
	resolve := b.resolve
	b.mu.Unlock()
	return resolve(ctx, i)
}

func (b *behind) says(v policy.Verdict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.verify = func(context.Context, *policy.Rule, policy.Image) policy.Verdict { return v }
}

func (b *behind) pointsTo(digest string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.resolve = func(context.Context, policy.Image) (policy.Resolution, error) {
		return policy.Resolution{Digest: digest}, err
	}
}

func (b *behind) observe(name string, event cache.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events[name+" "+string(event)]++
}

func (b *behind) counts() (verified, resolved int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.verified, b.resolved
}

func (b *behind) seen() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.events)
}

// newCache makes a cache whose identities are the registry client's own.
func newCache(tb testing.TB, o cache.Options) (*cache.Cache, *behind, *clock) {
	tb.Helper()
	b := &behind{events: map[string]int{}}
	b.says(good)
	b.pointsTo(digestA, nil)
	client, err := registry.New(registry.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	c := &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	o.Now, o.Observe = c.Now, b.observe
	made, err := cache.New(b, b, client, o)
	if err != nil {
		tb.Fatal(err)
	}
	return made, b, c
}

func rule(hash byte) *policy.Rule {
	return &policy.Rule{Kind: "ImageConfig", Name: "r", Verification: &policy.Verification{Hash: [32]byte{hash}}}
}

func image(tb testing.TB, written string, configs ...credential.Config) policy.Image {
	tb.Helper()
	ref, err := reference.Parse(written)
	if err != nil {
		tb.Fatal(err)
	}
	return policy.Image{
		Reference: ref, Digest: ref.Digest(),
		Credentials: credential.NewSource(func(context.Context) (credential.Found, error) {
			return credential.Found{Configs: configs}, nil
		}),
	}
}

func login(tb testing.TB, host, user string) credential.Config {
	tb.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":password"))
	config, err := credential.Parse([]byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, auth)))
	if err != nil {
		tb.Fatal(err)
	}
	return config
}

// TestVerdictTimes is the list of times in spec section 5.
func TestVerdictTimes(t *testing.T) {
	t.Parallel()
	expiring := func(v policy.Verdict, after time.Duration) policy.Verdict {
		v.Expires = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(after)
		return v
	}
	for name, c := range map[string]struct {
		verdict policy.Verdict
		lasts   time.Duration
	}{
		"Accepted":                     {good, time.Hour},
		"Rejected":                     {bad, 10 * time.Second},
		"Inconclusive":                 {down, 2 * time.Second},
		"Skipped":                      {policy.Verdict{Outcome: policy.Skipped}, 2 * time.Second},
		"what it rests on ends sooner": {expiring(good, 7*time.Minute), 7 * time.Minute},
		"what it rests on ends later":  {expiring(good, 7*time.Hour), time.Hour},
		"it has ended":                 {expiring(good, -time.Second), 0},
		"it ends now":                  {expiring(good, 0), 0},
		"Rejected, ends sooner":        {expiring(bad, time.Second), time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, b, clock := newCache(t, cache.Options{})
			b.says(c.verdict)
			ask := func(want int) {
				t.Helper()
				if got := made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA)); got != c.verdict {
					t.Errorf("got %+v", got)
				}
				if verified, _ := b.counts(); verified != want {
					t.Errorf("the engine was asked %d times, want %d", verified, want)
				}
			}
			ask(1)
			if c.lasts == 0 {
				ask(2)
				return
			}
			clock.add(c.lasts - 1)
			ask(1)
			clock.add(1)
			ask(2)
		})
	}
}

// TestVerdictKeys: what a verdict rests on keeps it apart, nothing else does.
func TestVerdictKeys(t *testing.T) {
	t.Parallel()
	byReference := func(hash byte) *policy.Rule {
		r := rule(hash)
		r.Verification.ByReference = true
		return r
	}
	one, two := login(t, "a.io", "one"), login(t, "a.io", "two")
	first := image(t, "a.io/x:1@"+digestA)
	for name, c := range map[string]struct {
		verdict     policy.Verdict
		rule, other *policy.Rule
		image       policy.Image
		shared      bool
	}{
		"same":                              {good, rule(1), rule(1), image(t, "a.io/x:1@"+digestA), true},
		"other tag":                         {good, rule(1), rule(1), image(t, "a.io/x:2@"+digestA), true},
		"no tag":                            {good, rule(1), rule(1), image(t, "A.io/x@"+digestA), true},
		"other digest":                      {good, rule(1), rule(1), image(t, "a.io/x:1@"+digestB), false},
		"other repository":                  {good, rule(1), rule(1), image(t, "a.io/y:1@"+digestA), false},
		"other host":                        {good, rule(1), rule(1), image(t, "b.io/x:1@"+digestA), false},
		"other rule":                        {good, rule(1), rule(2), first, false},
		"by reference, same":                {good, byReference(1), byReference(1), first, true},
		"by reference, other tag":           {good, byReference(1), byReference(1), image(t, "a.io/x:2@"+digestA), false},
		"by reference, no digest":           {good, byReference(1), byReference(1), image(t, "a.io/x:1@"+digestA), true},
		"by reference, no tag":              {good, byReference(1), byReference(1), image(t, "a.io/x@"+digestA), false},
		"Accepted, other credential":        {good, rule(1), rule(1), image(t, "a.io/x:1@"+digestA, one), true},
		"Rejected, same":                    {bad, rule(1), rule(1), first, true},
		"Rejected, other credential":        {bad, rule(1), rule(1), image(t, "a.io/x:1@"+digestA, one), false},
		"Rejected, credential of elsewhere": {bad, rule(1), rule(1), image(t, "a.io/x:1@"+digestA, login(t, "b.io", "one")), true},
		"Inconclusive, other credential":    {down, rule(1), rule(1), image(t, "a.io/x:1@"+digestA, one), false},
		"Inconclusive, other rule":          {down, rule(1), rule(2), first, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, b, _ := newCache(t, cache.Options{})
			b.says(c.verdict)
			made.Verify(t.Context(), c.rule, first)
			made.Verify(t.Context(), c.other, c.image)
			verified, _ := b.counts()
			if shared := verified == 1; shared != c.shared {
				t.Errorf("shared: %t, want %t", shared, c.shared)
			}
		})
	}

	t.Run("between credentials", func(t *testing.T) {
		t.Parallel()
		made, b, _ := newCache(t, cache.Options{})
		b.says(bad)
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA, one))
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA, two))
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA, two, one))
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA, login(t, "https://A.io/v1/", "two"))) // the same again
		fromRule := image(t, "a.io/x@"+digestA)
		fromRule.Authentication = &policy.Authentication{Credentials: one}
		made.Verify(t.Context(), rule(1), fromRule) // the rule's own counts too
		if verified, _ := b.counts(); verified != 3 {
			t.Errorf("the engine was asked %d times, want 3", verified)
		}
	})
	t.Run("unreadable credentials", func(t *testing.T) {
		t.Parallel()
		made, b, _ := newCache(t, cache.Options{})
		broken := image(t, "a.io/x:1@"+digestA)
		broken.Credentials = credential.NewSource(func(context.Context) (credential.Found, error) {
			return credential.Found{}, errors.New(`reading pull secret "p": malformed`)
		})
		if got := made.Verify(t.Context(), rule(1), broken); got.Outcome != policy.Inconclusive || got.Reason != policy.ReasonCredentials {
			t.Errorf("got %+v", got)
		}
		if got, err := made.Resolve(t.Context(), broken); err == nil || got.Digest != "" {
			t.Errorf("resolved to %q, %v", got.Digest, err)
		}
		if verified, resolved := b.counts(); verified+resolved > 0 {
			t.Error("the engine was asked")
		}
	})
}

// An Accepted replaces what was refused before, for everybody.
func TestAcceptedWins(t *testing.T) {
	t.Parallel()
	made, b, clock := newCache(t, cache.Options{})
	one := image(t, "a.io/x@"+digestA, login(t, "a.io", "one"))
	b.says(bad)
	made.Verify(t.Context(), rule(1), one)
	b.says(good)
	made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA))
	if got := made.Verify(t.Context(), rule(1), one); got != good {
		t.Errorf("got %+v", got)
	}
	// And does not come back once it has ended.
	clock.add(time.Hour)
	b.says(bad)
	if got := made.Verify(t.Context(), rule(1), one); got != bad {
		t.Errorf("got %+v", got)
	}
}

func TestTags(t *testing.T) {
	t.Parallel()
	made, b, clock := newCache(t, cache.Options{StaleFor: -1})
	resolve := func(i policy.Image, want string, asked int) {
		t.Helper()
		got, err := made.Resolve(t.Context(), i)
		if _, resolved := b.counts(); err != nil || got.Stale || got.Digest != want || resolved != asked {
			t.Errorf("%s: %+v, %v after %d requests; want %s after %d", i.Reference, got, err, resolved, want, asked)
		}
	}
	resolve(image(t, "a.io/x:1"), digestA, 1)
	b.pointsTo(digestB, nil)
	clock.add(30*time.Second - 1)
	resolve(image(t, "A.io:443/x:1"), digestA, 1)
	resolve(image(t, "a.io/x:1@"+digestB), digestA, 1) // what the tag beside a digest names
	resolve(image(t, "a.io/x:2"), digestB, 2)
	resolve(image(t, "a.io/y:1"), digestB, 3)
	resolve(image(t, "a.io/x:1", login(t, "a.io", "one")), digestB, 4)
	resolve(image(t, "a.io/x:1", login(t, "b.io", "one")), digestA, 4)
	clock.add(1)
	resolve(image(t, "a.io/x:1"), digestB, 5)

	b.pointsTo("", policy.Judged(refusal(down)))
	for range 2 { // errors are not kept
		if got, err := made.Resolve(t.Context(), image(t, "a.io/z")); err == nil || got != (policy.Resolution{}) {
			t.Errorf("resolved to %+v", got)
		}
	}
	if _, resolved := b.counts(); resolved != 7 {
		t.Errorf("asked %d times, want 7", resolved)
	}
}

// refusal is an error that knows its verdict, as those of a registry are.
type refusal policy.Verdict

func (e refusal) Error() string           { return e.Message }
func (e refusal) Verdict() policy.Verdict { return policy.Verdict(e) }

// TestStale: an expired tag serves while its registry is away, and only then.
func TestStale(t *testing.T) {
	t.Parallel()
	because := func(reason policy.Reason) error { return refusal(policy.Undecided(reason, "%s", reason)) }
	accept := func(t *testing.T, made *cache.Cache, b *behind) {
		t.Helper()
		b.says(good)
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA))
	}
	for name, c := range map[string]struct {
		staleFor time.Duration
		before   func(*testing.T, *cache.Cache, *behind)
		after    time.Duration
		err      error
		serves   bool
	}{
		"unreachable":                     {before: accept, err: because(policy.ReasonUnreachable), serves: true},
		"deadline":                        {before: accept, err: because(policy.ReasonDeadline), serves: true},
		"5xx":                             {before: accept, err: because(policy.ReasonRegistryError), serves: true},
		"429":                             {before: accept, err: because(policy.ReasonRateLimited), serves: true},
		"out of time":                     {before: accept, err: context.DeadlineExceeded, serves: true},
		"404":                             {before: accept, err: because(policy.ReasonNotFound)},
		"401 or 403":                      {before: accept, err: because(policy.ReasonUnauthorized)},
		"other digest than asked for":     {before: accept, err: refusal(policy.Refused(policy.ReasonDigestMismatch, "x"))},
		"broken credentials":              {before: accept, err: because(policy.ReasonCredentials)},
		"a bound":                         {before: accept, err: because(policy.ReasonLimit)},
		"unknown":                         {before: accept, err: errors.New("boom")},
		"off":                             {staleFor: -1, before: accept, err: because(policy.ReasonUnreachable)},
		"last moment":                     {staleFor: time.Minute, before: accept, after: 90*time.Second - 1, err: because(policy.ReasonUnreachable), serves: true},
		"too late":                        {staleFor: time.Minute, before: accept, after: 90 * time.Second, err: because(policy.ReasonUnreachable)},
		"the default, last moment":        {before: accept, after: time.Hour - 1, err: because(policy.ReasonUnreachable), serves: true},
		"the Accepted has ended":          {before: accept, after: time.Hour, err: because(policy.ReasonUnreachable)},
		"no verdict":                      {before: func(*testing.T, *cache.Cache, *behind) {}, err: because(policy.ReasonUnreachable)},
		"Rejected":                        {before: verdictOf(bad, "a.io/x@"+digestA), err: because(policy.ReasonUnreachable)},
		"Inconclusive":                    {before: verdictOf(down, "a.io/x@"+digestA), err: because(policy.ReasonUnreachable)},
		"Accepted, in another repository": {before: verdictOf(good, "a.io/y@"+digestA), err: because(policy.ReasonUnreachable)},
		"Accepted, another digest":        {before: verdictOf(good, "a.io/x@"+digestB), err: because(policy.ReasonUnreachable)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, b, clock := newCache(t, cache.Options{StaleFor: c.staleFor})
			if _, err := made.Resolve(t.Context(), image(t, "a.io/x:1")); err != nil {
				t.Fatal(err)
			}
			c.before(t, made, b)
			clock.add(cmp.Or(c.after, 31*time.Second))
			b.pointsTo("", c.err)
			got, err := made.Resolve(t.Context(), image(t, "a.io/x:1"))
			want := policy.Resolution{}
			if c.serves {
				want = policy.Resolution{Digest: digestA, Stale: true}
			}
			if got != want || (err == nil) != c.serves {
				t.Errorf("resolved to %+v, %v; want %+v", got, err, want)
			}
			if stale := b.seen()["tags stale"]; (stale == 1) != c.serves {
				t.Errorf("%d stale answers counted", stale)
			}
			// Other credentials are not served what these were told.
			if got, err := made.Resolve(t.Context(), image(t, "a.io/x:1", login(t, "a.io", "one"))); err == nil {
				t.Errorf("another credential got %+v", got)
			}
		})
	}
}

func verdictOf(v policy.Verdict, written string) func(*testing.T, *cache.Cache, *behind) {
	return func(t *testing.T, made *cache.Cache, b *behind) {
		t.Helper()
		b.says(v)
		made.Verify(t.Context(), rule(1), image(t, written))
	}
}

// A tag that is stale serves for a bounded time, however often it is asked for
// and however fresh the verdict is.
func TestStaleEnds(t *testing.T) {
	t.Parallel()
	made, b, clock := newCache(t, cache.Options{})
	if _, err := made.Resolve(t.Context(), image(t, "a.io/x:1")); err != nil {
		t.Fatal(err)
	}
	b.pointsTo("", refusal(down))
	var served time.Duration
	for elapsed := time.Duration(0); elapsed < 3*time.Hour; elapsed += 10 * time.Minute {
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA))
		if _, err := made.Resolve(t.Context(), image(t, "a.io/x:1")); err == nil {
			served = elapsed
		}
		clock.add(10 * time.Minute)
	}
	if served != time.Hour {
		t.Errorf("served for %v, want 1h", served)
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{})
	for range 3 {
		made.Verify(t.Context(), rule(1), image(t, "a.io/x@"+digestA))
		_, _ = made.Resolve(t.Context(), image(t, "a.io/x:1"))
	}
	want := map[string]int{"verdicts miss": 1, "verdicts hit": 2, "tags miss": 1, "tags hit": 2}
	if diff := gocmp.Diff(want, b.seen()); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := gocmp.Diff(map[string]int{"verdicts": 1, "tags": 1}, made.Sizes()); diff != "" {
		t.Errorf("sizes (-want +got):\n%s", diff)
	}
}

// fill asks for n different images, by several at once.
func fill(tb testing.TB, made *cache.Cache, repository string, n int) {
	tb.Helper()
	var wg sync.WaitGroup
	const workers = 8
	tagged := image(tb, repository+":1")
	for w := range workers {
		wg.Go(func() {
			asked := tagged
			for i := w; i < n; i += workers {
				asked.Digest = fmt.Sprintf("sha256:%064x", i)
				made.Verify(tb.Context(), rule(1), asked)
			}
		})
	}
	wg.Wait()
}

// settled waits until what was to be evicted is.
func settled(tb testing.TB, made *cache.Cache, most int) int {
	tb.Helper()
	for range 200 {
		if made.Sizes()[cache.NameVerdicts] <= most {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return made.Sizes()[cache.NameVerdicts]
}

func TestBounds(t *testing.T) {
	t.Parallel()
	const huge = 64 << 10
	loud := bad
	loud.Message = strings.Repeat("x", huge)
	praised := good
	praised.Message = loud.Message
	for name, c := range map[string]struct {
		options cache.Options
		verdict policy.Verdict
		n, most int
		least   int // that are still there: the bound is not far below what it says
	}{
		"small Accepted":      {cache.Options{}, good, 300_000, 100_000, 80_000},
		"small Rejected":      {cache.Options{}, bad, 50_000, 10_000, 8_000},
		"huge Accepted":       {cache.Options{}, praised, 10_000, 128 << 20 / huge, 1_500},
		"huge Rejected":       {cache.Options{}, loud, 2_000, 128 << 20 / 10 / huge, 150},
		"small, few":          {cache.Options{Verdicts: 100}, good, 5_000, 100, 50},
		"small, few bytes":    {cache.Options{Bytes: 1 << 20}, good, 5_000, 1 << 20 / 900, 500},
		"larger than it all":  {cache.Options{Bytes: 1 << 15}, praised, 10, 0, 0},
		"hardly any verdicts": {cache.Options{Verdicts: 5}, bad, 100, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made, b, _ := newCache(t, c.options)
			b.says(c.verdict)
			fill(t, made, "a.io/x", c.n)
			if got := settled(t, made, c.most); got > c.most || got < c.least {
				t.Errorf("%d verdicts are held, want %d to %d", got, c.least, c.most)
			}
			eventually(t, "an eviction is counted", func() bool { return b.seen()["verdicts evicted"] > 0 })
		})
	}
}

// Who can make verdicts that are not Accepted, with as many images as he
// likes, cannot push out those that are.
func TestNegativesEvictNothing(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{Verdicts: 1000})
	fill(t, made, "a.io/good", 700)
	settled(t, made, 700)
	for _, v := range []policy.Verdict{bad, down} {
		b.says(v)
		fill(t, made, "a.io/bad", 20_000)
	}
	settled(t, made, 800)
	b.says(bad)
	before, _ := b.counts()
	for i := range 700 {
		if got := made.Verify(t.Context(), rule(1), image(t, fmt.Sprintf("a.io/good@sha256:%064x", i))); got != good {
			t.Fatalf("image %d: %+v", i, got)
		}
	}
	if after, _ := b.counts(); after != before {
		t.Errorf("%d Accepted were evicted", after-before)
	}
}

func TestTagBound(t *testing.T) {
	t.Parallel()
	made, b, _ := newCache(t, cache.Options{Tags: 500})
	for i := range 20_000 {
		if _, err := made.Resolve(t.Context(), image(t, fmt.Sprintf("a.io/x:v%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		if made.Sizes()[cache.NameTags] <= 500 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := made.Sizes()[cache.NameTags]; got > 500 || got < 400 {
		t.Errorf("%d tags are held, want up to 500", got)
	}
	if !slices.Contains(slices.Collect(maps.Keys(b.seen())), "tags evicted") {
		t.Error("no eviction was counted")
	}
}

func prefix(tb testing.TB, written string) reference.Prefix {
	tb.Helper()
	parsed, err := reference.ParsePrefix(written)
	if err != nil {
		tb.Fatal(err)
	}
	return parsed[0]
}
