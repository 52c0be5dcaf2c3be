// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package skopeo_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/gnupg"
	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/skopeo"
)

func write(t *testing.T, path, content string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestSkopeo: what it signs it accepts, and nothing else; what it cannot judge
// is an error.
func TestSkopeo(t *testing.T) {
	t.Parallel()
	home, err := gnupg.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := home.Close(); err != nil {
			t.Error(err)
		}
	})
	r, err := registry.Memory(registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	signatures := t.TempDir()
	lookaside := httptest.NewServer(http.FileServerFS(os.DirFS(signatures)))
	t.Cleanup(lookaside.Close)
	registries := t.TempDir()
	write(t, filepath.Join(registries, "default.yaml"),
		fmt.Sprintf("default-docker: {lookaside: %q, lookaside-staging: \"file://%s\"}", lookaside.URL, signatures))
	key, err := home.Generate(t.Context(), gnupg.KeyOptions{Algorithm: gnupg.Ed25519})
	if err != nil {
		t.Fatal(err)
	}
	keyring, err := home.Export(t.Context(), false, key)
	if err != nil {
		t.Fatal(err)
	}
	policy := write(t, filepath.Join(t.TempDir(), "policy.json"), fmt.Sprintf(
		`{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": %q}]}`, write(t, filepath.Join(t.TempDir(), "key.gpg"), string(keyring))))

	s, err := skopeo.New(t.TempDir(), home.Dir)
	if err != nil {
		t.Fatal(err)
	}
	image := r.Host + "/acme/app:v1"
	push(t, image)
	if got, err := s.Judge(t.Context(), image, policy, registries); err != nil || got.Accepted || !strings.Contains(got.Reason, "no signature") {
		t.Errorf("unsigned: %+v, %v", got, err)
	}
	if err := s.Copy(t.Context(), image, image, skopeo.CopyOptions{SignBy: key, RegistriesD: registries}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Judge(t.Context(), image, policy, registries); err != nil || !got.Accepted {
		t.Errorf("signed: %+v, %v", got, err)
	}
	if got, err := s.Judge(t.Context(), image, policy, ""); err != nil || got.Accepted {
		t.Errorf("without being told where signatures are: %+v, %v", got, err)
	}
	if got, err := s.Judge(t.Context(), r.Host+"/acme/missing:v1", policy, registries); err == nil {
		t.Errorf("an image that is not there: %+v", got)
	}
	if _, err := s.Sign(t.Context(), []byte("{}"), image, strings.Repeat("0", len(key))); err == nil {
		t.Error("a key that is not there signs")
	}
}

func push(t *testing.T, image string) {
	t.Helper()
	tag, err := name.NewTag(image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	content, err := random.Image(64, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, content, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
}
