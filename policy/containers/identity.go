// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/docker/policyconfiguration"
	named "go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/types"

	"github.com/pratique-dev/pratique/policy"
)

// identity is the name by which an image is judged, to the library. There is
// nothing behind it that could be asked: what is judged is read elsewhere.
type identity struct {
	named.Named
	configured string
}

// identityOf is an image's name with its tag where the tag counts, else with its
// digest. All manifests of an index go by the index's.
func identityOf(image policy.Image) (identity, error) {
	var full named.Named
	repository, err := named.ParseNamed(image.Reference.Repository())
	if tag := image.Reference.Tag(); err == nil && tag != "" {
		full, err = named.WithTag(repository, tag)
	} else if err == nil {
		full, err = named.WithDigest(repository, digest.Digest(image.Digest))
	}
	if err != nil {
		return identity{}, fmt.Errorf("naming the image: %w", err)
	}
	configured, err := policyconfiguration.DockerReferenceIdentity(full)
	if err != nil {
		return identity{}, fmt.Errorf("naming the image: %w", err)
	}
	return identity{full, configured}, nil
}

var (
	_ types.ImageReference = identity{}
	_ types.ImageTransport = transport{}
)

// errNowhere is the answer to whoever wants to reach an image by its name.
var errNowhere = errors.New("this name leads nowhere")

// Transport implements [types.ImageReference].
func (identity) Transport() types.ImageTransport { return transport{} }

// StringWithinTransport implements [types.ImageReference].
func (i identity) StringWithinTransport() string { return "//" + i.String() }

// DockerReference implements [types.ImageReference].
func (i identity) DockerReference() named.Named { return i.Named }

// PolicyConfigurationIdentity implements [types.ImageReference].
func (i identity) PolicyConfigurationIdentity() string { return i.configured }

// PolicyConfigurationNamespaces implements [types.ImageReference].
func (i identity) PolicyConfigurationNamespaces() []string {
	return policyconfiguration.DockerReferenceNamespaces(i.Named)
}

// NewImage implements [types.ImageReference].
func (identity) NewImage(context.Context, *types.SystemContext) (types.ImageCloser, error) {
	return nil, errNowhere
}

// NewImageSource implements [types.ImageReference].
func (identity) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return nil, errNowhere
}

// NewImageDestination implements [types.ImageReference].
func (identity) NewImageDestination(context.Context, *types.SystemContext) (types.ImageDestination, error) {
	return nil, errNowhere
}

// DeleteImage implements [types.ImageReference].
func (identity) DeleteImage(context.Context, *types.SystemContext) error { return errNowhere }

// transport is called as that of registries is, by which scopes are written.
type transport struct{}

// Name implements [types.ImageTransport].
func (transport) Name() string { return "docker" }

// ParseReference implements [types.ImageTransport].
func (transport) ParseReference(string) (types.ImageReference, error) { return nil, errNowhere }

// ValidatePolicyConfigurationScope implements [types.ImageTransport].
func (transport) ValidatePolicyConfigurationScope(string) error { return nil }
