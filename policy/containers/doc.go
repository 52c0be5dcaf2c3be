// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package containers is the engine that judges images by the requirements of a
// containers-policy.json(5). The judge itself is go.podman.io/image/v5/signature;
// what is here gives it the image, the identity and the keys to judge by, and
// explains its answer.
package containers
