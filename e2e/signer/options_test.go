// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package signer_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
)

// What the options cannot mean is refused before anything is signed. What they
// can mean is tested in package sigstore, with its servers.
func TestOptionsRefused(t *testing.T) {
	t.Parallel()
	key := &signer.Key{PrivateFile: "never read"}
	about := signer.Attestation{Type: "custom", Predicate: []byte("{}")}
	both := []signer.OptionsFunc{cosign2.SignWith, cosign3.SignWith}
	attest := []signer.OptionsFunc{cosign2.Attest, cosign3.Attest}
	for _, test := range []struct {
		name    string
		sign    []signer.OptionsFunc
		options signer.Options
		want    string
	}{
		{"nobody signs", both, signer.Options{}, "either a key or an identity token"},
		{"two sign", both, signer.Options{Key: key, IdentityToken: "x"}, "either a key or an identity token"},
		{"nobody attests", attest, signer.Options{Attestation: about}, "either a key or an identity token"},
		{"predicate in a signature", both, signer.Options{Key: key, Attestation: about}, "no predicate"},
		{"no predicate", attest, signer.Options{Key: key, Attestation: signer.Attestation{Type: "custom"}}, "wants a type and a predicate"},
		{"no type", attest, signer.Options{Key: key, Attestation: signer.Attestation{Predicate: []byte("{}")}}, "wants a type and a predicate"},
		{"annotations", attest, signer.Options{Key: key, Attestation: about, Annotations: map[string]string{"a": "b"}}, "no annotations"},
		{"Rekor 2", []signer.OptionsFunc{cosign2.SignWith}, signer.Options{Key: key, Log: signer.RekorV2}, "Rekor 2"},
		{"Rekor 2", []signer.OptionsFunc{cosign2.Attest}, signer.Options{Key: key, Log: signer.RekorV2, Attestation: about}, "Rekor 2"},
		{"trusted root", both, signer.Options{Key: key, Services: signer.Services{TrustedRoot: []byte("{")}}, "reading the trusted root"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, sign := range test.sign {
				err := sign(t.Context(), "127.0.0.1:1/acme/app:v1", test.options)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q in it", err, test.want)
				}
			}
		})
	}
}

// The environment is as it was, whatever happens, and nobody signs in that of
// another.
func TestEnvironment(t *testing.T) {
	const name = "COSIGN_REPOSITORY"
	t.Setenv("COSIGN_DOCKER_MEDIA_TYPES", "before")
	elsewhere := signer.Options{Repository: "127.0.0.1:1/sigs", DockerMediaTypes: true}
	failure := errors.New("signing failed")

	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			err := elsewhere.InEnvironment(func() error {
				time.Sleep(time.Millisecond) // long enough for another to come along
				if got := os.Getenv(name) + os.Getenv("COSIGN_DOCKER_MEDIA_TYPES"); got != "127.0.0.1:1/sigs1" {
					t.Errorf("signs in %q", got)
				}
				return failure
			})
			if !errors.Is(err, failure) {
				t.Errorf("%v, want what signing returned", err)
			}
		})
		all.Go(func() {
			_ = signer.Options{}.InEnvironment(func() error {
				time.Sleep(time.Millisecond)
				if got, ok := os.LookupEnv(name); ok {
					t.Errorf("signs in another's environment: %q", got)
				}
				return nil
			})
		})
	}
	all.Wait()
	if got, ok := os.LookupEnv(name); ok {
		t.Errorf("%s=%q is left", name, got)
	}
	if got := os.Getenv("COSIGN_DOCKER_MEDIA_TYPES"); got != "before" {
		t.Errorf("COSIGN_DOCKER_MEDIA_TYPES=%q, want it as before", got)
	}
}
