// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command image builds Pratique's container image without a container engine,
// for all its platforms: into an OCI layout, or into a registry.
//
// Two builds of one commit are the same byte by byte: nothing in the image tells
// when, where or by whom it was built, and the only time in it is the commit's.
// Beside each platform's image lies its SBOM, as an artifact that refers to it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"
)

// options say what is built.
type options struct {
	dir, main string // the module, and the package of it
	flags     string // of go build
	ldflags   string
	platforms string
	labels    labels
	created   int64

	layout   string
	push     string
	insecure bool
}

// labels are given as key=value, again and again.
type labels map[string]string

// String implements [flag.Value].
func (l labels) String() string { return "" }

// Set implements [flag.Value].
func (l labels) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return errors.New("want key=value")
	}
	l[key] = value
	return nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o := options{labels: labels{}}
	f := flag.NewFlagSet("image", flag.ContinueOnError)
	f.StringVar(&o.dir, "C", ".", "the module's `folder`")
	f.StringVar(&o.main, "main", "./cmd/pratique", "`package` of the program")
	f.StringVar(&o.flags, "flags", "", "`flags` of go build, apart by spaces")
	f.StringVar(&o.ldflags, "ldflags", "-s -w", "`flags` of the linker")
	f.StringVar(&o.platforms, "platforms", "linux/amd64,linux/arm64", "`platforms`, apart by commas")
	f.Var(o.labels, "label", "`key=value` of a label and annotation; may come again")
	f.Int64Var(&o.created, "created", 0, "`seconds` since 1970 that the image says it is from")
	f.StringVar(&o.layout, "layout", "", "`folder` of an OCI layout, which is made anew")
	f.StringVar(&o.push, "push", "", "`reference` in a registry; credentials are those of the Docker configuration")
	f.BoolVar(&o.insecure, "insecure", false, "push over plain HTTP")
	switch err := f.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	if (o.layout == "") == (o.push == "") {
		return errors.New("one of -layout and -push")
	}
	built, err := compile(ctx, o)
	if err != nil {
		return err
	}
	if o.layout != "" {
		err = built.save(o.layout)
	} else {
		err = built.send(ctx, o.push, o.insecure)
	}
	if err != nil {
		return err
	}
	digest, err := built.index.Digest()
	if err != nil {
		return err
	}
	fmt.Println(digest)
	return nil
}

// time is that of the commit.
func (o options) time() time.Time { return time.Unix(o.created, 0).UTC() }
