// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package language evaluates policies over JSON, written in CUE, in Rego or in
// CEL.
//
// None of the three can be trusted to end: CUE's evaluator cannot be interrupted,
// each of them may ask for any amount of memory, and a goroutine that runs out of
// stack ends its process. Policies are therefore compiled and evaluated in child
// processes, which an [Evaluator] starts, bounds in time, and replaces after it
// had to kill one. A child runs [Serve]; it has no environment and no
// credentials, and what the languages offer for reaching a network, a file or the
// environment is taken out of them.
package language

// Language is one that policies are written in.
type Language string

// The languages of policies.
const (
	CUE  Language = "cue"
	Rego Language = "rego"
	CEL  Language = "cel"
)

// MaxText is how long a policy's text may be: what policies in use take, forty
// times over.
const MaxText = 64 << 10

// MaxDocument is how large a document may be. The statement of an attestation
// may have 4 MiB; what is known of an object and its images, which policies may
// read too, holds several of them.
const MaxDocument = 8 << 20

// Policy is a text in one of the languages.
type Policy struct {
	Language Language
	Text     string
}

// Result is what a policy says of a document.
type Result struct {
	Compliant bool
	// Message is why it is not, or a warning of the policy's own if it is: one
	// line, of a bounded length. policy-controller takes a warning for a refusal.
	Message string
}
