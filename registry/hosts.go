// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// lackingFor is how long it is remembered that a host has no referrers API.
	lackingFor = 10 * time.Minute
	// placesFor is how long a host's places are kept after they were last
	// asked for: longer than anything holds one.
	placesFor = 10 * time.Minute
	// maxHosts is how many hosts are remembered.
	maxHosts = 1000
)

// lacking remembers which hosts have no referrers API.
type lacking struct {
	hosts *otter.Cache[string, struct{}]
}

func newLacking() (*lacking, error) {
	hosts, err := otter.New(&otter.Options[string, struct{}]{
		MaximumSize:      maxHosts,
		ExpiryCalculator: otter.ExpiryWriting[string, struct{}](lackingFor),
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of hosts: %w", err)
	}
	return &lacking{hosts: hosts}, nil
}

func (l *lacking) has(host string) bool {
	_, ok := l.hosts.GetIfPresent(host)
	return ok
}

func (l *lacking) forget(host string) { l.hosts.Invalidate(host) }

func (l *lacking) remember(host string) { l.hosts.Set(host, struct{}{}) }

// hostPlaces are the places of each host.
type hostPlaces struct {
	hosts *otter.Cache[string, *places]
}

func newHostPlaces() (*hostPlaces, error) {
	hosts, err := otter.New(&otter.Options[string, *places]{
		MaximumSize:      maxHosts,
		ExpiryCalculator: otter.ExpiryAccessing[string, *places](placesFor),
	})
	if err != nil {
		return nil, fmt.Errorf("making the cache of hosts: %w", err)
	}
	return &hostPlaces{hosts: hosts}, nil
}

func (h *hostPlaces) of(host string) *places {
	made, _ := h.hosts.ComputeIfAbsent(host, func() (*places, bool) { return newPlaces(), false })
	return made
}
