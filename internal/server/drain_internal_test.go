// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"testing"
	"time"
)

// TestDrainEnds: when a listener fails meanwhile there is nobody to wait for.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	s := &server{options: Options{Drain: time.Hour}}
	ctx, stop := context.WithCancel(t.Context())
	serving, fail := context.WithCancel(t.Context())
	defer fail()
	drained := make(chan struct{})
	go func() {
		s.drain(ctx, serving)
		close(drained)
	}()
	stop()
	for !s.draining.Load() {
		select {
		case <-drained:
			t.Fatal("it does not drain")
		case <-time.After(time.Millisecond):
		}
	}
	fail()
	<-drained
}
