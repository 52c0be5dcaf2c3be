// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"time"
)

const (
	// maxArchive is how large a repository may be once it is unpacked: what an
	// object can hold of it (1.5 MiB) and hardly packs, ten times over.
	maxArchive = 16 << 20
	// maxArchived is how many files it may have.
	maxArchived = 1000
	// archiveTime is for verifying it, which is all in memory.
	archiveTime = 10 * time.Second
	// archiveMirror is what a repository is called that is asked nowhere.
	archiveMirror = "https://archive.invalid"
	// targetsFolder is where repositories have their targets, unless somebody says
	// otherwise.
	targetsFolder = "targets"
)

// Archive is a repository of The Update Framework that came as a whole.
type Archive struct {
	// Packed is it, packed with tar and gzip.
	Packed []byte
	// Root is the root.json by which it is believed.
	Root []byte
	// Targets is the folder of its targets, by default targets.
	Targets string
}

// Read verifies the repository, as of now, and returns its trusted root. Nothing
// is dialled and nothing is written.
func (a Archive) Read(ctx context.Context) (*Root, error) {
	files, err := unpack(a.Packed)
	if err != nil {
		return nil, err
	}
	if a.Targets == "" {
		a.Targets = targetsFolder
	}
	repository, err := newRepository(Options{Transport: archive{files, a.Targets}, Mirror: archiveMirror, Root: a.Root})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, archiveTime)
	defer cancel()
	return repository.fetch(ctx)
}

// repositoryFolder is the folder that policy-controller expects repositories in.
const repositoryFolder = "repository/"

// unpack reads a repository that was packed with tar and gzip.
func unpack(untrustedPacked []byte) (map[string][]byte, error) {
	inflated, err := gzip.NewReader(bytes.NewReader(untrustedPacked))
	if err != nil {
		return nil, errors.New("it is not packed with gzip")
	}
	bounded := &io.LimitedReader{R: inflated, N: maxArchive + 1}
	from := tar.NewReader(bounded)
	files := map[string][]byte{}
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || bounded.N <= 0 {
			return nil, unpacking(err, bounded)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if len(files) == maxArchived {
			return nil, fmt.Errorf("it has more than %d files", maxArchived)
		}
		content, err := io.ReadAll(from)
		if err != nil || bounded.N <= 0 {
			return nil, unpacking(err, bounded)
		}
		// Nothing is written anywhere: a name that leads elsewhere leads nowhere.
		name := strings.TrimPrefix(path.Clean("/"+header.Name), "/")
		files[strings.TrimPrefix(name, repositoryFolder)] = content
	}
	if len(files) == 0 {
		return nil, errors.New("there is no file in it")
	}
	return files, nil
}

// unpacking says why an archive cannot be read to its end.
func unpacking(err error, bounded *io.LimitedReader) error {
	if bounded.N <= 0 {
		return fmt.Errorf("unpacked it has more than %d MiB", maxArchive>>20)
	}
	return fmt.Errorf("reading the archive: %w", err)
}

// archive answers like the server of a repository, from memory.
type archive struct {
	files   map[string][]byte
	targets string // the folder of targets
}

// RoundTrip implements [http.RoundTripper].
func (a archive) RoundTrip(request *http.Request) (*http.Response, error) {
	name := strings.TrimPrefix(request.URL.Path, "/")
	if target, ok := strings.CutPrefix(name, targetsFolder+"/"); ok {
		name = path.Join(a.targets, target)
	}
	content, ok := a.files[name]
	status := http.StatusOK
	if !ok {
		status = http.StatusNotFound
	}
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(content)), ContentLength: int64(len(content)), Request: request,
	}, nil
}
