// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package containerstest signs images of registrytest for tests and measurements
// as those do whose signatures a containers-policy.json(5) asks for: with OpenPGP
// keys in the form of containers-signature(5), and with sigstore attachments, by
// key, by certificate of a Sigstore or of somebody's own authority. Each part can
// be chosen, so that a test can have one of them wrong.
//
// Everything fails through a [TB].
package containerstest
