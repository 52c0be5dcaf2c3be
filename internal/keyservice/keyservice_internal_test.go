// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package keyservice

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/pratique-dev/pratique/policy/refresh"
)

const (
	vaultKey  = "hashivault://release"
	awsKey    = "awskms:///alias/release"
	azureKey  = "azurekms://acme.vault.azure.net/release"
	googleKey = "gcpkms://projects/acme/locations/global/keyRings/signing/cryptoKeys/release"
)

func newKey(t *testing.T) *ecdsa.PublicKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey
}

func pemOf(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	pem, err := cryptoutils.MarshalPublicKeyToPEM(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem)
}

// service stands in for all services. Its answer may be changed at any time.
type service struct {
	mu             sync.Mutex
	answer         func(ctx context.Context) (crypto.PublicKey, error)
	opened, asked  map[string]int
	deadlines      int // of questions that had one
	openerDeadline int // of providers that were made with one
}

func newService(key crypto.PublicKey) *service {
	s := &service{opened: map[string]int{}, asked: map[string]int{}}
	s.says(key)
	return s
}

func (s *service) set(answer func(context.Context) (crypto.PublicKey, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *service) says(key crypto.PublicKey) {
	s.set(func(context.Context) (crypto.PublicKey, error) { return key, nil })
}

func (s *service) open(ctx context.Context, reference string) (signature.PublicKeyProvider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened[reference]++
	if _, ok := ctx.Deadline(); ok {
		s.openerDeadline++
	}
	return provider{s, reference}, nil
}

// counted is how often a provider was made for a reference, and asked.
func (s *service) counted(reference string) (opened, asked int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened[reference], s.asked[reference]
}

type provider struct {
	*service

	reference string
}

func (p provider) PublicKey(opts ...signature.PublicKeyOption) (crypto.PublicKey, error) {
	ctx := context.Background() //nolint:forbidigo // as the providers begin
	for _, o := range opts {
		o.ApplyContext(&ctx)
	}
	p.mu.Lock()
	p.asked[p.reference]++
	if _, ok := ctx.Deadline(); ok {
		p.deadlines++
	}
	answer := p.answer
	p.mu.Unlock()
	return answer(ctx)
}

// run keeps what a Resolver does in the background until the end of the test.
func run(t *testing.T, r *Resolver) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
}

// later is when that long has passed and what was to be done then is done.
func later(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func want(t *testing.T, r *Resolver, reference, pem, message string) {
	t.Helper()
	got, err := r.Key(reference)
	if string(got) != pem || (message == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), message) {
		t.Errorf("%s is %q, %v; want %q, %q", reference, got, err, pem, message)
	}
}

func TestKeysAreFetchedInTheBackground(t *testing.T) {
	t.Parallel()
	for _, reference := range []string{vaultKey, awsKey, azureKey, googleKey} {
		t.Run(strings.Split(reference, ":")[0], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				first, second := newKey(t), newKey(t)
				s := newService(first)
				changes := make(chan struct{}, 100)
				r := newResolver(Options{Changed: func() { changes <- struct{}{} }}, s.open)
				run(t, r)
				later(time.Hour)
				if opened, asked := s.counted(reference); opened+asked > 0 {
					t.Errorf("nobody asked, and %d providers were made and asked %d times", opened, asked)
				}
				if _, err := r.Key(reference); !errors.Is(err, refresh.ErrPending) {
					t.Errorf("the first answer is %v", err)
				}
				for halves := range 10 {
					later(refreshEvery / 2)
					for range 100 {
						want(t, r, reference, pemOf(t, first), "")
					}
					if _, asked := s.counted(reference); asked != 1+(halves+1)/2 {
						t.Errorf("asked %d times in %d half hours", asked, halves+1)
					}
				}
				s.says(second)
				later(refreshEvery / 2)
				want(t, r, reference, pemOf(t, first), "")
				later(refreshEvery / 2)
				want(t, r, reference, pemOf(t, second), "")
				s.set(func(context.Context) (crypto.PublicKey, error) { return nil, errors.New("hunter2") })
				later(refreshEvery / 2)
				want(t, r, reference, pemOf(t, second), "")
				later(refreshEvery / 2)
				want(t, r, reference, pemOf(t, second), "")
				if err := r.Err(reference); err == nil || err.Error() != errFailed.Error() {
					t.Errorf("the error is %v", err)
				}
				if got := len(changes); got != 3 {
					t.Errorf("%d changes", got)
				}
			})
		})
	}
}

// A provider is made for each fetch, with the credentials of the moment and the
// time that it may take; but Google's once, and without an end.
func TestProvidersAreMade(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for reference, wantOpened := range map[string]int{vaultKey: 3, awsKey: 3, azureKey: 3, googleKey: 1} {
		s := newService(newKey(t))
		r := newResolver(Options{}, s.open)
		for range 3 {
			if _, err := r.fetch(ctx, reference); err != nil {
				t.Error(err)
			}
		}
		opened, asked := s.counted(reference)
		if opened != wantOpened || asked != 3 || s.deadlines != 3 {
			t.Errorf("%s: %d providers, %d questions, %d of which had an end", reference, opened, asked, s.deadlines)
		}
		if wantEnds := wantOpened - wantOpened%3; s.openerDeadline != wantEnds {
			t.Errorf("%s: %d of %d providers were made with an end", reference, s.openerDeadline, opened)
		}
	}
}

func TestServiceThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := newKey(t)
		s := newService(key)
		release := make(chan struct{})
		hang := func(ctx context.Context, reference string) (signature.PublicKeyProvider, error) {
			if reference == vaultKey {
				<-release // as Vault's client, which heeds no context
			}
			return s.open(ctx, reference)
		}
		r := newResolver(Options{}, hang)
		run(t, r)
		want(t, r, vaultKey, "", "being fetched")
		want(t, r, awsKey, "", "being fetched")
		later(0)
		want(t, r, awsKey, pemOf(t, key), "")
		later(timeout)
		want(t, r, vaultKey, "", "no answer within 10s")
		close(release)
		later(retryFirst)
		want(t, r, vaultKey, pemOf(t, key), "")
	})
}

func TestReferencesThatAreNoKeys(t *testing.T) {
	t.Parallel()
	s := newService(newKey(t))
	r := newResolver(Options{}, s.open)
	run(t, r)
	for _, reference := range []string{
		"", "release", "k8s://cosign-system/release", "openbao://release", "https://kms.example.com/release", "file:///etc/passwd",
		"awskms://", "awskms://release", "awskms:///arn:aws:s3:::release",
		"azurekms://", "azurekms://acme.vault.azure.net", "azurekms://acme.vault.azure.net/release/1/2",
		"gcpkms://", "gcpkms://projects/acme", googleKey + "/cryptoKeyVersions/",
		"hashivault://", "hashivault://../sys/seal", "hashivault://a/b", "hashivault://a?b", "HASHIVAULT://release",
		vaultKey + strings.Repeat("a", maxReference),
	} {
		if _, err := r.Key(reference); err == nil || errors.Is(err, refresh.ErrPending) {
			t.Errorf("%q is taken: %v", reference, err)
		}
		if _, err := r.Wait(t.Context(), reference); err == nil {
			t.Errorf("%q is a key", reference)
		}
	}
	if len(s.opened) > 0 {
		t.Errorf("asked for %v", s.opened)
	}
}

// The library starts a program whose name a reference gives.
func TestNoProgramIsStarted(t *testing.T) {
	directory := t.TempDir()
	ran := filepath.Join(directory, "ran")
	script := fmt.Sprintf("#!/bin/sh\n: > %s\n", ran)
	if err := os.WriteFile(filepath.Join(directory, "sigstore-kms-evil"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", directory)
	r := New(Options{})
	run(t, r)
	if _, err := r.Wait(t.Context(), "evil://release"); err == nil {
		t.Error("it is a key")
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the program was started")
	}
	// So the test would see it.
	if provider, err := open(t.Context(), "evil://release"); err != nil {
		t.Error(err)
	} else if _, err := provider.PublicKey(); err == nil {
		t.Error("the program gave a key")
	}
	if _, err := os.Stat(ran); err != nil {
		t.Errorf("the program is not started by the library either: %v", err)
	}
}

func TestWhatIsNoPublicKey(t *testing.T) {
	t.Parallel()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.PublicKey{
		"a private key": private, "nothing": nil, "a text": "hunter2", "a symmetric key": []byte("hunter2"),
	} {
		r := newResolver(Options{}, newService(key).open)
		got, err := r.fetch(t.Context(), vaultKey)
		if err == nil || got != nil || !strings.Contains(err.Error(), "no public key") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
