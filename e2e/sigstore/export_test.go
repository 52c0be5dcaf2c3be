// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore

// For the test that makes testdata/expired.
const ExpiredName = expiredName

var ExpiredCases = expiredCases
