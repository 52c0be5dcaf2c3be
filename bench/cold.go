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

	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
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

// form is a way in which images are signed.
type form struct {
	name         string
	folder       string // of repositories; it says which ImageConfig they have
	sign         func(image registrytest.Image)
	limit, depth int
}

// cold counts what the registry is asked for about images that were never
// asked about before.
type cold struct {
	*bench

	server *process
	pushed int
}

// fresh pushes and signs an image that nobody has asked about.
func (c *cold) fresh(f form) registrytest.Image {
	c.pushed++
	image := c.registry.PushImage(c.tb, fmt.Sprintf("%scold-%d:%s", f.folder, c.pushed, reviewTag))
	f.sign(image)
	c.registry.Reset()
	return image
}

// keyedForms are those of one key.
func (c *cold) keyedForms() []form {
	return []form{
		{".sig", "acme/", func(i registrytest.Image) { c.registry.SignLegacy(c.tb, i, c.key) }, limitLegacy, limitLegacyDepth},
		{"bundle", "acme/", func(i registrytest.Image) { c.registry.SignBundle(c.tb, i, c.key) }, limitBundle, limitBundleDepth},
	}
}

// keylessForms are those of a certificate, with a log entry: who signs is no
// matter of the registry, so the limits are the same.
func (c *cold) keylessForms() []form {
	by := func(sign func(cosigntest.Target, *cosigntest.Leaf, cosigntest.Vouching)) func(registrytest.Image) {
		return func(i registrytest.Image) {
			to := cosigntest.Target{Registry: c.registry, Image: i}
			sign(to, c.sigstore.Leaf(cosigntest.Issued{}), cosigntest.Vouching{Log: true})
		}
	}
	return []form{
		{"keyless .sig", keylessFolder, by(c.sigstore.SignLegacy), limitLegacy, limitLegacyDepth},
		{"keyless bundle", keylessFolder, by(c.sigstore.SignBundle), limitBundle, limitBundleDepth},
	}
}

// manyForms are of images with signatures of which only the last is by one of the keys.
// Each signature more may be fetched once: a payload, or a manifest and a bundle.
func (c *cold) manyForms() []form {
	const more = manySignatures - 1
	by := func(sign func(registrytest.Image, *registrytest.Key)) func(registrytest.Image) {
		return func(i registrytest.Image) {
			for range more {
				sign(i, registrytest.NewKey(c.tb, registrytest.ECDSAP256))
			}
			sign(i, c.keys[len(c.keys)-1])
		}
	}
	name := func(form string) string {
		return fmt.Sprintf("%s, %d keys × %d signatures", form, manyKeys, manySignatures)
	}
	return []form{
		{name(".sig"), manyFolder, by(func(i registrytest.Image, k *registrytest.Key) { c.registry.SignLegacy(c.tb, i, k) }),
			limitLegacy + more, limitLegacyDepth},
		{name("bundle"), manyFolder, by(func(i registrytest.Image, k *registrytest.Key) { c.registry.SignBundle(c.tb, i, k) }),
			limitBundle + 2*more, limitBundleDepth},
	}
}

// rows measures all forms.
func (c *cold) rows(ctx context.Context) ([]row, error) {
	remove := c.registry.Fault(registrytest.Any(), registrytest.Delay(registryDelay))
	defer remove()
	var rows []row
	for _, f := range slices.Concat(c.keyedForms(), c.keylessForms()) {
		one, most, err := c.single(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		crowd, err := c.crowd(ctx, f, most)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		rows = slices.Concat(rows, one, crowd)
	}
	for _, f := range c.manyForms() {
		one, _, err := c.single(ctx, f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
		rows = append(rows, one...)
	}
	return rows, nil
}

// single measures a Pod of one image, and returns how many requests that took too.
func (c *cold) single(ctx context.Context, f form) (rows []row, most int, err error) {
	var requests, depths []int
	for range c.coldImages {
		image := c.fresh(f)
		if err := c.admit(ctx, "one", image.ByTag()); err != nil {
			return nil, 0, err
		}
		counted := c.registry.Counted()
		requests, depths = append(requests, len(counted)), append(depths, registrytest.Depth(counted))
	}
	most = slices.Max(requests)
	return []row{
		counted("cold "+f.name+", mutate + validate: registry requests", most, f.limit),
		counted("cold "+f.name+", mutate + validate: one after another", slices.Max(depths), f.depth),
	}, most, nil
}

// crowd measures many of one image, which may take what one took.
func (c *cold) crowd(ctx context.Context, f form, one int) ([]row, error) {
	image := c.fresh(f)
	if err := c.admit(ctx, "containers", slices.Repeat([]string{image.ByTag()}, containers)...); err != nil {
		return nil, err
	}
	inContainers := len(c.registry.Counted())

	image = c.fresh(f)
	if err := c.together(ctx, image.ByTag()); err != nil {
		return nil, err
	}
	return []row{
		counted(fmt.Sprintf("cold %s, %d containers of one image: registry requests", f.name, containers), inContainers, one),
		counted(fmt.Sprintf("cold %s, %d reviews at once: registry requests", f.name, concurrent), len(c.registry.Counted()), one),
	}, nil
}

// counted is a row of requests, which needs no clock.
func counted(what string, got, limit int) row {
	r := atMost(what, float64(limit), whole).measured(float64(got))
	r.counted = true
	return r
}

// cpuRows measures what a cold image costs the server, with everything that
// belongs to it: two reviews, the registry's answers, the verification.
func (c *cold) cpuRows(ctx context.Context) ([]row, error) {
	forms := []form{c.keyedForms()[1], c.keylessForms()[1]}
	used := make([]time.Duration, len(forms))
	// In turns, as everything here. The first turn warms up.
	for turn := range c.cpuTurns + 1 {
		for i, f := range forms {
			took, err := c.cpuOf(ctx, f)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", f.name, err)
			}
			if turn > 0 {
				used[i] += took
			}
		}
	}
	var rows []row
	for i, f := range forms {
		each := float64(used[i]) / float64(c.cpuTurns*cpuImages)
		rows = append(rows, told("cold "+f.name+", mutate + validate: server CPU an image", tenths).measured(each))
	}
	return rows, nil
}

// cpuImages is how many images one turn of cpuRows is about: clocks of processes
// tick a hundred times a second.
const cpuImages = 50

// cpuOf is the time that the server uses for cpuImages fresh images.
func (c *cold) cpuOf(ctx context.Context, f form) (time.Duration, error) {
	var images []registrytest.Image
	for range cpuImages {
		images = append(images, c.fresh(f))
	}
	before, err := c.server.cpu()
	if err != nil {
		return 0, err
	}
	for _, image := range images {
		if err := c.admit(ctx, "cpu", image.ByTag()); err != nil {
			return 0, err
		}
	}
	after, err := c.server.cpu()
	return after - before, err
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
