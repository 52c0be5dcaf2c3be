// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/util/cert"
)

// TestCertificateOfAFunction is asked for at each handshake; without one there is
// no connection.
func TestCertificateOfAFunction(t *testing.T) {
	t.Parallel()
	var pair atomic.Pointer[tls.Certificate]
	o := options(t, nil)
	o.Validate = http.NotFoundHandler()
	o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := pair.Load(); c != nil {
			return c, nil
		}
		return nil, errors.New("none yet")
	}
	start(t, o)
	if _, err := shown(t, o.BindAddress); err == nil {
		t.Error("a connection without a certificate")
	}
	for range 2 {
		made, _, _ := newPair(t)
		pair.Store(&made)
		if got, err := shown(t, o.BindAddress); err != nil || !got.Equal(pair.Load().Leaf) {
			t.Errorf("another certificate is shown: %v", err)
		}
	}
}

// newPair makes a certificate, in PEM form too.
func newPair(t *testing.T) (made tls.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	made, err = tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return made, certPEM, keyPEM
}

// shown is the certificate that a server shows.
func shown(t *testing.T, address string) (*x509.Certificate, error) {
	t.Helper()
	connection, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = connection.Close() }()
	return connection.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}

// TestCertificateOfAFolder: one that changes is served without a restart.
func TestCertificateOfAFolder(t *testing.T) {
	t.Parallel()
	o := options(t, http.NotFound)
	o.CertDir = t.TempDir()
	write := func() *x509.Certificate {
		t.Helper()
		made, certPEM, keyPEM := newPair(t)
		for name, content := range map[string][]byte{"tls.crt": certPEM, "tls.key": keyPEM} {
			if err := os.WriteFile(filepath.Join(o.CertDir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return made.Leaf
	}
	written := write()
	start(t, o)
	if got, err := shown(t, o.BindAddress); err != nil || !got.Equal(written) {
		t.Fatalf("another certificate is shown: %v", err)
	}
	written = write()
	await(t, func() bool {
		got, err := shown(t, o.BindAddress)
		return err == nil && got.Equal(written)
	})
}

// TestAnswers: on the webhook's own port is told whether it would answer, and
// not why it would not.
func TestAnswers(t *testing.T) {
	t.Parallel()
	var failure atomic.Pointer[error]
	o := options(t, nil)
	o.Validate = http.NotFoundHandler()
	o.Ready = func() error {
		if err := failure.Load(); err != nil {
			return *err
		}
		return nil
	}
	start(t, o)
	url := "https://" + o.BindAddress + "/readyz"
	if status, body := get(t.Context(), url); status != http.StatusOK || body != "ok\n" {
		t.Errorf("got %d, %q", status, body)
	}
	err := errors.New("for a reason of its own")
	failure.Store(&err)
	if status, body := get(t.Context(), url); status != http.StatusServiceUnavailable || body != "not ready\n" {
		t.Errorf("got %d, %q", status, body)
	}
}
