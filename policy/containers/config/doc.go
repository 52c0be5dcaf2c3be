// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package config reads the configuration files of containers/image strictly, and
// says of each mistake at which line it is and what to write instead.
package config
