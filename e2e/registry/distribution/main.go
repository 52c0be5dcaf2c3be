// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Command distribution is the registry of github.com/distribution/distribution,
// as its own program: registry serve with a configuration file. It knows as much
// as the tests need: content on disk, and who may see it by a password file or by
// tokens.
//
//	distribution serve config.yml
package main

import (
	"os"

	"github.com/distribution/distribution/v3/registry"

	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"             // basic authentication
	_ "github.com/distribution/distribution/v3/registry/auth/token"                // tokens of another server
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // its content
)

func main() {
	// Left to itself it sends traces to whoever may listen on localhost.
	if err := os.Setenv("OTEL_TRACES_EXPORTER", "none"); err != nil {
		panic(err)
	}
	if registry.RootCmd.Execute() != nil {
		os.Exit(1) // it has said why
	}
}
