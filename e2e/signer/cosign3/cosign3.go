// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cosign3 signs images as the command line of cosign 3 does:
//
//	cosign sign --key cosign.key --use-signing-config=false --tlog-upload=false --annotations k=v IMAGE
//
// The signature is a Sigstore bundle in the same repository whose subject is
// the image. It is found by the referrers API, or, in a registry without it, by
// the index under the tag sha256-<hex>.
package cosign3

import (
	"context"
	"fmt"
	"io"

	"github.com/sigstore/cosign/v3/cmd/cosign/cli/options"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/sign"
	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/e2e/signer"
)

var _ signer.Func = Sign

// Sign signs the image with the key; see signer.Func. Where it pushes to is
// printed on standard error, as the command line does. Each call adds a bundle.
func Sign(ctx context.Context, key signer.Key, image string, annotations map[string]string) error {
	// Parsing the command line's own flags gives every option its default.
	var signOptions options.SignOptions
	flags := &cobra.Command{}
	signOptions.AddFlags(flags)
	flags.Flags().SetOutput(io.Discard) // some are deprecated, which is no news to a test
	if err := flags.ParseFlags([]string{"--key=" + key.PrivateFile, "--use-signing-config=false", "--tlog-upload=false", "--yes"}); err != nil {
		return fmt.Errorf("setting cosign's flags: %w", err)
	}
	signOptions.Annotations = signer.Pairs(annotations)

	root := &options.RootOptions{Timeout: options.DefaultTimeout}
	keyOptions := options.KeyOpts{
		KeyRef:           signOptions.Key,
		PassFunc:         func(bool) ([]byte, error) { return []byte(key.Password), nil },
		NewBundleFormat:  signOptions.NewBundleFormat,
		SkipConfirmation: signOptions.SkipConfirmation,
	}
	if err := sign.SignCmd(ctx, root, keyOptions, signOptions, []string{image}); err != nil {
		return fmt.Errorf("signing image %q: %w", image, err)
	}
	return nil
}
