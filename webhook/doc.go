// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package webhook answers AdmissionReviews: it takes one in, and gives one back.
//
// It knows where in an object images are written (the catalog), reads them out of the object's raw JSON
// (one visitor for every kind), asks those who resolve and decide, and turns their verdicts into an answer and,
// for Pods, a patch. It dials nobody and decides nothing about signatures itself.
//
// An object is never decoded into a typed struct and written back: what Pratique does not know of an object
// stays exactly as it was.
package webhook
