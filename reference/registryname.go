// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package reference

// RegistryName is the repository as go-containerregistry names it: like the
// canonical one, save that Docker Hub's host is index.docker.io and that a host
// is left as it is written. What matches by that library's names needs it.
func (r Reference) RegistryName() string {
	if r.written == "" {
		return ""
	}
	other, err := r.other()
	if err != nil {
		return "" // not after Parse
	}
	return other.Context().Name()
}

// dockerHubRegistry is Docker Hub's host in go-containerregistry.
const dockerHubRegistry = "index.docker.io"

// CanonicalRegistryName is the canonical repository in the same form.
func (r Reference) CanonicalRegistryName() string {
	if host := r.Host(); host == DockerHub {
		return dockerHubRegistry + r.repository[len(host):]
	}
	return r.repository
}
