// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"

	"github.com/pratique-dev/pratique/policy"
)

// mutate rewrites and pins the images of a Pod, and gives a new one its pull
// secrets. It never denies: what goes wrong here, the validating pass finds again
// and explains.
func (h *Handler) mutate(ctx context.Context, r *request) *response {
	given := &response{pass: passMutate}
	s, err := h.examine(r)
	if err != nil {
		return h.unexamined(passMutate, policy.Undecided(policy.ReasonInternal, "%v", err))
	}
	if s.row == nil || !s.row.Pinned || len(s.images) == 0 {
		return given
	}
	question, err := h.question(ctx, r, s)
	if err != nil {
		return h.unexamined(passMutate, policy.Undecided(policy.ReasonNotReady, "%v", err))
	}
	given.images = len(s.images)
	decisions := h.Decider.Pin(ctx, question)
	var replacements []Replacement
	for i, decision := range decisions {
		replacements = append(replacements, given.replace(s.images[i], decision))
	}
	given.patch = Patch(replacements)
	given.inject(r, s, question.Namespace, decisions)
	return given
}

// replace notes a decision, and says what takes the place of the image: itself,
// where nothing does.
func (r *response) replace(image Image, d policy.Decision) Replacement {
	for _, warning := range d.Warnings {
		r.warn(image, d.Reference, warning)
	}
	if len(d.Findings) > 0 {
		r.unresolved++
	}
	with := d.Reference
	if d.Rewritten.Written() != "" {
		with = d.Rewritten
		r.rewritten++
	}
	if d.Digest != "" {
		with = with.Pin(d.Digest)
		r.pinned++
	}
	if with.Written() == "" {
		return Replacement{Image: image, With: image.Written} // nothing was decided
	}
	return Replacement{Image: image, With: with.Written()}
}
