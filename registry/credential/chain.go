// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Ask finds the credential for one repository outside of any Secret, as by a
// helper program. The zero AuthConfig means that there is none.
type Ask func(ctx context.Context, host, path string) (authn.AuthConfig, error)

// FromChain makes a Config of what has to be asked for each repository. It is
// asked once for each, and for no other than what a request is about. If it
// fails, that is a warning, and the other credentials are tried: the texts of
// its errors are shown to people.
func FromChain(ask Ask) Config {
	return Config{chain: &chain{source: ask, answers: map[string]answer{}}}
}

// chain remembers what was answered: the identity of the credentials and those
// that are shown must be the same.
type chain struct {
	source Ask

	mu      sync.Mutex
	answers map[string]answer
}

type answer struct {
	auth authn.AuthConfig
	err  error
}

func (c *chain) ask(ctx context.Context, host, path string, note func(string)) (authn.AuthConfig, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	repository := host + "/" + path
	got, ok := c.answers[repository]
	if !ok {
		got.auth, got.err = c.source(ctx, host, path)
		c.answers[repository] = got
	}
	if got.err != nil {
		note(fmt.Sprintf("no credential for %s: %v", host, got.err))
		return authn.AuthConfig{}, false
	}
	return got.auth, got.auth != (authn.AuthConfig{})
}
