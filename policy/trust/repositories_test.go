// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/pratique-dev/pratique/policy/refresh"
	"github.com/pratique-dev/pratique/policy/trust"
)

func TestRepositories(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMirror(t)
		m.publish(goodText(t))
		var changes atomic.Int32
		all := trust.NewRepositories(m, func() { changes.Add(1) })
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			all.Run(ctx)
		}()
		root := m.get("1.root.json")
		if _, err := all.Root(mirrorURL, root); !errors.Is(err, refresh.ErrPending) {
			t.Errorf("at first: %v", err)
		}
		later(time.Minute)
		if got, err := all.Root(mirrorURL, root); err != nil || !got.HasTransparencyLogs() || changes.Load() == 0 {
			t.Errorf("then: %+v, %v, %d changes", got, err, changes.Load())
		}
		if _, err := all.Root(mirrorURL, nil); err == nil {
			t.Error("believed by a root of somebody else's")
		}
		if _, err := all.Root("ftp://x", root); err == nil {
			t.Error("asked over another protocol")
		}
		for i := range 40 {
			_, _ = all.Root(fmt.Sprintf("https://tuf%d.example", i), root)
		}
		if _, err := all.Root("https://another.example", root); err == nil || errors.Is(err, refresh.ErrPending) {
			t.Errorf("one too many: %v", err)
		}
		if _, err := all.Root(mirrorURL, root); err != nil {
			t.Errorf("it is forgotten: %v", err)
		}
		cancel()
		<-ended
	})
}
