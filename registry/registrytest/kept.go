// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
)

const (
	// signaturesPath and signaturesKind are where a registry has the signatures that it keeps itself: what the OpenShift
	// registry adds to the distribution API ("extensions").
	signaturesPath = "/extensions/v2/"
	signaturesKind = "signatures"
	// supportsSignatures is the header that says that it does, in what is answered to the ping.
	supportsSignatures = "X-Registry-Supports-Signatures"
)

// signatures are those that a registry keeps itself. The zero value keeps none.
type signatures struct {
	mu   sync.Mutex
	on   bool
	kept map[string][]keptSignature // by "acme/app@sha256:…"
}

// keptSignature is one of them as it is answered.
type keptSignature struct {
	Version int    `json:"schemaVersion"`
	Name    string `json:"name"`
	Type    string `json:"type"`
	Content []byte `json:"content"`
}

// KeepSignatures makes the registry one that keeps signatures itself (default: it does not): the ping says so from now
// on, and /extensions/v2/<repository>/signatures/<digest> lists them.
func (r *Registry) KeepSignatures() {
	r.signatures.mu.Lock()
	defer r.signatures.mu.Unlock()
	r.signatures.on = true
}

// PutSignature adds a signature of the digest to those that the registry keeps itself: "acme/app", "sha256:…". It lists
// none of them unless KeepSignatures is called, before or after.
func (r *Registry) PutSignature(repository, digest string, signature []byte) {
	s := &r.signatures
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[string][]keptSignature{}
	}
	key := repository + "@" + digest
	name := fmt.Sprintf("%s@%d-%.16x", digest, len(s.kept[key])+1, sha256.Sum256(signature))
	s.kept[key] = append(s.kept[key], keptSignature{Version: 2, Name: name, Type: "atomic", Content: slices.Clone(signature)})
}

// announced adds the header to what is answered to the ping, let in or not.
func (s *signatures) announced(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		on := s.on
		s.mu.Unlock()
		if on && Ping()(req) {
			w.Header().Set(supportsSignatures, "1")
		}
		next.ServeHTTP(w, req)
	})
}

// within answers what is asked for by the API.
func (s *signatures) within(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		repository, kind, digest := splitPath(req.URL.Path)
		s.mu.Lock()
		on, kept := s.on, append([]keptSignature{}, s.kept[repository+"@"+digest]...)
		s.mu.Unlock()
		if !on || kind != signaturesKind {
			next.ServeHTTP(w, req)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string][]keptSignature{"signatures": kept}) // the client may be gone
	})
}
