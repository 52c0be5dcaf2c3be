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
	"iter"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"

	"github.com/pratique-dev/pratique/reference"
)

// The types of Secrets that hold credentials, and the keys they lie under
// (Kubernetes, "Pull an Image from a Private Registry").
const (
	TypeDockerConfigJSON = "kubernetes.io/dockerconfigjson"
	KeyDockerConfigJSON  = ".dockerconfigjson"
	// TypeDockercfg is that of Docker before 1.7: the same without "auths" around it.
	TypeDockercfg = "kubernetes.io/dockercfg"
	KeyDockercfg  = ".dockercfg"
)

// Types names both types, for messages.
const Types = TypeDockerConfigJSON + " or " + TypeDockercfg

// Bounds of spec section 6.
const (
	// MaxSecrets is how many pull secrets are read for one object, wherever they
	// are named.
	MaxSecrets = 16
	// maxPerHost is how many credentials are tried at one repository.
	maxPerHost = 8
)

// Config is the credentials of one Secret, or of a chain. The zero value has none.
type Config struct {
	entries []entry
	// chain is asked instead, for what is in no Secret.
	chain Ask
}

// none reports whether there is no credential in it.
func (c Config) none() bool { return len(c.entries) == 0 && c.chain == nil }

type entry struct {
	// host is canonical, or a pattern of hosts.
	host string
	// path is "" for all of the host.
	path string
	// written is the key that it stands under: two may have one scope.
	written string
	auth    authn.AuthConfig
}

// same reports whether another Secret holds the same.
func (c Config) same(other Config) bool {
	return c.chain == nil && other.chain == nil && slices.Equal(c.entries, other.entries)
}

// HoldsCredentials reports whether Secrets of a type are read for credentials.
func HoldsCredentials(secretType string) bool {
	return secretType == TypeDockerConfigJSON || secretType == TypeDockercfg
}

// ParseSecret reads a Secret of one of the two types. Its error never repeats
// what was read.
func ParseSecret(secretType string, data map[string][]byte) (Config, error) {
	key, parse := KeyDockerConfigJSON, Parse
	if secretType == TypeDockercfg {
		key, parse = KeyDockercfg, ParseDockercfg
	}
	content, ok := data[key]
	if !ok {
		return Config{}, fmt.Errorf("it has no key %q", key)
	}
	return parse(content)
}

var errMalformed = errors.New("not a Docker configuration: malformed JSON, or a credential that cannot be decoded")

// Parse reads the contents of a dockerconfigjson Secret. Its error never
// repeats what was read.
func Parse(data []byte) (Config, error) {
	var file struct {
		Auths map[string]authn.AuthConfig `json:"auths"`
	}
	if err := json.Unmarshal(data, &file); err != nil {
		return Config{}, errMalformed
	}
	return configOf(file.Auths)
}

// ParseDockercfg reads the contents of a dockercfg Secret. Its error never
// repeats what was read.
func ParseDockercfg(data []byte) (Config, error) {
	var auths map[string]authn.AuthConfig
	if err := json.Unmarshal(data, &auths); err != nil {
		return Config{}, errMalformed
	}
	return configOf(auths)
}

func configOf(auths map[string]authn.AuthConfig) (Config, error) {
	var c Config
	for key, auth := range auths {
		e, err := parseEntry(key)
		if err != nil {
			return Config{}, err
		}
		// docker login leaves empty ones where a helper keeps the password.
		if e.auth = auth; auth != (authn.AuthConfig{}) {
			c.entries = append(c.entries, e)
		}
	}
	// The most specific first, then by name: maps have no order of their own.
	slices.SortFunc(c.entries, func(a, b entry) int {
		return cmp.Or(
			strings.Count(a.host, "*")-strings.Count(b.host, "*"), len(b.path)-len(a.path), len(b.host)-len(a.host),
			strings.Compare(a.host, b.host), strings.Compare(a.path, b.path), strings.Compare(a.written, b.written),
		)
	})
	return c, nil
}

// parseEntry reads a key of auths: a host, optionally with scheme and path. The
// API version paths that docker login writes are not part of the path.
func parseEntry(key string) (entry, error) {
	e := entry{written: key}
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, rest, _ := strings.Cut(key, "/")
	if host == "" {
		return e, errors.New("not a Docker configuration: a credential has no host")
	}
	e.host, e.path = reference.CanonicalHost(host), strings.Trim(rest, "/")
	if version, below, _ := strings.Cut(e.path, "/"); version == "v1" || version == "v2" {
		e.path = below
	}
	return e, nil
}

// covers reports whether the credential is written for the repository, host
// and path of which are given.
//
// It goes by the kubelet's rules (k8s.io/kubernetes/pkg/credentialprovider,
// URLsMatch), so that what a node can pull can be examined, but is stricter
// where those would show a credential to somebody it is not meant for: a path
// matches whole components only, so that acme is not acme-evil, and a pattern
// must end in two labels without an asterisk, so that *.com is nobody's. Where
// it is not as strict, the place is the same: port 443 is no port, and the names
// of Docker Hub are one.
func (e entry) covers(host, below string) bool {
	if rest, ok := strings.CutPrefix(below, e.path); !ok || e.path != "" && rest != "" && rest[0] != '/' {
		return false
	}
	if !strings.Contains(e.host, "*") {
		return e.host == host
	}
	if host == reference.DockerHub {
		return matches(e.host, "index.docker.io") || matches(e.host, "registry-1.docker.io")
	}
	return matches(e.host, host)
}

// literalLabels is how many labels at the end of a pattern have no asterisk.
const literalLabels = 2

// matches reports whether a host fits a pattern, label by label: an asterisk
// never spans a dot, and a port is as it is written.
func matches(pattern, host string) bool {
	wanted, got := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(wanted) != len(got) || len(wanted) <= literalLabels {
		return false
	}
	// The labels of an address are no names: nobody owns all below one.
	if strings.IndexAny(got[len(got)-1], "0123456789") == 0 {
		return false
	}
	for i, label := range wanted {
		if i >= len(wanted)-literalLabels {
			if label != got[i] {
				return false
			}
			continue
		}
		if ok, err := path.Match(label, got[i]); !ok || err != nil {
			return false
		}
	}
	return true
}

// Ring is the credentials of one request, in the order in which they are tried.
// The zero value is anonymous.
type Ring struct {
	configs []Config
	// warn is told what For leaves out, if set.
	warn func(string)
}

// NewRing joins the credentials of several Secrets.
func NewRing(configs ...Config) Ring { return Ring{configs: configs} }

// For lists the credentials to try at a canonical repository, at most 8: Secret
// by Secret, and of each all that match, the most specific first. The kubelet
// sorts them over all Secrets; here the order of the Secrets says whose
// credential is shown first. An empty list means anonymous access.
func (r Ring) For(ctx context.Context, repository string) []authn.AuthConfig {
	host, below, _ := strings.Cut(repository, "/")
	var auths []authn.AuthConfig
	for _, c := range r.configs {
		for auth := range c.matching(ctx, host, below, r.note) {
			if slices.Contains(auths, auth) {
				continue
			}
			if len(auths) == maxPerHost {
				r.note(fmt.Sprintf("more than %d credentials for %s: the first %d are tried", maxPerHost, host, maxPerHost))
				return auths
			}
			auths = append(auths, auth)
		}
	}
	return auths
}

func (r Ring) note(warning string) {
	if r.warn != nil {
		r.warn(warning)
	}
}

// matching yields the credentials for a repository.
func (c Config) matching(ctx context.Context, host, below string, note func(string)) iter.Seq[authn.AuthConfig] {
	return func(yield func(authn.AuthConfig) bool) {
		if c.chain != nil {
			if auth, ok := c.chain.find(ctx, host, below, note); ok {
				yield(auth)
			}
			return
		}
		for _, e := range c.entries {
			if e.covers(host, below) && !yield(e.auth) {
				return
			}
		}
	}
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
func (i Identifier) Identify(ctx context.Context, r Ring, repository string) Identity {
	auths := r.For(ctx, repository)
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
