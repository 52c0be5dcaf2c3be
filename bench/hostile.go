// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// hostile is the part about registries that are slow or lie. One server is
// asked about one registry that works and about those that do not.
type hostile struct {
	*bench

	server *process
	small  *review
	bad    []*badRegistry
	drips  []*badRegistry
	pushed int // images that everyone else asks about
}

// badRegistry misbehaves in one way. It serves one fault and no other, so that
// what the server remembers of it is of that one.
type badRegistry struct {
	*registrytest.Registry

	tb     *scope
	name   string
	ally   *registrytest.Registry // that works, on another host
	images []registrytest.Image   // signed in both forms
}

// hostile measures what bad registries cost the others and the server.
func (b *bench) hostile(ctx context.Context, small *review) (table, error) {
	began := time.Now()
	b.sayf("hostile registries: signing images")
	h := &hostile{bench: b, small: small}
	for i := range b.effort.drips {
		h.drips = append(h.drips, h.newBad(fmt.Sprintf("drip %d", i), drippers))
	}
	for _, f := range faults {
		bad := h.newBad(f.name, attackers)
		f.order(bad)
		h.bad = append(h.bad, bad)
	}
	if err := h.start(ctx); err != nil {
		return table{}, err
	}
	defer h.server.stop()
	rows, err := h.dripRows(ctx)
	if err != nil {
		return table{}, h.server.failure(err)
	}
	more, err := h.faultRows(ctx)
	if err != nil {
		return table{}, h.server.failure(err)
	}
	return table{
		title: fmt.Sprintf("slow and hostile registries: %s; %d rounds, %d s", machine(), b.effort.drips, int(time.Since(began).Seconds())),
		// What has no first column is about the bad registries themselves.
		compared: "before", judged: "meanwhile", rows: append(rows, more...),
	}, nil
}

// newBad makes a registry with n signed images. It does nothing wrong yet.
func (h *hostile) newBad(name string, n int) *badRegistry {
	bad := &badRegistry{
		Registry: registrytest.New(h.tb), tb: h.tb, name: name, ally: registrytest.New(h.tb, registrytest.WithAddress("127.0.0.2:0")),
	}
	for i := range n {
		image := bad.PushImage(h.tb, fmt.Sprintf("acme/app-%02d:%s", i, reviewTag))
		bad.SignLegacy(h.tb, image, h.key)
		bad.SignBundle(h.tb, image, h.key)
		bad.images = append(bad.images, image)
	}
	return bad
}

// start starts the server with policies for all registries.
func (h *hostile) start(ctx context.Context) error {
	dir := filepath.Join(h.dir, "hostile")
	other := registrytest.NewKey(h.tb, registrytest.ECDSAP256)
	if err := writePolicies(dir, h.registry.Host(), fewConfigs, h.key, other); err != nil {
		return err
	}
	hosts := []string{h.registry.Host()}
	var prefixes []string
	for _, bad := range slices.Concat(h.drips, h.bad) {
		hosts = append(hosts, bad.Host(), bad.ally.Host())
		prefixes = append(prefixes, bad.Host()+"/")
	}
	policy := imageConfig("bad", h.key.PublicPEM(), prefixes...)
	if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte(policy), 0o600); err != nil {
		return fmt.Errorf("writing policies: %w", err)
	}
	var err error
	h.server, err = startPratique(ctx, h.options, dir, hosts...)
	return err
}

// attempt is a Pod of one image of a bad registry on its way through a pass.
type attempt struct {
	path    string
	image   registrytest.Image // the only one that may come in
	written string             // what the Pod says
	timeout time.Duration
}

// try makes an attempt, and makes sure that nothing is let in that nobody
// vouches for. It returns what the pass left of the image, and how long it took.
func (h *hostile) try(ctx context.Context, a attempt) (left string, elapsed time.Duration, err error) {
	var e exchange
	e.uid = uidOf(h.driver.uid.Add(1))
	url := fmt.Sprintf("https://%s%s?timeout=%s", h.server.address, a.path, a.timeout)
	if err := h.driver.post(ctx, url, podReview(e.uid, a.written), &e); err != nil {
		return "", 0, fmt.Errorf("asking %s: %w", a.path, err)
	}
	if left, err = a.judge(e); err != nil {
		return "", 0, fmt.Errorf("answer of %s about %s: %w", a.path, a.written, err)
	}
	return left, e.elapsed, nil
}

// judge reads the answer. The image may be let in or not, but never under a
// digest that nobody signed.
func (a attempt) judge(e exchange) (left string, err error) {
	var got admissionv1.AdmissionReview
	if err := json.Unmarshal(e.answer, &got); err != nil || e.status != 200 || got.Response == nil {
		return "", fmt.Errorf("status %d: %.200q", e.status, e.answer)
	}
	r := got.Response
	if string(r.UID) != e.uid {
		return "", fmt.Errorf("uid %q instead of %q", r.UID, e.uid)
	}
	if a.path == validatePath {
		if r.Allowed && !strings.HasSuffix(a.written, "@"+a.image.Digest) {
			return "", errors.New("it was let in")
		}
		return a.written, nil
	}
	if r.Patch == nil {
		return a.written, nil
	}
	images, err := apply(r.Patch, []string{a.written})
	if err != nil {
		return "", err
	}
	return images[0], nil
}
