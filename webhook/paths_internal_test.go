// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSite: names that the catalog would not take are escaped all the same.
func TestSite(t *testing.T) {
	s := newSite([]step{"a/b", "~1", elements, elements, "c"}, 0)
	if diff := cmp.Diff([]string{"/a~1b/~01", "", "/c"}, s.pointers); diff != "" {
		t.Errorf("pointers (-want +got):\n%s", diff)
	}
	if got, want := s.String(), "a/b.~1[][].c"; got != want {
		t.Errorf("path %q, want %q", got, want)
	}
	image := Image{site: s, index: [maxLists]int32{3, 14}}
	if got, want := image.Pointer(), "/a~1b/~01/3/14/c"; got != want {
		t.Errorf("pointer %q, want %q", got, want)
	}
}
