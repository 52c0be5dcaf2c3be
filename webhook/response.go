// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
)

// Bounds of what users are told (spec section 4).
const (
	maxDenial   = 16 << 10
	maxWarning  = 256 // the API server cuts longer ones (k8s.io/apiserver, filters/warning.go)
	maxWarnings = 14
	shortDigest = 12
)

// The audit annotations, which the API server prefixes with the webhook's name.
const (
	annotationVerdict = "verdict"
	annotationImages  = "images"
)

// response is an answer in the making. It is the only thing that becomes an
// AdmissionResponse. The zero value allows.
type response struct {
	pass       string
	later      bool // what the object makes is examined again
	images     int
	pinned     int
	rewritten  int
	injected   int // pull secrets
	unresolved int // that should have been pinned
	patch      []byte

	lines    []line
	warnings []string
}

// line is one finding about one image.
type line struct {
	path    string
	image   reference.Reference
	digest  string
	finding policy.Finding
	full    string // the whole text, made once
}

func newLine(path string, d policy.Decision, f policy.Finding) line {
	l := line{path: path, image: d.Reference, digest: d.Digest, finding: f}
	l.full = l.text(false)
	return l
}

func (r *response) add(image Image, d policy.Decision) {
	for _, finding := range d.Findings {
		r.lines = append(r.lines, newLine(image.Path(), d, finding))
	}
	for _, warning := range d.Warnings {
		r.warn(image, d.Reference, warning)
	}
}

func (r *response) warn(image Image, ref reference.Reference, warning string) {
	r.warnings = append(r.warnings, fmt.Sprintf("%s: %s %s", image.Path(), shorten(ref.Written(), ref.Digest()), printable(warning)))
}

// unexamined is the answer for a request whose images could not be found.
func (h *Handler) unexamined(pass string, v policy.Verdict) *response {
	return &response{pass: pass, lines: []line{newLine("object", policy.Decision{}, policy.Finding{Mode: h.Server.Mode, Verdict: v})}}
}

// denies reports whether a line keeps the object out. The mutating pass never
// denies, and neither does what is only audited.
func (r *response) denies(l line) bool {
	return r.pass == passValidate && l.finding.Mode != policy.Audit && l.finding.Verdict.Outcome.Denies(r.later)
}

func (r *response) allowed() bool { return !slices.ContainsFunc(r.lines, r.denies) }

// outcome is the weightiest verdict, whatever its mode.
func (r *response) outcome() policy.Outcome {
	outcome := policy.Skipped
	for _, l := range r.lines {
		if l.finding.Verdict.Outcome.Outweighs(outcome) {
			outcome = l.finding.Verdict.Outcome
		}
	}
	return outcome
}

// build makes the AdmissionResponse. Its texts are sorted: the same object
// under the same rules gets the same answer.
func (r *response) build(uid string) *admissionv1.AdmissionResponse {
	slices.SortStableFunc(r.lines, compareLines)
	built := &admissionv1.AdmissionResponse{UID: types.UID(uid), Allowed: r.allowed(), Warnings: r.allWarnings()}
	if len(r.lines) > 0 {
		built.AuditAnnotations = map[string]string{
			annotationVerdict: r.outcome().String(),
			annotationImages:  cut(strings.Join(fullLines(r.lines), "\n"), maxDenial),
		}
	}
	if r.patch != nil {
		kind := admissionv1.PatchTypeJSONPatch
		built.Patch, built.PatchType = r.patch, &kind
	}
	if built.Allowed {
		return built
	}
	denying := slices.DeleteFunc(slices.Clone(r.lines), func(l line) bool { return !r.denies(l) })
	built.Result = denial(denying)
	return built
}

// denial says why, all at once. There is no retryAfterSeconds: the client must
// not repeat by itself.
func denial(lines []line) *metav1.Status {
	code, reason := int32(http.StatusServiceUnavailable), metav1.StatusReasonServiceUnavailable
	for _, l := range lines {
		if l.finding.Verdict.Outcome == policy.Rejected {
			code, reason = http.StatusForbidden, metav1.StatusReasonForbidden
		}
	}
	texts := fullLines(lines)
	message := texts[0]
	if len(texts) > 1 {
		message = "\n" + strings.Join(texts, "\n")
	}
	return &metav1.Status{
		Status: metav1.StatusFailure, Code: code, Reason: reason, Message: cut(message, maxDenial),
	}
}

// allWarnings are the findings that do not deny and should be known, and the
// warnings proper.
func (r *response) allWarnings() []string {
	warnings := slices.Clone(r.warnings)
	for _, l := range r.lines {
		if l.fails() && !r.denies(l) {
			warnings = append(warnings, l.text(true))
		}
	}
	slices.Sort(warnings)
	return bounded(slices.Compact(warnings))
}

// bounded makes warnings as short and as few as are passed on.
func bounded(warnings []string) []string {
	for i, warning := range warnings {
		warnings[i] = cut(warning, maxWarning)
	}
	if more := len(warnings) - maxWarnings; more > 0 {
		warnings = append(warnings[:maxWarnings], fmt.Sprintf("and %d more", more))
	}
	return warnings
}

func compareLines(a, b line) int {
	return cmp.Or(strings.Compare(a.path, b.path), strings.Compare(a.full, b.full))
}

func fullLines(lines []line) []string {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.full
	}
	return texts
}

// text is the line that users see (spec section 4):
//
//	path: image Outcome by ImageConfig "name": why; hint: what to do
//
// short shortens the digest and leaves the hint out.
func (l line) text(short bool) string {
	var b strings.Builder
	b.WriteString(l.path)
	b.WriteString(": ")
	if written := l.image.Written(); written != "" {
		if l.image.Digest() == "" && l.digest != "" {
			written = l.image.Pin(l.digest).Written()
		}
		if short {
			written = shorten(written, cmp.Or(l.image.Digest(), l.digest))
		}
		b.WriteString(written)
		b.WriteByte(' ')
	}
	verdict := l.finding.Verdict
	b.WriteString(verdict.Outcome.String())
	if rule := l.finding.Rule; rule != nil {
		b.WriteString(" by " + rule.Kind + " " + strconv.Quote(rule.Name))
	}
	if verdict.Message != "" {
		b.WriteString(": " + printable(verdict.Message))
	}
	if hint := l.hint(); hint != "" && !short {
		b.WriteString("; hint: " + hint)
	}
	return b.String()
}

// fails reports whether there is something to mend.
func (l line) fails() bool {
	outcome := l.finding.Verdict.Outcome
	return outcome == policy.Rejected || outcome == policy.Inconclusive
}

// hint is the next step for who reads the line.
func (l line) hint() string {
	switch {
	case !l.fails(), l.finding.Verdict.Reason == policy.ReasonNotReady, l.image.Written() == "":
		return ""
	case l.finding.Verdict.Reason == policy.ReasonNotPinned, l.finding.Verdict.Reason == policy.ReasonNotRewritten:
		return "check the MutatingWebhookConfiguration; by hand, post to /mutate first"
	case l.image.Tag() != "":
		// As its author wrote it: what the tag names now is what one can mend.
		written, _, _ := strings.Cut(l.image.Written(), "@")
		return l.verify(written)
	default:
		return l.verify(l.image.Written())
	}
}

// verify is how to see the verdict again. A policy.json is in no cluster: it has to
// be named.
func (l line) verify(image string) string {
	command := "pratique verify " + image
	if rule := l.finding.Rule; rule != nil && rule.Scope != nil {
		command += " --containers-policy FILE --registries-d DIR"
	}
	return command
}

// shorten leaves 12 digits of a digest.
func shorten(text, digest string) string {
	if digest == "" {
		return text
	}
	return strings.Replace(text, digest, digest[:len("sha256:")+shortDigest]+"…", 1)
}

// printable escapes what would break a line, or a terminal.
func printable(s string) string {
	if !strings.ContainsFunc(s, unprintable) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unprintable(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func unprintable(r rune) bool {
	return r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
}

// cut shortens a text to so many bytes, between two runes.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	most -= len("…")
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}
