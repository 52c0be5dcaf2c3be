// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package credential

import (
	"context"
	"fmt"

	"github.com/google/go-containerregistry/pkg/authn"
)

// Ask finds the credential for one repository outside of any Secret, as by a
// helper program. The zero AuthConfig means that there is none.
//
// A request asks more than once, and its credentials' identity is computed by
// other questions than those they are shown by, so who answers remembers. If the
// answer changes in between, what was found with the later one is cached under
// the identity of the earlier: harmless as long as whoever has the one could as
// well have been given the other, so Ask must answer everybody who has the same
// Config alike.
type Ask func(ctx context.Context, host, path string) (authn.AuthConfig, error)

// FromChain makes a Config of what has to be asked for each repository, and is
// asked for no other than what a request is about. If it fails, that is a
// warning, and the other credentials are tried: the texts of its errors are
// shown to people. It remembers nothing, and is safe for concurrent use if ask
// is.
func FromChain(ask Ask) Config { return Config{chain: ask} }

func (a Ask) find(ctx context.Context, host, path string, note func(string)) (authn.AuthConfig, bool) {
	auth, err := a(ctx, host, path)
	if err != nil {
		note(fmt.Sprintf("no credential for %s: %v", host, err))
		return authn.AuthConfig{}, false
	}
	return auth, auth != (authn.AuthConfig{})
}
