// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// configured is an image with this config, which is none of JSON's own.
func configured(t *testing.T, r *registrytest.Registry, written string, config v1.ConfigFile) registrytest.Image {
	t.Helper()
	image, err := mutate.ConfigFile(empty.Image, &config)
	if err != nil {
		t.Fatal(err)
	}
	return r.Push(t, written, image)
}

func TestConfigs(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	single := configured(t, r, "acme/single:v1", v1.ConfigFile{
		OS: "linux", Architecture: "amd64", Config: v1.Config{User: "65532", Labels: map[string]string{"a": "b"}},
	})
	index := r.PushIndex(t, "acme/index:v1", "linux/amd64", "linux/arm/v7", "windows/amd64:10.0", "unknown/unknown")
	for name, c := range map[string]struct {
		image registrytest.Image
		want  []string
	}{
		"image": {single, []string{"linux/amd64"}},
		// What is unknown only describes the others, and is there all the same.
		"index": {index.Image, []string{"linux/amd64", "linux/arm/v7", "unknown/unknown", "windows/amd64"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := newClient(t, r).Configs(t.Context(), askedImage(t, c.image))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, slices.Sorted(maps.Keys(got))); diff != "" {
				t.Errorf("platforms (-want +got):\n%s", diff)
			}
		})
	}
	got, err := newClient(t, r).Configs(t.Context(), askedImage(t, single))
	var config v1.ConfigFile
	if err := json.Unmarshal(got["linux/amd64"], &config); err != nil {
		t.Fatal(err)
	}
	if err != nil || config.Config.User != "65532" || config.Config.Labels["a"] != "b" {
		t.Errorf("config %+v, %v", config, err)
	}
}

func TestConfigsBounded(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	large := func(bytes int) v1.ConfigFile {
		return v1.ConfigFile{OS: "linux", Architecture: "amd64", Author: strings.Repeat("x", bytes)}
	}
	platforms := make([]string, 65)
	for i := range platforms {
		platforms[i] = fmt.Sprintf("linux/arm/v%d", i)
	}
	most := r.PushIndex(t, "acme/most:v1", platforms[:64]...)
	// Each of two is small enough; with themselves they are not.
	nested := v1.ImageIndex(empty.Index)
	for half := range 2 {
		inner := v1.ImageIndex(empty.Index)
		for i := range 32 {
			image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: fmt.Sprintf("arch%d-%d", half, i)})
			if err != nil {
				t.Fatal(err)
			}
			inner = mutate.AppendManifests(inner, mutate.IndexAddendum{Add: image})
		}
		nested = mutate.AppendManifests(nested, mutate.IndexAddendum{Add: inner})
	}
	twice := v1.ImageIndex(empty.Index)
	for i, half := range []v1.ConfigFile{large(3 << 20), large(2 << 20)} {
		half.Architecture = fmt.Sprintf("arch%d", i)
		image, err := mutate.ConfigFile(empty.Image, &half)
		if err != nil {
			t.Fatal(err)
		}
		twice = mutate.AppendManifests(twice, mutate.IndexAddendum{Add: image})
	}
	for name, c := range map[string]struct {
		image  registrytest.Image
		reason policy.Reason
	}{
		"many":              {r.PushIndex(t, "acme/many:v1", platforms...).Image, policy.ReasonLimit},
		"many below others": {r.Push(t, "acme/nested:v1", nested), policy.ReasonLimit},
		"large":             {configured(t, r, "acme/large:v1", large(4<<20)), policy.ReasonLimit},
		"large together":    {r.Push(t, "acme/twice:v1", twice), policy.ReasonLimit},
		"an empty index":    {r.Push(t, "acme/empty:v1", v1.ImageIndex(empty.Index)), policy.ReasonUnexpected},
		"one is not there": {func() registrytest.Image {
			index := r.PushIndex(t, "acme/gone:v1")
			r.Delete(t, index.Manifests[1])
			return index.Image
		}(), policy.ReasonNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newClient(t, r).Configs(t.Context(), askedImage(t, c.image))
			wantError(t, err, c.reason, r.Host())
		})
	}
	if _, err := newClient(t, r).Configs(t.Context(), askedImage(t, most.Image)); err != nil {
		t.Errorf("as many as there may be: %v", err)
	}
}
