// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/pratique-dev/pratique/e2e/signer"
)

// ExpiredSubject is whom the certificates of Expired name; their issuer is
// GoogleIssuer.
const ExpiredSubject = "robot@example.com"

const (
	expiredDir = "testdata/expired"
	// expiredName is the annotation of a manifest in the layout that says where it
	// belongs: "repository:tag", or "repository" for what has no tag. The image
	// itself has none, for it belongs to all.
	expiredName = "dev.pratique.e2e.place"
)

//go:embed testdata/expired
var expired embed.FS

// Expired is what was signed with certificates that have expired since.
type Expired struct {
	// Root is that of the Sigstore that was.
	Root  Root
	Cases []ExpiredCase
}

// An ExpiredCase is one image of Expired.
type ExpiredCase struct {
	// Name is the last part of the repository.
	Name string
	// Image is the image with its digest, in the registry.
	Image string
	// Bundle says that cosign 3 signed, and not cosign 2; Attestation that what it
	// signed is an attestation of type custom.
	Bundle, Attestation bool
	// Log and Timestamp are what says when it was signed.
	Log       signer.Log
	Timestamp bool
}

// expiredCases are those in the data. Each has something that says when.
func expiredCases() []ExpiredCase {
	return []ExpiredCase{
		{Name: "sig-rekor1", Log: signer.RekorV1},
		{Name: "sig-timestamp", Timestamp: true},
		{Name: "att-rekor1", Log: signer.RekorV1, Attestation: true},
		{Name: "att-timestamp", Timestamp: true, Attestation: true},
		{Name: "bundle-rekor1", Bundle: true, Log: signer.RekorV1},
		{Name: "bundle-timestamp", Bundle: true, Timestamp: true},
		{Name: "bundle-rekor2", Bundle: true, Log: signer.RekorV2, Timestamp: true},
		{Name: "bundle-att-rekor1", Bundle: true, Log: signer.RekorV1, Attestation: true},
		{Name: "bundle-att-timestamp", Bundle: true, Timestamp: true, Attestation: true},
		{Name: "bundle-att-rekor2", Bundle: true, Log: signer.RekorV2, Timestamp: true, Attestation: true},
	}
}

// PushExpired pushes an image with signatures into one repository for each case,
// below the given one, such as "127.0.0.1:5000/expired". It is data that this
// package's tests once made with the servers; see testdata/expired/README.md.
func PushExpired(ctx context.Context, below string) (*Expired, error) {
	content, err := expired.ReadFile(expiredDir + "/trusted_root.json")
	if err != nil {
		return nil, fmt.Errorf("reading the expired trusted root: %w", err)
	}
	e := &Expired{}
	if e.Root, err = ParseRoot(content); err != nil {
		return nil, err
	}
	// The library reads layouts from disk alone.
	dir, err := os.MkdirTemp("", "expired-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	part, err := fs.Sub(expired, expiredDir)
	if err != nil {
		return nil, fmt.Errorf("opening the expired images: %w", err)
	}
	if err := os.CopyFS(dir, part); err != nil {
		return nil, fmt.Errorf("copying the expired images: %w", err)
	}
	digest, err := pushLayout(ctx, dir, below)
	if err != nil {
		return nil, err
	}
	for _, c := range expiredCases() {
		c.Image = below + "/" + c.Name + "@" + digest
		e.Cases = append(e.Cases, c)
	}
	return e, nil
}

// pushLayout pushes every manifest of the layout to where it belongs and returns
// the image's digest.
func pushLayout(ctx context.Context, dir, below string) (digest string, err error) {
	path, err := layout.FromPath(dir)
	if err != nil {
		return "", fmt.Errorf("opening the expired images: %w", err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		return "", fmt.Errorf("opening the expired images: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return "", fmt.Errorf("reading the expired images: %w", err)
	}
	for _, descriptor := range manifest.Manifests {
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			return "", fmt.Errorf("reading the expired image %s: %w", descriptor.Digest, err)
		}
		places := []string{descriptor.Annotations[expiredName]}
		if places[0] == "" {
			digest = descriptor.Digest.String()
			places = everywhere(digest)
		}
		for _, place := range places {
			if err := pushTo(ctx, below+"/"+place, image); err != nil {
				return "", err
			}
		}
	}
	if digest == "" {
		return "", errors.New("there is no image among the expired ones")
	}
	return digest, nil
}

// everywhere names the image in the repository of each case.
func everywhere(digest string) []string {
	var places []string
	for _, c := range expiredCases() {
		places = append(places, c.Name+"@"+digest)
	}
	return places
}

func pushTo(ctx context.Context, place string, image v1.Image) error {
	ref, err := name.ParseReference(place)
	if err != nil {
		return fmt.Errorf("naming an expired image: %w", err)
	}
	if err := remote.Write(ref, image, remote.WithContext(ctx)); err != nil {
		return fmt.Errorf("pushing %s: %w", ref, err)
	}
	return nil
}

// ParseRoot reads a trusted_root.json that Root.JSON wrote.
func ParseRoot(content []byte) (Root, error) {
	trusted, err := root.NewTrustedRootFromJSON(content)
	if err != nil {
		return Root{}, fmt.Errorf("reading a trusted root: %w", err)
	}
	var r Root
	for _, authority := range trusted.FulcioCertificateAuthorities() {
		r.Fulcio, _ = authority.(*root.FulcioCertificateAuthority)
	}
	for _, authority := range trusted.TimestampingAuthorities() {
		r.Timestamp, _ = authority.(*root.SigstoreTimestampingAuthority)
	}
	for _, log := range trusted.CTLogs() {
		r.CTLog = log
	}
	for _, log := range trusted.RekorLogs() {
		// See newKeys.
		if _, ok := log.PublicKey.(ed25519.PublicKey); ok {
			r.Rekor2 = log
		} else {
			r.Rekor1 = log
		}
	}
	// What was not understood is missing now.
	again, err := r.JSON()
	if err != nil {
		return Root{}, err
	}
	if same, err := sameJSON(content, again); err != nil || !same {
		return Root{}, errors.Join(errors.New("reading a trusted root: it has parts that this package does not write"), err)
	}
	return r, nil
}

func sameJSON(a, b []byte) (bool, error) {
	var canonical [2][]byte
	for i, content := range [][]byte{a, b} {
		var value any
		if err := json.Unmarshal(content, &value); err != nil {
			return false, err
		}
		var err error
		if canonical[i], err = json.Marshal(value); err != nil {
			return false, err
		}
	}
	return bytes.Equal(canonical[0], canonical[1]), nil
}
