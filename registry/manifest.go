// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
)

// maxListed is how many entries of a list in a manifest are looked at. 4 MiB of
// JSON hold over a million empty ones, which would become 200 MiB of structs.
const maxListed = 10_000

// manifest is what is read of the manifest of a signature or referrer.
type manifest struct {
	UntrustedMediaType string      `json:"mediaType"`
	Layers             descriptors `json:"layers"`
}

// descriptor is what is read of an OCI descriptor. One that has a digest in an
// unknown form does not make the list that it is in unreadable.
type descriptor struct {
	MediaType       string            `json:"mediaType"`
	ArtifactType    string            `json:"artifactType"`
	UntrustedDigest string            `json:"digest"`
	Size            int64             `json:"size"`
	Annotations     map[string]string `json:"annotations"`
}

// descriptors is the beginning of a list of them.
type descriptors = list[descriptor]

// list is the beginning of a list that is part of something in JSON.
type list[T any] struct {
	items []T
	more  bool // that were not read
}

// first keeps so many, in memory of their own.
func (l list[T]) first(most int) list[T] {
	if len(l.items) <= most {
		return l
	}
	return list[T]{items: slices.Clone(l.items[:most]), more: true}
}

// UnmarshalJSON implements [json.Unmarshaler].
func (l *list[T]) UnmarshalJSON(untrusted []byte) error {
	*l = list[T]{} // of a key that comes twice the last counts
	decoder := json.NewDecoder(bytes.NewReader(untrusted))
	switch start, err := decoder.Token(); {
	case err != nil:
		return err
	case start == nil: // null
		return nil
	case start != json.Delim('['):
		return errors.New("not a list")
	}
	for decoder.More() {
		if len(l.items) == maxListed {
			l.more = true
			return nil
		}
		var item T
		if err := decoder.Decode(&item); err != nil {
			return err
		}
		l.items = append(l.items, item)
	}
	return nil
}
