// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package tokens is the token server of a registry, for tests: it exchanges a
// user's password for a token that the registry of the distribution project
// believes (its token authentication specification), and keeps a record of who
// asked with what.
//
//	server, err := tokens.Start(tokens.Options{Cert: cert})
//	…
//	server.Allow("robot", "password", "acme/")
//
// It speaks HTTPS, for passwords are sent to it.
package tokens

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

const (
	// Service is what a registry must call itself.
	Service = "pratique-e2e"
	// Issuer is whose tokens it must believe.
	Issuer = "pratique-e2e-tokens"

	path = "/token"
	// tokenFor is what Docker's own token server gives.
	tokenFor = 5 * time.Minute
	// headerTimeout closes a connection whose client says nothing.
	headerTimeout = 10 * time.Second
	keyID         = "e2e"
)

// Options say how a server runs.
type Options struct {
	// Cert is what it serves with.
	Cert cluster.ServingCert
}

// Server is a running token server. Its methods may be called at any time.
type Server struct {
	// Host is "localhost:port". go-containerregistry goes to no token server at a
	// loopback address, unless it has the registry's own port, but to one of that
	// name.
	Host string

	key    *ecdsa.PrivateKey
	signer jose.Signer
	server *http.Server
	served chan error // what ServeTLS returned

	mu       sync.Mutex
	users    map[string]account
	requests []Request
}

// account is what is known of a user.
type account struct {
	password string
	prefixes []string
}

// A Request is one that was answered.
type Request struct {
	// Authorization is the whole header, User what it names.
	Authorization, User string
	// Scopes are those that were asked for, such as "repository:acme/app:pull".
	Scopes []string
	Status int
}

// Start starts a server that knows nobody yet.
func Start(o Options) (*Server, error) {
	s := &Server{served: make(chan error, 1), users: map[string]account{}}
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("generating the key of tokens: %w", err)
	}
	s.signer, err = jose.NewSigner(
		jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: s.key, KeyID: keyID}},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return nil, fmt.Errorf("preparing to sign tokens: %w", err)
	}
	certificate, err := tls.X509KeyPair(o.Cert.CertPEM, o.Cert.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("reading the certificate: %w", err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for who wants tokens: %w", err)
	}
	s.Host = fmt.Sprintf("localhost:%d", listener.Addr().(*net.TCPAddr).Port)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, s.give)
	s.server = &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
	}
	go func() { s.served <- s.server.ServeTLS(listener, "", "") }()
	return s, nil
}

// Stop ends the server and its connections.
func (s *Server) Stop() error {
	if err := s.server.Close(); err != nil {
		return fmt.Errorf("stopping the token server: %w", err)
	}
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving tokens: %w", err)
	}
	s.served <- http.ErrServerClosed // for the next call
	return nil
}

// Realm is where the registry must send those who have no token.
func (s *Server) Realm() string { return "https://" + s.Host + path }

// JWKS is the key by which the registry must judge tokens, as a JSON Web Key Set
// (RFC 7517).
func (s *Server) JWKS() ([]byte, error) {
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: s.key.Public(), KeyID: keyID, Algorithm: string(jose.ES256), Use: "sig"},
	}})
	if err != nil {
		return nil, fmt.Errorf("encoding the key of tokens: %w", err)
	}
	return set, nil
}

// Allow makes a user, or gives a user another password. The user may do
// everything in the repositories whose names begin with one of the prefixes.
// Tokens that were given before stay good until they expire.
func (s *Server) Allow(user, password string, prefixes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[user] = account{password, prefixes}
}

// Revoke makes the server forget a user.
func (s *Server) Revoke(user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.users, user)
}

// Requests returns what was asked so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// give answers with a token for as many of the scopes as the user may have.
func (s *Server) give(w http.ResponseWriter, request *http.Request) {
	query := request.URL.Query()
	// Several scopes come as several parameters, or in one with spaces.
	scopes := strings.Fields(strings.Join(query["scope"], " "))
	user, password, _ := request.BasicAuth()
	s.mu.Lock()
	known, ok := s.users[user]
	s.mu.Unlock()
	status := http.StatusOK
	switch {
	case !ok || known.password != password:
		status = http.StatusUnauthorized
	case query.Get("service") != Service:
		status = http.StatusBadRequest
	}
	var answer []byte
	if status == http.StatusOK {
		var err error
		if answer, err = s.token(user, known.prefixes, scopes); err != nil {
			status, answer = http.StatusInternalServerError, []byte(err.Error())
		}
	}
	// Before the answer is sent: who has it may look at once.
	s.note(Request{Authorization: request.Header.Get("Authorization"), User: user, Scopes: scopes, Status: status})
	switch status {
	case http.StatusOK:
		w.Header().Set("Content-Type", "application/json")
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Basic realm=%q", Service))
	}
	w.WriteHeader(status)
	_, _ = w.Write(answer) // the client may be gone
}

func (s *Server) note(request Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, request)
}

// access is what a token allows, one claim of it.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// claims are those of a token beside the registered ones.
type claims struct {
	Access []access `json:"access"`
}

// token is the JSON by which a token is given.
func (s *Server) token(user string, prefixes, scopes []string) ([]byte, error) {
	now := time.Now()
	token, err := jwt.Signed(s.signer).Claims(jwt.Claims{
		Issuer: Issuer, Subject: user, Audience: jwt.Audience{Service}, ID: rand.Text(),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(tokenFor)),
	}).Claims(claims{granted(prefixes, scopes)}).Serialize()
	if err != nil {
		return nil, fmt.Errorf("signing a token: %w", err)
	}
	return json.Marshal(map[string]any{"token": token, "expires_in": int(tokenFor.Seconds())})
}

// granted are the scopes, "repository:name:action,action", of repositories whose
// names begin with one of the prefixes.
func granted(prefixes, scopes []string) []access {
	list := []access{} // null is no list
	for _, scope := range scopes {
		kind, rest, _ := strings.Cut(scope, ":")
		colon := strings.LastIndex(rest, ":")
		if kind != "repository" || colon < 0 {
			continue
		}
		name, actions := rest[:colon], rest[colon+1:]
		if slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			list = append(list, access{Type: kind, Name: name, Actions: strings.Split(actions, ",")})
		}
	}
	return list
}
