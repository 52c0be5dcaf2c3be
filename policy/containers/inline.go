// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// maxKeys is how much one file of keys may hold, in bytes: some thousand keys.
const maxKeys = 1 << 20

// inliner puts the content of files in the place of their names: what is judged
// by is what was looked at here, also when a file changes.
type inliner struct {
	read        func(path string) ([]byte, error)
	requirement *requirement
}

// material is a key, or some.
type material struct {
	where   string // the field, and the file if there is one
	content []byte
	err     error // of reading it
}

// names are those of the fields by which one thing may be given.
type names struct{ path, paths, data, datas string }

func (i *inliner) signedBy(fields members) error {
	if kind := fields.text("keyType"); kind != "GPGKeys" {
		return &mistake{
			where:   "keyType",
			message: fmt.Sprintf("%q refuses every image: the library does not implement it", kind),
			hint:    `write "keyType": "GPGKeys"`,
		}
	}
	all, _, err := i.take(fields, names{path: "keyPath", paths: "keyPaths", data: "keyData"})
	if err != nil {
		return err
	}
	var binary []byte
	for _, one := range all {
		keys, keyring, m := readKeyring(one.content)
		if m != nil {
			return m.at(one.where)
		}
		binary = append(binary, keys...)
		i.requirement.keyring = append(i.requirement.keyring, keyring...)
	}
	if len(i.requirement.keyring) == 0 {
		return &mistake{where: "keyPaths", message: "it names no file: nobody could sign an image that is accepted", hint: "name a file of GPG keys"}
	}
	i.requirement.ends = endsOf(i.requirement.keyring)
	if err := fields.set("keyData", binary); err != nil {
		return err
	}
	return i.requirement.signedIdentity(fields)
}

func (i *inliner) sigstoreSigned(fields members) error {
	key := func(content []byte) *mistake {
		_, m := readPublicKey(content)
		return m
	}
	if err := i.inline(fields, names{"keyPath", "keyPaths", "keyData", "keyDatas"}, key); err != nil {
		return err
	}
	log := names{"rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"}
	if err := i.inline(fields, log, readLogKey); err != nil {
		return err
	}
	if err := i.fulcio(fields); err != nil {
		return err
	}
	if err := i.pki(fields); err != nil {
		return err
	}
	return i.requirement.signedIdentity(fields)
}

func (i *inliner) fulcio(fields members) error {
	fulcio, err := fields.object("fulcio")
	if err != nil || fulcio == nil {
		return err
	}
	// Its certificates are judged at the time of the log's entry, and do not end.
	check := func(content []byte) *mistake {
		_, m := readCertificates(content)
		return m
	}
	if err := i.inline(fulcio, names{path: "caPath", data: "caData"}, check); err != nil {
		return within("fulcio", err)
	}
	return fields.set("fulcio", fulcio)
}

func (i *inliner) pki(fields members) error {
	pki, err := fields.object("pki")
	if err != nil || pki == nil {
		return err
	}
	i.requirement.pki = true
	check := func(content []byte) *mistake {
		certificates, m := readCertificates(content)
		for _, c := range certificates {
			i.requirement.ends = append(i.requirement.ends, c.NotAfter)
		}
		return m
	}
	for _, n := range []names{
		{path: "caRootsPath", data: "caRootsData"},
		{path: "caIntermediatesPath", data: "caIntermediatesData"},
	} {
		if err := i.inline(pki, n, check); err != nil {
			return within("pki", err)
		}
	}
	return fields.set("pki", pki)
}

// inline writes what is given by files or as it is as the latter, once it was
// checked.
func (i *inliner) inline(fields members, n names, check func(content []byte) *mistake) error {
	all, several, err := i.take(fields, n)
	if err != nil {
		return err
	}
	contents := make([][]byte, 0, len(all))
	for _, one := range all {
		if m := check(one.content); m != nil {
			return m.at(one.where)
		}
		contents = append(contents, one.content)
	}
	switch {
	case several:
		return fields.set(n.datas, contents)
	case len(contents) > 0:
		return fields.set(n.data, contents[0])
	default:
		return nil
	}
}

// take takes what is given out of the fields; several says that it is given as a
// list. The library has seen that no two fields give the same thing.
func (i *inliner) take(fields members, n names) (all []material, several bool, err error) {
	var path string
	var paths []string
	var data []byte
	var datas [][]byte
	for name, into := range map[string]any{n.path: &path, n.paths: &paths, n.data: &data, n.datas: &datas} {
		if raw, ok := fields[name]; ok {
			if err := json.Unmarshal(raw, into); err != nil {
				return nil, false, fmt.Errorf("reading %s again: %w", name, err)
			}
			delete(fields, name)
		}
	}
	if path != "" {
		content, err := i.file(path)
		all = append(all, material{fmt.Sprintf("%s %q", n.path, path), content, err})
	}
	for k, path := range paths {
		content, err := i.file(path)
		all = append(all, material{fmt.Sprintf("%s[%d] %q", n.paths, k, path), content, err})
	}
	if data != nil {
		all = append(all, material{n.data, data, tooLarge(data)})
	}
	for k, one := range datas {
		all = append(all, material{fmt.Sprintf("%s[%d]", n.datas, k), one, tooLarge(one)})
	}
	for _, one := range all {
		if one.err != nil {
			return nil, false, unreadable(one.where, one.err)
		}
	}
	return all, paths != nil || datas != nil, nil
}

func (i *inliner) file(path string) ([]byte, error) {
	content, err := i.read(path)
	if err != nil {
		return nil, err
	}
	return content, tooLarge(content)
}

func tooLarge(content []byte) error {
	if len(content) <= maxKeys {
		return nil
	}
	return &mistake{message: fmt.Sprintf("it is larger than %d bytes", maxKeys), hint: "write the keys that sign these images, and no others"}
}

// at says where a mistake is.
func (m *mistake) at(where string) *mistake {
	m.where = where
	return m
}

// unreadable explains why there is nothing of what a field names.
func unreadable(where string, err error) *mistake {
	if m, ok := errors.AsType[*mistake](err); ok {
		return m.at(where)
	}
	m := &mistake{where: where, cause: err}
	if failed, ok := errors.AsType[*fs.PathError](err); ok {
		err = failed.Err // the path is said already
		m.hint = "mount the file there, or write its content in the policy (keyData and its like)"
	}
	m.message = "it cannot be read: " + oneLine(err.Error(), maxReason)
	return m
}
