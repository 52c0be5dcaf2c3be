// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cloud asks the cloud that the process runs in for credentials of the
// cloud's own registries.
//
// The clouds' helpers do the asking. They dial by themselves, past the guard
// that registries are dialled through: metadata services and token services,
// whose addresses come from the environment. What an image's reference decides
// is only the name of the registry, so a guard stands in front of them: they are
// asked for hosts that are registries of the cloud, by their whole name, and for
// nothing else.
package cloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/maypok86/otter/v2"

	"github.com/pratique-dev/pratique/registry/credential"
)

// Bounds of asking. A question cannot be stopped, so what is bounded is how long
// anybody waits for it, and how many there are.
const (
	// patience is how long a question may take before nobody waits for it any
	// more: part of the 10 s that a webhook may take by default. What comes
	// later is remembered all the same.
	patience = 3 * time.Second
	// abandonAfter is when a question without an answer is asked anew. The
	// helper of Azure gives up after 30 s (docker-credential-acr-env,
	// pkg/registry/const.go, defaultTimeOut).
	abandonAfter = time.Minute
	// maxQuestions is how many are under way at each cloud. Each is about
	// another host, and a Pod may name hosts that do not exist.
	maxQuestions = 64
	// maxHosts is how many hosts are remembered: more registries than a cluster
	// uses, at a few KB each.
	maxHosts = 1000
)

// memory is how long an answer is remembered.
type memory struct {
	fresh time.Duration // until it is asked for again
	kept  time.Duration // until it is not used any more, if asking fails or is slow
}

// memories of what the clouds gave. A token that changes is another identity, by
// which nothing is found that was cached under the last one, so they are kept
// for a good part of their life: 12 h with AWS (GetAuthorizationToken), 3 h with
// Azure ("Authenticate with an Azure container registry"). Google's helper keeps
// its tokens itself until 10 s before their end (golang.org/x/oauth2 v0.36.0,
// defaultExpiryDelta), so what it gave is not kept for longer than that.
var memories = map[Provider]memory{
	AWS:   {fresh: 30 * time.Minute, kept: 2 * time.Hour},
	Azure: {fresh: 30 * time.Minute, kept: 2 * time.Hour},
	GCP:   {fresh: 5 * time.Second, kept: 5 * time.Second},
}

// nothing is for how long it is remembered that a cloud gave none. Outside of
// clouds that takes seconds to find out, and gcr.io has public images: it is
// found out again while the last answer serves.
var nothing = memory{fresh: time.Minute, kept: 10 * time.Minute}

// What people are told. Helpers' own errors may hold what they were asked with.
var (
	errNone    = errors.New("the cloud gives Pratique none")
	errForeign = errors.New("it is no registry of the cloud that registry.authentication.provider names")
	errFailed  = errors.New("the helper of the cloud failed")
	errLate    = errors.New("the cloud did not answer in time")
	errBusy    = errors.New("too many questions to the cloud are under way")
)

// Keychain asks clouds, and remembers what they answered. Whoever asks is given
// the same: it is Pratique's own identity that the cloud knows.
type Keychain struct {
	guard   guard
	helpers authn.Keychain
	now     func() time.Time
	// patience is a field for tests.
	patience time.Duration

	slots map[Provider]chan struct{}

	mu      sync.Mutex
	asking  map[string]*question // by host
	answers *otter.Cache[string, answer]
}

// answer is what is remembered of a host.
type answer struct {
	auth        authn.AuthConfig
	err         error
	fresh, kept time.Time // until
}

// question is one that is under way.
type question struct {
	provider Provider
	host     string
	began    time.Time
	done     chan struct{} // closed once answer is there
	answer   answer
}

// New returns a Keychain of the helpers of all clouds. ctx is for what they do
// as long as the process lives; that it ends does not matter to them.
func New(ctx context.Context) (*Keychain, error) {
	helpers, err := newHelpers(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	// Where the helper of Azure takes it from.
	return newKeychain(helpers, guard{environment: os.Getenv("AZURE_ENVIRONMENT")})
}

func newKeychain(helpers authn.Keychain, g guard) (*Keychain, error) {
	answers, err := otter.New(&otter.Options[string, answer]{MaximumSize: maxHosts})
	if err != nil {
		return nil, fmt.Errorf("making the cache of the clouds' credentials: %w", err)
	}
	k := &Keychain{
		guard: g, helpers: helpers, now: time.Now, patience: patience,
		slots: map[Provider]chan struct{}{}, asking: map[string]*question{}, answers: answers,
	}
	for provider := range memories {
		k.slots[provider] = make(chan struct{}, maxQuestions)
	}
	return k, nil
}

// Any returns the credentials of whichever cloud a registry is of. That a cloud
// gives none is not told: most images of gcr.io are anybody's, in any cloud.
func (k *Keychain) Any() credential.Config {
	return credential.FromChain(func(ctx context.Context, host, _ string) (authn.AuthConfig, error) {
		owner := k.guard.owner(host)
		if owner == "" {
			return authn.AuthConfig{}, nil
		}
		auth, err := k.ask(ctx, owner, host)
		if errors.Is(err, errNone) {
			return authn.AuthConfig{}, nil
		}
		return auth, err
	})
}

// Of returns the credentials of one cloud's registries. No other is asked, and
// whoever named it is told if there are none.
func (k *Keychain) Of(provider Provider) credential.Config {
	return credential.FromChain(func(ctx context.Context, host, _ string) (authn.AuthConfig, error) {
		owner := k.guard.owner(host)
		if owner == "" || owner != provider {
			return authn.AuthConfig{}, errForeign
		}
		return k.ask(ctx, owner, host)
	})
}

// ask finds the credential for a host that passed the guard.
func (k *Keychain) ask(ctx context.Context, provider Provider, host string) (authn.AuthConfig, error) {
	known, asked := k.remembered(provider, host)
	switch {
	case known != nil:
		return known.auth, known.err
	case asked == nil:
		return authn.AuthConfig{}, errBusy
	}
	// Who comes to a question that hangs does not wait for it again.
	timer := time.NewTimer(asked.began.Add(k.patience).Sub(k.now()))
	defer timer.Stop()
	select {
	case <-asked.done:
	case <-ctx.Done():
		return authn.AuthConfig{}, errLate
	case <-timer.C:
		return authn.AuthConfig{}, errLate
	}
	return asked.answer.auth, asked.answer.err
}

// remembered returns an answer that is good enough, or else the question that
// will bring one, nil if there are too many. An answer that is not fresh any
// more has it asked for again.
func (k *Keychain) remembered(provider Provider, host string) (*answer, *question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	known, ok := k.answers.GetIfPresent(host)
	if ok && now.Before(known.fresh) {
		return &known, nil
	}
	asked := k.asking[host]
	if asked == nil || now.Sub(asked.began) > abandonAfter {
		asked = k.begin(&question{provider: provider, host: host, began: now, done: make(chan struct{})})
	}
	if ok && now.Before(known.kept) {
		return &known, asked
	}
	return nil, asked
}

// begin asks, if there is room for one more question. k.mu is held.
func (k *Keychain) begin(q *question) *question {
	select {
	case k.slots[q.provider] <- struct{}{}:
	default:
		return nil
	}
	k.asking[q.host] = q
	go func() {
		// Also if the helper ends the goroutine.
		got := answer{err: errFailed}
		defer func() { k.end(q, got) }()
		got.auth, got.err = k.resolve(q.host)
	}()
	return q
}

// end remembers an answer, whether or not anybody still waits for it.
func (k *Keychain) end(q *question, got answer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	<-k.slots[q.provider]
	now, remember := k.now(), memories[q.provider]
	if got.err != nil {
		remember = nothing
	}
	got.fresh, got.kept = now.Add(remember.fresh), now.Add(remember.kept)
	// What a cloud gave is not worse because it cannot be asked again.
	if known, ok := k.answers.GetIfPresent(q.host); ok && got.err != nil && known.err == nil && now.Before(known.kept) {
		got.auth, got.err, got.kept = known.auth, nil, known.kept
	}
	k.answers.Set(q.host, got)
	if k.asking[q.host] == q {
		delete(k.asking, q.host)
	}
	q.answer = got
	close(q.done)
}

// resolve asks the helpers, for the host alone: none of them goes by more. A
// helper that panics, as the one of AWS does over its configuration, has failed.
func (k *Keychain) resolve(host string) (auth authn.AuthConfig, err error) {
	defer func() {
		if recover() != nil {
			auth, err = authn.AuthConfig{}, errFailed
		}
	}()
	registry, err := name.NewRegistry(host, name.StrictValidation)
	if err != nil {
		return authn.AuthConfig{}, errFailed
	}
	found, err := k.helpers.Resolve(registry)
	if err != nil || found == nil {
		return authn.AuthConfig{}, errFailed
	}
	config, err := found.Authorization()
	switch {
	case err != nil || config == nil:
		return authn.AuthConfig{}, errFailed
	case *config == (authn.AuthConfig{}):
		return authn.AuthConfig{}, errNone
	}
	return *config, nil
}
