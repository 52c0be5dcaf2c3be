// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"

	"github.com/pratique-dev/pratique/reference"
)

// canonicalScope is a scope with its host in canonical form. Docker Hub's names
// become one; library/ is not added: docker.io/acme is a folder of repositories.
func canonicalScope(written string) string {
	host, path, below := strings.Cut(written, "/")
	host = reference.CanonicalHost(host)
	if !below {
		return host
	}
	return host + "/" + path
}

// neverMatches says why a scope takes in no image, and what may have been meant;
// both are empty if it takes in some.
func neverMatches(written string) (why, instead string) {
	if domain, ok := strings.CutPrefix(written, reference.AnySubdomain); ok {
		return neverDomain(domain)
	}
	if why, instead := neverAtAll(written); why != "" {
		return why, instead
	}
	host, path, below := strings.Cut(written, "/")
	switch whole := isWholeHost(host); {
	case below && !isHost(host), !below && !whole && !strings.Contains(host, "."):
		return "it has no host", onHub(written)
	case !whole:
		return quote(host) + " is no host of a registry", "write one such as registry.example.com:5000"
	case !below:
		return "", ""
	}
	return neverPath(host, path)
}

// neverAtAll looks for what is in no name of a host or a repository.
func neverAtAll(written string) (why, instead string) {
	if above, ok := strings.CutSuffix(written, "/*"); ok {
		return "there are no * in paths", "write " + quote(above) + ", which takes in all that is below it"
	}
	if strings.Contains(written, "*") {
		return "a * stands only for the beginning of hosts, before a dot", `write one such as "*.example.com"`
	}
	if _, rest, ok := strings.Cut(written, "://"); ok {
		return "it has a scheme", "write " + quote(rest)
	}
	if trimmed := strings.TrimRight(written, "/"); trimmed != written {
		return "it ends in a slash", "write " + quote(trimmed)
	}
	return "", ""
}

// onHub is what a scope without a host may be meant to be.
func onHub(written string) string {
	meant := reference.DockerHub + "/" + written
	if !strings.Contains(written, "/") {
		meant = reference.DockerHub + "/library/" + written
	}
	if why, _ := neverMatches(meant); why != "" {
		return "write one such as registry.example.com/team"
	}
	return "write " + quote(meant)
}

// neverDomain looks at what follows *. in a scope.
func neverDomain(domain string) (why, instead string) {
	host, _, below := strings.Cut(domain, "/")
	name, _, port := strings.Cut(host, ":")
	switch {
	case below:
		return "a scope that begins with *. is about hosts, and can have no path", "write " + quote(reference.AnySubdomain+host)
	case port:
		return "a scope that begins with *. is about hosts with any port, and can have none", "write " + quote(reference.AnySubdomain+name)
	case strings.Contains(name, "*"):
		return "only the beginning can be *", "write " + quote(reference.AnySubdomain+strings.TrimLeft(name[strings.LastIndex(name, "*")+1:], "."))
	case strings.Trim(name, ".") != name || !isWholeHost("a."+name):
		return quote(name) + " is no domain", `write one such as "*.example.com"`
	}
	return "", ""
}

// neverPath looks at what follows the host.
func neverPath(host, path string) (why, instead string) {
	repository, identifier := path, ""
	if at := strings.IndexAny(path, ":@"); at >= 0 {
		repository, identifier = path[:at], path[at:]
	}
	lower := strings.ToLower(repository)
	switch {
	case lower != repository && isRepository(host, lower):
		return "repositories are in lower case", "write " + quote(host+"/"+lower+identifier)
	case !isRepository(host, repository):
		return quote(repository) + " is no repository", "write one such as registry.example.com/team"
	case identifier == "":
		return "", ""
	}
	return neverIdentifier(host, repository, identifier)
}

// neverIdentifier looks at what follows the repository: :tag or @digest.
func neverIdentifier(host, repository, identifier string) (why, instead string) {
	tag, digest, digested := strings.Cut(identifier, "@")
	switch {
	case digested && !reference.IsDigest(digest):
		return "images are named by whole sha256 digests only", ""
	case digested && tag != "":
		return "it has a tag and a digest, and images are judged by one of them", "write " + quote(host+"/"+repository+"@"+digest)
	}
	if _, err := reference.Parse(host + "/" + repository + identifier); err != nil {
		return quote(identifier) + " is no tag", ""
	}
	if reference.CanonicalHost(host) == reference.DockerHub && !strings.Contains(repository, "/") {
		return "that repository is in library", "write " + quote("docker.io/library/"+repository+identifier)
	}
	return "", ""
}

// isHost reports whether the first component of a reference is a host, and not
// an owner on Docker Hub.
func isHost(component string) bool {
	return component == "localhost" || strings.ContainsAny(component, ".:")
}

// isWholeHost reports whether references can have that host.
func isWholeHost(host string) bool {
	if !isHost(host) {
		return false
	}
	_, err := reference.Parse(host + "/x/y")
	return err == nil
}
