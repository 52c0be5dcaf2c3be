// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
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
	return imageConfigOf(name, keyed("release", pem), prefixes...)
}

// imageConfigOf asks for what the text of authorities says.
func imageConfigOf(name, authorities string, prefixes ...string) string {
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
%s`, name, strings.Join(prefixes, "\n  - type: Prefix\n    prefix: "), authorities)
}

// keyed is an authority with a key.
func keyed(name, pem string) string {
	return fmt.Sprintf(`      - name: %s
        key:
          data: |
            %s
`, name, strings.ReplaceAll(strings.TrimSpace(pem), "\n", "\n            "))
}

// The folders of repositories of the cold rows that are not signed by one key.
const (
	keylessFolder = "keyless/"
	manyFolder    = "many/"
)

// manyKeys and manySignatures are what shows that keys do not multiply fetches:
// of so many signatures only the last is by one of so many keys.
const (
	manyKeys       = 15
	manySignatures = 3
)

// writeColdPolicies adds ImageConfigs for those, beside what writePolicies wrote:
// one of a workflow, with the trust root in a ConfigMap, and one of many keys.
func writeColdPolicies(dir, host string, trustedRoot []byte, keys []*registrytest.Key) error {
	var authorities strings.Builder
	for i, key := range keys {
		authorities.WriteString(keyed(fmt.Sprintf("key-%02d", i), key.PublicPEM()))
	}
	text := trustRoot + "    " + string(trustedRoot) + "\n" +
		imageConfigOf("keyless", workflow, host+"/"+keylessFolder) + imageConfigOf("many", authorities.String(), host+"/"+manyFolder)
	if err := os.WriteFile(filepath.Join(dir, "cold.yaml"), []byte(text), 0o600); err != nil {
		return fmt.Errorf("writing policies: %w", err)
	}
	return nil
}

// trustRoot is the beginning of the ConfigMap: the JSON is one line.
const trustRoot = `apiVersion: v1
kind: ConfigMap
metadata: {name: sigstore, namespace: pratique-system}
data:
  trusted_root.json: |
`

// workflow is an authority of what cosigntest signs by.
const workflow = `      - name: workflow
        keyless:
          identities:
          - issuer: ` + cosigntest.Issuer + `
            subject: ` + cosigntest.Subject + `
          trustRootRef: {kind: ConfigMap, name: sigstore, key: trusted_root.json}
`
