// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// tokenPath is where the token service of WithTokenAuth is asked.
const tokenPath = "/token"

// guard lets requests in that carry a user's credentials: RFC 7617, or a token as in the distribution
// project's token authentication specification.
type guard struct {
	content http.Handler
	users   map[string]string
	bearer  bool

	mu     sync.Mutex
	tokens map[string][]string // token → scopes it was given for
}

// newGuard returns content itself when there are no users.
func newGuard(content http.Handler, users map[string]string, bearer bool) http.Handler {
	if len(users) == 0 {
		return content
	}
	return &guard{content: content, users: users, bearer: bearer, tokens: map[string][]string{}}
}

// ServeHTTP implements http.Handler.
func (g *guard) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case g.bearer && req.URL.Path == tokenPath:
		g.giveToken(w, req)
	case g.bearer && g.hasToken(req), !g.bearer && g.hasPassword(req):
		g.content.ServeHTTP(w, req)
	default:
		w.Header().Set("WWW-Authenticate", g.challenge(req))
		writeError(w, http.StatusUnauthorized)
	}
}

func (g *guard) challenge(req *http.Request) string {
	if !g.bearer {
		return `Basic realm="registrytest"`
	}
	scheme := "http"
	if req.TLS != nil {
		scheme = "https"
	}
	challenge := fmt.Sprintf(`Bearer realm="%s://%s%s",service="registrytest"`, scheme, req.Host, tokenPath)
	if repository, _, _ := splitPath(req.URL.Path); repository != "" {
		challenge += fmt.Sprintf(`,scope="repository:%s:pull"`, repository)
	}
	return challenge
}

func (g *guard) hasPassword(req *http.Request) bool {
	user, password, ok := req.BasicAuth()
	want, known := g.users[user]
	return ok && known && password == want
}

// hasToken reports whether the request's token was given for the repository it asks for.
func (g *guard) hasToken(req *http.Request) bool {
	token, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
	g.mu.Lock()
	scopes, known := g.tokens[token]
	g.mu.Unlock()
	if !ok || !known {
		return false
	}
	repository, _, _ := splitPath(req.URL.Path)
	return repository == "" || slices.ContainsFunc(scopes, func(scope string) bool {
		return strings.HasPrefix(scope, "repository:"+repository+":")
	})
}

// ExpireTokens makes all tokens that were given worthless; only a registry of WithTokenAuth gives any.
func (r *Registry) ExpireTokens() {
	if g, ok := r.guarded.(*guard); ok {
		g.mu.Lock()
		defer g.mu.Unlock()
		clear(g.tokens)
	}
}

func (g *guard) giveToken(w http.ResponseWriter, req *http.Request) {
	if !g.hasPassword(req) {
		w.Header().Set("WWW-Authenticate", `Basic realm="registrytest"`)
		writeError(w, http.StatusUnauthorized)
		return
	}
	token := rand.Text()
	g.mu.Lock()
	g.tokens[token] = req.URL.Query()["scope"]
	g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300}) // the client may be gone
}
