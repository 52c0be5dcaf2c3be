// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"time"
)

type askedUntilKey struct{}

// KeepDeadline returns a context that goes on telling ctx's deadline through
// [AskedUntil], also where work is done in a context without it
// ([context.WithoutCancel]) because it is to outlive whoever asks.
func KeepDeadline(ctx context.Context) context.Context {
	until, ok := AskedUntil(ctx)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, askedUntilKey{}, until)
}

// AskedUntil is when whoever asks stops waiting, false if that is never. Work may
// go on after it, but must not wait beyond it for something that can be told now.
func AskedUntil(ctx context.Context) (until time.Time, ok bool) {
	deadline, bounded := ctx.Deadline()
	kept, ok := ctx.Value(askedUntilKey{}).(time.Time)
	if bounded && (!ok || deadline.Before(kept)) {
		return deadline, true
	}
	return kept, ok
}
