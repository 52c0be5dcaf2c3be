// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/pratique-dev/pratique/registry/credential"
)

// The keychain's own errors may repeat what a helper program printed, which is
// where passwords come from.
var (
	errUserConfig = errors.New("your Docker configuration cannot be read, or its credential helper is missing or failed")
	errHelperLate = errors.New("the credential helper of your Docker configuration did not answer in time")
)

// userCredentials are those of the user who runs the command, found as docker
// and podman find them: in config.json or by the helper program that it names
// for the host, run for the repositories that are asked about and no others.
func userCredentials() credential.Config {
	return credential.FromChain(func(ctx context.Context, host, path string) (authn.AuthConfig, error) {
		repository, err := name.NewRepository(host + "/" + path)
		if err != nil {
			return authn.AuthConfig{}, errUserConfig // not reached: it was parsed before
		}
		type answer struct {
			auth *authn.AuthConfig
			err  error
		}
		// A helper may wait for a person, and cannot be told to stop.
		answered := make(chan answer, 1)
		go func() {
			authenticator, err := authn.Resolve(ctx, authn.DefaultKeychain, repository)
			if err != nil {
				answered <- answer{err: err}
				return
			}
			auth, err := authn.Authorization(ctx, authenticator)
			answered <- answer{auth, err}
		}()
		select {
		case got := <-answered:
			if got.err != nil {
				return authn.AuthConfig{}, errUserConfig
			}
			return *got.auth, nil
		case <-ctx.Done():
			return authn.AuthConfig{}, errHelperLate
		}
	})
}
