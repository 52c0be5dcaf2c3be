// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
)

// LogURL is where the transparency log of a NewTrustRoot is.
const LogURL = "https://rekor.localhost"

// NewTrustRoot makes a trust root of keys of its own, as JSON, and leaves out
// some of its parts: "ca", "ctlog", "tlog", "tsa".
func NewTrustRoot(tb testing.TB, without ...string) string {
	tb.Helper()
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		tb.Fatal(err)
	}
	authorities, timestamps := sigstore.FulcioCertificateAuthorities(), sigstore.TimestampingAuthorities()
	certificateLogs, logs := sigstore.CTLogs(), sigstore.RekorLogs()
	for _, part := range without {
		switch part {
		case "ca":
			authorities = nil
		case "ctlog":
			certificateLogs = nil
		case "tlog":
			logs = nil
		case "tsa":
			timestamps = nil
		default:
			tb.Fatalf("no such part: %s", part)
		}
	}
	made, err := root.NewTrustedRoot(root.TrustedRootMediaType01, authorities, certificateLogs, timestamps, logs)
	if err != nil {
		tb.Fatal(err)
	}
	text, err := made.MarshalJSON()
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}
