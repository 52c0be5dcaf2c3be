// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
)

const hexDigest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// answering is a stack whose decider gives each image the same decision.
func answering(t *testing.T, d policy.Decision) *stack {
	t.Helper()
	return newStack(t, setting{decider: canned{func(q policy.Question) []policy.Decision {
		out := make([]policy.Decision, len(q.Images))
		for i, asked := range q.Images {
			out[i] = d
			out[i].Reference = asked.Reference
		}
		return out
	}}})
}

func finding(mode policy.Mode, v policy.Verdict) policy.Decision {
	return policy.Decision{Findings: []policy.Finding{{Mode: mode, Verdict: v, Rule: &policy.Rule{Kind: "ImageConfig", Name: "acme"}}}}
}

func many(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("a.io/x%d:v1@%s", i, hexDigest))
	}
	return pod(all...)
}

// Texts have bounds, whatever is in them.
func TestTextBounds(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"long": strings.Repeat("x", 20_000), "runes": strings.Repeat("ä€😀", 5_000), "short": "why",
		"control": strings.Repeat("a\n\x1b[31m\x00\u202e\u2028\xff", 500),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			denied := answering(t, finding(policy.Enforce, policy.Refused(policy.ReasonNoSignature, "%s", text))).send(t, "/validate", ask{object: many(40)})
			if denied.Allowed || len(denied.Result.Message) > 16<<10 || len(denied.AuditAnnotations["images"]) > 16<<10 {
				t.Errorf("allowed %t, a message of %d bytes, an annotation of %d", denied.Allowed, len(denied.Result.Message), len(denied.AuditAnnotations["images"]))
			}
			d := finding(policy.Audit, policy.Refused(policy.ReasonNoSignature, "%s", text))
			d.Warnings = []string{text, "told"}
			warned := answering(t, d).send(t, "/validate", ask{object: many(40)})
			if !warned.Allowed || len(warned.Warnings) != 15 || warned.Warnings[14] != "and 106 more" {
				t.Errorf("allowed %t, %d warnings, the last %q", warned.Allowed, len(warned.Warnings), warned.Warnings[len(warned.Warnings)-1])
			}
			for _, line := range append(warned.Warnings, strings.Split(denied.Result.Message, "\n")...) {
				if !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || strings.ContainsRune("\x7f\u202e\u2028\ufffd", r) }) {
					t.Errorf("unprintable: %q", line)
				}
			}
			for _, line := range warned.Warnings {
				if len(line) > 256 || len(line) < 240 && name == "long" && !strings.Contains(line, "more") && !strings.HasSuffix(line, "told") {
					t.Errorf("a warning of %d bytes: %q", len(line), line)
				}
			}
			if !slices.IsSorted(warned.Warnings[:14]) {
				t.Errorf("not sorted: %q", warned.Warnings)
			}
		})
	}
}

// TestTexts: the line and the warning of one finding.
func TestTexts(t *testing.T) {
	t.Parallel()
	refused := policy.Refused(policy.ReasonNoSignature, "no\tsignature")
	for name, c := range map[string]struct {
		image    string
		decision policy.Decision
		denial   string
		warnings []string
	}{
		"tag and digest": {
			"a.io/x:v1@" + hexDigest, finding(policy.Enforce, refused),
			`403 spec.containers[0].image: a.io/x:v1@` + hexDigest + ` Rejected by ImageConfig "acme": no\tsignature; hint: pratique verify a.io/x:v1`, nil,
		},
		"digest": {
			"a.io/x@" + hexDigest, finding(policy.Enforce, refused),
			`403 spec.containers[0].image: a.io/x@` + hexDigest + ` Rejected by ImageConfig "acme": no\tsignature; hint: pratique verify a.io/x@` + hexDigest, nil,
		},
		"inconclusive": {
			"a.io/x@" + hexDigest, finding(policy.Enforce, policy.Undecided(policy.ReasonUnreachable, "down")),
			`503 spec.containers[0].image: a.io/x@` + hexDigest + ` Inconclusive by ImageConfig "acme": down; hint: pratique verify a.io/x@` + hexDigest, nil,
		},
		"not ready": {
			"a.io/x", finding(policy.Enforce, policy.Undecided(policy.ReasonNotReady, "it is not ready")),
			`503 spec.containers[0].image: a.io/x Inconclusive by ImageConfig "acme": it is not ready`, nil,
		},
		"unknown outcome": {
			"a.io/x", finding(policy.Enforce, policy.Verdict{}),
			`503 spec.containers[0].image: a.io/x Inconclusive by ImageConfig "acme"; hint: pratique verify a.io/x`, nil,
		},
		"no mode": {
			"a.io/x", finding("", refused),
			`403 spec.containers[0].image: a.io/x Rejected by ImageConfig "acme": no\tsignature; hint: pratique verify a.io/x`, nil,
		},
		"audited": {
			"a.io/x:v1@" + hexDigest, finding(policy.Audit, refused), "allowed",
			[]string{`spec.containers[0].image: a.io/x:v1@sha256:0123456789ab… Rejected by ImageConfig "acme": no\tsignature`},
		},
		"accepted": {"a.io/x", finding(policy.Enforce, policy.Verdict{Outcome: policy.Accepted}), "allowed", nil},
		"skipped":  {"a.io/x", finding(policy.Enforce, policy.Verdict{Outcome: policy.Skipped}), "allowed", nil},
		"warned": {
			"a.io/x@" + hexDigest, policy.Decision{Warnings: []string{"b\nb", "a", "a"}}, "allowed",
			[]string{"spec.containers[0].image: a.io/x@sha256:0123456789ab… a", `spec.containers[0].image: a.io/x@sha256:0123456789ab… b\nb`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := answering(t, c.decision)
			got := s.send(t, "/validate", ask{object: pod(c.image)})
			if diff := cmp.Diff(c.denial, message(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.warnings, got.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if counted := s.rec.await(t, len(c.decision.Findings)); counted != fmt.Sprintf("validate %t", got.Allowed) {
				t.Errorf("counted %q", counted)
			}
		})
	}
	// One image may have several lines; Rejected gives the code.
	both := finding(policy.Enforce, policy.Undecided(policy.ReasonUnreachable, "down"))
	both.Findings = append(both.Findings, finding(policy.Enforce, refused).Findings...)
	both.Findings = append(both.Findings, finding(policy.Audit, policy.Refused(policy.ReasonNoMatch, "audited")).Findings...)
	got := answering(t, both).send(t, "/validate", ask{object: pod("a.io/x")})
	lines := strings.Split(message(got), "\n")
	if len(lines) != 3 || lines[0] != "403 " || !slices.IsSorted(lines[1:]) || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "audited") {
		t.Errorf("got %q, warnings %q", lines, got.Warnings)
	}
	if string(got.UID) != "705ab4f5-6393-11e8-b7cc-42010a800002" {
		t.Errorf("uid %q", got.UID)
	}
}

// What a user writes in place of a reference is quoted, and cut.
func TestInvalidReferenceText(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	for _, written := range []string{
		"a.io/x\n spec.containers[9].image: Accepted", "\x1b[31mred", strings.Repeat("x", 5_000), strings.Repeat("😀", 200), "a.io/\u202ex", "\u2028", `a"b`, "<script>",
		"a.io/x@sha256:" + strings.Repeat("A", 64), "oci://a.io/x", "$(IMAGE)",
	} {
		got := s.send(t, "/validate", ask{object: pod() + ""})
		if !got.Allowed {
			t.Fatalf("a Pod without images: %s", message(got))
		}
		object := `{"spec":{"containers":[{"image":` + quoted(t, written) + `}]}}`
		got = s.send(t, "/validate", ask{object: object})
		text := message(got)
		if got.Allowed || got.Result.Code != 403 || !strings.HasPrefix(text, "403 spec.containers[0].image: Rejected: invalid image reference ") ||
			strings.ContainsAny(text, "\n\x1b\u2028\u202e") || len(text) > 1500 {
			t.Errorf("%.40q: %q", written, text)
		}
		if patch := s.send(t, "/mutate", ask{object: object}).Patch; patch != nil {
			t.Errorf("%.40q: patch %s", written, patch)
		}
	}
}
