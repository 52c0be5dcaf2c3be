// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"crypto/sha256"
	"fmt"
	"sync"

	pc "github.com/sigstore/policy-controller/pkg/apis/policy/v1alpha1"

	"github.com/pratique-dev/pratique/policy/trust"
)

// maxArchives is how many verified roots are remembered: more than anybody has.
const maxArchives = 100

// archives remembers what was verified once. What a repository said goes on being
// so when its metadata have expired, as in policy-controller, for as long as the
// process lives: no newer one can be asked for.
type archives struct {
	mu    sync.Mutex
	roots map[[sha256.Size]byte]*trust.Root
}

func newArchives() *archives { return &archives{roots: map[[sha256.Size]byte]*trust.Root{}} }

// root verifies a repository that came as a whole. hash is that of its object.
func (a *archives) root(from *pc.Repository, hash [sha256.Size]byte) (*trust.Root, error) {
	if a == nil {
		a = newArchives()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.roots[hash]; ok {
		return known, nil
	}
	if from.TrustedRootTarget != "" && from.TrustedRootTarget != trustedRoot {
		return nil, fmt.Errorf("trustedRootTarget: only %q is read", trustedRoot)
	}
	found, err := trust.Archive{Packed: from.MirrorFS, Root: from.Root, Targets: from.Targets}.Read(nowhere)
	if err != nil {
		return nil, err
	}
	if len(a.roots) >= maxArchives {
		clear(a.roots)
	}
	a.roots[hash] = found
	return found, nil
}
