// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/pratique-dev/pratique/e2e/registry"
)

func TestRegistries(t *testing.T) {
	for _, test := range []struct {
		name      string
		start     func(registry.Options) (*registry.Registry, error)
		referrers int // status of the referrers API
	}{
		{"Distribution", registry.Distribution, http.StatusNotFound},
		{"Memory", registry.Memory, http.StatusOK},
	} {
		t.Run(test.name, func(t *testing.T) {
			var requests atomic.Int64
			var log lines
			r, err := test.start(registry.Options{
				Dir: t.TempDir(),
				Log: &log,
				Wrap: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						requests.Add(1)
						next.ServeHTTP(w, r)
					})
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := r.Stop(); err != nil {
					t.Error(err)
				}
			})

			tag, image := push(t, r.Host+"/acme/app:v1")
			digest, err := image.Digest()
			if err != nil {
				t.Fatal(err)
			}

			// An artefact that refers to the image is found, by API or by tag.
			artefact, err := random.Image(10, 1)
			if err != nil {
				t.Fatal(err)
			}
			subject, err := remote.Head(tag)
			if err != nil {
				t.Fatal(err)
			}
			artefact = mutate.Subject(artefact, *subject).(v1.Image)
			artefactDigest, err := artefact.Digest()
			if err != nil {
				t.Fatal(err)
			}
			if err := remote.Write(tag.Context().Digest(artefactDigest.String()), artefact); err != nil {
				t.Fatal(err)
			}
			index, err := remote.Referrers(tag.Context().Digest(digest.String()))
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			if len(manifest.Manifests) != 1 || manifest.Manifests[0].Digest != artefactDigest {
				t.Errorf("referrers: %v, want only %s", manifest.Manifests, artefactDigest)
			}

			response, err := http.Get("http://" + r.Host + "/v2/acme/app/referrers/" + digest.String())
			if err != nil {
				t.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != test.referrers {
				t.Errorf("referrers API: status %d, want %d", response.StatusCode, test.referrers)
			}
			if requests.Load() == 0 {
				t.Error("Options.Wrap saw no request")
			}
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
			if log.Load() == 0 {
				t.Error("Options.Log saw nothing")
			}
			if c, err := net.Dial("tcp", r.Host); err == nil {
				c.Close()
				t.Errorf("%s still listens after Stop", r.Host)
			}
		})
	}
}

// What Distribution stored outlives it, also under the same address.
func TestDistributionKeepsContent(t *testing.T) {
	options := registry.Options{Dir: t.TempDir()}
	first, err := registry.Distribution(options)
	if err != nil {
		t.Fatal(err)
	}
	tag, image := push(t, first.Host+"/acme/app:v1")
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}

	options.Addr = first.Host
	second, err := registry.Distribution(options)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = second.Stop() }()
	got, err := remote.Head(tag)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := image.Digest(); got.Digest != want {
		t.Errorf("after a restart %s is %s, want %s", tag, got.Digest, want)
	}
}

// A request that does not end does not keep the registry from stopping.
func TestStopDoesNotWaitForever(t *testing.T) {
	arrived := make(chan struct{})
	r, err := registry.Memory(registry.Options{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(arrived)
			<-r.Context().Done() // until the connection is closed
		})
	}})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		response, err := http.Get("http://" + r.Host + "/v2/")
		if err == nil {
			response.Body.Close()
		}
		answered <- err
	}()
	<-arrived
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if err := <-answered; err == nil {
		t.Error("the request was answered")
	}
}

func TestBadOptions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options registry.Options
		want    string
	}{
		"no folder":       {registry.Options{}, "Options.Dir is empty"},
		"folder is file":  {registry.Options{Dir: file}, "making the registry's folder"},
		"address in vain": {registry.Options{Dir: t.TempDir(), Addr: "192.0.2.1:1"}, "listening for the registry"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := registry.Distribution(test.options)
			if err == nil {
				_ = r.Stop()
				t.Fatal("started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q, want %q in it", err, test.want)
			}
		})
	}
}

// Lines counts what is written to a log.
type lines struct{ atomic.Int64 }

func (l *lines) Write(p []byte) (int, error) {
	l.Add(1)
	return len(p), nil
}

func push(t *testing.T, written string) (name.Tag, v1.Image) {
	t.Helper()
	tag, err := name.NewTag(written)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	return tag, image
}
