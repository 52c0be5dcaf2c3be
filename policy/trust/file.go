// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// poll is how often a file is read again: changes are in force within 5 s (spec
// section 3). Mounted ConfigMaps and network file systems do not always tell of
// changes, so that nothing else is relied on.
const poll = 2 * time.Second

// File is a trusted_root.json that is read again when it changes. What cannot be
// read leaves the last good one in force.
type File struct {
	path    string
	changed func()

	mu   sync.Mutex
	root *Root
	err  error
	// tried is the content that was parsed last, whether or not it could be.
	tried [sha256.Size]byte
}

// NewFile reads a file for the first time; it must be good. changed is called by
// Run when there is another root, or another error; it may be nil.
func NewFile(path string, changed func()) (*File, error) {
	if changed == nil {
		changed = func() {}
	}
	f := &File{path: path, changed: changed}
	f.reload()
	return f, f.err
}

// Root returns the last good root.
func (f *File) Root() (*Root, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.root, nil
}

// Err is what is wrong with the file as it is now, if there is something.
func (f *File) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Run reads the file again when it changes, until ctx ends.
func (f *File) Run(ctx context.Context) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if f.reload() {
				f.changed()
			}
		}
	}
}

// reload reports whether there is another root, or another error.
func (f *File) reload() (changed bool) {
	raw, err := readBounded(f.path)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.tried = [sha256.Size]byte{} // what comes back is read
		return f.fail(err)
	}
	content := sha256.Sum256(raw)
	if content == f.tried {
		return false
	}
	f.tried = content
	read, err := Parse(raw)
	if err != nil {
		return f.fail(err)
	}
	changed = f.err != nil || f.root == nil || f.root.Hash != read.Hash
	f.root, f.err = read, nil
	return changed
}

func (f *File) fail(err error) (changed bool) {
	before := f.err
	f.err = fmt.Errorf("reading the trust root %q: %w", f.path, err)
	return before == nil || before.Error() != f.err.Error()
}

// readBounded reads no more of a file than tells that it is too long.
func readBounded(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, maxRoot+1))
}
