// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/types"

	"github.com/pratique-dev/pratique/policy/containers/config"
	"github.com/pratique-dev/pratique/reference"
)

// folders are registries.d folders: their files are divided by lines of ---- and a name.
func folders() map[string]string {
	list := map[string]string{
		"nothing":            "",
		"empty":              "---- a.yaml\n",
		"null":               "---- a.yaml\ndocker:\ndefault-docker:\n",
		"default":            "---- a.yaml\ndefault-docker:\n  lookaside: https://s.io/sigs\n",
		"comments":           "---- a.yaml\n# none\n",
		"document":           "---- a.yaml\n---\ndefault-docker: {lookaside: 'https://s.io'}\n",
		"two documents":      "---- a.yaml\ndefault-docker: {lookaside: 'https://s.io'}\n---\ndocker: {a.io: {lookaside: 'https://a.io'}}\n",
		"another name":       "---- a.yml\ndefault-docker: {lookaside: 'https://s.io'}\n---- b.yaml.bak\nx\n",
		"old names":          "---- a.yaml\ndefault-docker:\n  sigstore: https://s.io\n  sigstore-staging: file:///s\n",
		"both names":         "---- a.yaml\ndefault-docker:\n  sigstore: https://old.io\n  lookaside: https://new.io\n",
		"empty new name":     "---- a.yaml\ndefault-docker:\n  sigstore: https://old.io\n  lookaside: ''\n",
		"staging":            "---- a.yaml\ndefault-docker:\n  lookaside-staging: file:///s\n",
		"default twice":      "---- a.yaml\ndefault-docker: {}\n---- b.yaml\ndefault-docker: {}\n",
		"namespace twice":    "---- a.yaml\ndocker:\n  a.io: {}\n---- b.yaml\ndocker:\n  a.io: {}\n",
		"twice in a file":    "---- a.yaml\ndocker:\n  a.io: {}\n  a.io: {}\n",
		"docker twice":       "---- a.yaml\ndocker: {}\ndocker: {}\n",
		"a list":             "---- a.yaml\n- docker\n",
		"docker a list":      "---- a.yaml\ndocker: [a.io]\n",
		"namespace a text":   "---- a.yaml\ndocker:\n  a.io: https://s.io\n",
		"lookaside a list":   "---- a.yaml\ndefault-docker:\n  lookaside: [https://s.io]\n",
		"staging a list":     "---- a.yaml\ndefault-docker:\n  lookaside-staging: [https://s.io]\n",
		"a list for a name":  "---- a.yaml\n[a]: b\n",
		"broken":             "---- a.yaml\ndefault-docker:\n  lookaside: 'https://s.io\n",
		"tab":                "---- a.yaml\ndefault-docker:\n\tlookaside: https://s.io\n",
		"anchors":            "---- a.yaml\ndefault-docker: &d\n  lookaside: &u https://s.io\ndocker:\n  a.io: *d\n  b.io: {sigstore: *u}\n",
		"unknown names":      "---- a.yaml\ndefault-docker:\n  lookasaide: https://s.io\n  Lookaside: https://s.io\n  signatures: https://s.io\nDocker: {}\nother: 1\n",
		"attachments":        "---- a.yaml\ndefault-docker:\n  use-sigstore-attachments: true\ndocker:\n  a.io: {use-sigstore-attachments: false}\n  b.io: {use-sigstore-attachments: yes}\n  c.io: {use-sigstore-attachments: }\n",
		"attachments a text": "---- a.yaml\ndefault-docker:\n  use-sigstore-attachments: 'true'\n",
		"namespaces":         "---- a.yaml\ndocker:\n  '': {}\n  '*.io/x': {}\n  busybox: {}\n  https://a.io: {}\n",
		"scopes": `---- default.yaml
default-docker:
  lookaside: https://default.io/sigs/
  use-sigstore-attachments: false
---- example.yaml
docker:
  example.com:
    lookaside: https://host.io
  example.com:5000:
    lookaside: file:///port
  example.com/team:
    use-sigstore-attachments: true
  example.com/team/app:
    lookaside: https://app.io
  example.com/team/app:v1:
    lookaside: https://tag.io
  example.com/team/app@sha256:` + zeros + `:
    lookaside: https://digest.io
  "*.example.com":
    lookaside: https://domain.io
  "*.com":
    lookaside: https://com.io
    use-sigstore-attachments: true
  docker.io/library/busybox:
    lookaside: https://busybox.io
  localhost: {lookaside: "http://localhost:8080/x%20y"}
`,
		"no default": "---- a.yaml\ndocker:\n  example.com/team: {use-sigstore-attachments: true}\n  a.example.com/team/app:v1: {sigstore: 'https://tag.io'}\n",
	}
	for name, lookaside := range map[string]string{
		"relative": "sigs", "scheme": "ftp://s.io", "host": "https:///sigs", "user": "https://me:secret@s.io", "file": "file://host/sigs", "relative file": "file:sigs",
		"query": "https://s.io?x=y", "fragment": "https://s.io#x", "plain HTTP": "http://s.io", "port": "https://s.io:x", "number": "5", "path": "/sigs",
	} {
		list["lookaside: "+name] = "---- a.yaml\ndefault-docker:\n  lookaside: " + lookaside + "\n"
	}
	return list
}

const zeros = "0000000000000000000000000000000000000000000000000000000000000000"

func filesOf(folder string) []config.File {
	var files []config.File
	for part := range strings.SplitSeq(folder, "---- ") {
		if name, content, ok := strings.Cut(part, "\n"); ok {
			files = append(files, config.File{Name: name, Content: []byte(content)})
		}
	}
	return files
}

// images are references in canonical form.
var images = []string{
	"docker.io/library/busybox:latest", "docker.io/library/busybox@sha256:" + zeros, "docker.io/acme/app:v1",
	"example.com/team/app:v1", "example.com/team/app:v2", "example.com/team/app@sha256:" + zeros, "example.com/team/app/sub:v1",
	"example.com/team/other:v1", "example.com/x:v1", "example.com:5000/team/app:v1", "example.com:6000/team/app:v1",
	"a.example.com/team/app:v1", "a.example.com:5000/team/app:v2", "b.a.example.com/x:v1", "localhost/x:v1", "localhost:5000/x:v1", "other.org/a/b/c:d", "a.io/x:v1", "b.io/x:v1", "c.io/x:v1",
}

// TestRegistriesAsTheLibrary compares with the library over many references.
func TestRegistriesAsTheLibrary(t *testing.T) {
	t.Parallel()
	compared := 0
	for name, folder := range folders() {
		files := filesOf(folder)
		registries, _ := config.ParseRegistries(files)
		if registries == nil {
			continue
		}
		dir := t.TempDir()
		for _, file := range files {
			if err := os.WriteFile(filepath.Join(dir, file.Name), file.Content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for _, image := range images {
			got, want := "", theirs(t, dir, image)
			if lookaside := registries.Lookaside(parse(t, image)); lookaside != nil {
				repository := parse(t, image).Repository()
				lookaside.Path += repository[strings.IndexByte(repository, '/'):]
				got = lookaside.String()
			}
			if compared++; got != want {
				t.Errorf("%s: %s: the lookaside is %q; the library says %q", name, image, got, want)
			}
		}
	}
	if compared < 200 {
		t.Errorf("only %d comparisons", compared)
	}
}

// theirs is what the library says, empty where nothing is configured.
func theirs(t *testing.T, dir, image string) string {
	t.Helper()
	ref, err := docker.ParseReference("//" + image)
	if err != nil {
		t.Fatal(err)
	}
	u, err := docker.SignatureStorageBaseURL(&types.SystemContext{RegistriesDirPath: dir}, ref, false)
	if err != nil {
		t.Fatalf("the library refuses what we take: %v", err)
	}
	// Its own default, which is none of ours.
	if u.Scheme == "file" && strings.Contains(u.Path, "/containers/sigstore/") {
		return ""
	}
	return u.String()
}

func parse(t *testing.T, image string) reference.Reference {
	t.Helper()
	ref, err := reference.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// TestRegistriesMistakes: each has its message and line; and what the library
// refuses, we refuse.
func TestRegistriesMistakes(t *testing.T) {
	t.Parallel()
	list := folders()
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(list)) {
		registries, problems := config.ParseRegistries(filesOf(list[name]))
		if hasError(problems) != (registries == nil) {
			t.Errorf("%s: registries: %t\n%s", name, registries != nil, told(problems))
		}
		all.WriteString("== " + name + "\n" + told(problems))
		if strings.Contains(told(problems), "secret") && !strings.Contains(told(problems), "is no secret") {
			t.Errorf("%s: a password is repeated: %s", name, told(problems))
		}
	}
	golden(t, "testdata/registries.golden", all.String())
}

func TestAttachments(t *testing.T) {
	t.Parallel()
	list := folders()
	for _, test := range []struct {
		folder, image string
		use, said     bool
	}{
		{"nothing", "a.io/x:v1", false, false},
		{"default", "a.io/x:v1", false, false},
		{"attachments", "a.io/x:v1", false, true},
		{"attachments", "b.io/x:v1", true, true},
		{"attachments", "c.io/x:v1", true, true}, // null says nothing: the default does
		{"attachments", "d.io/x:v1", true, true},
		{"scopes", "example.com/team/app:v1", true, true}, // by the folder, though a lookaside is nearer
		{"scopes", "example.com/x:v1", true, true},        // by *.com, past example.com
		{"scopes", "other.org/x:v1", false, true},
		{"no default", "example.com/team/x@sha256:" + zeros, true, true},
		{"no default", "example.com/x:v1", false, false},
	} {
		registries, _ := config.ParseRegistries(filesOf(list[test.folder]))
		use, said := registries.Attachments(parse(t, test.image))
		if use != test.use || said != test.said {
			t.Errorf("%s: %s: %t, %t; want %t, %t", test.folder, test.image, use, said, test.use, test.said)
		}
	}
}

// TestRegistriesSpellings: no spelling of a host finds another section.
func TestRegistriesSpellings(t *testing.T) {
	t.Parallel()
	registries, problems := config.ParseRegistries(filesOf(`---- a.yaml
docker:
  Example.com:443/a: {lookaside: 'https://a.io'}
  index.docker.io: {lookaside: 'https://hub.io'}
`))
	for image, want := range map[string]string{
		"example.com/a": "https://a.io", "EXAMPLE.COM:0443/a:v1": "https://a.io", "busybox": "https://hub.io", "registry-1.docker.io/a/b": "https://hub.io",
	} {
		if got := registries.Lookaside(parse(t, image)); got == nil || got.String() != want {
			t.Errorf("%s: %v, want %s\n%s", image, got, want, told(problems))
		}
	}
	// What is handed out is the caller's own.
	ref := parse(t, "example.com/a")
	registries.Lookaside(ref).Path = "/changed"
	if got := registries.Lookaside(ref).String(); got != "https://a.io" {
		t.Errorf("a caller changed the lookaside to %s", got)
	}
	// A reference with a tag and a digest is looked up by its tag.
	both := "example.com/team/app:v1@sha256:" + zeros
	registries, _ = config.ParseRegistries(filesOf(folders()["scopes"]))
	if got := registries.Lookaside(parse(t, both)).String(); got != "https://tag.io" {
		t.Errorf("%s: %s", both, got)
	}
	if got := registries.Lookaside(parse(t, both).WithoutTag()).String(); got != "https://digest.io" {
		t.Errorf("%s without its tag: %s", both, got)
	}
}

func TestByReferenceAndHash(t *testing.T) {
	t.Parallel()
	hashes := map[[32]byte]string{}
	for _, test := range []struct {
		content string
		want    bool
	}{
		{"", false},
		{"docker: {a.io: {lookaside: 'https://s.io'}}", false},
		{"docker: {'a.io:5000': {lookaside: 'https://s.io'}}", false},
		{"docker: {'a.io:5000/x': {lookaside: 'https://s.io'}}", false},
		{"docker: {'a.io/x:v1': {lookaside: 'https://s.io'}}", true},
		{"docker: {'a.io/x:v1': {use-sigstore-attachments: false}}", true},
		{"docker: {'a.io/x:v1': {use-sigstore-attachments: true}}", true},
		{"docker: {'a.io/x:v1': {}}", false},
		{"docker: {'a.io/x@sha256:" + zeros + "': {lookaside: 'https://s.io'}}", true},
		{"default-docker: {lookaside: 'https://s.io'}", false},
		{"default-docker: {lookaside: 'https://s.io', use-sigstore-attachments: false}", false},
	} {
		registries, problems := config.ParseRegistries([]config.File{{Name: "a.yaml", Content: []byte(test.content)}})
		if hasError(problems) || registries.ByReference() != test.want {
			t.Errorf("%s: by reference: %t, want %t\n%s", test.content, registries.ByReference(), test.want, told(problems))
		}
		if other, same := hashes[registries.Hash()]; same {
			t.Errorf("the hash of %s is that of %s", test.content, other)
		}
		hashes[registries.Hash()] = test.content
		again, _ := config.ParseRegistries([]config.File{{Name: "b.yaml", Content: []byte("# the same\n" + test.content)}})
		if again.Hash() != registries.Hash() {
			t.Errorf("%s: another hash in another file", test.content)
		}
	}
}

// TestNoRegistries: without a folder nothing is said.
func TestNoRegistries(t *testing.T) {
	t.Parallel()
	var none *config.Registries
	ref := parse(t, "a.io/x:v1")
	use, said := none.Attachments(ref)
	if none.Lookaside(ref) != nil || use || said || none.ByReference() || none.Hash() != (&config.Registries{}).Hash() {
		t.Error("nil says something")
	}
}

func FuzzParseRegistries(f *testing.F) {
	for _, folder := range folders() {
		for _, file := range filesOf(folder) {
			f.Add(file.Content)
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		registries, problems := config.ParseRegistries([]config.File{{Name: "a.yaml", Content: content}})
		if hasError(problems) != (registries == nil) {
			t.Errorf("registries: %t\n%s", registries != nil, told(problems))
		}
		for _, p := range problems {
			if strings.ContainsAny(p.Error(), "\n\r") || p.Line < 0 {
				t.Errorf("a problem in line %d: %q", p.Line, p.Error())
			}
		}
	})
}
