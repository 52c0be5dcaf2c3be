// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/registry/tokens"
)

const (
	user, password = "robot", "s3cret-of-the-robot"
	// encoded are both as they are sent (RFC 7617).
	encoded    = "cm9ib3Q6czNjcmV0LW9mLXRoZS1yb2JvdA=="
	repository = "acme/app"
)

func startProcess(t *testing.T, o registry.ProcessOptions) *registry.Process {
	t.Helper()
	o.Dir = t.TempDir()
	r, err := registry.StartProcess(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func newServing(t *testing.T) *cluster.ServingCert {
	t.Helper()
	cert, err := cluster.NewServingCert(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &cert
}

// newClient makes a client's certificate, and the file of its authority.
func newClient(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	cert, err := cluster.NewClientCert(t.TempDir(), "pratique")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert.CertPEM, cert.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair, cert.CAFile
}

func newTokens(t *testing.T, cert *cluster.ServingCert) *tokens.Server {
	t.Helper()
	s, err := tokens.Start(tokens.Options{Cert: *cert})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func basic(user, password string) authn.Authenticator {
	return &authn.Basic{Username: user, Password: password}
}

// write pushes an image with what a client shows.
func write(t *testing.T, r *registry.Process, repository string, as authn.Authenticator, shown ...tls.Certificate) (v1.Image, error) {
	t.Helper()
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	return image, remote.Write(tagOf(t, r, repository), image, options(t, r, as, shown...)...)
}

// read asks for what write has pushed.
func read(t *testing.T, r *registry.Process, repository string, as authn.Authenticator, shown ...tls.Certificate) (*v1.Descriptor, error) {
	t.Helper()
	return remote.Head(tagOf(t, r, repository), options(t, r, as, shown...)...)
}

func tagOf(t *testing.T, r *registry.Process, repository string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(r.Host + "/" + repository + ":v1")
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func options(t *testing.T, r *registry.Process, as authn.Authenticator, shown ...tls.Certificate) []remote.Option {
	t.Helper()
	client := r.Transport(shown...)
	t.Cleanup(client.CloseIdleConnections)
	return []remote.Option{remote.WithTransport(client), remote.WithAuth(as), remote.WithContext(t.Context())}
}

// unauthorized fails the test unless the registry, or its token server, said 401.
func unauthorized(t *testing.T, what string, err error) {
	t.Helper()
	if answer, ok := errors.AsType[*transport.Error](err); !ok || answer.StatusCode != http.StatusUnauthorized {
		t.Errorf("%s: %v, want 401", what, err)
	}
}

// TestProcessBasic: who has the password, and the certificate if one is asked
// for, and no one else.
func TestProcessBasic(t *testing.T) {
	t.Parallel()
	client, authority := newClient(t)
	other, _ := newClient(t)
	r := startProcess(t, registry.ProcessOptions{
		Cert: newServing(t), ClientCA: authority, Users: map[string]string{user: password},
	})
	image, err := write(t, r, repository, basic(user, password), client)
	if err != nil {
		t.Fatal(err)
	}
	got, err := read(t, r, repository, basic(user, password), client)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := image.Digest(); got.Digest != want {
		t.Errorf("read %s, want %s", got.Digest, want)
	}
	_, err = read(t, r, repository, authn.Anonymous, client)
	unauthorized(t, "without a password", err)
	_, err = read(t, r, repository, basic(user, "guess"), client)
	unauthorized(t, "with a wrong password", err)
	_, err = read(t, r, repository, basic("nobody", password), client)
	unauthorized(t, "as another", err)
	for what, shown := range map[string][]tls.Certificate{"without a certificate": nil, "with another authority's": {other}} {
		if _, err := read(t, r, repository, basic(user, password), shown...); err == nil || !strings.Contains(err.Error(), "tls: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	ref := tagOf(t, r, repository)
	if _, err := remote.Head(ref, remote.WithAuth(basic(user, password))); err == nil || !strings.Contains(err.Error(), "x509: ") {
		t.Errorf("who does not know its authority: %v", err)
	}

	// The file of passwords is read again.
	if err := r.SetUsers(map[string]string{user: "another"}); err != nil {
		t.Fatal(err)
	}
	_, err = read(t, r, repository, basic(user, password), client)
	unauthorized(t, "with the former password", err)
	if _, err := read(t, r, repository, basic(user, "another"), client); err != nil {
		t.Errorf("with the new password: %v", err)
	}
}

// TestProcessTokens: the password goes to the token server, the token to the
// registry, and it is good for what the user may see.
func TestProcessTokens(t *testing.T) {
	t.Parallel()
	cert := newServing(t)
	s := newTokens(t, cert)
	s.Allow(user, password, "acme/")
	s.Allow("guest", password, "guests/")
	r := startProcess(t, registry.ProcessOptions{Cert: cert, Tokens: s})
	if _, err := write(t, r, repository, basic(user, password)); err != nil {
		t.Fatal(err)
	}
	if _, err := read(t, r, repository, basic(user, password)); err != nil {
		t.Error(err)
	}
	last := s.Requests()[len(s.Requests())-1]
	want := tokens.Request{
		Authorization: "Basic " + encoded, User: user, Status: http.StatusOK,
		Scopes: []string{"repository:" + repository + ":pull"},
	}
	if diff := cmp.Diff(want, last); diff != "" {
		t.Errorf("the last request (-want +got):\n%s", diff)
	}

	_, err := read(t, r, repository, authn.Anonymous)
	unauthorized(t, "without a password", err)
	_, err = read(t, r, repository, basic(user, "guess"))
	unauthorized(t, "with a wrong password", err)
	_, err = read(t, r, repository, basic("guest", password))
	unauthorized(t, "who may not see this repository", err)
	// The guest got a token, which does not help.
	last = s.Requests()[len(s.Requests())-1]
	if last.User != "guest" || last.Status != http.StatusOK {
		t.Errorf("the last request: %+v", last)
	}

	s.Allow(user, "another", "acme/")
	_, err = read(t, r, repository, basic(user, password))
	unauthorized(t, "with the former password", err)
	if _, err := read(t, r, repository, basic(user, "another")); err != nil {
		t.Errorf("with the new password: %v", err)
	}
	s.Revoke(user)
	_, err = read(t, r, repository, basic(user, "another"))
	unauthorized(t, "whose account is gone", err)
}

// TestProcessBelievesItsTokenServerOnly: the tokens of another say nothing.
func TestProcessBelievesItsTokenServerOnly(t *testing.T) {
	t.Parallel()
	cert := newServing(t)
	s, other := newTokens(t, cert), newTokens(t, cert)
	r := startProcess(t, registry.ProcessOptions{Cert: cert, Tokens: s})
	for issuer, status := range map[*tokens.Server]int{s: http.StatusNotFound, other: http.StatusUnauthorized} {
		issuer.Allow(user, password, "acme/")
		client := &http.Client{Transport: r.Transport()}
		t.Cleanup(client.CloseIdleConnections)
		var given struct {
			Token string `json:"token"`
		}
		answer := get(t, client, issuer.Realm()+"?service="+tokens.Service+"&scope=repository:"+repository+":pull", "Basic "+encoded)
		if err := json.Unmarshal(answer.body, &given); err != nil || given.Token == "" {
			t.Fatalf("no token: %v", err)
		}
		if got := get(t, client, "https://"+r.Host+"/v2/"+repository+"/manifests/v1", "Bearer "+given.Token); got.status != status {
			t.Errorf("with a token of %s: %d, want %d", issuer.Host, got.status, status)
		}
	}
}

type answer struct {
	status int
	body   []byte
}

func get(t *testing.T, client *http.Client, url, authorization string) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", authorization)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, body}
}

// TestProcessRestarts: it serves what it had, at the same address, as it is
// told then; and when it is stopped it is gone.
func TestProcessRestarts(t *testing.T) {
	t.Parallel()
	r := startProcess(t, registry.ProcessOptions{Cert: newServing(t)})
	image, err := write(t, r, repository, authn.Anonymous)
	if err != nil {
		t.Fatal(err)
	}
	host, before := r.Host, r.Transport()
	client, authority := newClient(t)
	err = r.Restart(t.Context(), func(o *registry.ProcessOptions) {
		o.Cert, o.ClientCA, o.Users = newServing(t), authority, map[string]string{user: password}
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Host != host {
		t.Errorf("it is at %s, and was at %s", r.Host, host)
	}
	got, err := read(t, r, repository, basic(user, password), client)
	if err != nil {
		t.Fatal(err)
	}
	if want, _ := image.Digest(); got.Digest != want {
		t.Errorf("read %s, want %s", got.Digest, want)
	}
	ref := tagOf(t, r, repository)
	if _, err := remote.Head(ref, remote.WithTransport(before)); err == nil || !strings.Contains(err.Error(), "x509: ") {
		t.Errorf("who knows the former authority only: %v", err)
	}
	pid := r.PID()
	if err := r.Stop(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is left: %v", pid, err)
	}
	if c, err := net.Dial("tcp", host); err == nil {
		_ = c.Close()
		t.Errorf("%s still listens after Stop", host)
	}
}

func TestProcessBadOptions(t *testing.T) {
	t.Parallel()
	cert := newServing(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	broken := *cert
	broken.CertFile = filepath.Join(t.TempDir(), "missing")
	for name, test := range map[string]struct {
		options registry.ProcessOptions
		want    string
	}{
		"no folder":      {registry.ProcessOptions{}, "ProcessOptions.Dir is empty"},
		"both":           {registry.ProcessOptions{Dir: t.TempDir(), Users: map[string]string{user: password}, Tokens: newTokens(t, cert)}, "not for both"},
		"taken":          {registry.ProcessOptions{Dir: t.TempDir(), Cert: cert, Port: taken.Addr().(*net.TCPAddr).Port}, "address already in use"},
		"no certificate": {registry.ProcessOptions{Dir: t.TempDir(), Cert: &broken}, "no such file or directory"},
		"no program":     {registry.ProcessOptions{Dir: t.TempDir(), Binary: "/nonexistent/distribution"}, "starting distribution"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := registry.StartProcess(t.Context(), test.options)
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
