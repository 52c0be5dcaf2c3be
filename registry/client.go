// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// Bounds of what is read (spec section 6), in bytes.
const (
	maxManifest    = 4 << 20
	maxSignature   = 1 << 20
	maxAttestation = 4 << 20
)

// manifestTypes is what an image may be: an index is examined as the index.
var manifestTypes = strings.Join([]string{
	string(types.OCIManifestSchema1),
	string(types.OCIImageIndex),
	string(types.DockerManifestSchema2),
	string(types.DockerManifestList),
}, ", ")

// Client asks registries. It is safe for concurrent use.
type Client struct {
	ways       *ways
	sessions   *sessions
	identifier credential.Identifier
	referrers  *lacking
	places     *hostPlaces
	large      chan struct{} // a place for each large body
	// local says that lookasides may be folders.
	local bool
}

// New returns a Client.
func New(o Options) (*Client, error) {
	key := make([]byte, sha256.Size)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("making the key of credential identities: %w", err)
	}
	ways, err := newWays(o)
	if err != nil {
		return nil, err
	}
	sessions, err := newSessions()
	if err != nil {
		return nil, err
	}
	lacking, err := newLacking()
	if err != nil {
		return nil, err
	}
	places, err := newHostPlaces()
	if err != nil {
		return nil, err
	}
	return &Client{
		ways: ways, sessions: sessions, identifier: credential.NewIdentifier(key), referrers: lacking, places: places,
		large: make(chan struct{}, maxLarge), local: o.LocalLookaside,
	}, nil
}

// Identify returns the identity of the credentials that an image is asked for
// with, and of the way that it is asked on: whom another way leads to may have
// said something else. What is said elsewhere counts as well, so the credentials
// and ways for that are part of it.
func (c *Client) Identify(ctx context.Context, image policy.Image) (credential.Identity, error) {
	identity, err := c.identify(ctx, image)
	if err != nil || len(image.Elsewhere) == 0 {
		return identity, err
	}
	all := []string{string(identity)}
	for _, other := range image.Elsewhere {
		there, err := c.identify(ctx, other)
		if err != nil { // which may matter for one signer alone: who asks there is told
			there = credential.Identity("none: " + err.Error())
		}
		all = append(all, string(there))
	}
	return credential.Identity(fmt.Sprintf("%q", all)), nil
}

// identify is Identify for one repository.
func (c *Client) identify(ctx context.Context, image policy.Image) (credential.Identity, error) {
	terms, err := c.terms(image)
	if err != nil {
		return "", err
	}
	ring, err := image.Ring(ctx)
	if err != nil {
		return "", &Error{Reason: policy.ReasonCredentials, Message: err.Error(), cause: err}
	}
	identity := c.identifier.Identify(ctx, ring, image.Reference.Repository())
	if terms.key != "" {
		identity += credential.Identity(" " + terms.key)
	}
	return identity, nil
}

// Resolve implements [policy.Resolver] by one HEAD request, or a GET where the
// registry does not say the digest. Registries may answer as they like: the
// digest is verified before anything runs by it.
func (c *Client) Resolve(ctx context.Context, image policy.Image) (policy.Resolution, error) {
	access, err := c.access(ctx, image)
	if err != nil {
		return policy.Resolution{}, err
	}
	r := request{
		method: http.MethodHead,
		path:   "manifests/" + image.Reference.Tag(),
		accept: manifestTypes,
		what:   fmt.Sprintf("tag %q", image.Reference.Tag()),
		limit:  maxManifest,
	}
	got, err := access.do(ctx, r)
	if err != nil {
		return policy.Resolution{}, err
	}
	if digest := got.header.Get("Docker-Content-Digest"); digest != "" {
		digest, err := checkedDigest(access.host, digest)
		return policy.Resolution{Digest: digest}, err
	}
	r.method = http.MethodGet
	var resolved policy.Resolution
	r.take = func(untrustedBody []byte) error {
		resolved.Digest = digestOf(untrustedBody)
		return nil
	}
	_, err = access.do(ctx, r)
	return resolved, err
}

// checkedDigest lets only a digest through, whatever the registry sent.
func checkedDigest(host, untrustedDigest string) (string, error) {
	if !reference.IsDigest(untrustedDigest) {
		return "", garbageError(host, "digest")
	}
	return untrustedDigest, nil
}

func digestOf(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Manifest reads the manifest of an image or index by its digest, which is
// verified. What it describes is as untrusted as who made it.
func (c *Client) Manifest(ctx context.Context, image policy.Image) ([]byte, error) {
	access, err := c.access(ctx, image)
	if err != nil {
		return nil, err
	}
	digest, err := checkedDigest(access.host, image.Digest)
	if err != nil {
		return nil, err
	}
	var manifest []byte
	err = access.image(ctx, digest, func(body []byte) error {
		manifest = fitted(body)
		return nil
	})
	return manifest, err
}

// readable reports whether an image itself can be read, and is what its digest
// says: nil, or why not.
func (a *access) readable(ctx context.Context, digest string) error {
	return a.image(ctx, digest, func([]byte) error { return nil })
}

// image has the manifest of an image taken, if it is what its digest says.
func (a *access) image(ctx context.Context, digest string, take func(body []byte) error) error {
	_, err := a.manifest(ctx, digest, "image", func(untrustedBody []byte) error {
		if digestOf(untrustedBody) != digest {
			return &Error{
				Reason:  policy.ReasonDigestMismatch,
				Message: fmt.Sprintf("%s sent something else for the digest %s", a.host, digest),
			}
		}
		return take(untrustedBody)
	})
	return err
}

// manifest has the manifest of a tag or digest taken.
func (a *access) manifest(ctx context.Context, tagOrDigest, what string, take func(untrustedBody []byte) error) (answer, error) {
	return a.do(ctx, request{
		method: http.MethodGet, path: "manifests/" + tagOrDigest, accept: manifestTypes, what: what, limit: maxManifest, take: take,
	})
}

// fitted is a body that may be kept: not in what it was read into, if that is much
// larger.
func fitted(body []byte) []byte {
	if cap(body)-len(body) > largeBody {
		return bytes.Clone(body)
	}
	return body
}

// blob reads a blob as the request says. The digest is one that a registry sent,
// and is checked before it becomes part of an address.
func (a *access) blob(ctx context.Context, untrustedDigest string, r request) ([]byte, error) {
	digest, err := checkedDigest(a.host, untrustedDigest)
	if err != nil {
		return nil, err
	}
	var blob []byte
	r.method, r.path = http.MethodGet, "blobs/"+digest
	r.take = func(untrustedBody []byte) error {
		if digestOf(untrustedBody) != digest {
			return garbageError(a.host, r.what)
		}
		blob = fitted(untrustedBody)
		return nil
	}
	_, err = a.do(ctx, r)
	return blob, err
}
