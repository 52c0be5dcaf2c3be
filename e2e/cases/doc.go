// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cases holds Pratique to its specification on a real control plane:
// what the API server admits, stores and answers while pratique serve stands
// behind its webhooks.
//
// All cases share one control plane, one server and a few registries, which
// TestMain starts; each works in a namespace and under an image prefix of its
// own, at the same time as the others. A case that needs a server with other
// flags starts it beside, for a namespace of its own.
package cases
