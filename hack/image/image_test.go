// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// program is a module that is built in no time.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for file, content := range map[string]string{
		"go.mod":  "module example.com/program\n\ngo 1.26\n",
		"main.go": "package main\n\nfunc main() {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func arguments(dir string, more ...string) []string {
	return append([]string{
		"-C", dir, "-main", ".", "-created", "1700000000", "-label", "org.opencontainers.image.title=program",
	}, more...)
}

// TestSameTwice: built again, elsewhere, it is the same byte by byte.
func TestSameTwice(t *testing.T) {
	t.Parallel()
	var indexes [2][]byte
	for i := range indexes {
		to := filepath.Join(t.TempDir(), "layout")
		if err := run(t.Context(), arguments(program(t), "-layout", to)); err != nil {
			t.Fatal(err)
		}
		var err error
		if indexes[i], err = os.ReadFile(filepath.Join(to, "index.json")); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(indexes[0], indexes[1]) {
		t.Errorf("first\n%s\nthen\n%s", indexes[0], indexes[1])
	}
}

// TestPushed: what a registry has of it afterwards.
func TestPushed(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true)))
	t.Cleanup(server.Close)
	to := strings.TrimPrefix(server.URL, "http://") + "/program:v1"
	if err := run(t.Context(), arguments(program(t), "-push", to)); err != nil {
		t.Fatal(err)
	}
	reference, err := name.ParseReference(to)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(reference)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var platforms []string
	for _, descriptor := range manifest.Manifests {
		platforms = append(platforms, descriptor.Platform.String())
		one, err := index.Image(descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		checkImage(t, one)
		checkSBOM(t, reference.Context().Digest(descriptor.Digest.String()))
	}
	if want := []string{"linux/amd64", "linux/arm64"}; !slices.Equal(slices.Sorted(slices.Values(platforms)), want) {
		t.Errorf("platforms %v, want %v", platforms, want)
	}
}

func checkImage(t *testing.T, one v1.Image) {
	t.Helper()
	config, err := one.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.Config.User != user || config.Created.Unix() != 1700000000 || config.Config.Labels["org.opencontainers.image.title"] != "program" {
		t.Errorf("config: user %q, created %s, labels %v", config.Config.User, config.Created, config.Config.Labels)
	}
	files := map[string]*tar.Header{}
	var authorities bytes.Buffer
	reader := tar.NewReader(mutate.Extract(one))
	for {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		files[strings.Trim(header.Name, "/")] = header
		if strings.HasSuffix(header.Name, "ca-certificates.crt") {
			if _, err := io.Copy(&authorities, reader); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := strings.Count(authorities.String(), "BEGIN CERTIFICATE"); n < 50 {
		t.Errorf("%d certificate authorities", n)
	}
	if tmp := files["tmp"]; tmp == nil || tmp.Mode != 0o1777 {
		t.Errorf("/tmp: %+v", tmp)
	}
	entry := strings.Trim(config.Config.Entrypoint[0], "/")
	if program := files[entry]; program == nil || program.Mode&0o111 == 0 || program.Mode&0o6000 != 0 {
		t.Errorf("%s: %+v", entry, program)
	}
}

// checkSBOM looks for the one that refers to an image, and what it says.
func checkSBOM(t *testing.T, of name.Digest) {
	t.Helper()
	referrers, err := remote.Referrers(of)
	if err != nil {
		t.Fatal(err)
	}
	list, err := referrers.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Manifests) != 1 || list.Manifests[0].ArtifactType != spdxType {
		t.Fatalf("referrers of %s: %+v", of, list.Manifests)
	}
	artifact, err := remote.Image(of.Context().Digest(list.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := artifact.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers %v, %v", layers, err)
	}
	content, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = content.Close() }()
	var document struct {
		Version  string `json:"spdxVersion"`
		Packages []struct {
			Name string `json:"name"`
		} `json:"packages"`
	}
	if err := json.NewDecoder(content).Decode(&document); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, one := range document.Packages {
		names = append(names, one.Name)
	}
	if !strings.HasPrefix(document.Version, "SPDX-2") || !slices.Contains(names, "example.com/program") {
		t.Errorf("SBOM %s of %v", document.Version, names)
	}
}

// TestBadArguments: nothing is built from what makes no sense.
func TestBadArguments(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"nowhere to put it": arguments(t.TempDir()),
		"two places":        arguments(t.TempDir(), "-layout", "x", "-push", "y"),
		"no platform":       arguments(t.TempDir(), "-layout", t.TempDir(), "-platforms", "linux/a/b/c/d"),
		"a bad label":       arguments(t.TempDir(), "-layout", t.TempDir(), "-label", "x"),
		"no program":        arguments(t.TempDir(), "-layout", filepath.Join(t.TempDir(), "x"), "-platforms", "linux/amd64"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := run(t.Context(), args); err == nil {
				t.Error("no error")
			}
		})
	}
}
