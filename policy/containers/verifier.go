// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.podman.io/image/v5/signature"
	"golang.org/x/sync/errgroup"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
)

const (
	// maxManifests is how many manifests are judged for one image: an index and
	// those in it. Docker's official images have some ten platforms.
	maxManifests = 64
	// parallel is how many of them are judged at once.
	parallel = 8
)

// Verifier judges images by a list of requirements, all of which have to be met.
type Verifier struct {
	source       Source
	registries   *config.Registries
	attached     bool
	byDigest     bool
	requirements []*requirement
	// list is what the library made of them.
	list signature.PolicyRequirements
	room *room
}

var _ policy.Verifier = (*Verifier)(nil)

func (v *Verifier) has(kind string) bool {
	return slices.ContainsFunc(v.requirements, func(r *requirement) bool { return r.kind == kind })
}

// Verify implements [policy.Verifier]. An index is accepted if it is itself, or if
// each of the manifests is that a node may choose from it.
func (v *Verifier) Verify(ctx context.Context, image policy.Image) (verdict policy.Verdict) {
	defer func() {
		if p := recover(); p != nil {
			verdict = policy.Panicked(p)
		}
	}()
	if err := ctx.Err(); err != nil {
		return policy.VerdictOf(err)
	}
	if v.byDigest {
		image.Reference = image.Reference.Pin(image.Digest).WithoutTag()
	}
	as, err := identityOf(image)
	if err != nil {
		return policy.VerdictOf(err)
	}
	e := &examination{verifier: v, image: image, as: as}
	verdict = e.verdict(ctx)
	if err := ctx.Err(); err != nil && verdict.Outcome == policy.Rejected {
		// What was not found need not be missing.
		return policy.VerdictOf(err)
	}
	return verdict
}

// examination is one image that is judged by a Verifier.
type examination struct {
	verifier *Verifier
	image    policy.Image
	as       identity
}

// examined is one manifest that was judged.
type examined struct {
	verdict policy.Verdict
	// parts are the manifests in it, if it is an index that may be judged by them;
	// whole says why it may not.
	parts entries
	whole error
}

func (e *examination) verdict(ctx context.Context) policy.Verdict {
	itself := e.examine(ctx, e.image.Digest)
	switch {
	case itself.verdict.Outcome == policy.Accepted:
		if itself.parts != nil {
			itself.verdict.Message = "the index itself is signed: " + itself.verdict.Signer
		}
		return itself.verdict
	case itself.whole != nil:
		itself.verdict.Message += fmt.Sprintf("; its platforms are not judged: %v", itself.whole)
		return itself.verdict
	case itself.parts == nil || ctx.Err() != nil:
		return itself.verdict
	}
	return e.byPlatforms(ctx, itself)
}

// examine judges one manifest, by the name that the image has.
func (e *examination) examine(ctx context.Context, digest string) (result examined) {
	defer func() {
		if p := recover(); p != nil {
			result = examined{verdict: policy.Panicked(p)}
		}
	}()
	image := e.image
	image.Digest = digest
	found := e.verifier.collect(ctx, image)
	defer found.release()
	if found.unreadable != nil {
		return examined{verdict: policy.VerdictOf(found.unreadable)}
	}
	result.parts, result.whole = readIndex(found.manifest.untrusted[0])
	result.verdict = e.verifier.judge(ctx, e.as, digest, found)
	return result
}

// platforms is what came of judging the manifests of an index.
type platforms struct {
	accepted int
	expires  time.Time
	// failed are those that were not accepted, by name, in the order of the index.
	failed []failure
}

type failure struct {
	platform string
	verdict  policy.Verdict
}

// byPlatforms judges an index that is not accepted itself by its manifests, level
// by level. They are found by their digests, so that none contains itself.
func (e *examination) byPlatforms(ctx context.Context, index examined) policy.Verdict {
	seen := map[string]bool{e.image.Digest: true}
	var all platforms
	for level := index.parts; len(level) > 0; {
		level = slices.DeleteFunc(level, func(one entry) bool {
			known := seen[one.UntrustedDigest]
			seen[one.UntrustedDigest] = true
			return known
		})
		if len(seen) > maxManifests {
			v := policy.Undecided(policy.ReasonLimit, "the index has more than %d manifests", maxManifests-1)
			return e.refused(index.verdict, failure{"", v}, 0)
		}
		results := make([]examined, len(level))
		var group errgroup.Group
		group.SetLimit(parallel)
		for i, one := range level {
			group.Go(func() error {
				results[i] = e.examine(ctx, one.UntrustedDigest)
				return nil
			})
		}
		_ = group.Wait() // what fails is in the results
		level = all.add(level, results)
		if len(all.failed) > 0 {
			return e.refused(index.verdict, all.worst(), len(all.failed)-1)
		}
	}
	if all.accepted == 0 {
		return index.verdict // an index lists some: this does not happen
	}
	return policy.Verdict{
		Outcome: policy.Accepted, Reason: policy.ReasonVerified, Signer: e.verifier.signer(), Expires: all.expires,
		Message: fmt.Sprintf("each of its %d platform manifests is signed, the index itself is not: %s", all.accepted, e.verifier.signer()),
	}
}

// add takes what came of one level, and returns the next: the manifests of those
// indexes that are not accepted themselves.
func (p *platforms) add(level entries, results []examined) (next entries) {
	for i, result := range results {
		switch {
		case result.verdict.Outcome == policy.Accepted:
			p.accepted++
			if at := result.verdict.Expires; !at.IsZero() && (p.expires.IsZero() || at.Before(p.expires)) {
				p.expires = at
			}
		case result.whole != nil:
			result.verdict.Message += fmt.Sprintf("; its own platforms are not judged: %v", result.whole)
			p.failed = append(p.failed, failure{level[i].String(), result.verdict})
		case result.parts != nil:
			next = append(next, result.parts...)
		default:
			p.failed = append(p.failed, failure{level[i].String(), result.verdict})
		}
	}
	return next
}

// worst is the first failure of those that weigh most: one manifest that fails is
// enough, whatever of the others is not known.
func (p *platforms) worst() failure {
	return slices.MaxFunc(p.failed, func(a, b failure) int {
		switch {
		case a.verdict.Outcome.Outweighs(b.verdict.Outcome):
			return 1
		case b.verdict.Outcome.Outweighs(a.verdict.Outcome):
			return -1
		default:
			return 0
		}
	})
}

// refused says why an index is not accepted, neither itself nor by its manifests.
// It fails only if both are known to.
func (e *examination) refused(itself policy.Verdict, part failure, more int) policy.Verdict {
	verdict := policy.Verdict{Outcome: policy.Rejected, Reason: part.verdict.Reason}
	for _, v := range []policy.Verdict{part.verdict, itself} {
		if v.Outcome != policy.Rejected {
			verdict.Outcome, verdict.Reason = policy.Inconclusive, v.Reason
		}
	}
	if verdict.Outcome == policy.Rejected && verdict.Reason == policy.ReasonNoSignature {
		verdict.Reason = itself.Reason
	}
	verdict.Message = "the index itself: " + itself.Message + "; "
	if part.platform != "" {
		verdict.Message += "its platform " + part.platform
		if more > 0 {
			verdict.Message += fmt.Sprintf(", and %d more", more)
		}
		verdict.Message += ": "
	}
	verdict.Message += part.verdict.Message
	verdict.Trace = cmp.Or(itself.Trace, part.verdict.Trace)
	return verdict
}
