// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/webhook"
)

func TestPatch(t *testing.T) {
	raw := []byte(`{"metadata":{"annotations":{"keep":"<&>"}},"unknown":{"number":1.50},"spec":` + podSpecJSON + `}`)
	row := lookup(t, load(t), "", "v1", "Pod")
	found, err := row.Find(raw)
	if err != nil {
		t.Fatal(err)
	}
	var all []webhook.Replacement
	for i, image := range found.Images {
		with := image.Written + "@pinned"
		if i == 0 {
			with = image.Written
		}
		all = append(all, webhook.Replacement{Image: image, With: with})
	}
	patch := webhook.Patch(all)
	const want = `[{"op":"replace","path":"/spec/initContainers/0/image","value":"setup:1@pinned"},` +
		`{"op":"replace","path":"/spec/initContainers/1/image","value":"proxy:1@pinned"},` +
		`{"op":"replace","path":"/spec/ephemeralContainers/0/image","value":"debug:1@pinned"},` +
		`{"op":"replace","path":"/spec/volumes/1/image/reference","value":"data:1@pinned"}]`
	if string(patch) != want {
		t.Errorf("patch %s\nwant  %s", patch, want)
	}
	decoded, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatal(err)
	}
	patched, err := decoded.Apply(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(leaves(t, raw), leaves(t, patched), cmp.FilterValues(func(a, b any) bool {
		before, ok := a.(string)
		after, _ := b.(string)
		return ok && after == before+"@pinned"
	}, cmp.Ignore())); diff != "" {
		t.Errorf("more than the images was changed (-before +after):\n%s", diff)
	}
	again, err := row.Find(patched)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(webhook.Changed(again, found)); got != len(decoded) {
		t.Errorf("%d images changed, want %d", got, len(decoded))
	}
}

func leaves(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestPatchOfNothing(t *testing.T) {
	found, err := lookup(t, load(t), "", "v1", "Pod").Find([]byte(`{"spec":{"containers":[{"name":"a"},{"image":"x"},{"image":" "}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	for name, replacements := range map[string][]webhook.Replacement{
		"none":      nil,
		"absent":    {{Image: found.Images[0], With: "x"}},
		"blank":     {{Image: found.Images[2], With: "x"}},
		"no change": {{Image: found.Images[1], With: "x"}},
	} {
		if patch := webhook.Patch(replacements); patch != nil {
			t.Errorf("%s: %s, want nil", name, patch)
		}
	}
}
