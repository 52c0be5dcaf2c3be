// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"github.com/pratique-dev/pratique/policy"
)

// maxReason is how much of a text is repeated that somebody else wrote, or may
// hold what somebody else wrote, in bytes.
const maxReason = 300

// quoted makes a text of somebody else's fit for a message: one line of bounded
// length, without anything that a terminal obeys.
func quoted(untrusted string) string {
	if len(untrusted) > maxReason {
		return strconv.Quote(strings.ToValidUTF8(untrusted[:maxReason], "")) + "…"
	}
	return strconv.Quote(untrusted)
}

// oneLine makes a text fit for a message that is of us, or of an administrator.
func oneLine(text string, most int) string {
	printable := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	if len(printable) > most {
		return strings.ToValidUTF8(printable[:most], "") + "…"
	}
	return printable
}

// explain says which requirement refuses a manifest first, and why: each is
// judged alone.
func (v *Verifier) explain(ctx context.Context, as identity, e *evidence, c *claim, refusal error) policy.Verdict {
	for i, r := range v.requirements {
		if !r.isSigned() {
			continue
		}
		if err := v.allows(ctx, v.list[i:i+1], c.image); err != nil {
			reason, why := r.lacks(as, e, c, err)
			return policy.Refused(reason, "%s: %s", r, why)
		}
	}
	// Each is met alone, and all of them are not: this does not happen.
	return policy.Refused(policy.ReasonNoMatch, "refused: %s", quoted(refusal.Error()))
}

// lacks says why a requirement is not met.
func (r *requirement) lacks(as identity, e *evidence, c *claim, refusal error) (policy.Reason, string) {
	found, kind, others := len(c.simple), "GPG", len(c.annotations)
	if r.kind == kindSigstore {
		found, kind, others = others, "sigstore", found
	}
	if found == 0 {
		why := fmt.Sprintf("no signature by %s: %s", kind, r.looked(as, e))
		if others > 0 {
			why += fmt.Sprintf(" (not counting %d of another kind)", others)
		}
		return policy.ReasonNoSignature, why
	}
	its := fmt.Sprintf("its %s signature is not accepted", kind)
	if found > 1 {
		its = fmt.Sprintf("none of its %d %s signatures is accepted", found, kind)
	}
	if untrusted, ok := signedFor(refusal.Error()); ok {
		which := "it is"
		if found > 1 {
			which = "one is"
		}
		return policy.ReasonNoMatch, fmt.Sprintf("%s: %s for %s, and the image is judged as %s; %s", its, which, quoted(untrusted), as, r.matching(untrusted))
	}
	return policy.ReasonNoMatch, its + ": " + quoted(refusal.Error())
}

// looked says where signatures were looked for, and what to change.
func (r *requirement) looked(as identity, e *evidence) string {
	var places []string
	if r.kind == kindSigstore {
		if !e.attached {
			return fmt.Sprintf("sigstore attachments of %s are not looked for; set use-sigstore-attachments: true in registries.d", as.Name())
		}
		places = append(places, "none is attached to it (a .sig tag)")
	}
	switch {
	case e.lookaside != nil:
		places = append(places, "there is none below the lookaside "+e.shelf())
	case r.kind == kindSignedBy && e.unconfigured:
		places = append(places, "its registry keeps none itself, and there is no registries.d that names a lookaside (--registries-d)")
	case r.kind == kindSignedBy:
		places = append(places, fmt.Sprintf("its registry keeps none itself, and registries.d has no lookaside for %s", as.Name()))
	}
	return strings.Join(places, ", ")
}

// shelf is the lookaside that was asked, without what may be secret in its address.
func (e *evidence) shelf() string {
	where := url.URL{Scheme: e.lookaside.Scheme, Host: e.lookaside.Host, Path: e.lookaside.Path}
	return oneLine(where.String(), maxReason)
}

// blame says who may be at fault for signatures that cannot be read.
func (e *evidence) blame() string {
	if e.lookaside == nil || len(e.simple.untrusted) == 0 {
		return ""
	}
	return fmt.Sprintf("; the lookaside %s must answer 404 where there is none", e.shelf())
}

// signedFor finds in what the library says the name that a good signature of the
// right digest is for. It is verified, and still somebody else's choice.
func signedFor(said string) (untrusted string, ok bool) {
	_, rest, ok := strings.Cut(said, "Signature for identity ")
	if !ok {
		return "", false
	}
	prefix, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return "", false
	}
	untrusted, err = strconv.Unquote(prefix)
	return untrusted, err == nil && strings.HasPrefix(rest[len(prefix):], " is not accepted")
}

// matching says which names the requirement takes, and what to write if
// signatures by cosign are meant: they name no tag.
func (r *requirement) matching(untrusted string) string {
	last := untrusted[strings.LastIndexByte(untrusted, '/')+1:]
	if r.readsTag() && !strings.ContainsAny(last, ":@") {
		return fmt.Sprintf("signedIdentity %s takes no name without a tag or digest: to take one, as cosign writes it, use %s", r.identity, identityRepo)
	}
	switch r.identity {
	case identityExact:
		return "signedIdentity matchExact takes the very same name"
	case identityDigest:
		return "signedIdentity matchRepoDigestOrExact takes the same repository and tag"
	case identityRepo:
		return "signedIdentity matchRepository takes the same repository"
	default:
		return "signedIdentity " + r.identity + " takes another name"
	}
}
