// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package gnupg makes the keys and signatures of tests with GnuPG itself: what
// verifies them shares no code with what made them.
//
// A keyring is in a folder of its own. The keyring of whoever runs the tests is
// neither read nor written.
package gnupg

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The algorithms of keys, as gpg calls them.
const (
	RSA3072  = "rsa3072"
	NISTP256 = "nistp256"
	Ed25519  = "ed25519"
)

const (
	// isoTime is how gpg takes points in time.
	isoTime = "20060102T150405"
	// fingerprintField is where gpg has the fingerprint in its lines with colons
	// (GnuPG's doc/DETAILS), and in what --status-fd says of a new key.
	fingerprintField = 3
	// stopTimeout is far above what ending an agent takes.
	stopTimeout = 10 * time.Second
)

// A Home is a keyring with its secret keys, which have no passphrase.
type Home struct {
	// Dir is what GNUPGHOME is for whoever signs with the keys. Its path is
	// short: the socket of the agent, which is in it, must not have more than
	// about 100 bytes.
	Dir string
}

// KeyOptions say what key to make.
type KeyOptions struct {
	// Algorithm is RSA3072, NISTP256 or Ed25519.
	Algorithm string
	// Created is when it is made; the zero value is now.
	Created time.Time
	// Lifetime is how long it is good; 0 is forever.
	Lifetime time.Duration
	// Subkey makes a primary key that only certifies, and a subkey that signs.
	Subkey bool
}

// New makes an empty keyring. The caller ends it with Close.
func New() (*Home, error) {
	if _, err := exec.LookPath("gpg"); err != nil {
		return nil, fmt.Errorf("looking for GnuPG: %w; install it with: hack/packages", err)
	}
	// Nobody else may look into it, or gpg complains: that is how it is made.
	dir, err := os.MkdirTemp("", "gnupg-")
	if err != nil {
		return nil, fmt.Errorf("making the keyring's folder: %w", err)
	}
	return &Home{Dir: dir}, nil
}

// Close ends the keyring's agent and removes the keyring.
func (h *Home) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	command := exec.CommandContext(ctx, "gpgconf", "--homedir", h.Dir, "--kill", "all")
	command.Env = h.environment()
	output, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("ending the agent of %s: %w: %s", h.Dir, err, output)
	}
	return errors.Join(err, os.RemoveAll(h.Dir))
}

// Generate makes a key and returns the fingerprint of its primary key.
func (h *Home) Generate(ctx context.Context, o KeyOptions) (fingerprint string, err error) {
	usage, expires := "sign", "never"
	if o.Subkey {
		usage = "cert"
	}
	if o.Lifetime != 0 {
		expires = fmt.Sprintf("seconds=%d", int(o.Lifetime.Seconds()))
	}
	// Each key has a name of its own: gpg asks before it makes a second one of a name.
	name := fmt.Sprintf("%s-%d@example.com", o.Algorithm, time.Now().UnixNano())
	status, err := h.gpg(ctx, nil, append(at(o.Created), "--status-fd=1", "--quick-generate-key", name, o.Algorithm, usage, expires)...)
	if err != nil {
		return "", fmt.Errorf("making a key: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		// [GNUPG:] KEY_CREATED P <fingerprint>
		if fields := strings.Fields(line); len(fields) > fingerprintField && fields[1] == "KEY_CREATED" {
			fingerprint = fields[fingerprintField]
		}
	}
	if fingerprint == "" {
		return "", fmt.Errorf("making a key: gpg does not say which one it made: %s", status)
	}
	if o.Subkey {
		if _, err := h.gpg(ctx, nil, append(at(o.Created), "--quick-add-key", fingerprint, o.Algorithm, "sign", expires)...); err != nil {
			return "", fmt.Errorf("adding a subkey: %w", err)
		}
	}
	return fingerprint, nil
}

// Revoke revokes a key, with the certificate that gpg made together with it.
func (h *Home) Revoke(ctx context.Context, fingerprint string) error {
	certificate, err := os.ReadFile(filepath.Join(h.Dir, "openpgp-revocs.d", fingerprint+".rev"))
	if err != nil {
		return fmt.Errorf("reading the revocation certificate: %w", err)
	}
	// The colon is there so that nobody imports it by mistake.
	certificate = bytes.Replace(certificate, []byte("\n:-----BEGIN"), []byte("\n-----BEGIN"), 1)
	if _, err := h.gpg(ctx, certificate, "--import"); err != nil {
		return fmt.Errorf("revoking key %s: %w", fingerprint, err)
	}
	return nil
}

// Export returns public keys as one keyring: binary as gpg --export writes it,
// or in ASCII armor.
func (h *Home) Export(ctx context.Context, armored bool, fingerprints ...string) ([]byte, error) {
	args := []string{"--export"}
	if armored {
		args = []string{"--armor", "--export"}
	}
	keyring, err := h.gpg(ctx, nil, append(args, fingerprints...)...)
	if err != nil {
		return nil, fmt.Errorf("exporting keys: %w", err)
	}
	if len(keyring) == 0 {
		return nil, fmt.Errorf("exporting keys: there is none of %q", fingerprints)
	}
	return keyring, nil
}

// Sign makes a signed message of the payload, as of a point in time; the zero
// value is now.
func (h *Home) Sign(ctx context.Context, fingerprint string, when time.Time, payload []byte) ([]byte, error) {
	message, err := h.gpg(ctx, payload, append(at(when), "--local-user", fingerprint, "--output", "-", "--sign")...)
	if err != nil {
		return nil, fmt.Errorf("signing with key %s: %w", fingerprint, err)
	}
	return message, nil
}

// Payload is what is signed of an image: the JSON of containers-signature(5).
func Payload(reference, digest string) ([]byte, error) {
	type object = map[string]any
	payload, err := json.Marshal(object{
		"critical": object{
			"type":     "atomic container signature",
			"image":    object{"docker-manifest-digest": digest},
			"identity": object{"docker-reference": reference},
		},
		"optional": object{"creator": "pratique-e2e"},
	})
	if err != nil {
		return nil, fmt.Errorf("encoding what is signed: %w", err)
	}
	return payload, nil
}

// at is how gpg is told another time than now.
func at(when time.Time) []string {
	if when.IsZero() {
		return nil
	}
	return []string{"--faked-system-time", when.UTC().Format(isoTime) + "!"}
}

// gpg runs it in the keyring and returns what it prints.
func (h *Home) gpg(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, "gpg", append([]string{
		"--no-options", "--batch", "--yes", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "",
	}, args...)...)
	command.Env = h.environment()
	command.Stdin = bytes.NewReader(input)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("running gpg: %w: %s", err, strings.TrimSpace(stderr.String()))
	}
	return output, nil
}

// environment is all that GnuPG sees of ours.
func (h *Home) environment() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.Dir, "GNUPGHOME=" + h.Dir, "LC_ALL=C"}
}
