// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cloud

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/authn/k8schain"
	googleauth "github.com/google/go-containerregistry/pkg/v1/google"
)

// helpers are the clouds' own, of which none may be asked past the guard.
//
// The library puts the Docker configuration of the process in front of them. It
// is asked for hosts that passed the guard only, and by host: in the server,
// where there is none unless who runs it mounts one, it can give a credential to
// the cloud's own registries and to no other.
//
// None of them can be stopped, and they do not say why they have nothing. What
// they write: the one of AWS a file with its tokens, unless told not to; nothing
// else, for their logs go nowhere (k8schain.go, pkg/logs), or are below the
// level that is printed.
type helpers struct {
	// ctx is Google's for as long as the process lives: it keeps it for asking
	// for its next token.
	ctx     context.Context
	library authn.Keychain

	mu  sync.Mutex
	own authn.Authenticator // of Google, if the library has given up
}

func newHelpers(ctx context.Context) (*helpers, error) {
	// The helper of AWS takes this from the environment and from nowhere else.
	// What it kept there would outlive the process, in a place that nobody
	// guards, and we remember answers ourselves.
	if err := os.Setenv("AWS_ECR_DISABLE_CACHE", "true"); err != nil {
		return nil, fmt.Errorf("switching off the files of the AWS helper: %w", err)
	}
	// Without it that of AWS writes to our log that it falls back to what AWS
	// itself advises against.
	if _, set := os.LookupEnv("AWS_EC2_METADATA_V1_DISABLED"); !set {
		if err := os.Setenv("AWS_EC2_METADATA_V1_DISABLED", "true"); err != nil {
			return nil, fmt.Errorf("switching off the old metadata service of the AWS helper: %w", err)
		}
	}
	library, err := k8schain.NewNoClient(ctx)
	if err != nil {
		return nil, fmt.Errorf("preparing the clouds' helpers: %w", err)
	}
	return &helpers{ctx: ctx, library: library}, nil
}

// Resolve implements [authn.Keychain].
func (h *helpers) Resolve(target authn.Resource) (authn.Authenticator, error) {
	found, err := authn.Resolve(h.ctx, h.library, target)
	if err != nil || found != authn.Anonymous || !google.MatchString(target.RegistryStr()) {
		return found, err
	}
	return h.google()
}

// google asks Google again. The library asks once in the life of a process, and
// then goes without for ever: on GKE the metadata service of a Pod begins to
// answer seconds after the Pod does.
func (h *helpers) google() (authn.Authenticator, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.own == nil {
		found, err := googleauth.NewEnvAuthenticator(h.ctx)
		if err != nil {
			return authn.Anonymous, nil // as the library says that there is none
		}
		h.own = found
	}
	return h.own, nil
}
