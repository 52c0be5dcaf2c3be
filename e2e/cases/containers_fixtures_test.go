// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/gnupg"
	"github.com/pratique-dev/pratique/e2e/skopeo"
)

// The keys of a signers' keyring.
const (
	rsaKey     = "rsa"
	nistKey    = "nist"
	ed25519Key = "ed25519"
	subKey     = "subkey"
	expiredKey = "expired"
	revokedKey = "revoked"
)

// signers are keys of GnuPG, and the skopeo that signs with them. The public
// keys are in files of a folder: <name>.gpg, and <name>.asc in ASCII armor.
type signers struct {
	*gnupg.Home
	*skopeo.Skopeo

	folder string
	keys   map[string]string // fingerprints by name
	// goodAt is when the expired key was good.
	goodAt time.Time
}

func newSigners(t *testing.T, names ...string) *signers {
	t.Helper()
	home, err := gnupg.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Close(); err != nil {
			t.Error(err)
		}
	})
	program, err := skopeo.New(t.TempDir(), home.Dir)
	if err != nil {
		t.Fatal(err)
	}
	born := time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC)
	s := &signers{Home: home, Skopeo: program, folder: t.TempDir(), keys: map[string]string{}, goodAt: born.Add(time.Hour)}
	kinds := map[string]gnupg.KeyOptions{
		rsaKey: {Algorithm: gnupg.RSA3072}, nistKey: {Algorithm: gnupg.NISTP256}, ed25519Key: {Algorithm: gnupg.Ed25519},
		subKey: {Algorithm: gnupg.Ed25519, Subkey: true}, revokedKey: {Algorithm: gnupg.Ed25519},
		expiredKey: {Algorithm: gnupg.Ed25519, Created: born, Lifetime: 24 * time.Hour},
	}
	for _, name := range names {
		if s.keys[name], err = home.Generate(t.Context(), kinds[name]); err != nil {
			t.Fatal(err)
		}
		s.export(t, name)
	}
	return s
}

// export writes the public key as it is now.
func (s *signers) export(t *testing.T, name string) {
	t.Helper()
	writeFile(t, filepath.Join(s.folder, name+".gpg"), s.keyring(t, false, name))
	writeFile(t, filepath.Join(s.folder, name+".asc"), s.keyring(t, true, name))
}

// keyring is one of some of the keys.
func (s *signers) keyring(t *testing.T, armored bool, names ...string) string {
	t.Helper()
	fingerprints := make([]string, 0, len(names))
	for _, name := range names {
		fingerprints = append(fingerprints, s.keys[name])
	}
	keyring, err := s.Export(t.Context(), armored, fingerprints...)
	if err != nil {
		t.Fatal(err)
	}
	return string(keyring)
}

// signature is one of a manifest, which claims to be of a reference.
func (s *signers) signature(t *testing.T, key, reference string, manifest []byte) []byte {
	t.Helper()
	if key != expiredKey {
		made, err := s.Skopeo.Sign(t.Context(), manifest, reference, s.keys[key])
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	// With such a key GnuPG signs only as of when it was good.
	digest, _, err := v1.SHA256(strings.NewReader(string(manifest)))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := gnupg.Payload(reference, digest.String())
	if err != nil {
		t.Fatal(err)
	}
	made, err := s.Home.Sign(t.Context(), s.keys[key], s.goodAt, payload)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// lookaside is a folder of signatures, served over plain HTTP.
type lookaside struct {
	*httptest.Server

	folder string
	mu     sync.Mutex
	asked  []string
}

func newLookaside(t *testing.T) *lookaside {
	t.Helper()
	l := &lookaside{folder: t.TempDir()}
	files := http.FileServerFS(os.DirFS(l.folder))
	l.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		l.mu.Lock()
		l.asked = append(l.asked, req.URL.Path)
		l.mu.Unlock()
		files.ServeHTTP(w, req)
	}))
	t.Cleanup(l.Close)
	return l
}

// requests lists the paths that were asked for, of one repository.
func (l *lookaside) requests(repository string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for _, path := range l.asked {
		if strings.HasPrefix(path, "/"+pathOf(repository)+"@") {
			list = append(list, path)
		}
	}
	return list
}

// put adds a signature to those of a digest, under the path that
// containers-registries.d(5) has for it, and returns its file.
func (l *lookaside) put(t *testing.T, repository, digest string, signature []byte) (file string) {
	t.Helper()
	folder := filepath.Join(l.folder, pathOf(repository)+"@"+strings.Replace(digest, ":", "=", 1))
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for n := 1; ; n++ {
		file = filepath.Join(folder, fmt.Sprintf("signature-%d", n))
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			writeFile(t, file, string(signature))
			return file
		}
	}
}

// pathOf is a repository without its host.
func pathOf(repository string) string {
	_, path, _ := strings.Cut(repository, "/")
	return path
}

// registriesD writes a containers-registries.d(5) folder of one file.
func registriesD(t *testing.T, content string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	writeFile(t, filepath.Join(folder, "default.yaml"), content)
	return folder
}

// writeFile replaces a file: not for a moment must anybody read half of it.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// publishPlatforms pushes an index of images for linux/amd64 and linux/arm64.
func publishPlatforms(t *testing.T, repository, tag string) (index published, platforms []published) {
	t.Helper()
	target, err := name.NewTag(repository+":"+tag, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	content := v1.ImageIndex(empty.Index)
	for _, architecture := range []string{"amd64", "arm64"} {
		image, err := random.Image(64, 1)
		if err != nil {
			t.Fatal(err)
		}
		content = mutate.AppendManifests(content, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
		digest, err := image.Digest()
		if err != nil {
			t.Fatal(err)
		}
		platforms = append(platforms, published{repository, tag, digest.String()})
	}
	if err := remote.WriteIndex(target, content, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := content.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return published{repository, tag, digest.String()}, platforms
}

// manifestOf reads the manifest of an image or index.
func manifestOf(t *testing.T, image published) []byte {
	t.Helper()
	digest, err := name.NewDigest(image.byDigest(), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Get(digest, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	return got.Manifest
}

// retag makes a tag of the image's repository point at it.
func retag(t *testing.T, image published, tag string) {
	t.Helper()
	digest, err := name.NewDigest(image.byDigest(), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Get(digest, remote.WithContext(t.Context()))
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Tag(digest.Context().Tag(tag), got, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}

// gpgSigned is a requirement: a signature by a key in a file. more are further
// fields, such as identities.
func gpgSigned(keyFile string, more ...string) string {
	fields := append([]string{`"type": "signedBy"`, `"keyType": "GPGKeys"`, fmt.Sprintf(`"keyPath": %q`, keyFile)}, more...)
	return "{" + strings.Join(fields, ", ") + "}"
}
