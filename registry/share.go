// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/maypok86/otter/v2"
)

const (
	// maxPerCredential is how many requests with one credential are under way at
	// one host: a registry that hangs for one of them, which may be a tenant's
	// doing, has connections left for the others.
	maxPerCredential = 16
	// sharesFor is how long a credential's share is kept after it was last asked
	// for: longer than anything holds a part of it.
	sharesFor = 10 * time.Minute
	// maxShares is how many credentials' shares are remembered.
	maxShares = 10_000

	// largeBody is where bodies begin to be large, in bytes. Those of real
	// manifests are a tenth of it.
	largeBody = 256 << 10
	// maxLarge is how many large bodies are in memory at the same time, of all
	// hosts. With what they are read into, these are some 150 MiB at most, or twice
	// that where all of them are lists of signatures. Those that are kept, which are
	// attestations and what such a list holds, keep their place.
	maxLarge = 16
	// maxHostLarge is how many of those one host may have: it may send the rest
	// of them as slowly as it likes.
	maxHostLarge = 4
)

// credentialAt is one credential, or none, at one host.
type credentialAt struct {
	host  string
	auth  authn.AuthConfig
	terms string
}

// shares are what each credential may take of its host's connections.
type shares struct {
	of *otter.Cache[credentialAt, chan struct{}]
}

func newShares() (*shares, error) {
	made, err := otter.New(&otter.Options[credentialAt, chan struct{}]{
		MaximumSize:      maxShares,
		ExpiryCalculator: otter.ExpiryAccessing[credentialAt, chan struct{}](sharesFor),
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of shares: %w", err)
	}
	return &shares{made}, nil
}

// take waits for a part of the share of a session's credential, which is given
// back by calling the function.
func (s *shares) take(ctx context.Context, key sessionKey) (back func(), err error) {
	host, _, _ := strings.Cut(key.repository, "/")
	at := credentialAt{host, key.auth, key.terms}
	share, _ := s.of.ComputeIfAbsent(at, func() (chan struct{}, bool) { return make(chan struct{}, maxPerCredential), false })
	return take(ctx, share)
}

// takeLarge waits for a place for a large body of a host.
func (c *Client) takeLarge(ctx context.Context, host string) (back func(), err error) {
	its, err := take(ctx, c.places.of(host).large)
	if err != nil {
		return nil, err
	}
	one, err := take(ctx, c.large)
	if err != nil {
		its()
		return nil, err
	}
	return func() { one(); its() }, nil
}

// take waits for a place, which is given back by calling the function.
func take(ctx context.Context, places chan struct{}) (back func(), err error) {
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
