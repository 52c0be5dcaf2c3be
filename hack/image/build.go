// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/ko/pkg/build"
	"github.com/sigstore/cosign/v3/pkg/oci"
)

// spdxType is the media type of an SPDX document in JSON (IANA).
const spdxType = "application/spdx+json"

// image is an image for all its platforms, and the SBOMs that refer to these.
type image struct {
	index v1.ImageIndex
	sboms []v1.Image
}

// compile builds the program for each platform, and an image of each.
func compile(ctx context.Context, o options) (*image, error) {
	index, err := base(o)
	if err != nil {
		return nil, err
	}
	from, err := name.ParseReference("scratch")
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: o.time()}
	options := []build.Option{
		build.WithBaseImages(func(context.Context, string) (name.Reference, build.Result, error) { return from, index, nil }),
		build.WithPlatforms(strings.Split(o.platforms, ",")...),
		build.WithCreationTime(created), build.WithKoDataCreationTime(created),
		build.WithDefaultEnv([]string{"CGO_ENABLED=0"}), build.WithTrimpath(true),
		build.WithDefaultFlags(strings.Fields(o.flags)), build.WithLdflags([]string{o.ldflags}),
		build.WithUser(user), build.WithSPDX(""), build.WithJobs(1),
	}
	for key, value := range o.labels {
		options = append(options, build.WithLabel(key, value), build.WithAnnotation(key, value))
	}
	builder, err := build.NewGo(ctx, o.dir, options...)
	if err != nil {
		return nil, fmt.Errorf("preparing the build: %w", err)
	}
	path, err := builder.QualifyImport(o.main)
	if err != nil {
		return nil, fmt.Errorf("finding %s: %w", o.main, err)
	}
	result, err := builder.Build(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("building %s: %w", o.main, err)
	}
	switch built := result.(type) {
	case oci.SignedImageIndex:
		return fromIndex(built)
	case oci.SignedImage: // of a single platform
		return fromImage(built)
	default:
		return nil, fmt.Errorf("building %s: it came to a %T", o.main, result)
	}
}

func fromIndex(built oci.SignedImageIndex) (*image, error) {
	made := &image{index: built}
	manifest, err := built.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, descriptor := range manifest.Manifests {
		one, err := built.SignedImage(descriptor.Digest)
		if err != nil {
			return nil, err
		}
		if err := made.describe(one); err != nil {
			return nil, err
		}
	}
	return made, nil
}

func fromImage(built oci.SignedImage) (*image, error) {
	config, err := built.ConfigFile()
	if err != nil {
		return nil, err
	}
	made := &image{index: mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: built, Descriptor: v1.Descriptor{Platform: config.Platform()},
	})}
	return made, made.describe(built)
}

// describe adds the SBOM of one platform's image, as an artifact that refers to it.
func (i *image) describe(one oci.SignedImage) error {
	file, err := one.Attachment("sbom")
	if err != nil {
		return fmt.Errorf("reading the SBOM: %w", err)
	}
	document, err := file.Payload()
	if err != nil {
		return fmt.Errorf("reading the SBOM: %w", err)
	}
	subject, err := partial.Descriptor(one)
	if err != nil {
		return err
	}
	// Registries tell the type of an artifact by its config's.
	artifact := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), spdxType)
	artifact, err = mutate.Append(artifact, mutate.Addendum{Layer: static.NewLayer(document, spdxType), MediaType: spdxType})
	if err != nil {
		return fmt.Errorf("wrapping the SBOM: %w", err)
	}
	referring, ok := mutate.Subject(artifact, v1.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size}).(v1.Image)
	if !ok {
		return errors.New("wrapping the SBOM: it came to no image")
	}
	i.sboms = append(i.sboms, referring)
	return nil
}
