// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package reference

import (
	"errors"
	"fmt"
	"strings"
)

// Reach says how far into a reference a prefix goes.
type Reach uint8

// The reaches of a prefix, from the widest to the narrowest.
const (
	ReachRepository Reach = iota // host, or host and (part of) a path
	ReachTag                     // (part of) a tag
	ReachDigest                  // one whole digest
)

// Prefix is the beginning of references in canonical form.
type Prefix struct {
	Text  string
	Reach Reach
}

// ParsePrefix brings a prefix as an ImageConfig writes it to the canonical
// forms in which it is compared: one, or two for a short name on Docker Hub,
// where docker.io/ngin is the beginning of docker.io/library/nginx as well as
// of docker.io/ngin-project/x. The rules are those of the ImageConfig page:
//
//   - the first component is a host if it has a dot or a colon, or is
//     localhost; otherwise, with a slash, docker.io is put before it;
//   - a prefix without a slash is a whole host;
//   - a prefix may end in a tag or in part of one; a digest must be whole.
//
// It returns an error for a prefix that has bytes or a host which no reference
// has, because a rule that silently matches nothing protects nothing.
func ParsePrefix(written string) ([]Prefix, error) {
	switch {
	case written == "":
		return nil, errors.New("empty: write a host, or a host and the beginning of a path")
	case strings.Contains(written, "://"):
		return nil, errors.New("has a scheme: write the host without it")
	}
	host, path, slash := strings.Cut(written, "/")
	switch {
	case isHost(host):
	case slash:
		host, path = DockerHub, written
	default:
		return nil, errors.New("no host: write registry.example.com, or docker.io/library/" + written)
	}
	if err := checkHost(host); err != nil {
		return nil, err
	}
	host = CanonicalHost(host)
	base := Prefix{Text: host + "/" + path}
	var err error
	if base.Reach, err = reachOf(path); err != nil {
		return nil, err
	}
	if host != DockerHub || path == "" || strings.Contains(path, "/") {
		return []Prefix{base}, nil
	}
	short := Prefix{Text: host + "/" + official + path, Reach: base.Reach}
	if base.Reach != ReachRepository {
		// A name that is complete, on Docker Hub, without a slash.
		return []Prefix{short}, nil
	}
	return []Prefix{base, short}, nil
}

func isHost(component string) bool {
	return component == "localhost" || strings.ContainsAny(component, ".:")
}

// checkHost lets the stricter parser judge the host by reading a reference on it.
func checkHost(host string) error {
	if _, err := Parse(host + "/x/y"); err != nil {
		return fmt.Errorf("%q is not a registry's host", clip(host))
	}
	return nil
}

const (
	pathBytes = "abcdefghijklmnopqrstuvwxyz0123456789._-/"
	tagBytes  = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
)

// reachOf classifies what follows the host and refuses bytes that no
// reference has there.
func reachOf(path string) (Reach, error) {
	if strings.HasPrefix(path, "/") || strings.Contains(path, "//") {
		return 0, errors.New("has an empty path component")
	}
	repository, digest, digested := strings.Cut(path, "@")
	repository, tag, tagged := strings.Cut(repository, ":")
	if rest := strings.Trim(repository, pathBytes); rest != "" {
		return 0, fmt.Errorf("%q cannot be in a repository's name", clip(rest))
	}
	switch {
	case digested && tagged:
		return 0, errors.New("tag and digest: leave the tag out, the digest alone decides")
	case digested && !IsDigest(digest):
		return 0, errors.New("a digest in a prefix must be whole: sha256: and 64 hexadecimal digits")
	case digested:
		return ReachDigest, nil
	case tagged:
		if rest := strings.Trim(tag, tagBytes); rest != "" {
			return 0, fmt.Errorf("%q cannot be in a tag", clip(rest))
		}
		return ReachTag, nil
	}
	return ReachRepository, nil
}

// Cut splits a prefix that names a digest into repository and digest.
func (p Prefix) Cut() (repository, digest string) {
	repository, digest, _ = strings.Cut(p.Text, "@")
	return repository, digest
}

// Host is the canonical host, with its port unless that is 443.
func (p Prefix) Host() string {
	host, _, _ := strings.Cut(p.Text, "/")
	return host
}

// Replace returns the reference under another name, to in the place of from. Its
// repository begins with from, and both prefixes reach no further. What follows
// from is taken in canonical form, the tag as well where none was written.
func (r Reference) Replace(from, to Prefix) (Reference, error) {
	rest, ok := strings.CutPrefix(r.Canonical(), from.Text)
	if !ok || from.Reach != ReachRepository || to.Reach != ReachRepository {
		return Reference{}, fmt.Errorf("%s does not begin with %s", clip(r.Canonical()), clip(from.Text))
	}
	replaced, err := Parse(to.Text + rest)
	if err == nil && !strings.HasPrefix(replaced.Repository(), to.Text) {
		err = fmt.Errorf("%s does not begin with %s", replaced.Repository(), clip(to.Text))
	}
	if err != nil {
		return Reference{}, fmt.Errorf("replacing the prefix of %s: %w", r.Canonical(), err)
	}
	return replaced, nil
}
