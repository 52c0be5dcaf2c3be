// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const creations = 50

// TestRaceOfATag: a tag flips between a signed and an unsigned image while Pods
// are made of it. Whatever gets in carries the signed digest.
func TestRaceOfATag(t *testing.T) {
	t.Parallel()
	// Each gives tag n another way to move.
	for name, move := range map[string]func(r *room, t *testing.T, n int, tagged, good, bad registrytest.Image){
		"flips, signed first": func(r *room, _ *testing.T, _ int, tagged, good, bad registrytest.Image) {
			r.registry.Fault(registrytest.Manifest(tagged.ByTag()), registrytest.FlipFlop(good, bad))
		},
		"flips, unsigned first": func(r *room, _ *testing.T, _ int, tagged, good, bad registrytest.Image) {
			r.registry.Fault(registrytest.Manifest(tagged.ByTag()), registrytest.FlipFlop(bad, good))
		},
		"moves after the first look": func(r *room, _ *testing.T, _ int, tagged, _, bad registrytest.Image) {
			r.registry.Fault(registrytest.Manifest(tagged.ByTag()), r.registry.MoveTagAfter(1, tagged, bad.Digest))
		},
		"moves while it is examined": func(r *room, _ *testing.T, _ int, tagged, good, bad registrytest.Image) {
			r.registry.Fault(registrytest.Signature(good), r.registry.MoveTagAfter(1, tagged, bad.Digest))
		},
		"heals too late": func(r *room, t *testing.T, _ int, tagged, good, bad registrytest.Image) {
			r.registry.Tag(t, tagged.Repository, tagged.Tag, bad.Digest)
			r.registry.Fault(registrytest.Manifest(tagged.ByTag()), r.registry.MoveTagAfter(1, tagged, good.Digest))
		},
		"mutation cannot see it": func(r *room, _ *testing.T, _ int, tagged, good, bad registrytest.Image) {
			// The first look fails, so that the Pod arrives at validation with its tag.
			r.registry.Fault(registrytest.First(1, registrytest.Manifest(tagged.ByTag())), registrytest.Status(404))
			r.registry.Fault(registrytest.Manifest(tagged.ByTag()), registrytest.FlipFlop(good, bad))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRoom(t)
			r.enforce(t)
			good, bad := r.signed(t, "app:good"), r.unsigned(t, "app:bad")
			const tags = 10 // each is resolved afresh, and asked for several times at once
			images := make([]registrytest.Image, tags)
			for n := range images {
				images[n] = r.registry.Tag(t, good.Repository, fmt.Sprintf("t%d", n), good.Digest)
				move(r, t, n, images[n], good, bad)
			}
			var all sync.WaitGroup
			answers := make([]answer, creations)
			for i := range answers {
				all.Go(func() {
					answers[i] = r.create(t.Context(), pod(fmt.Sprintf("p%d", i), images[i%tags].ByTag()))
				})
			}
			all.Wait()
			in := 0
			for i, a := range answers {
				switch {
				case a.err != nil && !strings.Contains(a.err.Error(), "denied the request"):
					t.Errorf("creation %d failed otherwise: %v", i, a.err)
				case a.err != nil:
				case a.pod.Spec.Containers[0].Image != images[i%tags].ByTag()+"@"+good.Digest:
					t.Errorf("creation %d brought in %s; the signed one is %s", i, a.pod.Spec.Containers[0].Image, good.Digest)
				default:
					in++
				}
			}
			t.Logf("%d of %d admitted", in, creations)
		})
	}
}

// TestTagMovesWhileItsVerdictIsCached: who asks by tag gets the digest that was
// verified; the one it names now comes in by no spelling.
func TestTagMovesWhileItsVerdictIsCached(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	good, bad := r.signed(t, "app:v1"), r.unsigned(t, "app:bad")
	r.create(t.Context(), pod("before", good.ByTag())).admitted(t, good.ByBoth())
	r.registry.Tag(t, good.Repository, good.Tag, bad.Digest)
	r.create(t.Context(), pod("after", good.ByTag())).admitted(t, good.ByBoth())
	r.create(t.Context(), pod("digest", r.prefix()+"app:v1@"+bad.Digest)).refused(t, rejected, "no signature")
	r.create(t.Context(), pod("bad", bad.ByTag())).refused(t, rejected, "no signature")
}

// TestTheSameImageAtOnce: many requests for one image cost the requests of one.
func TestTheSameImageAtOnce(t *testing.T) {
	t.Parallel()
	r := newRoom(t)
	r.enforce(t)
	image := r.signed(t, "app:v1")
	var all sync.WaitGroup
	for i := range creations {
		all.Go(func() {
			if err := r.create(t.Context(), pod(fmt.Sprintf("p%d", i), image.ByTag())).err; err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := r.requests(); len(got) > 4 {
		t.Errorf("%d requests:\n%s", len(got), strings.Join(got, "\n"))
	}
}
