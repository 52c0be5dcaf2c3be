// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

const (
	// manyConfigs is spec section 12's.
	manyConfigs = 10_000
	// fewConfigs is what a small cluster may have.
	fewConfigs = 10
	// perFile is how many ImageConfigs stand in one file.
	perFile = 100
)

// account is the ServiceAccount that the larger review names.
const account = `apiVersion: v1
kind: ServiceAccount
metadata: {name: api, namespace: shop}
`

// otherPrefix is the prefix of the i-th ImageConfig that matches none of the
// images here; it is on the same host.
func otherPrefix(host string, i int) string { return fmt.Sprintf("%s/team-%04d/services/", host, i) }

// writePolicies makes a folder of n ImageConfigs: one that covers the images of
// the benchmark, and others. Every one has a real P-256 key.
func writePolicies(dir, host string, n int, key, other *registrytest.Key) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making the folder of policies: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "accounts.yaml"), []byte(account), 0o600); err != nil {
		return fmt.Errorf("writing policies: %w", err)
	}
	var file bytes.Buffer
	for i := range n {
		name, prefix, pem := fmt.Sprintf("team-%04d", i), otherPrefix(host, i), other.PublicPEM()
		if i == n/2 {
			name, prefix, pem = "acme", host+"/acme/", key.PublicPEM()
		}
		file.WriteString(imageConfig(name, pem, prefix))
		if (i+1)%perFile != 0 && i+1 != n {
			continue
		}
		path := filepath.Join(dir, fmt.Sprintf("%03d.yaml", i/perFile))
		if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
			return fmt.Errorf("writing policies: %w", err)
		}
		file.Reset()
	}
	return nil
}

// imageConfig asks for a signature by a key for whatever has one of the prefixes.
func imageConfig(name, pem string, prefixes ...string) string {
	return fmt.Sprintf(`---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata:
  name: %s
spec:
  matchImages:
  - type: Prefix
    prefix: %s
  verification:
    provider: Cosign
    cosign:
      authorities:
      - name: release
        key:
          data: |
            %s
`, name, strings.Join(prefixes, "\n  - type: Prefix\n    prefix: "), strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n            "))
}
