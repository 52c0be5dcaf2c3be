// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Match says which requests a fault is for. It must be safe for concurrent use.
type Match func(*http.Request) bool

// Behaviour is what happens to a matching request: middleware around what the registry would have answered.
// One that does not call next replaces the answer.
type Behaviour func(next http.Handler) http.Handler

type fault struct {
	match     Match
	behaviour Behaviour
}

type faults struct {
	mu   sync.Mutex
	list []*fault
}

func (f *faults) add(match Match, behaviour Behaviour) (remove func()) {
	added := &fault{match: match, behaviour: behaviour}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, added)
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.list = slices.DeleteFunc(f.list, func(other *fault) bool { return other == added })
	}
}

// wrap returns handler within every fault that matches req. A match is asked once a request: some count.
func (f *faults) wrap(req *http.Request, handler http.Handler) http.Handler {
	f.mu.Lock()
	list := slices.Clone(f.list)
	f.mu.Unlock()
	var matching []*fault
	for _, fault := range list {
		if fault.match(req) {
			matching = append(matching, fault)
		}
	}
	for _, fault := range slices.Backward(matching) {
		handler = fault.behaviour(handler)
	}
	return handler
}

// And matches what both match; other is not asked about requests that m does not match.
func (m Match) And(other Match) Match {
	return func(req *http.Request) bool { return m(req) && other(req) }
}

// Or matches what either matches.
func (m Match) Or(other Match) Match {
	return func(req *http.Request) bool { return m(req) || other(req) }
}

// Not matches what m does not.
func (m Match) Not() Match {
	return func(req *http.Request) bool { return !m(req) }
}

// Any matches every request, the ping of /v2/ and the token service included.
func Any() Match { return func(*http.Request) bool { return true } }

// Ping matches GET /v2/.
func Ping() Match {
	return func(req *http.Request) bool { return req.URL.Path == "/v2/" || req.URL.Path == "/v2" }
}

// Method matches requests of the HTTP method, for example "HEAD".
func Method(method string) Match {
	return func(req *http.Request) bool { return req.Method == method }
}

// Manifest matches GET and HEAD of the manifest "acme/app:v1" or "acme/app@sha256:…", or of every manifest of
// "acme/app", those of signatures included. A host before it is ignored; with tag and digest the digest counts.
func Manifest(ref string) Match { return object("manifests", ref) }

// Blob matches GET and HEAD of the blob "acme/app@sha256:…", or of every blob of "acme/app".
func Blob(ref string) Match { return object("blobs", ref) }

// Signature matches GET and HEAD of the image's ".sig" manifest.
func Signature(image Image) Match { return Manifest(image.kept() + ":" + image.SignatureTag()) }

// Attestations matches GET and HEAD of the image's ".att" manifest.
func Attestations(image Image) Match { return Manifest(image.kept() + ":" + image.AttestationTag()) }

// KeptSignatures matches GET and HEAD of the signatures that the registry itself keeps of "acme/app@sha256:…", or of all
// of "acme/app".
func KeptSignatures(ref string) Match { return object(signaturesKind, ref) }

// Stored matches what a lookaside server is asked for as the n-th signature of the digest, from 1 on.
func Stored(repository, digest string, n int) Match {
	path := storedPath(repository, digest, n)
	return func(req *http.Request) bool { return req.URL.Path == path }
}

// Referrers matches the two ways to ask for the image's referrers: the API and the tag.
func Referrers(image Image) Match {
	api := object("referrers", image.kept()+"@"+image.Digest)
	return api.Or(Manifest(image.kept() + ":" + image.ReferrersTag()))
}

// First matches the first n requests that m matches.
func First(n int, m Match) Match {
	var seen atomic.Int64
	return func(req *http.Request) bool { return m(req) && seen.Add(1) <= int64(n) }
}

// After matches what m matches, save the first n of them.
func After(n int, m Match) Match { return m.And(First(n, Any()).Not()) }

func object(kind, ref string) Match {
	wantRepository, wantTarget := splitReference(ref)
	return func(req *http.Request) bool {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			return false
		}
		repository, gotKind, target := splitPath(req.URL.Path)
		return gotKind == kind && repository == wantRepository && (wantTarget == "" || wantTarget == target)
	}
}

// splitPath takes "/v2/acme/app/manifests/v1" apart into "acme/app", "manifests" and "v1": the paths of the
// OCI distribution specification, and those of the signature API. All are empty for another path.
func splitPath(path string) (repository, kind, target string) {
	kinds := []string{"manifests", "blobs", "referrers", "tags"}
	rest, ok := strings.CutPrefix(path, "/v2/")
	if !ok {
		kinds = []string{signaturesKind}
		rest, ok = strings.CutPrefix(path, signaturesPath)
	}
	if !ok {
		return "", "", ""
	}
	for _, kind := range kinds {
		if i := strings.LastIndex(rest, "/"+kind+"/"); i > 0 {
			return rest[:i], kind, rest[i+len(kind)+2:]
		}
	}
	return "", "", ""
}

// splitReference takes "host/acme/app:v1" apart into "acme/app" and "v1", or the digest if there is one.
func splitReference(ref string) (repository, target string) {
	if host, rest, ok := strings.Cut(ref, "/"); ok && strings.ContainsAny(host, ".:") {
		ref = rest
	}
	ref, digest, _ := strings.Cut(ref, "@")
	tag := ""
	if i := strings.LastIndexByte(ref, ':'); i > strings.LastIndexByte(ref, '/') {
		ref, tag = ref[:i], ref[i+1:]
	}
	if digest != "" {
		return ref, digest
	}
	return ref, tag
}
