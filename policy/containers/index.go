// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/reference"
)

// maxEntries is how many entries of an index are looked at, those that never run
// among them: 4 MiB of JSON hold over a million empty ones.
const maxEntries = 1024

// entry is one manifest of an index.
type entry struct {
	UntrustedDigest string    `json:"digest"`
	Platform        *platform `json:"platform"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

type entries []entry

// errEntries is the answer to an index that is too long.
var errEntries = fmt.Errorf("it has more than %d entries", maxEntries)

// maxMembers is how many members an object of an index may have: it is looked
// through before anything is known of it.
const maxMembers = 256

// spelled refuses an object with a member whose name is one of those that are
// read, in other letters: some readers that a node has take it for that, others
// pass it over.
func spelled(untrusted []byte, names ...string) error {
	d := jsontext.NewDecoder(bytes.NewReader(untrusted))
	if start, err := d.ReadToken(); err != nil || start.Kind() != '{' {
		return errors.New("not an object")
	}
	for members := 0; d.PeekKind() == '"'; members++ {
		if members == maxMembers {
			return errors.New("an object with too many members")
		}
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		if slices.ContainsFunc(names, func(known string) bool { return name != known && strings.EqualFold(name, known) }) {
			return errors.New("a name in other letters")
		}
		if err := d.SkipValue(); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (e *entry) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	type plain entry
	return unmarshalSpelled(d, (*plain)(e), "digest", "platform")
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom].
func (p *platform) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	type plain platform
	return unmarshalSpelled(d, (*plain)(p), "os", "architecture", "variant")
}

// unmarshalSpelled reads an object, or null, whose names are spelled as they are
// here.
func unmarshalSpelled(d *jsontext.Decoder, into any, names ...string) error {
	value, err := d.ReadValue()
	if err != nil {
		return err
	}
	if value.Kind() == '{' {
		if err := spelled(value, names...); err != nil {
			return err
		}
	}
	return json.Unmarshal(value, into)
}

// UnmarshalJSONFrom implements [json.UnmarshalerFrom], and stops in time.
func (l *entries) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*l = nil
	start, err := d.ReadToken()
	switch {
	case err != nil:
		return err
	case start.Kind() != '[':
		return errors.New("its manifests are no list")
	}
	for d.PeekKind() != ']' {
		if len(*l) == maxEntries {
			return errEntries
		}
		var one entry
		if err := json.UnmarshalDecode(d, &one); err != nil {
			return err
		}
		*l = append(*l, one)
	}
	_, err = d.ReadToken()
	return err
}

// document is what is read of a manifest to tell whether it is an index.
type document struct {
	MediaType     types.MediaType `json:"mediaType"`
	SchemaVersion int             `json:"schemaVersion"`
	Manifests     *entries        `json:"manifests"`

	// Of image manifests, of any age.
	Config     jsontext.Value `json:"config"`
	Layers     jsontext.Value `json:"layers"`
	Blobs      jsontext.Value `json:"blobs"`
	FSLayers   jsontext.Value `json:"fsLayers"`
	History    jsontext.Value `json:"history"`
	Signatures jsontext.Value `json:"signatures"`
}

// readIndex lists the manifests of an index that may run, and nothing of what is
// not an index. The error says why something cannot be judged by its parts.
//
// Nobody signed these bytes, and a node may read them otherwise: by another media
// type than they name themselves, or by the other of two members of one name. Then
// what was judged would not be what runs. So an index is only what can be read as
// nothing else.
func readIndex(untrusted []byte) (entries, error) {
	var read document
	// Of one name more than one member is refused.
	err := spelled(untrusted, "mediaType", "schemaVersion", "manifests", "config", "layers", "blobs", "fsLayers", "history", "signatures")
	if err == nil {
		err = json.Unmarshal(untrusted, &read)
	}
	switch {
	case errors.Is(err, errEntries):
		return nil, errEntries
	case err != nil:
		return nil, errors.New("it is not the JSON of an index, read strictly")
	case read.Manifests == nil:
		return nil, nil
	case read.isImage():
		return nil, errors.New("it is both an index and an image")
	case read.MediaType != "" && !read.MediaType.IsIndex() || read.SchemaVersion != 2:
		return nil, errors.New("it has manifests, and says that it is no index")
	}
	return read.Manifests.running()
}

// isImage reports whether something can be read as an image.
func (d *document) isImage() bool {
	return slices.ContainsFunc([]jsontext.Value{d.Config, d.Layers, d.Blobs, d.FSLayers, d.History, d.Signatures},
		func(v jsontext.Value) bool { return v != nil })
}

// running lists the entries that a node may run.
func (l entries) running() (runs entries, err error) {
	for _, one := range l {
		if one.describes() {
			continue
		}
		if !reference.IsDigest(one.UntrustedDigest) {
			return nil, errors.New("it names a manifest by something else than a sha256 digest")
		}
		runs = append(runs, one)
	}
	if len(runs) == 0 {
		return nil, errors.New("it has no manifest that could run")
	}
	return runs, nil
}

// describes reports whether the entry is about another one, as build attestations
// are: no node has this platform.
func (e entry) describes() bool {
	const unknown = "unknown"
	return e.Platform != nil && e.Platform.OS == unknown && e.Platform.Architecture == unknown
}

// plain is what the parts of a platform's name look like.
var plain = regexp.MustCompile(`^[a-z0-9._-]{1,32}$`)

// String names the entry for people.
func (e entry) String() string {
	const digits = len("sha256:") + 12
	if e.Platform == nil {
		return e.UntrustedDigest[:digits]
	}
	parts := []string{e.Platform.OS, e.Platform.Architecture}
	if e.Platform.Variant != "" {
		parts = append(parts, e.Platform.Variant)
	}
	if !slices.ContainsFunc(parts, func(part string) bool { return !plain.MatchString(part) }) {
		return strings.Join(parts, "/")
	}
	return e.UntrustedDigest[:digits]
}
