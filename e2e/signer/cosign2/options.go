// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign2

import (
	"context"
	"errors"
	"fmt"

	"github.com/sigstore/cosign/v2/cmd/cosign/cli/attest"
	"github.com/sigstore/cosign/v2/cmd/cosign/cli/options"
	"github.com/sigstore/cosign/v2/cmd/cosign/cli/sign"
	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/e2e/signer"
)

var (
	_ signer.OptionsFunc = SignWith
	_ signer.OptionsFunc = Attest
)

// SignWith signs the image as the options say; see Sign.
func SignWith(ctx context.Context, image string, o signer.Options) error {
	keyOptions, err := prepare(ctx, o, false)
	if err != nil {
		return err
	}
	// Parsing the command line's own flags gives every option its default.
	var signOptions options.SignOptions
	flags := &cobra.Command{}
	signOptions.AddFlags(flags)
	if err := flags.ParseFlags([]string{"--yes", upload(o)}); err != nil {
		return fmt.Errorf("setting cosign's flags: %w", err)
	}
	signOptions.Key = o.KeyFile()
	signOptions.Annotations = signer.Pairs(o.Annotations)
	signOptions.Registry.RefOpts.TagPrefix = o.TagPrefix
	root := &options.RootOptions{Timeout: signer.Timeout(ctx, options.DefaultTimeout)}
	err = o.InEnvironment(func() error { return sign.SignCmd(root, keyOptions, signOptions, []string{image}) })
	if err != nil {
		return fmt.Errorf("signing image %q: %w", image, err)
	}
	return nil
}

// Attest signs an attestation about the image, which goes under the tag
// sha256-<hex>.att, beside those that are there.
func Attest(ctx context.Context, image string, o signer.Options) error {
	keyOptions, err := prepare(ctx, o, true)
	if err != nil {
		return err
	}
	var attestOptions options.AttestOptions
	flags := &cobra.Command{}
	attestOptions.AddFlags(flags)
	if err := flags.ParseFlags([]string{"--yes", upload(o)}); err != nil {
		return fmt.Errorf("setting cosign's flags: %w", err)
	}
	attestOptions.Registry.RefOpts.TagPrefix = o.TagPrefix
	predicate, remove, err := o.PredicateFile()
	if err != nil {
		return err
	}
	defer remove()
	command := attest.AttestCommand{
		KeyOpts:         keyOptions,
		RegistryOptions: attestOptions.Registry,
		PredicatePath:   predicate,
		PredicateType:   o.Attestation.Type,
		Timeout:         options.DefaultTimeout,
		TlogUpload:      attestOptions.TlogUpload,
		RekorEntryType:  attestOptions.RekorEntryType,
	}
	err = o.InEnvironment(func() error { return command.Exec(ctx, image) })
	if err != nil {
		return fmt.Errorf("attesting image %q: %w", image, err)
	}
	return nil
}

// prepare checks the options and returns those that signing and attesting share.
func prepare(ctx context.Context, o signer.Options, attest bool) (options.KeyOpts, error) {
	if err := ctx.Err(); err != nil {
		return options.KeyOpts{}, err
	}
	if err := o.Check(attest); err != nil {
		return options.KeyOpts{}, err
	}
	if o.Log == signer.RekorV2 {
		return options.KeyOpts{}, errors.New("cosign 2 does not know how to write into Rekor 2")
	}
	material, err := o.TrustedMaterial()
	if err != nil {
		return options.KeyOpts{}, err
	}
	keyOptions := options.KeyOpts{
		KeyRef:           o.KeyFile(),
		PassFunc:         o.PasswordOf(),
		IDToken:          o.IdentityToken,
		FulcioURL:        o.Services.Fulcio,
		RekorURL:         o.Services.Rekor1,
		TrustedMaterial:  material,
		SkipConfirmation: true,
	}
	if o.Timestamp {
		keyOptions.TSAServerURL = o.Services.Timestamp
	}
	return keyOptions, nil
}

func upload(o signer.Options) string { return fmt.Sprintf("--tlog-upload=%t", o.Log != signer.NoLog) }
