// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package pullsecret

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// outcome is what came of one copy.
type outcome struct {
	kind  outcomeKind
	cause string // of refused and failed
}

type outcomeKind int

const (
	copied outcomeKind = iota
	foreign
	raced // somebody was faster: what is right will be seen in the next pass
	refused
	failed
)

// retried reports whether it may come out otherwise by itself.
func (o outcome) retried() bool { return o.kind == raced || o.kind == refused || o.kind == failed }

// outcomeOf says what an error of the API server's means.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return outcome{kind: copied}
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err),
		// Comes as Forbidden, which it is not for want of a right.
		apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return outcome{kind: raced}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return outcome{kind: refused, cause: cause(err)}
	default:
		return outcome{kind: failed, cause: cause(err)}
	}
}

// causeTime is the cause of what was not done in time.
const causeTime = "the API server did not answer in time"

// cause says in words of our own what an error of the API server's was.
func cause(err error) string {
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, context.DeadlineExceeded), apierrors.IsTimeout(err), apierrors.IsServerTimeout(err):
		return causeTime
	case errors.As(err, &status) && status.Status().Code != 0:
		return fmt.Sprintf("the API server answered with status %d", status.Status().Code)
	default:
		return "the API server could not be asked"
	}
}
