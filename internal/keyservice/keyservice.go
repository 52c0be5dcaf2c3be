// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keyservice fetches public keys from key management services: those of
// AWS, Azure and Google, and HashiCorp's Vault.
//
// The providers of github.com/sigstore/sigstore do the asking. They dial by
// themselves, past the guard that registries are dialled through, with the
// credentials that the process has from its environment. A reference decides
// which service is asked: it may name a host (awskms://HOST/…, azurekms://HOST/…),
// to which requests in Pratique's name go. So references must come from whoever
// administers the cluster, from an ImageConfig and its like, and never from an
// image, its signatures or a request. Nothing but public keys is asked for.
package keyservice

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/kms/aws"
	"github.com/sigstore/sigstore/pkg/signature/kms/azure"
	"github.com/sigstore/sigstore/pkg/signature/kms/gcp"
	"github.com/sigstore/sigstore/pkg/signature/kms/hashivault"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/pratique-dev/pratique/policy/refresh"
)

const (
	// refreshEvery is how soon a key that was replaced is another one here. It
	// bounds what services bill, and how much they notice of the number of
	// replicas.
	refreshEvery = time.Hour
	// timeout is for one key: the token, and the few calls that providers make.
	timeout = 10 * time.Second
	// A service that cannot be asked is asked again after retryFirst, and then
	// ever more rarely, down to each retryMost.
	retryFirst = time.Second
	retryMost  = 5 * time.Minute
	// maxReference is the length of a reference in an ImageConfig.
	maxReference = 1024
)

// services are those that are asked, by how references begin. The library knows
// more: it starts a program for a scheme that it does not know, so that it is
// not given any other (kms.Get).
var services = map[string]func(reference string) error{
	aws.ReferenceScheme:        aws.ValidReference,
	azure.ReferenceScheme:      azure.ValidReference,
	gcp.ReferenceScheme:        gcp.ValidReference,
	hashivault.ReferenceScheme: hashivault.ValidReference,
}

// Options say what a Resolver does besides. The zero value does nothing.
type Options struct {
	// Changed is called when a key is there for the first time, when it is
	// another one, when its error is another one, and when nobody asked for a key
	// for an hour: who still needs it must ask again. It may ask for keys; it must
	// not block. Nil means that nobody is told.
	Changed func()
}

// Resolver knows the public keys that references name. It fetches them in the
// background, from the moment somebody first asks; nobody waits for a service.
// What it knows is kept while a service cannot be asked.
type Resolver struct {
	keys *refresh.Map[string, []byte]
	open opener

	mu     sync.Mutex
	google map[string]signature.PublicKeyProvider // by reference
}

// opener makes what asks for one key.
type opener func(ctx context.Context, reference string) (signature.PublicKeyProvider, error)

// New makes a Resolver. Nothing is dialled before somebody asks for a key, nor
// before Run.
func New(o Options) *Resolver { return newResolver(o, open) }

func newResolver(o Options, open opener) *Resolver {
	r := &Resolver{open: open, google: map[string]signature.PublicKeyProvider{}}
	r.keys = refresh.NewMap(r.fetch, refresh.Options[[]byte]{
		Every: refreshEvery, Timeout: timeout, RetryFirst: retryFirst, RetryMost: retryMost,
		Equal: bytes.Equal, Changed: o.Changed,
	})
	return r
}

// Key returns a public key in PEM form, as it was fetched last, or why there is
// none: at first that it is being fetched, which is [refresh.ErrPending]. It
// never blocks.
func (r *Resolver) Key(reference string) (pem []byte, err error) {
	if err := check(reference); err != nil {
		return nil, err
	}
	return r.keys.Get(reference)
}

// Err is why a key was not fetched, or could not be fetched again; nil if
// nothing is wrong, and if nobody asked for it.
func (r *Resolver) Err(reference string) error { return r.keys.Err(reference) }

// Wait is Key after the first attempt to fetch it has ended, well or not. It is
// for programs that have nothing else to do meanwhile.
func (r *Resolver) Wait(ctx context.Context, reference string) (pem []byte, err error) {
	if err := check(reference); err != nil {
		return nil, err
	}
	return r.keys.Wait(ctx, reference)
}

// Run fetches the keys that are asked for, until ctx ends.
func (r *Resolver) Run(ctx context.Context) { r.keys.Run(ctx) }

// check reports why a reference is not one of a key.
func check(reference string) error {
	if len(reference) > maxReference {
		return fmt.Errorf("a key service's reference has at most %d bytes", maxReference)
	}
	for scheme, valid := range services {
		if strings.HasPrefix(reference, scheme) {
			return valid(reference)
		}
	}
	return errors.New("a key service's reference begins with awskms://, azurekms://, gcpkms:// or hashivault://")
}

// fetch asks a service for a key. The references that it is given are good.
func (r *Resolver) fetch(ctx context.Context, reference string) ([]byte, error) {
	provider, err := r.provider(ctx, reference)
	if err != nil {
		return nil, explained(err)
	}
	key, err := provider.PublicKey(options.WithContext(ctx))
	if err != nil {
		return nil, explained(err)
	}
	pem, err := cryptoutils.MarshalPublicKeyToPEM(key)
	if err != nil {
		return nil, fmt.Errorf("the key service gave what is no public key of a kind that is known: %T", key)
	}
	return pem, nil
}

// provider is made for each fetch: it has the credentials of the moment, and
// what it remembers ends with it. Only Google's is kept, since its connections
// cannot be closed. It keeps its credentials fresh by itself, and remembers a
// key for 5 minutes, or, if the reference names a version, for good.
func (r *Resolver) provider(ctx context.Context, reference string) (signature.PublicKeyProvider, error) {
	if !strings.HasPrefix(reference, gcp.ReferenceScheme) {
		return r.open(ctx, reference)
	}
	r.mu.Lock()
	kept, ok := r.google[reference]
	r.mu.Unlock()
	if ok {
		return kept, nil
	}
	made, err := r.open(context.WithoutCancel(ctx), reference)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.google[reference] = made
	return made, nil
}

// open returns no more of a provider than gives the public key: it could sign,
// and make keys, too.
func open(ctx context.Context, reference string) (signature.PublicKeyProvider, error) {
	return kms.Get(ctx, reference, crypto.SHA256)
}
