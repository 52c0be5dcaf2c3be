// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package sigstore runs a whole Sigstore for tests, each of its servers as the
// process that others run: Fulcio with a certificate transparency log, a
// timestamp authority, and Rekor in both versions. Every one has keys and
// certificates of its own, which this package makes, and believes the OIDC
// issuers of Issuers, whose tokens this package makes too.
//
//	s, err := sigstore.Start(ctx, sigstore.Options{Dir: t.TempDir()})
//	…
//	defer s.Stop()
//	token, err := s.EmailToken(sigstore.GoogleIssuer, "robot@example.com")
//
// The servers are in a network namespace of their own in which there is nothing
// but them, so that any number of these can run at once and none can call out;
// see the module in servers. Making one takes the rights of root, or a system
// that lets users have namespaces.
package sigstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/signer"
)

const (
	// processName names the log of what starts and holds the servers.
	processName = "servers"
	// addressesFile appears in the folder when all servers answer.
	addressesFile = "addresses.json"
	// readyWithin bounds the start of all, which takes one or two seconds.
	readyWithin  = 2 * time.Minute
	pollInterval = 10 * time.Millisecond
)

// Options say how a Sigstore runs.
type Options struct {
	// Dir is where its keys, logs and entries are. It is made if need be.
	Dir string
	// Programs is the folder of the servers; empty means those that make sigstore
	// builds.
	Programs string
}

// A Sigstore is a running one.
type Sigstore struct {
	// Services are what signs by it. The addresses are on loopback. The trusted
	// root has all of Root.
	signer.Services
	// Root is what one must know to verify by it.
	Root Root

	issuers issuers
	process *cluster.Process
}

// Start makes keys and starts the servers, and returns when all of them answer.
// They end with Stop, and when this process ends.
func Start(ctx context.Context, o Options) (*Sigstore, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	keys, err := newKeys()
	if err != nil {
		return nil, err
	}
	s := &Sigstore{Root: keys.root, issuers: keys.issuers}
	if s.TrustedRoot, err = s.Root.JSON(); err != nil {
		return nil, err
	}
	if err := keys.write(o.Dir); err != nil {
		return nil, err
	}
	args := []string{"-dir=" + o.Dir}
	for _, issuer := range Issuers() {
		args = append(args, "-issuer="+issuer)
	}
	s.process, err = cluster.StartProcess(o.Dir, cluster.Program{
		Name: processName, Binary: filepath.Join(o.Programs, "servers"), Args: args,
	})
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, filepath.Join(o.Dir, addressesFile)); err != nil {
		_ = s.Stop() // how it ended is in err
		return nil, fmt.Errorf("starting Sigstore: %w", err)
	}
	return s, nil
}

// complete fills in what is left out, makes the folder, and removes from it what
// an earlier Sigstore left: that would be taken for an answer, or for its log.
func (o *Options) complete() (err error) {
	if o.Dir == "" {
		return errors.New("starting Sigstore: Options.Dir is empty")
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return fmt.Errorf("finding the absolute path of %q: %w", o.Dir, err)
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return fmt.Errorf("making Sigstore's folder: %w", err)
	}
	for _, name := range []string{addressesFile, "rekor2"} {
		if err := os.RemoveAll(filepath.Join(o.Dir, name)); err != nil {
			return fmt.Errorf("removing what an earlier Sigstore left: %w", err)
		}
	}
	if o.Programs == "" {
		o.Programs, err = findPrograms()
	}
	return err
}

// findPrograms returns the folder in which make sigstore builds.
func findPrograms() (string, error) {
	root, err := cluster.Checkout()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "e2e", "sigstore", "servers", "bin")
	if _, err := os.Stat(filepath.Join(dir, "servers")); err != nil {
		return "", fmt.Errorf("finding Sigstore's servers: %w; build them with: make sigstore", err)
	}
	return dir, nil
}

// await waits for the addresses of the servers.
func (s *Sigstore) await(ctx context.Context, file string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("it is not ready after %s", readyWithin))
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		content, err := os.ReadFile(file)
		if err == nil {
			return s.addresses(content)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("reading the servers' addresses: %w", err)
		}
		if failure := s.process.Failure(); failure != nil {
			return failure
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (s *Sigstore) addresses(content []byte) error {
	var addresses struct{ Fulcio, Timestamp, Rekor1, Rekor2 string }
	if err := json.Unmarshal(content, &addresses); err != nil {
		return fmt.Errorf("reading the servers' addresses: %w", err)
	}
	s.Fulcio = "http://" + addresses.Fulcio
	s.Timestamp = "http://" + addresses.Timestamp + timestampPath
	s.Rekor1 = "http://" + addresses.Rekor1
	s.Rekor2 = "http://" + addresses.Rekor2
	return nil
}

// Stop ends the servers, and with the last of them their network namespace.
// Calling it again does nothing.
func (s *Sigstore) Stop() error {
	if s.process == nil {
		return nil
	}
	running := s.process
	s.process = nil
	return running.Stop()
}

// Failure is nil while the servers run. When one of them has ended by itself, so
// have all, and it says which, with the end of its log.
func (s *Sigstore) Failure() error { return s.process.Failure() }

// PID is the id of the process that holds the servers, which must be running.
func (s *Sigstore) PID() int { return s.process.PID() }
