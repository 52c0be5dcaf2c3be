// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package reference_test

import (
	"strings"
	"testing"

	distribution "github.com/distribution/reference"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/pratique-dev/pratique/reference"
)

const (
	hex    = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	digest = "sha256:" + hex
)

func TestParse(t *testing.T) {
	t.Parallel()
	for written, canonical := range map[string]string{
		"nginx":                               "docker.io/library/nginx:latest",
		"nginx:1":                             "docker.io/library/nginx:1",
		"docker.io/nginx:1":                   "docker.io/library/nginx:1",
		"index.docker.io/library/nginx":       "docker.io/library/nginx:latest",
		"registry-1.docker.io/nginx:1":        "docker.io/library/nginx:1",
		"registry-1.docker.io/library/nginx":  "docker.io/library/nginx:latest",
		"Docker.io/nginx":                     "docker.io/library/nginx:latest",
		"docker.io:443/nginx":                 "docker.io/library/nginx:latest",
		"acme/app":                            "docker.io/acme/app:latest",
		"myreg/app:1":                         "docker.io/myreg/app:1",
		"REG.example.com/team/app:1":          "reg.example.com/team/app:1",
		"reg.example.com:443/team/app:1":      "reg.example.com/team/app:1",
		"reg.example.com:5000/team/app:1":     "reg.example.com:5000/team/app:1",
		"registry:443/team/app:1":             "registry:443/team/app:1",
		"registry:0443/team/app:1":            "registry:443/team/app:1",
		"localhost:443/team/app:1":            "localhost/team/app:1",
		"[fd00:0::1]:5000/team/app:1":         "[fd00::1]:5000/team/app:1",
		"[FD00:0:0:0:0:0:0:1]:443/team/app:1": "[fd00::1]/team/app:1",
		"[::ffff:a00:1]:5000/team/app:1":      "10.0.0.1:5000/team/app:1",
		"[::ffff:a00:1]/team/app:1":           "10.0.0.1/team/app:1",
		"localhost/app":                       "localhost/app:latest",
		"localhost:5000/app":                  "localhost:5000/app:latest",
		"[::1]:5000/app:1":                    "[::1]:5000/app:1",
		"reg.example.com/a__b/c:1":            "reg.example.com/a__b/c:1",
		"reg.example.com/a:1":                 "reg.example.com/a:1",
		"a.io/b@" + digest:                    "a.io/b@" + digest,
		"a.io/b:1@" + digest:                  "a.io/b:1@" + digest,
		"nginx@" + digest:                     "docker.io/library/nginx@" + digest,
		"a.io/b:" + strings.Repeat("t", 128):  "a.io/b:" + strings.Repeat("t", 128),
		"xn--bcher-kva.example/ab/x:1":        "xn--bcher-kva.example/ab/x:1",
		"a.io/b:v1.2.3_rc-1":                  "a.io/b:v1.2.3_rc-1",
		"registry1.com.evil.io/acme-co/app:1": "registry1.com.evil.io/acme-co/app:1",
	} {
		r, err := reference.Parse(written)
		if err != nil {
			t.Errorf("Parse(%q): %v", written, err)
			continue
		}
		if r.Canonical() != canonical {
			t.Errorf("Parse(%q).Canonical() = %q, want %q", written, r.Canonical(), canonical)
		}
		if r.Written() != written {
			t.Errorf("Parse(%q).Written() = %q", written, r.Written())
		}
		again, err := reference.Parse(r.Canonical())
		if err != nil || again.Canonical() != canonical {
			t.Errorf("canonical form %q is not stable: %q, %v", canonical, again.Canonical(), err)
		}
	}
}

// The list of security.md's table of what parsers disagree on, and the usual
// tricks. Each is refused with an error that repeats no more than a piece.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, written := range []string{
		"", " ", "a.io/b:1 ", " a.io/b:1", "a.io/b:1\n", "a.io/b\x00",
		"reg.example.com./team/app:1", "reg.example.com/team/../evil/app:1", "a.io/./b", "a.io//b", "a.io/b/",
		"http://reg/x:1", "https://a.io/b", "oci://a.io/b", "reg.example.com:/ab/x:1",
		"bücher.example/ab/x:1", "a.io/a___b", "a.io/a..b", "a.io/-a", "a.io/a-",
		"Foo/bar:1", "a.io/Foo", "user:pw@a.io/b", "a.io/b?x", "a.io/b#f",
		"a.io/b:" + strings.Repeat("t", 129), "a.io/" + strings.Repeat("b", 256), strings.Repeat("a", 10_000),
		hex, "sha256:" + hex, "sha256:abcdef", "sha512:1", "sha384:1", "sha256:1@" + digest, "a.io/b@" + strings.ToUpper(digest), "a.io/b@SHA256:" + hex, "a.io/b@sha256:" + hex[:63],
		"a.io/b@sha256:" + strings.ToUpper(hex), "a.io/b@md5:" + hex[:32], "a.io/b@sha512:" + hex + hex,
		"10.5:5000/x", "010.0.0.5/x", "10.0.0.05:5000/x", "10.0.0.0x5/x", "2130706433:80/x", "0x7f000001:80/x", "10.0.0.256/x", "a.1/x",
		"a.io/b@" + digest + "@" + digest, "a.io/b@", "a.io/b:", ":1", "@" + digest, "a.io", "a.io:5000/",
	} {
		r, err := reference.Parse(written)
		// A host alone is a legal short name on Docker Hub.
		if written == "a.io" {
			if err != nil || r.Canonical() != "docker.io/library/a.io:latest" {
				t.Errorf("Parse(%q) = %q, %v", written, r.Canonical(), err)
			}
			continue
		}
		if err == nil {
			t.Errorf("Parse(%.60q) = %q, want an error", written, r.Canonical())
			continue
		}
		if !strings.HasPrefix(err.Error(), "invalid image reference ") || len(err.Error()) > 1200 {
			t.Errorf("Parse(%.60q): error %.200q", written, err)
		}
	}
}

func TestPin(t *testing.T) {
	t.Parallel()
	for written, want := range map[string]string{
		"nginx":             "nginx:latest@" + digest,
		"nginx:latest":      "nginx:latest@" + digest,
		"a.io/b:1":          "a.io/b:1@" + digest,
		"a.io:5000/b":       "a.io:5000/b:latest@" + digest,
		"A.io/b":            "A.io/b:latest@" + digest,
		"a.io/b@" + digest:  "a.io/b@" + digest,
		"b:1@" + digest:     "b:1@" + digest,
		"a.io/latest":       "a.io/latest:latest@" + digest,
		"a.io/x/latest:1.0": "a.io/x/latest:1.0@" + digest,
	} {
		r, err := reference.Parse(written)
		if err != nil {
			t.Fatal(err)
		}
		pinned := r.Pin(digest)
		if pinned.Written() != want {
			t.Errorf("Pin(%q) = %q, want %q", written, pinned.Written(), want)
		}
		parsed, err := reference.Parse(pinned.Written())
		if err != nil || parsed != pinned {
			t.Errorf("Pin(%q) differs from what is read back: %#v, %#v, %v", written, pinned, parsed, err)
		}
	}
}

func TestParsePrefix(t *testing.T) {
	t.Parallel()
	repository := func(texts ...string) (out []reference.Prefix) {
		for _, text := range texts {
			out = append(out, reference.Prefix{Text: text})
		}
		return out
	}
	for written, want := range map[string][]reference.Prefix{
		"registry1.com":            repository("registry1.com/"),
		"registry1.com/":           repository("registry1.com/"),
		"registry1.com:5000":       repository("registry1.com:5000/"),
		"registry1.com:443/acme":   repository("registry1.com/acme"),
		"REGISTRY1.com/acme-co/":   repository("registry1.com/acme-co/"),
		"localhost":                repository("localhost/"),
		"acme/":                    repository("docker.io/acme/"),
		"library/nginx":            repository("docker.io/library/nginx"),
		"docker.io":                repository("docker.io/"),
		"docker.io/ngin":           repository("docker.io/ngin", "docker.io/library/ngin"),
		"index.docker.io/acme/app": repository("docker.io/acme/app"),
		"docker.io/nginx:1.":       {{Text: "docker.io/library/nginx:1.", Reach: reference.ReachTag}},
		"a.io/b:":                  {{Text: "a.io/b:", Reach: reference.ReachTag}},
		"a.io/b@" + digest:         {{Text: "a.io/b@" + digest, Reach: reference.ReachDigest}},
	} {
		got, err := reference.ParsePrefix(written)
		if err != nil {
			t.Errorf("ParsePrefix(%q): %v", written, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("ParsePrefix(%q): -want +got\n%s", written, diff)
		}
	}
	for _, written := range []string{
		"", "https://a.io/b", "nginx", "a.io/B", "a.io/b c", "a.io//b", "a..io/b", "a.io./b", "nginx:1.25",
		"a.io/b@sha256:01", "a.io/b@", "a.io/b:1@" + digest, "a.io/b:ü", "a_b.io/x",
	} {
		if got, err := reference.ParsePrefix(written); err == nil {
			t.Errorf("ParsePrefix(%q) = %v, want an error", written, got)
		}
	}
}

func TestReplace(t *testing.T) {
	t.Parallel()
	prefix := func(written string) reference.Prefix {
		t.Helper()
		parsed, err := reference.ParsePrefix(written)
		if err != nil {
			t.Fatal(err)
		}
		return parsed[len(parsed)-1]
	}
	for _, test := range []struct{ written, from, to, want string }{
		{"nginx", "docker.io", "mirror.corp/hub/", "mirror.corp/hub/library/nginx:latest"},
		{"nginx:1", "library/", "mirror.corp", "mirror.corp/nginx:1"},
		{"nginx:1", "docker.io/ngin", "mirror.corp/x", "mirror.corp/xx:1"},
		{"A.io/b@" + digest, "a.io/", "c.io:5000", "c.io:5000/b@" + digest},
		{"a.io:443/b:1@" + digest, "a.io", "c.io/", "c.io/b:1@" + digest},
		{"a.io/b:1", "a.io/", "docker.io", "docker.io/b:1"},
		{"a.io/b:1", "a.io/b", "c.io/", ""},
		{"a.io/b:1", "b.io/", "c.io/", ""},
		{"a.io/b:1", "a.io/b:", "c.io/", ""},
		{"a.io/b:1", "a.io/", "c.io/x:", ""},
		{"a.io/" + strings.Repeat("b", 250), "a.io/", "c.io/" + strings.Repeat("c/", 100), ""},
	} {
		r, err := reference.Parse(test.written)
		if err != nil {
			t.Fatal(err)
		}
		got, err := r.Replace(prefix(test.from), prefix(test.to))
		if got.Written() != test.want || (err == nil) != (test.want != "") {
			t.Errorf("Replace(%q, %q → %q) = %q, %v; want %q", test.written, test.from, test.to, got.Written(), err, test.want)
		}
		if err == nil && got.Repository() == r.Repository() {
			t.Errorf("%q keeps its name %q", test.written, got.Repository())
		}
	}
}

// FuzzParse holds the result against both parsers: whatever is accepted names
// the repository and digest that each of them would name.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"nginx", "a.io/b:1@" + digest, "Docker.io:443/a", "[::1]:5000/app:1", "a.io./b", "Foo/bar", "a.io/a__b@" + digest,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, written string) {
		r, err := reference.Parse(written)
		if err != nil {
			return
		}
		runtime, err := distribution.ParseNormalizedNamed(written)
		if err != nil {
			t.Fatalf("the runtime refuses %q: %v", written, err)
		}
		client, err := name.ParseReference(written)
		if err != nil {
			t.Fatalf("the registry client refuses %q: %v", written, err)
		}
		for _, path := range []string{distribution.Path(runtime), client.Context().RepositoryStr()} {
			if !strings.HasSuffix(r.Repository(), "/"+path) {
				t.Fatalf("%q is %q here and %q elsewhere", written, r.Repository(), path)
			}
		}
		if d, ok := client.(name.Digest); ok != (r.Digest() != "") || ok && d.DigestStr() != r.Digest() {
			t.Fatalf("%q has digest %q here and %v elsewhere", written, r.Digest(), client)
		}
		if again, err := reference.Parse(r.Canonical()); err != nil || again.Canonical() != r.Canonical() {
			t.Fatalf("%q: canonical form %q is not stable: %q, %v", written, r.Canonical(), again.Canonical(), err)
		}
		if strings.ToLower(r.Host()) != r.Host() {
			t.Fatalf("%q: host %q is not canonical", written, r.Host())
		}
	})
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reference.Parse("registry1.com/acme-co/team/app:v1.2.3@" + digest); err != nil {
			b.Fatal(err)
		}
	}
}
