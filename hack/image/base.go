// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// user is nobody in particular, by number: Kubernetes must see that it is not
// root without reading /etc/passwd.
const user = "65532:65532"

// base is what is in the image besides the program: the certificate authorities
// that Mozilla trusts, a name for the user, and a folder for temporary files.
func base(o options) (v1.ImageIndex, error) {
	content, err := files(o)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, fmt.Errorf("making the base: %w", err)
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for written := range strings.SplitSeq(o.platforms, ",") {
		platform, err := v1.ParsePlatform(written)
		if err != nil {
			return nil, fmt.Errorf("reading the platform %q: %w", written, err)
		}
		image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: o.time()}, Comment: "certificate authorities, user, /tmp"},
		})
		if err != nil {
			return nil, fmt.Errorf("making the base: %w", err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("making the base: %w", err)
		}
		config = config.DeepCopy()
		config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
		config.Config.WorkingDir = "/"
		if image, err = mutate.ConfigFile(image, config); err != nil {
			return nil, fmt.Errorf("making the base: %w", err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index, nil
}

// files is the base's layer.
func files(o options) ([]byte, error) {
	authorities := &bytes.Buffer{}
	for root := range bundle.Roots() {
		// A root that is only trusted for what is older cannot be told so in PEM.
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(authorities, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, fmt.Errorf("writing the certificate authorities: %w", err)
		}
	}
	content := &bytes.Buffer{}
	writer := tar.NewWriter(content)
	for _, entry := range []struct {
		name string
		mode int64
		data []byte // nil for a folder
	}{
		{"etc/", 0o755, nil},
		{"etc/passwd", 0o644, []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{"etc/group", 0o644, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{"etc/ssl/", 0o755, nil},
		{"etc/ssl/certs/", 0o755, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, authorities.Bytes()},
		// Layouts of signatures are judged there. A chart that mounts the root file
		// system read-only mounts something over it.
		{"tmp/", 0o1777, nil},
	} {
		header := &tar.Header{Name: entry.name, Mode: entry.mode, ModTime: o.time(), Typeflag: tar.TypeDir, Format: tar.FormatPAX}
		if entry.data != nil {
			header.Typeflag, header.Size = tar.TypeReg, int64(len(entry.data))
		}
		if err := writer.WriteHeader(header); err != nil {
			return nil, fmt.Errorf("writing %s: %w", entry.name, err)
		}
		if _, err := writer.Write(entry.data); err != nil {
			return nil, fmt.Errorf("writing %s: %w", entry.name, err)
		}
	}
	return content.Bytes(), writer.Close()
}
