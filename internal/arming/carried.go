// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"time"
)

// carried notes since when both configurations have carried an authority.
type carried struct {
	mu sync.Mutex
	// From the certificate, as DER, to when it was first seen in all webhooks.
	seen map[string]time.Time
	// nowhere is since when there has been no configuration at all: then there is
	// no API server that would have to know an authority. Zero if there is one.
	nowhere time.Time
}

// forget is for a replica that cannot know any more.
func (c *carried) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen, c.nowhere = nil, time.Time{}
}

// since is since when all webhooks have carried an authority; zero if they do
// not.
func (c *carried) since(authority *x509.Certificate) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.nowhere.IsZero() {
		return c.nowhere
	}
	return c.seen[string(authority.Raw)]
}

// look takes note of both configurations as they are stored now.
func (c *carried) look(there pair) {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	before, sinceNowhere := c.seen, c.nowhere
	c.seen, c.nowhere = map[string]time.Time{}, time.Time{}
	if there == (pair{}) {
		c.nowhere = now
		if !sinceNowhere.IsZero() {
			c.nowhere = sinceNowhere
		}
		return
	}
	for authority := range inAll(there) {
		since, known := before[authority]
		if !known {
			since = now
		}
		c.seen[authority] = since
	}
}

// inAll are the authorities that every webhook of both has.
func inAll(there pair) map[string]bool {
	var common map[string]bool
	for _, o := range there {
		for _, w := range webhooks(o) {
			found := authorities(caBundle(w))
			if common == nil {
				common = found
			}
			for authority := range common {
				if !found[authority] {
					delete(common, authority)
				}
			}
		}
	}
	return common
}

// authorities are the certificates of a bundle, as DER.
func authorities(bundle []byte) map[string]bool {
	found := map[string]bool{}
	for block, rest := pem.Decode(bytes.Clone(bundle)); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			found[string(block.Bytes)] = true
		}
	}
	return found
}
