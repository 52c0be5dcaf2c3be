// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"

	"github.com/pratique-dev/pratique/policy"
)

// mutate pins the images of a Pod. It never denies: what goes wrong here, the
// validating pass finds again and explains.
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
	var replacements []Replacement
	for i, decision := range h.Decider.Pin(ctx, question) {
		for _, warning := range decision.Warnings {
			given.warn(s.images[i], decision.Reference, warning)
		}
		if len(decision.Findings) > 0 {
			given.unresolved++
		}
		if decision.Digest != "" {
			pinned := decision.Reference.Pin(decision.Digest)
			replacements = append(replacements, Replacement{Image: s.images[i], With: pinned.Written()})
		}
	}
	given.patch = Patch(replacements)
	given.pinned = len(replacements)
	return given
}
