// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"sync"

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
	keychain := &userKeychain{asked: map[string]*userAnswer{}}
	return credential.FromChain(keychain.find)
}

// userKeychain asks once for each repository and remembers the answer: a command
// runs for one user and not for long.
type userKeychain struct {
	mu    sync.Mutex
	asked map[string]*userAnswer
}

type userAnswer struct {
	done chan struct{} // closed once the rest is there
	auth authn.AuthConfig
	err  error
}

func (k *userKeychain) find(ctx context.Context, host, path string) (authn.AuthConfig, error) {
	repository, err := name.NewRepository(host + "/" + path)
	if err != nil {
		return authn.AuthConfig{}, errUserConfig // not reached: it was parsed before
	}
	got := k.ask(ctx, repository)
	select {
	case <-got.done:
		return got.auth, got.err
	case <-ctx.Done():
		return authn.AuthConfig{}, errHelperLate
	}
}

// ask has the question asked, unless it was before.
func (k *userKeychain) ask(ctx context.Context, repository name.Repository) *userAnswer {
	k.mu.Lock()
	defer k.mu.Unlock()
	got, ok := k.asked[repository.Name()]
	if ok {
		return got
	}
	got = &userAnswer{done: make(chan struct{}), err: errUserConfig}
	k.asked[repository.Name()] = got
	// A helper may wait for a person, and cannot be told to stop.
	go func() {
		defer close(got.done)
		authenticator, err := authn.Resolve(ctx, authn.DefaultKeychain, repository)
		if err != nil {
			return
		}
		if auth, err := authn.Authorization(ctx, authenticator); err == nil {
			got.auth, got.err = *auth, nil
		}
	}()
	return got
}
