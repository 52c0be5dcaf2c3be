// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package credential reads registry credentials and says which of them a
// repository may be shown.
//
// A credential goes to the host, and below the path, that it is written for
// and nowhere else. The package is pure: it neither dials nor reads Secrets.
package credential

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-dev/pratique/reference"
)

// The types of Secrets that hold credentials, and the key they lie under
// (Kubernetes, "Pull an Image from a Private Registry").
const (
	TypeDockerConfigJSON = "kubernetes.io/dockerconfigjson"
	KeyDockerConfigJSON  = ".dockerconfigjson"
)

// Bounds of spec section 6.
const (
	// MaxSecrets is how many pull secrets of one object are read.
	MaxSecrets = 16
	// maxPerHost is how many credentials are tried at one repository.
	maxPerHost = 8
)

// Config is the credentials of one Secret. The zero value has none.
type Config struct {
	entries []entry
}

type entry struct {
	// scope is a host, or a host with the beginning of a path, canonical.
	scope string
	// written is the key that it stands under: two may have one scope.
	written string
	auth    authn.AuthConfig
}

// Parse reads the contents of a dockerconfigjson Secret. Its error never
// repeats what was read.
func Parse(data []byte) (Config, error) {
	var file struct {
		Auths map[string]authn.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return Config{}, errors.New("not a Docker configuration: malformed JSON, or a credential that cannot be decoded")
	}
	var c Config
	for key, auth := range file.Auths {
		scope, err := scopeOf(key)
		if err != nil {
			return Config{}, err
		}
		c.entries = append(c.entries, entry{scope: scope, written: key, auth: auth})
	}
	// The most specific first, then by name: maps have no order of their own.
	slices.SortFunc(c.entries, func(a, b entry) int {
		return cmp.Or(len(b.scope)-len(a.scope), strings.Compare(a.scope, b.scope), strings.Compare(a.written, b.written))
	})
	return c, nil
}

// scopeOf reads a key of auths: a host, optionally with scheme and path. The
// API version paths that docker login writes are not part of the scope.
func scopeOf(key string) (string, error) {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	if host == "" {
		return "", errors.New("not a Docker configuration: a credential has no host")
	}
	host, path = reference.CanonicalHost(host), strings.Trim(path, "/")
	for _, version := range []string{"v1", "v2"} {
		if path == version {
			path = ""
		}
		path = strings.TrimPrefix(path, version+"/")
	}
	if path == "" {
		return host, nil
	}
	return host + "/" + path, nil
}

// covers reports whether the credential is written for the repository. It
// matches whole path components only: acme is not acme-evil.
func (e entry) covers(repository string) bool {
	rest, ok := strings.CutPrefix(repository, e.scope)
	return ok && (rest == "" || rest[0] == '/')
}

// Ring is the credentials of one request, in the order in which they are tried.
// The zero value is anonymous.
type Ring struct {
	configs []Config
}

// NewRing joins the credentials of several Secrets.
func NewRing(configs ...Config) Ring { return Ring{configs: configs} }

// For lists the credentials to try at a canonical repository, at most 8, the
// most specific of each Secret. An empty list means anonymous access.
func (r Ring) For(repository string) []authn.AuthConfig {
	var auths []authn.AuthConfig
	for _, c := range r.configs {
		at := slices.IndexFunc(c.entries, func(e entry) bool { return e.covers(repository) })
		if at >= 0 && !slices.Contains(auths, c.entries[at].auth) {
			auths = append(auths, c.entries[at].auth)
		}
		if len(auths) == maxPerHost {
			break
		}
	}
	return auths
}

// Anonymous is the identity of a request that has no credential for a
// repository.
const Anonymous Identity = "anonymous"

// Identity stands for the credentials that a request has for one repository:
// equal identities may share what a registry answered, and nothing can be
// learned from one about a credential.
type Identity string

// Identifier computes identities under a key of its own. Make one per process.
type Identifier struct {
	key []byte
}

// NewIdentifier returns an Identifier with a key of at least 16 random bytes.
func NewIdentifier(key []byte) Identifier { return Identifier{key: key} }

// Identify returns the identity of the credentials that match the canonical
// repository: an HMAC-SHA-256 over their contents, never over a Secret's name.
func (i Identifier) Identify(r Ring, repository string) Identity {
	auths := r.For(repository)
	if len(auths) == 0 {
		return Anonymous
	}
	mac := hmac.New(sha256.New, i.key)
	for _, a := range auths {
		for _, part := range []string{a.Username, a.Password, a.Auth, a.IdentityToken, a.RegistryToken} {
			// The length keeps ("ab", "c") apart from ("a", "bc").
			fmt.Fprintf(mac, "%d:%s", len(part), part)
		}
	}
	return Identity(mac.Sum(nil))
}

// Source finds the credentials of one request when they are first needed: a
// request whose verdicts are cached needs none. It is safe for concurrent use.
type Source struct {
	load func(context.Context) (Found, error)

	mu   sync.Mutex
	done bool
	got  Found
	err  error
}

// Found is what a Source found.
type Found struct {
	Configs  []Config
	Warnings []string // Secrets that were named and are missing
}

// NewSource returns a Source that calls load at most once, unless load was
// stopped by its context.
func NewSource(load func(context.Context) (Found, error)) *Source { return &Source{load: load} }

// None is a Source without credentials.
func None() *Source {
	return NewSource(func(context.Context) (Found, error) { return Found{}, nil })
}

// Ring returns the request's credentials followed by those given.
func (s *Source) Ring(ctx context.Context, more ...Config) (Ring, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.done {
		s.got, s.err = s.load(ctx)
		s.done = ctx.Err() == nil
	}
	if s.err != nil {
		return Ring{}, s.err
	}
	return NewRing(append(slices.Clip(s.got.Configs), more...)...), nil
}

// Warnings lists what was found wrong, once credentials were needed.
func (s *Source) Warnings() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Warnings
}
