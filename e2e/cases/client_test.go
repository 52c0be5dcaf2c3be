// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/e2e/cluster"
	"github.com/pratique-dev/pratique/e2e/env"
)

// forged posts a review by hand, with a certificate or without, and returns
// every byte that comes back.
func forged(t *testing.T, s *env.Server, body string, shown ...tls.Certificate) (string, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Cert.CAPEM)
	dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if len(shown) > 0 {
			return &shown[0], nil // whatever the server asks for
		}
		return &tls.Certificate{}, nil
	}}}
	connection, err := dialer.DialContext(t.Context(), "tcp", s.Address)
	if err != nil {
		return "", err
	}
	defer func() { _ = connection.Close() }()
	_, writeErr := fmt.Fprintf(connection, "POST /validate?timeout=5s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n"+
		"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", s.Address, len(body), body)
	answer, err := io.ReadAll(bufio.NewReader(connection))
	if err == nil {
		err = writeErr
	}
	return string(answer), err
}

func pair(t *testing.T, c cluster.ClientCert) tls.Certificate {
	t.Helper()
	made, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestClientCertificate: with --client-ca-file the API server is answered, by
// the certificate that its AdmissionConfiguration names, and nobody else is.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	r := newRoom(t, env.OtherServer+"=client")
	r.policy(t, "", keyed(r.prefix(), r.key))
	signed, unsigned := r.signed(t, "signed:v1"), r.unsigned(t, "unsigned:v1")
	folder := t.TempDir()
	authorities := filepath.Join(folder, "ca.crt")
	trust := func(pem []byte) {
		t.Helper()
		if err := os.WriteFile(authorities+".new", pem, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(authorities+".new", authorities); err != nil {
			t.Fatal(err)
		}
	}
	trust(r.Caller.CAPEM)
	s := r.beside(t, env.ServerOptions{
		Name: "client", Known: true, Args: []string{"--client-ca-file", authorities, "--client-names", "other," + env.CallerName},
	})
	for range 100 { // the probe must not be among those who are refused
		if !s.Ready(t.Context()) {
			t.Fatal("not ready")
		}
	}
	if log := logOf(t, s); strings.Contains(log, "refused a connection") {
		t.Errorf("somebody was refused:\n%s", log)
	}
	r.create(t.Context(), pod("signed", signed.ByTag())).admitted(t, signed.ByBoth())
	r.try(t.Context(), pod("unsigned", unsigned.ByTag())).refused(t, rejected, "no signature")

	another, err := cluster.NewClientCert(filepath.Join(folder, "another"), env.CallerName)
	if err != nil {
		t.Fatal(err)
	}
	body := review(r.namespace, podJSON(r.signed(t, "nobody-asked:v1").ByBoth()))
	t.Run("forged", func(t *testing.T) {
		const attempts = 30
		r.silent(t, func() {
			for range attempts {
				if answer, err := forged(t, s, body); answer != "" || err == nil {
					t.Fatalf("without a certificate: %q, %v", answer, err)
				}
				if answer, err := forged(t, s, body, pair(t, another)); answer != "" || err == nil {
					t.Fatalf("with another authority's: %q, %v", answer, err)
				}
			}
		})
		lines := strings.Count(logOf(t, s), "refused a connection")
		if lines == 0 || lines >= attempts {
			t.Errorf("%d lines about %d who were refused", lines, 2*attempts)
		}
		if answer, err := forged(t, s, body, pair(t, r.Caller.ClientCert)); err != nil || !strings.Contains(answer, `"allowed":true`) {
			t.Errorf("with the API server's own: %q, %v", answer, err)
		}
	})

	t.Run("the authority is changed", func(t *testing.T) {
		says := func(text string) {
			t.Helper()
			r.eventually(t, inForce, "it has read the file", func(context.Context) error {
				if !strings.Contains(logOf(t, s), text) {
					return fmt.Errorf("it does not log %q", text)
				}
				return nil
			})
		}
		trust(append(another.CAPEM, r.Caller.CAPEM...))
		says(`"certificates":2`)
		r.try(t.Context(), pod("both", signed.ByTag())).admitted(t, signed.ByBoth())
		trust(another.CAPEM)
		r.eventually(t, inForce, "the API server is turned away", func(ctx context.Context) error {
			err := r.try(ctx, pod("away", signed.ByTag())).err
			switch {
			case err == nil:
				return errors.New("it is still answered")
			case !strings.Contains(err.Error(), "failed calling webhook"):
				return err
			}
			return nil
		})
		if answer, err := forged(t, s, body, pair(t, r.Caller.ClientCert)); answer != "" || err == nil {
			t.Errorf("with the former authority's: %q, %v", answer, err)
		}
		trust([]byte("no PEM"))
		says("holds no certificate in PEM form")
		if answer, err := forged(t, s, body, pair(t, another)); err != nil || !strings.Contains(answer, `"allowed":true`) {
			t.Errorf("while the file is broken: %q, %v", answer, err)
		}
		trust(r.Caller.CAPEM)
		r.eventually(t, inForce, "the API server is answered again", func(ctx context.Context) error {
			return r.try(ctx, pod("again", signed.ByTag())).err
		})
	})
}

// logOf is what a server has logged.
func logOf(t *testing.T, s *env.Server) string {
	t.Helper()
	log, err := os.ReadFile(shared.Log(s.Name))
	if err != nil {
		t.Fatal(err)
	}
	return string(log)
}
