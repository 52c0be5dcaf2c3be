// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/pratique-dev/pratique/policy"
)

const (
	// maxPlatforms is how many manifests are read below one image. The largest
	// public images have some 20, and half of them only describe the others.
	maxPlatforms = 64
	// maxConfigs bounds the configs of all of them together, in bytes. One is a
	// few KB.
	maxConfigs = 4 << 20
)

// Configs reads the configs of an image: of an index, those of all that it lists,
// also of what only describes an image. They are named after their platforms, as
// os/architecture[/variant].
func (c *Client) Configs(ctx context.Context, image policy.Image) (map[string]json.RawMessage, error) {
	access, err := c.access(ctx, image)
	if err != nil {
		return nil, err
	}
	found := configs{access: access, byPlatform: map[string]json.RawMessage{}, left: maxConfigs}
	return found.byPlatform, found.read(ctx, image.Digest)
}

// configs is what was read so far.
type configs struct {
	access     *access
	byPlatform map[string]json.RawMessage
	manifests  int
	left       int // bytes that configs may have
}

// below is what is read of the manifest of an image: an index has Manifests, any
// other a Config. Who reads both may not run what was looked at.
type below struct {
	Manifests descriptors `json:"manifests"`
	Config    descriptor  `json:"config"`
}

// read reads what is below a digest.
func (c *configs) read(ctx context.Context, digest string) error {
	const what = "image"
	if c.manifests++; c.manifests > 1+maxPlatforms {
		return c.tooMany()
	}
	var found below
	err := c.access.image(ctx, digest, func(body []byte) error {
		if err := json.Unmarshal(body, &found); err != nil {
			return garbageError(c.access.host, what)
		}
		return nil
	})
	if err != nil {
		return err
	}
	list := found.Manifests
	switch {
	case list.more || len(list.items) > maxPlatforms:
		return c.tooMany()
	case (len(list.items) > 0) == (found.Config.UntrustedDigest != ""):
		return garbageError(c.access.host, what)
	case len(list.items) == 0:
		return c.config(ctx, found.Config)
	}
	for _, one := range list.items {
		if err := c.readListed(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

func (c *configs) readListed(ctx context.Context, one descriptor) error {
	digest, err := checkedDigest(c.access.host, one.UntrustedDigest)
	if err != nil {
		return err
	}
	return c.read(ctx, digest)
}

func (c *configs) tooMany() error {
	return &Error{
		Reason:  policy.ReasonLimit,
		Message: fmt.Sprintf("the image at %s lists more than the %d others whose configs are read", c.access.host, maxPlatforms),
	}
}

func (c *configs) config(ctx context.Context, from descriptor) error {
	const what = "config of the image"
	digest, err := checkedDigest(c.access.host, from.UntrustedDigest)
	if err != nil {
		return err
	}
	var config *v1.ConfigFile
	_, err = c.access.do(ctx, request{
		method: http.MethodGet, path: "blobs/" + digest, what: what, limit: int64(c.left),
		take: func(untrustedBody []byte) error {
			// Policies are asked about the fields of that type, and no others.
			parsed, err := v1.ParseConfigFile(bytes.NewReader(untrustedBody))
			if err != nil || digestOf(untrustedBody) != digest {
				return garbageError(c.access.host, what)
			}
			config = parsed
			return nil
		},
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(config)
	if err != nil {
		return garbageError(c.access.host, what)
	}
	if c.left -= len(text); c.left < 0 {
		return limitError(c.access.host, what, maxConfigs)
	}
	platform := v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant, OSVersion: config.OSVersion}
	name := platform.String()
	// Which of two runs nobody can tell. Those of no platform are attestations,
	// which do not run.
	if known, ok := c.byPlatform[name]; ok && !bytes.Equal(known, text) && config.OS != "" && config.OS != "unknown" {
		return &Error{Reason: policy.ReasonUnexpected, Message: fmt.Sprintf("the image at %s has two configs for %.64q", c.access.host, name)}
	}
	c.byPlatform[name] = text
	return nil
}
