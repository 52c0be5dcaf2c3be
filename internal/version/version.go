// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

// Package version tells which build this is.
package version

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// Set by the linker, -X github.com/pratique-dev/pratique/internal/version.override=v1.2.3,
// as the Makefile does. What the toolchain would note besides depends on more than
// the commit: whether git is there, and what lies beside the sources.
var override, revision string

// Info is what is known of a build.
type Info struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from files that are not committed
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Get reads what the linker and the toolchain noted. Without either the version
// is "devel".
func Get() Info {
	info := Info{Version: override, Revision: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		info.Version = cmp.Or(info.Version, "devel")
		return info
	}
	if build.Main.Version != "(devel)" {
		info.Version = cmp.Or(info.Version, build.Main.Version)
	}
	info.Version = cmp.Or(info.Version, "devel")
	for _, setting := range build.Settings {
		switch setting.Key {
		case "vcs.revision":
			info.Revision = cmp.Or(info.Revision, setting.Value)
		case "vcs.modified":
			info.Modified = setting.Value == "true"
		}
	}
	return info
}
