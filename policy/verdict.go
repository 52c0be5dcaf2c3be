// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"runtime/debug"
	"time"
)

// Outcome is what is known of an image (spec section 4). The zero value is
// Inconclusive, so that what nobody decided is never let in.
type Outcome uint8

// The outcomes. Their order is not their weight: see [Outcome.Outweighs].
const (
	Inconclusive Outcome = iota // could not be examined
	Rejected                    // examined, and it fails
	Accepted                    // examined, and it holds
	Skipped                     // not covered by any rule
)

var outcomes = [...]struct {
	name   string
	weight int
}{
	Inconclusive: {"Inconclusive", 2},
	Rejected:     {"Rejected", 3},
	Accepted:     {"Accepted", 1},
	Skipped:      {"Skipped", 0},
}

func (o Outcome) String() string {
	if int(o) >= len(outcomes) {
		return fmt.Sprintf("Outcome(%d)", o)
	}
	return outcomes[o].name
}

// MarshalText writes the outcome's name.
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// Outweighs reports whether o decides when both are present.
func (o Outcome) Outweighs(other Outcome) bool {
	return outcomes[o].weight > outcomes[other].weight
}

// Denies reports whether the outcome keeps an image out where verdicts are
// enforced. later says that what the object makes is examined again: then only
// what certainly fails is refused now.
func (o Outcome) Denies(later bool) bool {
	switch o {
	case Accepted, Skipped:
		return false
	case Inconclusive:
		return !later
	default:
		return true
	}
}

// Reason is why, in one word of a fixed list: metrics have it as a label.
type Reason string

// The reasons of verdicts.
const (
	ReasonVerified         Reason = "Verified"
	ReasonStatic           Reason = "Static"
	ReasonNotCovered       Reason = "NotCovered"
	ReasonNoSignature      Reason = "NoSignature"
	ReasonNoMatch          Reason = "NoMatchingSignature"
	ReasonInvalidReference Reason = "InvalidReference"
	ReasonNotPinned        Reason = "NotPinned"
	ReasonNotRewritten     Reason = "NotRewritten"
	ReasonFloating         Reason = "FloatingTag"
	ReasonUnmatched        Reason = "Unmatched"
	ReasonDigestMismatch   Reason = "DigestMismatch"
	ReasonNotFound         Reason = "NotFound"
	ReasonUnauthorized     Reason = "Unauthorized"
	ReasonRateLimited      Reason = "RateLimited"
	ReasonRegistryError    Reason = "RegistryError"
	ReasonUnexpected       Reason = "UnexpectedAnswer"
	ReasonUnreachable      Reason = "Unreachable"
	ReasonDeadline         Reason = "Deadline"
	ReasonLimit            Reason = "Limit"
	ReasonCredentials      Reason = "Credentials"
	ReasonNotReady         Reason = "NotReady"
	ReasonNamespace        Reason = "Namespace"
	ReasonPolicy           Reason = "Policy"
	ReasonNoObject         Reason = "NoObject"
	ReasonInternal         Reason = "Internal"
)

// Temporary reports whether the reason is that a registry could not be asked:
// it did not answer, or answered that it cannot now. What it refuses or does
// not have is an answer.
func (r Reason) Temporary() bool {
	switch r {
	case ReasonUnreachable, ReasonDeadline, ReasonRegistryError, ReasonRateLimited:
		return true
	default:
		return false
	}
}

// Verdict is what one rule says of one image. Message is one line for people
// that holds no secret and nothing that a registry sent unquoted.
type Verdict struct {
	Outcome Outcome
	Reason  Reason
	Message string
	// Signer says who vouches for an accepted image: an authority's name.
	Signer string
	// Evidence is what an [ObjectPolicy] is told of an accepted image, in a form
	// that is between it and the Verifier.
	Evidence string
	// Trace is for the log: what a panic came with, and where from.
	Trace string
	// Expires is when what the verdict rests on ends; zero if it does not.
	Expires time.Time
}

// Panicked is the verdict after a panic: whatever was being read, it must not
// end the process and must not let an image in. It is called where the panic is
// recovered; what was panicked with is for the log alone, as it may hold
// anything.
func Panicked(recovered any) Verdict {
	v := Undecided(ReasonInternal, "examining it failed unexpectedly; the server's log says more")
	v.Trace = fmt.Sprintf("%.1000v\n%s", recovered, debug.Stack())
	return v
}

// Err is the verdict on its way through an error; see [VerdictOf].
func (v Verdict) Err() error { return &verdictError{v} }

type verdictError struct{ verdict Verdict }

func (e *verdictError) Error() string { return e.verdict.Message }

// Verdict implements [Judged].
func (e *verdictError) Verdict() Verdict { return e.verdict }

// Undecided is the Inconclusive verdict with a cause.
func Undecided(reason Reason, format string, args ...any) Verdict {
	return Verdict{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// Refused is the Rejected verdict with a cause.
func Refused(reason Reason, format string, args ...any) Verdict {
	return Verdict{Outcome: Rejected, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
