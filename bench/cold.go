// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// containers and concurrent are the N of spec section 12.
	containers = 8
	concurrent = 100
	// registryDelay is how long the registry takes for every answer, so that
	// requests that are sent at the same time also overlap, and those that are
	// not are seen to be one after another.
	registryDelay = 25 * time.Millisecond
)

// The limits of spec section 12, in registry requests.
const (
	limitLegacy, limitLegacyDepth = 4, 3
	limitBundle, limitBundleDepth = 5, 4
)

// form is a form of signatures.
type form struct {
	name         string
	sign         func(image registrytest.Image)
	limit, depth int
}

// cold counts what the registry is asked for about images that were never
// asked about before.
type cold struct {
	driver   *driver
	server   *process
	registry *registrytest.Registry
	tb       *scope
	pushed   int
}

// fresh pushes and signs an image that nobody has asked about.
func (c *cold) fresh(f form) registrytest.Image {
	c.pushed++
	image := c.registry.PushImage(c.tb, fmt.Sprintf("acme/cold-%d:%s", c.pushed, reviewTag))
	f.sign(image)
	c.registry.Reset()
	return image
}

// rows measures both forms.
func (c *cold) rows(ctx context.Context, key *registrytest.Key, images int) ([]row, error) {
	remove := c.registry.Fault(registrytest.Any(), registrytest.Delay(registryDelay))
	defer remove()
	var rows []row
	for _, f := range []form{
		{".sig", func(i registrytest.Image) { c.registry.SignLegacy(c.tb, i, key) }, limitLegacy, limitLegacyDepth},
		{"bundle", func(i registrytest.Image) { c.registry.SignBundle(c.tb, i, key) }, limitBundle, limitBundleDepth},
	} {
		more, err := c.form(ctx, f, images)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

func (c *cold) form(ctx context.Context, f form, images int) ([]row, error) {
	var requests, depths []int
	for range images {
		image := c.fresh(f)
		if err := c.admit(ctx, "one", image.ByTag()); err != nil {
			return nil, err
		}
		counted := c.registry.Counted()
		requests, depths = append(requests, len(counted)), append(depths, registrytest.Depth(counted))
	}
	one := slices.Max(requests)

	image := c.fresh(f)
	if err := c.admit(ctx, "containers", slices.Repeat([]string{image.ByTag()}, containers)...); err != nil {
		return nil, err
	}
	inContainers := len(c.registry.Counted())

	image = c.fresh(f)
	if err := c.together(ctx, image.ByTag()); err != nil {
		return nil, err
	}
	atOnce := len(c.registry.Counted())

	count := func(what string, got, limit int) row {
		r := atMost(what, float64(limit), whole).measured(float64(got))
		r.counted = true
		return r
	}
	return []row{
		count("cold "+f.name+", mutate + validate: registry requests", one, f.limit),
		count("cold "+f.name+", mutate + validate: one after another", slices.Max(depths), f.depth),
		count(fmt.Sprintf("cold %s, %d containers of one image: registry requests", f.name, containers), inContainers, one),
		count(fmt.Sprintf("cold %s, %d reviews at once: registry requests", f.name, concurrent), atOnce, one),
	}, nil
}

// admit sends a Pod through both passes, as the API server would.
func (c *cold) admit(ctx context.Context, uid string, images ...string) error {
	patch, err := c.ask(ctx, mutatePath, podReview(uid, images...), expected{uid: uid, patched: true})
	if err != nil {
		return err
	}
	pinned, err := apply(patch, images)
	if err != nil {
		return err
	}
	_, err = c.ask(ctx, validatePath, podReview(uid, pinned...), expected{uid: uid, verdict: "Accepted"})
	return err
}

func (c *cold) ask(ctx context.Context, path string, body []byte, want expected) (patch []byte, err error) {
	var e exchange
	if err := c.driver.post(ctx, "https://"+c.server.address+path+"?timeout=10s", body, &e); err != nil {
		return nil, fmt.Errorf("asking %s: %w", path, err)
	}
	if patch, err = want.check(e.status, e.answer); err != nil {
		return nil, fmt.Errorf("answer to %s: %w", path, err)
	}
	return patch, nil
}

// together admits many Pods of one image at the same time.
func (c *cold) together(ctx context.Context, image string) error {
	errs := make([]error, concurrent)
	var group sync.WaitGroup
	for i := range errs {
		group.Go(func() { errs[i] = c.admit(ctx, fmt.Sprintf("concurrent-%d", i), image) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err // all of them would say the same
		}
	}
	return nil
}

// apply replaces images as the patch of podReview says, and makes sure that it
// gives each its digest.
func apply(patch []byte, images []string) ([]string, error) {
	var operations []struct {
		Op, Path, Value string
	}
	if err := json.Unmarshal(patch, &operations); err != nil {
		return nil, fmt.Errorf("reading the patch %.200q: %w", patch, err)
	}
	pinned := slices.Clone(images)
	for _, o := range operations {
		var i int
		_, err := fmt.Sscanf(o.Path, "/spec/containers/%d/image", &i)
		if err != nil || o.Op != "replace" || i < 0 || i >= len(pinned) {
			return nil, fmt.Errorf("unexpected patch %+v", o)
		}
		pinned[i] = o.Value
	}
	for i, image := range pinned {
		if !strings.HasPrefix(image, images[i]+"@sha256:") {
			return nil, fmt.Errorf("%q was pinned to %q", images[i], image)
		}
	}
	return pinned, nil
}
