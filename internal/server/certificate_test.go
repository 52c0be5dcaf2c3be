// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"crypto/tls"
	"errors"
	"net/http"
	"sync/atomic"
	"testing"

	"k8s.io/client-go/util/cert"
)

// TestCertificateOfAFunction is asked for at each handshake; without one there is
// no connection.
func TestCertificateOfAFunction(t *testing.T) {
	t.Parallel()
	var pair atomic.Pointer[tls.Certificate]
	another := func() *tls.Certificate {
		t.Helper()
		certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		made, err := tls.X509KeyPair(certPEM, keyPEM)
		if err != nil {
			t.Fatal(err)
		}
		return &made
	}
	o := options(t, nil)
	o.Validate = http.NotFoundHandler()
	o.Certificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := pair.Load(); c != nil {
			return c, nil
		}
		return nil, errors.New("none yet")
	}
	start(t, o)
	shown := func() (*tls.Certificate, error) {
		connection, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", o.BindAddress)
		if err != nil {
			return nil, err
		}
		defer func() { _ = connection.Close() }()
		return &tls.Certificate{Leaf: connection.(*tls.Conn).ConnectionState().PeerCertificates[0]}, nil
	}
	if _, err := shown(); err == nil {
		t.Error("a connection without a certificate")
	}
	for range 2 {
		pair.Store(another())
		if got, err := shown(); err != nil || !got.Leaf.Equal(pair.Load().Leaf) {
			t.Errorf("another certificate is shown: %v", err)
		}
	}
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
