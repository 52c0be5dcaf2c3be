// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package signer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
)

// Services are the servers of a Sigstore, such as package sigstore runs.
type Services struct {
	// The addresses are URLs: of Fulcio, of Rekor in both versions, and of what
	// answers requests for timestamps.
	Fulcio, Timestamp, Rekor1, Rekor2 string
	// TrustedRoot is the trusted_root.json by which cosign checks what the
	// servers answer.
	TrustedRoot []byte
}

// A Log is the transparency log that a signature is entered into.
type Log int

// The logs.
const (
	NoLog Log = iota
	RekorV1
	RekorV2
)

func (l Log) String() string {
	switch l {
	case NoLog:
		return "no log"
	case RekorV1:
		return "Rekor 1"
	case RekorV2:
		return "Rekor 2"
	}
	return fmt.Sprintf("Log(%d)", int(l))
}

// Options say how to sign. One of Key and IdentityToken is set.
type Options struct {
	Key *Key
	// IdentityToken is what Fulcio gives a certificate for, to a key that is used
	// once.
	IdentityToken string
	// Services are needed for an identity token, a log or a timestamp.
	Services Services
	Log      Log
	// Timestamp says that the timestamp authority states the time. With an
	// identity token and Rekor 2, cosign wants it.
	Timestamp bool
	// Annotations are part of what is signed; see Func. Attestations have none.
	Annotations map[string]string
	// Repository is the one that signatures go to instead of the image's, with
	// its registry: COSIGN_REPOSITORY.
	Repository string
	// TagPrefix is put before the tags of signatures: "dev-" makes
	// dev-sha256-<hex>.sig. Bundles have no such tag.
	TagPrefix string
	// DockerMediaTypes makes the manifest that holds signatures one of Docker's.
	// It has no effect on bundles.
	DockerMediaTypes bool
	// Legacy makes cosign 3 write what cosign 2 does.
	Legacy bool
	// Attestation is what Attest signs.
	Attestation Attestation
}

// An Attestation is a statement about an image.
type Attestation struct {
	// Type is one of cosign's names of predicate types, such as "spdxjson" and
	// "custom", or a URI.
	Type string
	// Predicate is the JSON, or for some types the text, that cosign makes the
	// predicate of.
	Predicate []byte
}

// An OptionsFunc signs the image, or an attestation about it; see Func for what
// image may be. Such are SignWith and Attest of cosign2 and cosign3. They may be
// called from several goroutines, for different images; see cosign2.Sign for why.
type OptionsFunc func(ctx context.Context, image string, o Options) error

// Check says what cosign would say late or not at all.
func (o Options) Check(attest bool) error {
	switch {
	case (o.Key == nil) == (o.IdentityToken == ""):
		return errors.New("signing wants either a key or an identity token")
	case attest && len(o.Annotations) > 0:
		return errors.New("an attestation has no annotations")
	case attest && (o.Attestation.Type == "" || len(o.Attestation.Predicate) == 0):
		return errors.New("an attestation wants a type and a predicate")
	case !attest && o.Attestation.Type != "":
		return errors.New("a signature has no predicate")
	}
	return nil
}

// TrustedMaterial is the trusted root of the services; nil if they have none,
// as when signing needs no services.
func (o Options) TrustedMaterial() (root.TrustedMaterial, error) {
	if len(o.Services.TrustedRoot) == 0 {
		return nil, nil //nolint:nilnil // a nil interface is how cosign is told that there is none
	}
	material, err := root.NewTrustedRootFromJSON(o.Services.TrustedRoot)
	if err != nil {
		return nil, fmt.Errorf("reading the trusted root: %w", err)
	}
	return material, nil
}

// PasswordOf is the function by which cosign asks for the key's password.
func (o Options) PasswordOf() func(bool) ([]byte, error) {
	return func(bool) ([]byte, error) {
		if o.Key == nil {
			return nil, errors.New("there is no key")
		}
		return []byte(o.Key.Password), nil
	}
}

// KeyFile is the path of the private key, empty if there is none.
func (o Options) KeyFile() string {
	if o.Key == nil {
		return ""
	}
	return o.Key.PrivateFile
}

// PredicateFile writes the predicate into a file, the only form in which cosign
// takes it. The caller removes it.
func (o Options) PredicateFile() (path string, remove func(), err error) {
	file, err := os.CreateTemp("", "predicate-*.json")
	if err != nil {
		return "", nil, fmt.Errorf("making the predicate's file: %w", err)
	}
	remove = func() { _ = os.Remove(file.Name()) }
	_, err = file.Write(o.Attestation.Predicate)
	if err = errors.Join(err, file.Close()); err != nil {
		remove()
		return "", nil, fmt.Errorf("writing the predicate's file: %w", err)
	}
	return file.Name(), remove, nil
}

// Timeout is what ctx leaves, or else what cosign would allow.
func Timeout(ctx context.Context, otherwise time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return time.Until(deadline)
	}
	return otherwise
}

// environment is held to write by whoever has changed it, and to read by all
// others who sign: there are things that cosign can be told by its environment
// alone, which is this process's.
var environment sync.RWMutex

// InEnvironment calls sign with the environment that the options ask for.
func (o Options) InEnvironment(sign func() error) error {
	variables := map[string]string{}
	if o.Repository != "" {
		variables["COSIGN_REPOSITORY"] = o.Repository
	}
	if o.DockerMediaTypes {
		variables["COSIGN_DOCKER_MEDIA_TYPES"] = "1"
	}
	if len(variables) == 0 {
		environment.RLock()
		defer environment.RUnlock()
		return sign()
	}
	environment.Lock()
	defer environment.Unlock()
	restore, err := setEnvironment(variables)
	defer restore()
	if err != nil {
		return err
	}
	return sign()
}

// setEnvironment sets the variables and returns what undoes that, also after an
// error.
func setEnvironment(variables map[string]string) (restore func(), err error) {
	var undo []func()
	restore = func() {
		for _, f := range undo {
			f()
		}
	}
	for name, value := range variables {
		before, was := os.LookupEnv(name)
		if err := os.Setenv(name, value); err != nil {
			return restore, fmt.Errorf("setting %s: %w", name, err)
		}
		undo = append(undo, func() {
			if was {
				_ = os.Setenv(name, before)
			} else {
				_ = os.Unsetenv(name)
			}
		})
	}
	return restore, nil
}
