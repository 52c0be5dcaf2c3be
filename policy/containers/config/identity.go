// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"

	distribution "github.com/distribution/reference"

	"github.com/pratique-dev/pratique/reference"
)

// The types of identities (containers-policy.json(5), "signedBy").
const (
	matchExact             = "matchExact"
	matchRepoDigestOrExact = "matchRepoDigestOrExact"
	matchRepository        = "matchRepository"
	exactReference         = "exactReference"
	exactRepository        = "exactRepository"
	remapIdentity          = "remapIdentity"
)

var (
	identityTypes   = []string{matchExact, matchRepoDigestOrExact, matchRepository, exactReference, exactRepository, remapIdentity}
	identityMembers = map[string][]string{
		matchExact:             {typeName},
		matchRepoDigestOrExact: {typeName},
		matchRepository:        {typeName},
		exactReference:         {typeName, "dockerReference"},
		exactRepository:        {typeName, "dockerRepository"},
		remapIdentity:          {typeName, "prefix", "signedPrefix"},
	}
)

const identityHint = `write an object such as {"type": "matchRepository"}, or leave it out for matchRepoDigestOrExact`

// signedIdentity checks a requirement's and returns its type, which is empty if
// that is not known.
func (c *checker) signedIdentity(f fields) string {
	m, ok := f["signedIdentity"]
	if !ok {
		return matchRepoDigestOrExact
	}
	return c.identity(m)
}

// identity checks what a signature has to say it is for.
func (c *checker) identity(m member) string {
	list, ok := c.members(m.value, quote(m.name), identityHint)
	if !ok {
		return ""
	}
	kind, ok := c.typeOf(list, m.value, "an identity", identityTypes)
	if !ok {
		return ""
	}
	what := "an identity of type " + kind
	f := c.named(list, what, identityMembers[kind])
	at := m.value.StartOffset
	switch kind {
	case exactReference:
		if s, ok := c.required(f, at, what, "dockerReference", "write the image's reference"); ok {
			c.reference(f["dockerReference"], s)
		}
	case exactRepository:
		if s, ok := c.required(f, at, what, "dockerRepository", "write the image's repository"); ok {
			c.repository(f["dockerRepository"], s)
		}
	case remapIdentity:
		for _, name := range identityMembers[kind][1:] {
			if s, ok := c.required(f, at, what, name, "write the beginning of repositories' names"); ok {
				c.prefix(f[name], s)
			}
		}
	}
	return kind
}

func (c *checker) reference(m member, s string) {
	named, err := distribution.ParseNormalizedNamed(s)
	switch {
	case err != nil:
		c.mistakef(m.value.StartOffset, "write one such as registry.example.com/app:v1", "%q: %s is no image reference: %v", m.name, quote(s), err)
	case distribution.IsNameOnly(named):
		c.mistakef(m.value.StartOffset, "write the tag or digest too, or the type exactRepository", "%q: %s has no tag and no digest", m.name, quote(s))
	}
}

func (c *checker) repository(m member, s string) {
	named, err := distribution.ParseNormalizedNamed(s)
	switch {
	case err != nil:
		c.mistakef(m.value.StartOffset, "write one such as registry.example.com/app", "%q: %s is no repository: %v", m.name, quote(s), err)
	case !distribution.IsNameOnly(named):
		c.advisef(m.value.StartOffset, "write "+quote(named.Name()), "%q: %s has a tag or digest, which does not count", m.name, quote(s))
	}
}

// prefix checks the beginning of names that signatures say otherwise. It must be
// whole components, the first a host: the library takes others, and they never fit.
func (c *checker) prefix(m member, s string) {
	const hint = "write a host such as registry.example.com, or a host and the beginning of a path"
	at := m.value.StartOffset
	host, path, below := strings.Cut(s, "/")
	switch {
	case strings.Contains(s, "://"):
		c.mistakef(at, "write it without the scheme", "%q: %s has a scheme", m.name, quote(s))
	case strings.HasSuffix(s, "/"):
		c.mistakef(at, "write "+quote(strings.TrimRight(s, "/")), "%q: %s ends in a slash", m.name, quote(s))
	case !isHost(host):
		c.mistakef(at, hint, "%q: %s begins with no host, and never fits", m.name, quote(s))
	case !isWholeHost(host):
		c.mistakef(at, hint, "%q: %s is no host of a registry", m.name, quote(host))
	case below && !isRepository(host, path):
		c.mistakef(at, hint, "%q: %s is not the beginning of repositories' names: only lower case, no tag and no digest", m.name, quote(s))
	case reference.CanonicalHost(host) != host:
		c.advisef(at, "write "+quote(canonicalScope(s)), "%q: %s never fits: images are named in their canonical form", m.name, quote(s))
	}
}

// isRepository reports whether references can have that repository, by a name
// that is not taken for that of another.
func isRepository(host, path string) bool {
	named, err := distribution.ParseNormalizedNamed(host + "/" + path)
	return err == nil && distribution.IsNameOnly(named)
}
