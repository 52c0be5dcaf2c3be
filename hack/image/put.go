// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// save makes an OCI layout of it.
func (i *image) save(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("making the layout: %w", err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return fmt.Errorf("making the layout: %w", err)
	}
	if err := path.AppendIndex(i.index); err != nil {
		return fmt.Errorf("writing to the layout: %w", err)
	}
	for _, sbom := range i.sboms {
		if err := path.AppendImage(sbom); err != nil {
			return fmt.Errorf("writing an SBOM to the layout: %w", err)
		}
	}
	return nil
}

// send pushes it to a registry.
func (i *image) send(ctx context.Context, to string, insecure bool) error {
	var how []name.Option
	if insecure {
		how = append(how, name.Insecure)
	}
	reference, err := name.ParseReference(to, how...)
	if err != nil {
		return fmt.Errorf("reading -push: %w", err)
	}
	access := []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
	if err := remote.WriteIndex(reference, i.index, access...); err != nil {
		return fmt.Errorf("pushing to %s: %w", reference, err)
	}
	for _, sbom := range i.sboms {
		digest, err := sbom.Digest()
		if err != nil {
			return err
		}
		if err := remote.Write(reference.Context().Digest(digest.String()), sbom, access...); err != nil {
			return fmt.Errorf("pushing an SBOM to %s: %w", reference.Context(), err)
		}
	}
	return nil
}
