// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
)

const (
	// maxSessions is how many logins are remembered. One is a few hundred
	// bytes and, at most, a token of 64 KiB.
	maxSessions = 1000
	// sessionIdle is when an unused login is forgotten.
	sessionIdle = 10 * time.Minute
	// handshakeTime bounds a login that several requests wait for.
	handshakeTime = 30 * time.Second
)

// sessions are the logins in use: one for each repository, credential and way. A
// login costs GET /v2/ and perhaps a token, and is worth keeping.
type sessions struct {
	cache   *otter.Cache[sessionKey, *session]
	flights singleflight.Group
	shares  *shares
}

// session is one login.
type session struct {
	client *http.Client
	// keeps says that the registry keeps signatures itself.
	keeps bool
	// proven says that the registry has shown something of the repository to it.
	proven atomic.Bool
}

type sessionKey struct {
	repository string
	auth       authn.AuthConfig
	terms      string // their key
}

func newSessions() (*sessions, error) {
	cache, err := otter.New(&otter.Options[sessionKey, *session]{
		MaximumSize:      maxSessions,
		ExpiryCalculator: otter.ExpiryAccessing[sessionKey, *session](sessionIdle),
	})
	if err != nil {
		return nil, fmt.Errorf("making the session cache: %w", err)
	}
	shares, err := newShares()
	if err != nil {
		return nil, err
	}
	return &sessions{cache: cache, shares: shares}, nil
}

// get returns a session that is logged in at the repository, under the terms
// that the key is of.
func (s *sessions) get(ctx context.Context, key sessionKey, terms terms) (*session, error) {
	if held, ok := s.cache.GetIfPresent(key); ok {
		return held, nil
	}
	// Others may wait for this login, so it must not end with this request.
	flight := s.flights.DoChan(fmt.Sprintf("%q", key), func() (_ any, err error) {
		defer func() {
			// A panic here would end the process: there is nobody above.
			if p := recover(); p != nil {
				err = fmt.Errorf("logging in panicked: %.200v", p)
			}
		}()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), handshakeTime)
		defer cancel()
		back, err := s.shares.take(ctx, key)
		if err != nil {
			return nil, err
		}
		defer back()
		made, err := logIn(ctx, key, terms)
		if err == nil {
			s.cache.Set(key, made)
		}
		return made, err
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case result := <-flight:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*session), nil
	}
}

func logIn(ctx context.Context, key sessionKey, terms terms) (*session, error) {
	repository, err := name.NewRepository(key.repository)
	if err != nil {
		return nil, fmt.Errorf("reading the repository %q: %w", key.repository, err)
	}
	auth := authn.Anonymous
	if key.auth != (authn.AuthConfig{}) {
		auth = authn.FromConfig(key.auth)
	}
	host, _, _ := strings.Cut(key.repository, "/")
	site := site{registry: host, realms: terms.realms}
	carrier := &login{
		next: retrier{carrier{terms.way, site}}, site: site, terms: terms, own: repository.RegistryStr(),
		secret: key.auth != (authn.AuthConfig{}),
	}
	rt, err := transport.NewWithContext(ctx, repository.Registry, auth, carrier,
		[]string{repository.Scope(transport.PullScope)})
	if err != nil {
		return nil, err
	}
	carrier.made.Store(true)
	return &session{client: &http.Client{Transport: rt}, keeps: carrier.keeps.Load()}, nil
}

// proves reports whether the session of a key has seen the repository.
func (s *sessions) proves(key sessionKey) bool {
	held, ok := s.cache.GetIfPresent(key)
	return ok && held.proven.Load()
}

// access is one repository as one request may see it.
type access struct {
	peer
	repository string // canonical
	// extensions is the address below which the registry has what it adds to the
	// repository on its own.
	extensions string
	auths      []authn.AuthConfig
	// withheld says that there are credentials, which are not shown.
	withheld bool
	terms    terms
}

func (c *Client) access(ctx context.Context, image policy.Image) (*access, error) {
	terms, err := c.terms(image)
	if err != nil {
		return nil, err
	}
	ring, err := image.Ring(ctx)
	if err != nil {
		return nil, &Error{Reason: policy.ReasonCredentials, Message: err.Error(), cause: err}
	}
	return c.accessWith(ctx, ring, image.Reference.Repository(), terms)
}

func (c *Client) accessWith(ctx context.Context, ring credential.Ring, repository string, terms terms) (*access, error) {
	parsed, err := name.NewRepository(repository)
	if err != nil {
		return nil, fmt.Errorf("reading the repository %q: %w", repository, err)
	}
	auths := ring.For(ctx, repository)
	// The library shows a credential to whoever it has one for. Over plain HTTP
	// it gets none, and sees what everybody sees.
	withheld := len(auths) > 0 && terms.plain(parsed.RegistryStr(), parsed.RegistryStr()) && !terms.plainHTTP
	if len(auths) == 0 || withheld {
		auths = []authn.AuthConfig{{}}
	}
	host, _, _ := strings.Cut(repository, "/")
	root := "https://" + parsed.RegistryStr() // the session's login chooses the scheme
	return &access{
		peer:       peer{client: c, host: host, base: root + "/v2/" + parsed.RepositoryStr() + "/"},
		extensions: root + "/extensions/v2/" + parsed.RepositoryStr() + "/",
		repository: repository, auths: auths, withheld: withheld, terms: terms,
	}, nil
}

// do sends a request with one credential after the other, those first that
// have seen the repository before, until the registry accepts one. Any status
// but 200 is an *Error, and so is a body over the limit.
//
// Registries hide what a credential may not see behind 404 as well as behind
// 401, so that only one which has seen the repository can say that something is
// not there.
func (a *access) do(ctx context.Context, r request) (answer, error) {
	var refusal error
	for _, key := range a.keys() {
		got, seen, err := a.once(ctx, r, key)
		switch {
		case err == nil:
			return got, nil
		case isNotFound(err) && seen:
			return answer{}, err
		case isNotFound(err):
			refusal = err
		// Some registries count requests by who sends them.
		case hasReason(err, policy.ReasonUnauthorized), hasReason(err, policy.ReasonRateLimited):
			refusal = cmp.Or(refusal, err)
		default:
			return answer{}, err
		}
	}
	return answer{}, a.explain(refusal)
}

// explain says whether there was anything to refuse.
func (a *access) explain(err error) error {
	e, ok := errors.AsType[*Error](err)
	if !ok || e.status == 0 {
		return err
	}
	// What is kept back may have seen what is hidden.
	if hidden := a.withheld && e.Reason == policy.ReasonNotFound; !hidden && e.Reason != policy.ReasonUnauthorized {
		return err
	}
	hint := "the credentials for it were refused"
	switch {
	case a.withheld:
		hint = "credentials do not go over plain HTTP; " + allowsPlainHTTP
	case len(a.auths) == 1 && a.auths[0] == (authn.AuthConfig{}):
		hint = "no credentials for this host were found"
	}
	return &Error{Reason: e.Reason, Message: e.Message + ": " + hint, status: e.status, cause: e}
}

// keys names the sessions to try, in their order.
func (a *access) keys() []sessionKey {
	var proven, others []sessionKey
	for _, auth := range a.auths {
		key := sessionKey{a.repository, auth, a.terms.key}
		if a.client.sessions.proves(key) {
			proven = append(proven, key)
		} else {
			others = append(others, key)
		}
	}
	return append(proven, others...)
}

// once sends a request with one credential. seen says whether that one has seen
// the repository.
func (a *access) once(ctx context.Context, r request, key sessionKey) (got answer, seen bool, err error) {
	ctx = withRetries(ctx)
	session, err := a.client.sessions.get(ctx, key, a.terms)
	if err != nil {
		return answer{}, false, loginError(ctx, a.host, r.what, err)
	}
	if r.kept && !session.keeps {
		return answer{}, false, errKeepsNone
	}
	back, err := a.client.sessions.shares.take(ctx, key)
	if err != nil {
		return answer{}, false, dialError(ctx, a.host, r.what, err)
	}
	defer back()
	got, err = a.send(ctx, r, session.client)
	if err == nil && !r.kept { // an empty list is no proof that anything is there
		session.proven.Store(true)
	}
	return got, session.proven.Load(), err
}
