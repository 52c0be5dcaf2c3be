// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// maxRepositories is how many repositories one process knows: each is a TrustRoot
// that somebody wrote. One that nobody asks for any more is not fetched again, and
// keeps its place until the process ends.
const maxRepositories = 32

// Repositories are the trust roots of several repositories of The Update
// Framework, each of which is asked once somebody wants to know of it.
type Repositories struct {
	transport http.RoundTripper
	changed   func()

	mu    sync.Mutex
	known map[repositoryID]*TUF
	added chan *TUF
}

type repositoryID struct {
	mirror string
	root   [sha256.Size]byte
}

// NewRepositories makes Repositories that are asked through a transport; changed
// is called as that of [Options] is.
func NewRepositories(transport http.RoundTripper, changed func()) *Repositories {
	return &Repositories{
		transport: transport, changed: changed, known: map[repositoryID]*TUF{}, added: make(chan *TUF, maxRepositories),
	}
}

// Root returns the trust root of a repository, by its address and the root.json
// by which it is believed, as [TUF.Root] does.
func (r *Repositories) Root(mirror string, root []byte) (*Root, error) {
	id := repositoryID{mirror, sha256.Sum256(root)}
	r.mu.Lock()
	defer r.mu.Unlock()
	known, ok := r.known[id]
	if !ok {
		if len(r.known) == maxRepositories {
			return nil, fmt.Errorf("more than %d repositories of trust roots", maxRepositories)
		}
		if mirror == "" || len(root) == 0 { // by default it would be another's
			return nil, errors.New("a repository of trust roots needs an address and a root.json")
		}
		made, err := NewTUF(Options{Transport: r.transport, Mirror: mirror, Root: root, Changed: r.changed})
		if err != nil {
			return nil, err
		}
		known, r.known[id] = made, made
		r.added <- made // there is room for all that are known
	}
	return known.Root()
}

// Run fetches what somebody asked for, until ctx ends.
func (r *Repositories) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case one := <-r.added:
			running.Go(func() { one.Run(ctx) })
		}
	}
}
