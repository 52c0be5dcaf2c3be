// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"net/http"
	"net/url"

	"github.com/pratique-dev/pratique/policy"
)

// maxKeptList bounds the list of signatures that a registry keeps itself, in
// bytes. Nodes read half of that (iolimits of go.podman.io/image). A signature is
// about one KB.
const maxKeptList = 8 << 20

// SimpleSignature is a signature in the form of containers-signature(5), or what a
// lookaside server has in its place. Nothing of it is verified.
type SimpleSignature struct {
	Untrusted []byte
	// ByRegistry says that the registry keeps it itself. Then it is of that form
	// whatever it begins with; a lookaside server may have other forms too.
	ByRegistry bool
}

// SimpleSignatures reads the signatures of a digest one after the other: those that
// the registry keeps itself, if it says that it does; else those of the lookaside,
// nil for none. Errors, and what must not be done meanwhile, are as in Signatures.
func (c *Client) SimpleSignatures(ctx context.Context, image policy.Image, lookaside *url.URL) iter.Seq2[SimpleSignature, error] {
	return func(yield func(SimpleSignature, error) bool) {
		err := c.keptSignatures(ctx, image, yield)
		if errors.Is(err, errKeepsNone) {
			err = c.lookasideSignatures(ctx, image, lookaside, yield)
		}
		if err != nil {
			yield(SimpleSignature{}, err)
		}
	}
}

// kept is what a registry says of a signature that it keeps itself.
type kept struct {
	Version   int    `json:"schemaVersion"`
	Type      string `json:"type"`
	Untrusted []byte `json:"content"`
}

// counts reports whether it is in a form that is known, the only one there is
// (signature-protocols of go.podman.io/image, "docker/distribution API extension").
func (k kept) counts() bool { return k.Version == 2 && k.Type == "atomic" }

// keptSignatures yields the signatures that the registry keeps itself. The error is
// why there may be others, if anybody wants to know.
func (c *Client) keptSignatures(ctx context.Context, image policy.Image, yield func(SimpleSignature, error) bool) error {
	access, err := c.access(ctx, image)
	if err != nil {
		return err
	}
	digest, err := checkedDigest(access.host, image.Digest)
	if err != nil {
		return err
	}
	// They are all there at once, and keep the place of the list that they are from.
	back := func() {}
	defer func() { back() }()
	var found list[kept]
	const what = "list of signatures"
	_, err = access.do(ctx, request{
		method: http.MethodGet, path: access.extensions + "signatures/" + digest, what: what, limit: maxKeptList, kept: true,
		take: func(untrustedBody []byte) (err error) {
			found, err = keptIn(untrustedBody)
			if err != nil {
				return garbageError(access.host, what)
			}
			return nil
		},
		keep: func(given func()) { back = given },
	})
	if err != nil {
		return err
	}
	places := c.places.of(access.host)
	for _, one := range found.items {
		more, err := places.look(ctx, 1, func() bool {
			if len(one.Untrusted) > maxSignature {
				return yield(SimpleSignature{}, limitError(access.host, "signature", maxSignature))
			}
			return yield(SimpleSignature{Untrusted: one.Untrusted, ByRegistry: true}, nil)
		})
		if err != nil || !more {
			return err
		}
	}
	if found.more {
		return tooMany(access.host, "signatures", maxSignatures)
	}
	return nil
}

// keptIn are those of a list that count, as many as are tried.
func keptIn(untrustedBody []byte) (list[kept], error) {
	var read struct {
		Signatures list[kept] `json:"signatures"`
	}
	if err := json.Unmarshal(untrustedBody, &read); err != nil {
		return list[kept]{}, err
	}
	all := list[kept]{more: read.Signatures.more}
	for _, one := range read.Signatures.items {
		if one.counts() {
			all.items = append(all.items, one)
		}
	}
	return all.first(maxSignatures), nil
}
