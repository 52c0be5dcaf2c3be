// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

func TestLocalLookaside(t *testing.T) {
	t.Parallel()
	r, image, _ := beside(t, 0)
	for name, test := range map[string]struct {
		make func(t *testing.T, folder string)
		want []string
		err  policy.Reason
		says string
	}{
		"none":      {make: func(*testing.T, string) {}},
		"two":       {make: files("signature-1", "one", "signature-2", "two", "signature-4", "four", "signature-0", "zero"), want: []string{"one", "two"}},
		"a hundred": {make: manyFiles(100), want: manyTexts(64), err: policy.ReasonLimit, says: "than the 64"},
		"too large": {make: files("signature-1", strings.Repeat("x", 1<<20+1)), err: policy.ReasonLimit, says: "1048576"},
		"as large as may be": {
			make: files("signature-1", strings.Repeat("x", 1<<20)), want: []string{strings.Repeat("x", 1<<20)},
		},
		"a folder": {
			make: func(t *testing.T, folder string) { mkdir(t, filepath.Join(folder, "signature-1")) },
			err:  policy.ReasonUnreachable, says: "signature-1 cannot be read: not a regular file",
		},
		"without end": {
			make: func(t *testing.T, folder string) {
				mkdir(t, folder)
				if err := os.Symlink("/dev/zero", filepath.Join(folder, "signature-1")); err != nil {
					t.Fatal(err)
				}
			},
			err: policy.ReasonUnreachable, says: "not a regular file",
		},
		"a link": {
			make: func(t *testing.T, folder string) {
				files("elsewhere", "one")(t, folder)
				if err := os.Symlink("elsewhere", filepath.Join(folder, "signature-1")); err != nil {
					t.Fatal(err)
				}
			},
			want: []string{"one"},
		},
		"a file as folder": {
			make: func(t *testing.T, folder string) { files(filepath.Base(folder), canary)(t, filepath.Dir(folder)) },
			err:  policy.ReasonUnreachable, says: "not a directory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			base := &url.URL{Scheme: "file", Path: t.TempDir() + "/"}
			test.make(t, filepath.Join(base.Path, image.Repository+"@"+strings.Replace(image.Digest, ":", "=", 1)))
			o := registry.Options{AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{r.Host()}}
			_, err := gather(newClientWith(t, o).SimpleSignatures(t.Context(), askedImage(t, image), base))
			wantError(t, err, policy.ReasonNotReady, "lookaside file://"+base.Path+" is read on the command line only")

			o.LocalLookaside = true
			got, err := gather(newClientWith(t, o).SimpleSignatures(t.Context(), askedImage(t, image), base))
			if diff := cmp.Diff(test.want, texts(got)); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}
			if wantAtMost(t, err, test.err); test.err != "" && !strings.Contains(err.Error(), test.says) {
				t.Errorf("message = %q, want %q in it", err, test.says)
			}
		})
	}
}

// files writes files: names and contents in turn.
func files(written ...string) func(t *testing.T, folder string) {
	return func(t *testing.T, folder string) {
		t.Helper()
		mkdir(t, folder)
		for i := 0; i < len(written); i += 2 {
			if err := os.WriteFile(filepath.Join(folder, written[i]), []byte(written[i+1]), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func manyFiles(n int) func(t *testing.T, folder string) {
	var written []string
	for i, text := range manyTexts(n) {
		written = append(written, fmt.Sprintf("signature-%d", i+1), text)
	}
	return files(written...)
}

func manyTexts(n int) []string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprint(i+1))
	}
	return out
}

func mkdir(t *testing.T, folder string) {
	t.Helper()
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
}
