// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"

	"github.com/pratique-dev/pratique/policy/refresh"
)

const (
	// updateEvery is how often a repository is asked: that of the public Sigstore
	// signs anew every few days, for a week.
	updateEvery = 24 * time.Hour
	// updateTime is for all requests of one update: six, and one more for each
	// change of the repository's keys that the program does not know of.
	updateTime = time.Minute
	// A repository that cannot be asked is asked again after updateRetryFirst,
	// and then ever more rarely, down to each updateRetryMost.
	updateRetryFirst = time.Second
	updateRetryMost  = 5 * time.Minute
)

// Options say which repository is asked, and how.
type Options struct {
	// Transport is what all requests are made with; it must be set. It decides
	// which addresses may be dialled, and through which proxy.
	Transport http.RoundTripper
	// Mirror is the URL of the repository; that of the public Sigstore by
	// default.
	Mirror string
	// Root is the root.json by which the repository is believed; by default that
	// of the public Sigstore as it is built in. It may be an old one: the
	// repository's later ones are signed by it.
	Root []byte
	// Changed is called when a root is there for the first time, when it is
	// another one, and when the error is another one. It may ask for the root; it
	// must not block. Nil means that nobody is told.
	Changed func()
}

// TUF is the trusted_root.json of a repository of The Update Framework. It is
// fetched once somebody asked for it, and then every day; the last good one is
// kept when that fails. Nothing is written anywhere.
type TUF struct {
	host  string
	value *refresh.Value[*Root]
}

// NewTUF makes a TUF. Nothing is dialled before somebody asks for the root, nor
// before Run.
func NewTUF(o Options) (*TUF, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	host, err := hostOf(o.Mirror)
	if err != nil {
		return nil, err
	}
	repository, err := newRepository(o)
	if err != nil {
		return nil, err
	}
	return &TUF{
		host: host,
		value: refresh.New(repository.fetch, refresh.Options[*Root]{
			Every: updateEvery, Timeout: updateTime, RetryFirst: updateRetryFirst, RetryMost: updateRetryMost,
			Equal:   func(a, b *Root) bool { return a.Hash == b.Hash },
			Changed: o.Changed,
		}),
	}, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.Transport == nil {
		return o, errors.New("a repository of trust roots needs a transport")
	}
	if o.Mirror == "" {
		o.Mirror = tuf.DefaultMirror
	}
	if o.Root == nil {
		if o.Mirror != tuf.DefaultMirror {
			return o, errors.New("another repository than that of the public Sigstore needs a root.json of its own")
		}
		o.Root = tuf.DefaultRoot()
	}
	return o, nil
}

// hostOf is the host of a mirror. Its URL is part of errors, so that it must
// hold no password.
func hostOf(mirror string) (string, error) {
	parsed, err := url.Parse(mirror)
	if err != nil || (parsed.Scheme != "https" && parsed.Scheme != "http") || parsed.Host == "" ||
		parsed.User != nil || parsed.RawQuery != "" || parsed.Fragment != "" {
		return "", errors.New("the URL of a repository of trust roots is http(s)://HOST[:PORT][/PATH]")
	}
	return parsed.Host, nil
}

// Root returns the root as it was fetched last, or why there is none: at first
// that it is being fetched, which is [refresh.ErrPending]. It never blocks.
func (t *TUF) Root() (*Root, error) {
	fetched, err := t.value.Get()
	return fetched, t.named(err)
}

// Err is why the root was not fetched, or could not be fetched again; nil if
// nothing is wrong.
func (t *TUF) Err() error { return t.named(t.value.Err()) }

// Wait is Root after the first attempt to fetch it has ended, well or not. It is
// for programs that have nothing else to do meanwhile.
func (t *TUF) Wait(ctx context.Context) (*Root, error) {
	fetched, err := t.value.Wait(ctx)
	return fetched, t.named(err)
}

// Run fetches the root, once somebody asked for it, until ctx ends.
func (t *TUF) Run(ctx context.Context) { t.value.Run(ctx) }

func (t *TUF) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("the trust root of %s: %w", t.host, err)
}
