// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// TestVaultIsAway: what was admitted by its tag before goes on being admitted,
// with a warning once the tag would have been looked up again; what was not is
// Inconclusive.
func TestVaultIsAway(t *testing.T) {
	t.Parallel()
	v := newVault(t, false)
	r := newRoom(t).in(v)
	signed, unknown := r.signed(t, "app:v1"), r.signed(t, "app:v2")
	r.pull(t, r.namespace, "pull", user, password)
	r.enforce(t)
	known := withSecrets(pod("app", signed.ByTag()), "pull")
	r.try(t.Context(), known).admitted(t, signed.ByBoth())
	resolved := time.Now()
	if err := v.Stop(); err != nil {
		t.Fatal(err)
	}
	r.try(t.Context(), known).admitted(t, signed.ByBoth())
	away(t, r.try(t.Context(), withSecrets(pod("app", unknown.ByTag()), "pull")))
	// Never refused, and in the end with the warning: not before the tag's time.
	limit := time.Until(resolved.Add(tagFor + inForce))
	err := wait.PollUntilContextTimeout(t.Context(), time.Second, limit, true, func(ctx context.Context) (bool, error) {
		got := r.try(ctx, known)
		if got.err != nil || imagesOf(got.pod)[0] != signed.ByBoth() {
			return false, fmt.Errorf("after %s: %w", time.Since(resolved), errors.Join(got.err, errors.New("not pinned")))
		}
		if len(got.warnings) == 0 {
			return false, nil
		}
		got.warned(t, []string{signed.ByBoth()}, "registry unreachable")
		return true, nil
	})
	if err != nil {
		t.Fatalf("no warning: %v", err)
	}
	if age := time.Since(resolved); age < tagFor-clocks {
		t.Errorf("a warning after %s", age)
	}
	away(t, r.try(t.Context(), withSecrets(pod("app", unknown.ByTag()), "pull")))
	// And not for who may not pull it.
	away(t, r.try(t.Context(), pod("app", signed.ByTag())))
}
