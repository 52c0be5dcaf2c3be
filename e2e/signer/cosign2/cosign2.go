// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosign2 signs images as the command line of cosign 2 does:
//
//	cosign sign --key cosign.key --tlog-upload=false --annotations k=v IMAGE
//
// The signature goes into the same repository under the tag sha256-<hex>.sig.
package cosign2

import (
	"context"
	"fmt"
	"time"

	"github.com/sigstore/cosign/v2/cmd/cosign/cli/options"
	"github.com/sigstore/cosign/v2/cmd/cosign/cli/sign"
	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/e2e/signer"
)

var _ signer.Func = Sign

// Sign signs the image with the key; see signer.Func. Where it pushes to is
// printed on standard error, as the command line does. A second signature of an
// image joins the first under the same tag; signing twice at the same time may
// lose one, for the tag is read and then written.
//
// The deadline of ctx holds. A later cancellation is not noticed: cosign 2
// takes no context.
func Sign(ctx context.Context, key signer.Key, image string, annotations map[string]string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	// Parsing the command line's own flags gives every option its default.
	var signOptions options.SignOptions
	flags := &cobra.Command{}
	signOptions.AddFlags(flags)
	if err := flags.ParseFlags([]string{"--key=" + key.PrivateFile, "--tlog-upload=false", "--yes"}); err != nil {
		return fmt.Errorf("setting cosign's flags: %w", err)
	}
	signOptions.Annotations = signer.Pairs(annotations)

	root := &options.RootOptions{Timeout: options.DefaultTimeout}
	if deadline, ok := ctx.Deadline(); ok {
		root.Timeout = time.Until(deadline)
	}
	keyOptions := options.KeyOpts{
		KeyRef:           signOptions.Key,
		PassFunc:         func(bool) ([]byte, error) { return []byte(key.Password), nil },
		SkipConfirmation: signOptions.SkipConfirmation,
	}
	if err := sign.SignCmd(root, keyOptions, signOptions, []string{image}); err != nil {
		return fmt.Errorf("signing image %q: %w", image, err)
	}
	return nil
}
