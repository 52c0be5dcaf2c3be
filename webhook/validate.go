// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"context"
	"slices"

	"github.com/pratique-dev/pratique/policy"
)

// validate examines the images of a request and decides whether it is let in.
func (h *Handler) validate(ctx context.Context, r *request) *response {
	s, err := h.examine(r)
	if err != nil {
		return h.unexamined(passValidate, policy.Undecided(policy.ReasonInternal, "%v", err))
	}
	changed := len(s.images)
	s.images = append(s.images, h.unchanged(ctx, r, &s)...)
	given := &response{pass: passValidate, images: len(s.images)}
	if len(s.images) == 0 {
		return given
	}
	given.later = s.row.Decides == DecidesLater
	question, err := h.question(ctx, r, s)
	if err != nil {
		given.lines = h.unexamined(passValidate, policy.Undecided(policy.ReasonNotReady, "%v", err)).lines
		return given
	}
	question.Pinned = s.row.Pinned
	for i := range question.Images {
		question.Images[i].Unchanged = i >= changed
	}
	for i, decision := range h.Decider.Decide(ctx, question) {
		given.add(s.images[i], decision)
		if i < changed && s.row.floats(decision) {
			h.floating(given, s.row, s.images[i], decision)
		}
	}
	return given
}

// floats reports whether what was accepted may be something else tomorrow: a
// tag that nobody pins, in an object after which nothing is examined.
func (r *Row) floats(d policy.Decision) bool {
	return !r.Pinned && r.Decides == DecidesHere && d.Reference.Digest() == "" && slices.ContainsFunc(d.Findings, accepted)
}

func accepted(f policy.Finding) bool { return f.Verdict.Outcome == policy.Accepted }

func (h *Handler) floating(given *response, row *Row, image Image, decision policy.Decision) {
	const message = "its tag can move after this: name the digest too"
	if row.Floating != FloatingDeny {
		given.warn(image, decision.Reference, message)
		return
	}
	// Where all that accept it only audit, so does this.
	mode := policy.Audit
	for _, f := range decision.Findings {
		if accepted(f) && f.Mode != policy.Audit {
			mode = h.Server.Mode
		}
	}
	given.add(image, policy.Decision{Reference: decision.Reference, Findings: []policy.Finding{{
		Mode: mode, Verdict: policy.Refused(policy.ReasonFloating, "%s", message),
	}}})
}
