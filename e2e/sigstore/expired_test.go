// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/cosign/v3/pkg/cosign"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/sigstore"
)

var update = flag.Bool("update", false, "make testdata/expired anew; its tests fail until ten minutes later")

// leafLifetime is what Fulcio gives every certificate.
const leafLifetime = 10 * time.Minute

// asCombination says how the case was signed.
func asCombination(e sigstore.ExpiredCase) combination {
	c := combination{keyless: true, timestamp: e.Timestamp, log: e.Log, form: ".sig", attest: e.Attestation}
	if e.Bundle {
		c.form = "bundle"
	}
	return c
}

// What says when it was signed keeps a signature good after its certificate has
// expired; without that it was good for ten minutes. Certificates that are made
// in a test cannot show the second.
func TestExpired(t *testing.T) {
	t.Parallel()
	if *update {
		makeExpired(t)
		return // the data of this process is that from before
	}
	e, err := sigstore.PushExpired(t.Context(), startRegistry(t)+"/expired")
	if err != nil {
		t.Fatal(err)
	}
	// The authorities were made in the same second as the certificates, an hour
	// before which their validity begins.
	if expiry := e.Root.Fulcio.Root.NotBefore.Add(time.Hour + 2*leafLifetime); time.Now().Before(expiry) {
		t.Fatalf("the certificates may not have expired before %s", expiry)
	}
	for _, expired := range e.Cases {
		t.Run(expired.Name, func(t *testing.T) {
			t.Parallel()
			image, err := name.NewDigest(expired.Image)
			if err != nil {
				t.Fatal(err)
			}
			c := asCombination(expired)
			good := expectation{
				root: e.Root, log: c.log != signer.NoLog, stamped: c.timestamp,
				identity: cosign.Identity{Issuer: sigstore.GoogleIssuer, Subject: sigstore.ExpiredSubject},
			}
			if err := c.verify(t, image, good); err != nil {
				t.Errorf("not verified: %v", err)
			}
			for name, spoilt := range c.spoilt(t, good) {
				if err := c.verify(t, image, spoilt); err == nil {
					t.Errorf("%s: verified", name)
				}
			}
			timeless := good
			timeless.log, timeless.stamped = false, false
			// Of bundles it is not said what is wrong with the certificate; nothing
			// but the time has changed.
			want := map[bool]string{false: "expired", true: "leaf certificate verification failed"}[c.bundle()]
			if err := c.verify(t, image, timeless); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q without the time", err, want)
			}
		})
	}
}

// makeExpired signs an image in every way of the cases and keeps what the
// registry then has.
func makeExpired(t *testing.T) {
	t.Helper()
	dir := filepath.Join("testdata", "expired")
	for _, part := range []string{"blobs", "index.json", "oci-layout"} {
		if err := os.RemoveAll(filepath.Join(dir, part)); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t)
	if err := os.WriteFile(filepath.Join(dir, "trusted_root.json"), append(s.TrustedRoot, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	image = mutate.MediaType(image, types.OCIManifestSchema1)
	if err := path.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	token, err := s.EmailToken(sigstore.GoogleIssuer, sigstore.ExpiredSubject)
	if err != nil {
		t.Fatal(err)
	}
	host := startRegistry(t)
	for _, expired := range sigstore.ExpiredCases() {
		ref := write(t, host+"/expired/"+expired.Name, image)
		c := asCombination(expired)
		c.sign(t, ref, signer.Options{IdentityToken: token, Services: s.Services})
		place, signed := signatureOf(t, c, ref)
		err := path.AppendImage(signed, layout.WithAnnotations(map[string]string{
			sigstore.ExpiredName: expired.Name + place,
		}))
		if err != nil {
			t.Fatal(err)
		}
	}
}

// signatureOf returns what was written beside the image, and where: its tag or
// its digest.
func signatureOf(t *testing.T, c combination, image name.Digest) (place string, signed v1.Image) {
	t.Helper()
	place = ":" + tag(image) + map[bool]string{false: ".sig", true: ".att"}[c.attest]
	if c.bundle() {
		index, err := remote.Referrers(image)
		if err != nil {
			t.Fatal(err)
		}
		manifest, err := index.IndexManifest()
		if err != nil || len(manifest.Manifests) != 1 {
			t.Fatalf("%d bundles (%v), want 1", len(manifest.Manifests), err)
		}
		place = fmt.Sprintf("@%s", manifest.Manifests[0].Digest)
	}
	ref, err := name.ParseReference(image.Context().String() + place)
	if err != nil {
		t.Fatal(err)
	}
	signed, err = remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	return place, signed
}
