// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package reference reads container image references and brings them to the
// one form in which Pratique compares them.
//
// Two parsers read every reference: github.com/distribution/reference, which
// is what container runtimes accept, and go-containerregistry, which is what
// asks the registry. Where they disagree about what a string names, one of
// them would be checked and the other would be run, so a reference counts only
// if both accept it and both name the same repository and digest.
//
// The package is pure: it neither dials nor reads anything.
package reference

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	distribution "github.com/distribution/reference"
	"github.com/google/go-containerregistry/pkg/name"
)

const (
	// DockerHub is the canonical host of Docker Hub, which answers under
	// several names.
	DockerHub = "docker.io"

	// maxLength bounds what is given to the parsers, in bytes. The longest
	// legal reference has a host of 253, a port of 6, a path of 255, a tag of
	// 129 and a digest of 72 with their separators.
	maxLength = 253 + 6 + 1 + 255 + 129 + 72

	// maxQuoted is how much of an unreadable reference an error repeats.
	maxQuoted = 128

	defaultTag = "latest"
	official   = "library/"
)

// Reference is an image reference that both parsers accept. The zero value
// names nothing; make one with [Parse].
type Reference struct {
	written    string
	repository string // docker.io/library/nginx
	tagged     string // repository:tag, or empty
	digest     string // sha256:…, or empty
}

// Parse reads a reference as a user writes it, in the grammar of
// github.com/distribution/reference. It returns an error if either parser
// refuses it, if the two disagree, or if its digest is not a SHA-256.
func Parse(written string) (Reference, error) {
	r, err := parse(written)
	if err != nil {
		return Reference{}, fmt.Errorf("invalid image reference %q: %w", clip(written), err)
	}
	return r, nil
}

func parse(written string) (Reference, error) {
	if len(written) > maxLength {
		return Reference{}, fmt.Errorf("longer than %d bytes", maxLength)
	}
	named, err := distribution.ParseNormalizedNamed(written)
	if err != nil {
		return Reference{}, err
	}
	if isImageID(written) {
		return Reference{}, errors.New("an image ID, which names no repository")
	}
	if isOddAddress(distribution.Domain(named)) {
		return Reference{}, errors.New("its host is an IPv4 address in a form that not everybody reads alike")
	}
	r := Reference{written: written}
	r.repository = canonicalName(distribution.Domain(named), distribution.Path(named))
	if digested, ok := named.(distribution.Digested); ok {
		r.digest = digested.Digest().String()
		if !IsDigest(r.digest) {
			return Reference{}, errors.New("only sha256 digests are supported")
		}
	}
	if tagged, ok := named.(distribution.Tagged); ok {
		r.tagged = r.repository + ":" + tagged.Tag()
	} else if r.digest == "" {
		r.tagged = r.repository + ":" + defaultTag
	}
	return r, r.agrees()
}

// isOddAddress reports whether a host ends in a number and is no IPv4 address as it
// is usually written: some would read 10.5 or 010.0.0.5 as another address (WHATWG
// URL, "ends in a number checker"), which a rule for that one would not meet.
func isOddAddress(host string) bool {
	host, _, _ = strings.Cut(host, ":")
	last := host[strings.LastIndexByte(host, '.')+1:]
	if strings.Trim(last, "0123456789") != "" && !strings.HasPrefix(strings.ToLower(last), "0x") {
		return false
	}
	_, err := netip.ParseAddr(host)
	return err != nil
}

// isImageID reports whether nodes would take the reference for the ID of an
// image that they have already, or for the beginning of one, whatever it was
// pulled by: sha256:1234 (containerd, CRI image store).
func isImageID(written string) bool {
	name, _, tagged := strings.Cut(written, ":")
	return tagged && slices.Contains([]string{"sha256", "sha384", "sha512"}, name)
}

// agrees asks the second parser about the same string.
func (r Reference) agrees() error {
	other, err := r.other()
	if err != nil {
		return fmt.Errorf("the registry client does not accept it: %w", err)
	}
	repository := canonicalName(other.Context().RegistryStr(), other.Context().RepositoryStr())
	if repository != r.repository {
		return fmt.Errorf("ambiguous: it can be read as %s and as %s", r.repository, repository)
	}
	// The second parser drops the tag beside a digest.
	identifier := r.digest
	if identifier == "" {
		identifier = r.Tag()
	}
	if other.Identifier() != identifier {
		return fmt.Errorf("ambiguous: it can be read as %s and as %s", identifier, other.Identifier())
	}
	return nil
}

// other is the reference as the registry client reads it. It would find out by
// itself whether there is a digest, by failing first.
func (r Reference) other() (name.Reference, error) {
	if r.digest != "" {
		return name.NewDigest(r.written)
	}
	return name.NewTag(r.written)
}

// Written is the reference as the user wrote it.
func (r Reference) Written() string { return r.written }

// Repository is the canonical repository, such as docker.io/library/nginx:
// host in lower case, Docker Hub under one name, port 443 dropped.
func (r Reference) Repository() string { return r.repository }

// Host is the canonical host, with its port unless that is 443.
func (r Reference) Host() string {
	host, _, _ := strings.Cut(r.repository, "/")
	return host
}

// Tagged is the canonical repository with the tag, or empty when the reference
// has a digest and no tag.
func (r Reference) Tagged() string { return r.tagged }

// Tag is the tag, "latest" when neither tag nor digest was written, and empty
// when only a digest was.
func (r Reference) Tag() string {
	if r.tagged == "" {
		return ""
	}
	return r.tagged[len(r.repository)+1:]
}

// Digest is the digest, sha256: and 64 lower-case hexadecimal digits, or empty.
func (r Reference) Digest() string { return r.digest }

// Canonical is the whole reference in canonical form.
func (r Reference) Canonical() string {
	base := r.repository
	if r.tagged != "" {
		base = r.tagged
	}
	if r.digest == "" {
		return base
	}
	return base + "@" + r.digest
}

// String is the reference as written.
func (r Reference) String() string { return r.written }

// Pin returns what the user wrote with the digest added, and with the tag
// ":latest" where neither tag nor digest was written: people read the tag. A
// reference that has a digest is returned as it is.
func (r Reference) Pin(digest string) Reference {
	if r.digest != "" {
		return r
	}
	pinned := r
	pinned.digest = digest
	if !strings.HasSuffix(r.written, ":"+r.Tag()) {
		pinned.written += ":" + r.Tag()
	}
	pinned.written += "@" + digest
	return pinned
}

// WithoutTag is the reference judged by its digest alone. It must have one.
func (r Reference) WithoutTag() Reference {
	r.tagged = ""
	return r
}

func canonicalName(host, path string) string {
	host = CanonicalHost(host)
	if host == DockerHub && !strings.Contains(path, "/") {
		path = official + path
	}
	return host + "/" + path
}

// CanonicalHost brings a registry's host, with or without a port, to the form
// in which hosts are compared.
func CanonicalHost(host string) string {
	host = canonicalAddress(strings.ToLower(host))
	// A port is dialled as the number that it is: 0443 is 443.
	if at := strings.LastIndexByte(host, ':'); at >= 0 && strings.Trim(host[at+1:], "0123456789") == "" {
		port := strings.TrimLeft(host[at+1:], "0")
		switch {
		case port == "443" && isHost(host[:at]):
			host = host[:at]
		case port != "":
			// By its port alone a name without a dot is known to be a host: as
			// registry/x it would be an owner's on Docker Hub.
			host = host[:at+1] + port
		}
	}
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return DockerHub
	}
	return host
}

// canonicalAddress writes an IPv6 address in the one form that it has (RFC 5952),
// and one that is an IPv4 address in its own: all other forms dial the same.
func canonicalAddress(host string) string {
	inside, bracketed := strings.CutPrefix(host, "[")
	inside, port, closed := strings.Cut(inside, "]")
	address, err := netip.ParseAddr(inside)
	if !bracketed || !closed || err != nil {
		return host
	}
	if address = address.Unmap(); address.Is4() {
		return address.String() + port
	}
	return "[" + address.String() + "]" + port
}

// IsDigest reports whether s is sha256: and 64 lower-case hexadecimal digits.
func IsDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(hex) != 64 {
		return false
	}
	return strings.Trim(hex, "0123456789abcdef") == ""
}

func clip(s string) string {
	if len(s) > maxQuoted {
		return s[:maxQuoted] + "…"
	}
	return s
}
