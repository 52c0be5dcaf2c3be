// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command servers runs a whole Sigstore for tests, in a network namespace of
// its own that has a loopback interface and nothing else:
//
//	fulcio            the certificate authority
//	timestamp-server  the timestamp authority
//	rekor-server      the transparency log, version 1
//	posix             the transparency log, version 2, on disk
//
// These four are the programs that Sigstore publishes, unchanged, found beside
// this one. What they need lies in this process: the OIDC issuers that Fulcio
// asks, the certificate transparency log, and the Trillian beneath the two logs
// of the older kind.
//
// The namespace is what lets several of these run at once, for some of the
// ports are fixed or are opened on every address, and it shows that no server
// calls out: there is nothing to call. Listeners on loopback outside are handed
// into it; their addresses are written to a file once everything answers. The
// servers read keys and certificates that package sigstore wrote.
//
// It is a module of its own because of what these programs are built with.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
)

// options are the command line's.
type options struct {
	// dir holds what the servers read and write.
	dir string
	// issuers are the URLs of the OIDC issuers to be.
	issuers []string
	// inside says that this process is already in the namespace.
	inside bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "servers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	var o options
	flags := flag.NewFlagSet("servers", flag.ContinueOnError)
	flags.StringVar(&o.dir, "dir", "", "folder of the keys, certificates and logs")
	flags.Func("issuer", "URL of an OIDC issuer to be; may be repeated", func(url string) error {
		if !strings.HasPrefix(url, "https://") {
			return errors.New("not an https URL")
		}
		o.issuers = append(o.issuers, url)
		return nil
	})
	flags.BoolVar(&o.inside, "inside", false, "set by the program itself, in the namespace")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.dir == "" || flags.NArg() != 0 {
		return errors.New("usage: servers -dir DIR [-issuer URL]…")
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return fmt.Errorf("finding the absolute path of %q: %w", o.dir, err)
	}
	if o.inside {
		return runInside(ctx, o)
	}
	return runOutside(ctx, args, o.dir)
}
