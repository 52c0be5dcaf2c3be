// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// lookasideBase is the path that a lookaside server has its signatures below: most of them are a folder of a web server
// that has others as well.
const lookasideBase = "/sigstore"

// Lookaside is a running web server for signatures that lie beside a registry, as containers-registries.d(5) has them.
// It is a registry's like in all that is recorded and ordered of it. Its methods are safe for concurrent use.
type Lookaside struct {
	front
	secure bool

	mu   sync.Mutex
	kept map[string][]byte // by path
}

// NewLookaside starts a lookaside server that lives until tb is cleaned up. It has no users, whatever the options say.
func NewLookaside(tb TB, opts ...Option) *Lookaside {
	tb.Helper()
	o := newOptions(opts)
	l := &Lookaside{secure: o.tls != nil, kept: map[string][]byte{}}
	l.open(tb, o, http.HandlerFunc(l.serve))
	return l
}

// URL returns what the key lookaside says of this server: "http://127.0.0.1:41234/sigstore".
func (l *Lookaside) URL() string {
	scheme := "http"
	if l.secure {
		scheme = "https"
	}
	return scheme + "://" + l.Host() + lookasideBase
}

// Put adds a signature of the digest, as the one that is asked for last: "acme/app", "sha256:…".
func (l *Lookaside) Put(repository, digest string, signature []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := 1; ; n++ {
		path := storedPath(repository, digest, n)
		if _, taken := l.kept[path]; !taken {
			l.kept[path] = slices.Clone(signature)
			return
		}
	}
}

func (l *Lookaside) serve(w http.ResponseWriter, req *http.Request) {
	l.mu.Lock()
	signature, known := l.kept[req.URL.Path]
	l.mu.Unlock()
	if !known {
		http.NotFound(w, req)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(signature) // the client may be gone
}

// storedPath is where the n-th signature of a digest is.
func storedPath(repository, digest string, n int) string {
	return fmt.Sprintf("%s/%s@%s/signature-%d", lookasideBase, repository, strings.Replace(digest, ":", "=", 1), n)
}
