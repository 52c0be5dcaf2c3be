// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy decides about images.
//
// Rules, compiled from ImageConfigs, form an immutable [Set]. Of an image the
// Set selects the rules that apply, a [Verifier] says by each of them whether
// the image is good, and a [Decider] weighs the verdicts. The command line, the
// webhook and every background scan ask the same Decider, so that all of them
// say the same.
//
// The package has no network, no Kubernetes client, no logger and no clock: it
// asks the small interfaces that it defines.
package policy
