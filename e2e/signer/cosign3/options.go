// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign3

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sigstore/cosign/v3/cmd/cosign/cli/attest"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/options"
	"github.com/sigstore/cosign/v3/cmd/cosign/cli/sign"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/spf13/cobra"

	"github.com/pratique-dev/pratique/e2e/signer"
)

var (
	_ signer.OptionsFunc = SignWith
	_ signer.OptionsFunc = Attest
)

// SignWith signs the image as the options say; see Sign.
func SignWith(ctx context.Context, image string, o signer.Options) error {
	keyOptions, err := prepare(o, false)
	if err != nil {
		return err
	}
	// Parsing the command line's own flags gives every option its default.
	var signOptions options.SignOptions
	flags := &cobra.Command{}
	signOptions.AddFlags(flags)
	flags.Flags().SetOutput(io.Discard) // some are deprecated, which is no news to a test
	if err := flags.ParseFlags([]string{"--yes", fmt.Sprintf("--new-bundle-format=%t", !o.Legacy)}); err != nil {
		return fmt.Errorf("setting cosign's flags: %w", err)
	}
	signOptions.Key = o.KeyFile()
	signOptions.Annotations = signer.Pairs(o.Annotations)
	signOptions.Registry.RefOpts.TagPrefix = o.TagPrefix
	root := &options.RootOptions{Timeout: options.DefaultTimeout}
	err = o.InEnvironment(func() error { return sign.SignCmd(ctx, root, keyOptions, signOptions, []string{image}) })
	if err != nil {
		return fmt.Errorf("signing image %q: %w", image, err)
	}
	return nil
}

// Attest signs an attestation about the image, which becomes a bundle as a
// signature does, or with Options.Legacy a layer as cosign 2 makes it.
func Attest(ctx context.Context, image string, o signer.Options) error {
	keyOptions, err := prepare(o, true)
	if err != nil {
		return err
	}
	var attestOptions options.AttestOptions
	flags := &cobra.Command{}
	attestOptions.AddFlags(flags)
	flags.Flags().SetOutput(io.Discard)
	if err := flags.ParseFlags([]string{"--yes"}); err != nil {
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
		RekorEntryType:  attestOptions.RekorEntryType,
	}
	err = o.InEnvironment(func() error { return command.Exec(ctx, image) })
	if err != nil {
		return fmt.Errorf("attesting image %q: %w", image, err)
	}
	return nil
}

// prepare checks the options and returns those that signing and attesting share.
func prepare(o signer.Options, attest bool) (options.KeyOpts, error) {
	if err := o.Check(attest); err != nil {
		return options.KeyOpts{}, err
	}
	material, err := o.TrustedMaterial()
	if err != nil {
		return options.KeyOpts{}, err
	}
	config, err := signingConfig(o)
	if err != nil {
		return options.KeyOpts{}, err
	}
	return options.KeyOpts{
		KeyRef:           o.KeyFile(),
		PassFunc:         o.PasswordOf(),
		IDToken:          o.IdentityToken,
		NewBundleFormat:  !o.Legacy,
		SkipConfirmation: true,
		SigningConfig:    config,
		TrustedMaterial:  material,
	}, nil
}

// signingConfig names the services that the options ask for: what the file of
// --signing-config would hold.
func signingConfig(o signer.Options) (*root.SigningConfig, error) {
	service := func(url string, version uint32) []root.Service {
		return []root.Service{{
			URL: url, MajorAPIVersion: version, Operator: "pratique-e2e",
			ValidityPeriodStart: time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC),
		}}
	}
	var fulcio, rekor, timestamp []root.Service
	if o.IdentityToken != "" {
		fulcio = service(o.Services.Fulcio, 1)
	}
	switch o.Log {
	case signer.NoLog:
	case signer.RekorV1:
		rekor = service(o.Services.Rekor1, 1)
	case signer.RekorV2:
		rekor = service(o.Services.Rekor2, 2)
	}
	if o.Timestamp {
		timestamp = service(o.Services.Timestamp, 1)
	}
	one := root.ServiceConfiguration{Selector: prototrustroot.ServiceSelector_EXACT, Count: 1}
	config, err := root.NewSigningConfig(root.SigningConfigMediaType02, fulcio, nil, rekor, one, timestamp, one)
	if err != nil {
		return nil, fmt.Errorf("making cosign's signing configuration: %w", err)
	}
	return config, nil
}
