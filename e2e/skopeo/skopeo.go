// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package skopeo signs and judges images with skopeo, whose judge is the one
// that CRI-O and Podman have. Registries are on loopback and speak plain HTTP.
//
// Nothing of the machine's own configuration is read: policy, registries.d,
// registries.conf and home are of the test.
package skopeo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// rejected is what the copy of an image ends with that the policy refuses. The
// judge's own reason follows.
const rejected = "Source image rejected: "

// anything is a policy that accepts everything.
const anything = `{"default": [{"type": "insecureAcceptAnything"}]}`

// A Skopeo is skopeo with folders of its own.
type Skopeo struct{ dir, gnupg string }

// CopyOptions say how images are copied.
type CopyOptions struct {
	// SignBy is the fingerprint of the GPG key that signs, empty for none.
	SignBy string
	// RegistriesD is the folder that says where signatures go.
	RegistriesD string
}

// A Verdict is what the judge says of an image.
type Verdict struct {
	Accepted bool
	// Reason is why not.
	Reason string
}

// New makes a skopeo that works in the folder dir and signs with the keyring in
// the folder gnupg.
func New(dir, gnupg string) (*Skopeo, error) {
	if _, err := exec.LookPath("skopeo"); err != nil {
		return nil, fmt.Errorf("looking for skopeo: %w; install it with: hack/packages", err)
	}
	s := &Skopeo{dir: dir, gnupg: gnupg}
	for _, folder := range []string{s.path("home"), s.path("tmp"), s.path("registries.d")} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("making skopeo's folders: %w", err)
		}
	}
	for file, content := range map[string]string{"policy.json": anything, "registries.conf": ""} {
		if err := os.WriteFile(s.path(file), []byte(content), 0o600); err != nil {
			return nil, fmt.Errorf("writing skopeo's configuration: %w", err)
		}
	}
	return s, nil
}

// Copy copies an image, written "host:port/repository:tag", and signs the copy.
// Copying an image onto itself signs it. It claims to be what it is copied to.
func (s *Skopeo) Copy(ctx context.Context, from, to string, o CopyOptions) error {
	args := s.global(s.path("policy.json"), o.RegistriesD)
	args = append(args, "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", "--src-no-creds", "--dest-no-creds", "--preserve-digests")
	if o.SignBy != "" {
		args = append(args, "--sign-by", o.SignBy)
	}
	if message, err := s.run(ctx, append(args, "docker://"+from, "docker://"+to)...); err != nil {
		return fmt.Errorf("copying %q: %w: %s", from, err, message)
	}
	return nil
}

// Sign signs a manifest as the image that the reference says it is.
func (s *Skopeo) Sign(ctx context.Context, manifest []byte, reference, fingerprint string) (_ []byte, err error) {
	dir, err := os.MkdirTemp(s.dir, "sign-")
	if err != nil {
		return nil, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	in, out := filepath.Join(dir, "manifest.json"), filepath.Join(dir, "signature")
	if err := os.WriteFile(in, manifest, 0o600); err != nil {
		return nil, fmt.Errorf("writing the manifest: %w", err)
	}
	if message, err := s.run(ctx, "--tmpdir", s.path("tmp"), "standalone-sign", "--output", out, in, reference, fingerprint); err != nil {
		return nil, fmt.Errorf("signing %q: %w: %s", reference, err, message)
	}
	signature, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("reading the signature: %w", err)
	}
	return signature, nil
}

// Judge asks whether a policy lets an image be copied, as a node would ask
// whether it may run: of an index, the image for linux/amd64 is judged. An error
// says that there was no verdict.
func (s *Skopeo) Judge(ctx context.Context, image, policy, registriesD string) (_ Verdict, err error) {
	dir, err := os.MkdirTemp(s.dir, "judge-")
	if err != nil {
		return Verdict{}, fmt.Errorf("making a folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// The target, a folder, has no place for signatures of all kinds.
	args := append(s.global(policy, registriesD), "--override-os=linux", "--override-arch=amd64",
		"copy", "--quiet", "--src-tls-verify=false", "--src-no-creds", "--remove-signatures", "docker://"+image, "dir:"+filepath.Join(dir, "image"))
	message, err := s.run(ctx, args...)
	if err == nil {
		return Verdict{Accepted: true}, nil
	}
	if _, reason, ok := strings.Cut(message, rejected); ok {
		return Verdict{Reason: strings.TrimSpace(reason)}, nil
	}
	return Verdict{}, fmt.Errorf("judging %q: %w: %s", image, err, message)
}

func (s *Skopeo) path(name string) string { return filepath.Join(s.dir, name) }

// global are the flags before the verb.
func (s *Skopeo) global(policy, registriesD string) []string {
	if registriesD == "" {
		registriesD = s.path("registries.d") // which is empty
	}
	return []string{
		"--policy", policy, "--registries.d", registriesD, "--tmpdir", s.path("tmp"), "--registries-conf", s.path("registries.conf"),
	}
}

// run runs it and returns what it says.
func (s *Skopeo) run(ctx context.Context, args ...string) (message string, err error) {
	command := exec.CommandContext(ctx, "skopeo", args...)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.path("home"), "TMPDIR=" + s.path("tmp"), "GNUPGHOME=" + s.gnupg, "LC_ALL=C"}
	command.Dir = s.dir
	var stderr bytes.Buffer
	command.Stderr = &stderr
	err = command.Run()
	return stderr.String(), err
}
