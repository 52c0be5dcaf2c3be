// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry/credential"
)

// identifiedPlace is all that a place is known by, for hashing: of credentials
// not themselves, but what tells them from others.
type identifiedPlace struct {
	Repository, TagPrefix string
	Credentials           [][]byte
}

// places reads where signatures and attestations are.
func (c *compilation) places(list []v1alpha1.Source, path string) ([]policy.Place, []identifiedPlace, *mistake) {
	var places []policy.Place
	var known []identifiedPlace
	for i := range list {
		at := fmt.Sprintf("%s.source[%d]", path, i)
		place := policy.Place{TagPrefix: list[i].TagPrefix}
		if list[i].OCI != "" {
			repository, err := parseRepository(list[i].OCI)
			if err != nil {
				return nil, nil, wrong(v1alpha1.ReasonInvalid, "%s.oci: %s", at, short(err))
			}
			place.Repository = repository
		}
		identified := identifiedPlace{Repository: place.Repository.Repository(), TagPrefix: place.TagPrefix}
		for j, named := range list[i].SignaturePullSecrets {
			config, identity, problem := c.signaturePullSecret(fmt.Sprintf("%s.signaturePullSecrets[%d]", at, j), string(named.Name))
			// As with the pull secret of the images themselves: what everybody may
			// read, or others have credentials for, is read all the same.
			if problem != nil {
				c.pullProblems = append(c.pullProblems, problem)
				continue
			}
			place.Credentials = append(place.Credentials, config)
			identified.Credentials = append(identified.Credentials, identity)
		}
		places, known = append(places, place), append(known, identified)
	}
	return places, known, nil
}

// parseRepository reads a repository. What looks like a host alone would be one
// of Docker Hub's, and a port a tag.
func parseRepository(written string) (reference.Reference, error) {
	_, path, below := strings.Cut(written, "/")
	if !below || strings.ContainsAny(path, ":@") {
		return reference.Reference{}, errors.New("write a repository: host/path, without scheme, tag or digest")
	}
	return reference.Parse(written)
}

func (c *compilation) signaturePullSecret(path, name string) (credential.Config, []byte, *mistake) {
	secret, problem := c.secret(path, name)
	if problem != nil {
		return credential.Config{}, nil, problem
	}
	config, err := parsePullSecret(secret)
	if err != nil {
		return credential.Config{}, nil, wrong(v1alpha1.ReasonSecretInvalid, "%s: secret %q: %v", path, name, err)
	}
	return config, identityOf(secret), nil
}

// identityOf tells what a Secret holds from what others hold.
func identityOf(secret *corev1.Secret) []byte {
	parts := []string{string(secret.Type)}
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		parts = append(parts, key, string(secret.Data[key]))
	}
	hash := hashParts(parts...)
	return hash[:]
}
