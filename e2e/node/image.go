// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

// entrypoint is where an image's program is.
const entrypoint = "/program"

// An Image is one static program and nothing else.
type Image struct {
	// Package is built, as seen from the folder e2e; or Binary is taken, which is
	// a static program.
	Package, Binary string
	// User is who it runs as unless the Pod says so; empty means root.
	User string
}

// Push makes an image and puts it into a registry: Node.Registry, or another, with
// what the options say about how to reach it.
func (n *Node) Push(ctx context.Context, reference string, i Image, options ...remote.Option) error {
	image, err := i.build(ctx, n.dir)
	if err != nil {
		return fmt.Errorf("building %s: %w", reference, err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		return fmt.Errorf("parsing %q: %w", reference, err)
	}
	if err := remote.Write(tag, image, append(options, remote.WithContext(ctx))...); err != nil {
		return fmt.Errorf("pushing %s: %w", reference, err)
	}
	return nil
}

func (i Image) build(ctx context.Context, dir string) (v1.Image, error) {
	binary := i.Binary
	if binary == "" {
		binary = filepath.Join(dir, filepath.Base(i.Package)+".program")
		root, err := cluster.Checkout()
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", binary, i.Package)
		cmd.Dir = filepath.Join(root, "e2e")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("compiling %s: %w: %s", i.Package, err, out)
		}
	}
	content, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	layer, err := layerOf(content)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	// containerd takes nothing that does not name its platform.
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint, config.Config.User = []string{entrypoint}, i.User
	return mutate.ConfigFile(image, config)
}

// layerOf is the layer with the program and a folder for temporary files.
func layerOf(program []byte) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: entrypoint[1:], Mode: 0o755, Size: int64(len(program))},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}
