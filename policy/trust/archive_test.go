// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy/trust"
)

// pack packs files as policy-controller's users do: tar -czf - repository.
func pack(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var packed bytes.Buffer
	deflated := gzip.NewWriter(&packed)
	into := tar.NewWriter(deflated)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		header := &tar.Header{Name: name, Mode: 0o600, Size: int64(len(files[name])), Typeflag: tar.TypeReg}
		if err := into.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := into.Write(files[name]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []interface{ Close() error }{into, deflated} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return packed.Bytes()
}

// within puts files into a folder.
func within(folder string, files map[string][]byte) map[string][]byte {
	moved := map[string][]byte{}
	for name, content := range files {
		moved[path.Join(folder, name)] = content
	}
	return moved
}

func TestArchive(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	m.publish(goodText(t))
	whole := func(change func(map[string][]byte)) []byte {
		files := maps.Clone(m.files)
		change(files)
		return pack(t, within("repository", files))
	}
	nothing := func(map[string][]byte) {}
	old := newMirror(t)
	old.lives = -time.Hour
	old.publish(goodText(t))
	another := newMirror(t)
	moved := maps.Clone(m.files)
	for name, content := range m.files {
		if rest, ok := strings.CutPrefix(name, "targets/"); ok {
			delete(moved, name)
			moved["elsewhere/"+rest] = content
		}
	}
	big := map[string][]byte{"repository/zeros": make([]byte, 17<<20)}
	many := map[string][]byte{}
	for i := range 1001 {
		many[fmt.Sprintf("repository/%d", i)] = nil
	}
	for name, c := range map[string]struct {
		archive trust.Archive
		problem string
	}{
		"good":                      {trust.Archive{Packed: whole(nothing), Root: m.files["1.root.json"]}, ""},
		"without its folder":        {trust.Archive{Packed: pack(t, m.files), Root: m.files["1.root.json"]}, ""},
		"targets in another folder": {trust.Archive{Packed: pack(t, within("repository", moved)), Root: m.files["1.root.json"], Targets: "elsewhere"}, ""},
		"which is not named":        {trust.Archive{Packed: pack(t, within("repository", moved)), Root: m.files["1.root.json"]}, "trusted_root.json"},
		"by another root":           {trust.Archive{Packed: whole(nothing), Root: another.files["1.root.json"]}, "updating"},
		"without a root":            {trust.Archive{Packed: whole(nothing)}, "root.json"},
		"expired":                   {trust.Archive{Packed: pack(t, within("repository", old.files)), Root: old.files["1.root.json"]}, "expired"},
		"without its target": {trust.Archive{Packed: whole(func(f map[string][]byte) {
			maps.DeleteFunc(f, func(n string, _ []byte) bool { return strings.HasPrefix(n, "targets/") })
		}), Root: m.files["1.root.json"]}, "trusted_root.json"},
		"with another target": {trust.Archive{Packed: whole(func(f map[string][]byte) {
			for name := range f {
				if strings.HasPrefix(name, "targets/") {
					f[name] = append(bytes.Clone(f[name]), ' ')
				}
			}
		}), Root: m.files["1.root.json"]}, "trusted_root.json"},
		"too large":       {trust.Archive{Packed: pack(t, big), Root: m.files["1.root.json"]}, "more than 16 MiB"},
		"too many":        {trust.Archive{Packed: pack(t, many), Root: m.files["1.root.json"]}, "more than 1000 files"},
		"cut off":         {trust.Archive{Packed: whole(nothing)[:100], Root: m.files["1.root.json"]}, "reading the archive"},
		"not packed":      {trust.Archive{Packed: []byte("{}"), Root: m.files["1.root.json"]}, "not packed with gzip"},
		"nothing in it":   {trust.Archive{Packed: pack(t, nil), Root: m.files["1.root.json"]}, "no file in it"},
		"leads elsewhere": {trust.Archive{Packed: pack(t, within("../../repository", m.files)), Root: m.files["1.root.json"]}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := c.archive.Read(t.Context())
			if c.problem != "" {
				if err == nil || !strings.Contains(err.Error(), c.problem) {
					t.Errorf("%v, want %q", err, c.problem)
				}
				return
			}
			if err != nil || !got.HasTransparencyLogs() {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}
