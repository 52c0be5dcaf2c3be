// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
)

// readAgain is how often the authorities' file is read: well within the 5 s in
// which a change must hold. It is small, and what a Secret's volume does with
// links is then no concern.
const readAgain = time.Second

// clients knows who may connect to the webhook: whoever shows a certificate for
// clients that one of the authorities has signed, to one of the names.
type clients struct {
	file        string
	names       []string // nil: to any
	authorities atomic.Pointer[authorities]

	// Of follow alone: what was read last, and why it could not be used.
	content []byte
	failure string
}

// authorities are one reading of the file.
type authorities struct {
	pool *x509.CertPool
	raw  map[string]bool // the same, as DER
}

// newClients reads the file of authorities. Without one it returns nil:
// everybody may connect.
func newClients(o Options) (*clients, error) {
	if o.ClientCAFile == "" {
		return nil, nil //nolint:nilnil // its methods take nil for that
	}
	c := &clients{file: o.ClientCAFile, names: o.ClientNames}
	if _, err := c.read(); err != nil {
		return nil, fmt.Errorf("reading --client-ca-file: %w", err)
	}
	return c, nil
}

// read takes the file's authorities over, if it is a good one and has changed.
func (c *clients) read() (changed bool, err error) {
	content, err := os.ReadFile(c.file)
	if err != nil {
		return false, err
	}
	if c.authorities.Load() != nil && bytes.Equal(content, c.content) {
		return false, nil
	}
	read, err := parseAuthorities(content)
	if err != nil {
		return false, fmt.Errorf("%s %w", c.file, err)
	}
	c.authorities.Store(read)
	c.content = content
	return true, nil
}

// parseAuthorities reads all certificates or none: one that is left out
// silently would be found out by an API server that is turned away.
func parseAuthorities(content []byte) (*authorities, error) {
	a := &authorities{pool: x509.NewCertPool(), raw: map[string]bool{}}
	blocks := 0
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %q, and may hold certificates alone", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("holds a malformed certificate: %w", err)
		}
		a.pool.AddCert(certificate)
		a.raw[string(certificate.Raw)] = true
		blocks++
	}
	switch {
	case blocks == 0:
		return nil, errors.New("holds no certificate in PEM form")
	// What is no proper block is skipped: the end of a file that is still being
	// written, for one.
	case blocks != bytes.Count(content, []byte("-----BEGIN ")):
		return nil, errors.New("holds a certificate that is damaged or not complete")
	}
	return a, nil
}

// follow takes changes of the file over until ctx ends. While it cannot be
// read, the last good authorities stay.
func (c *clients) follow(ctx context.Context) {
	if c == nil {
		return
	}
	log := logr.FromContextOrDiscard(ctx).WithValues("file", c.file)
	ticker := time.NewTicker(readAgain)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := c.read()
		switch {
		case err == nil && (changed || c.failure != ""):
			c.failure = ""
			log.Info("read --client-ca-file", "certificates", len(c.authorities.Load().raw))
		case err != nil && c.failure != err.Error():
			c.failure = err.Error()
			log.Error(err, "cannot use --client-ca-file; the authorities that were read last stay in force")
		}
	}
}

// require makes the server ask for a certificate, and end the handshake with
// whoever has none that is good.
func (c *clients) require(config *tls.Config) {
	if c == nil {
		return
	}
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = c.authorities.Load().pool
	config.VerifyConnection = func(state tls.ConnectionState) error { return c.checkName(state.PeerCertificates[0]) }
	// A ticket would let a client in again without its certificate.
	config.SessionTicketsDisabled = true
	// When it is called, the server's own certificate, which is set later, is in
	// config.
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		latest := config.Clone()
		latest.ClientCAs = c.authorities.Load().pool
		return latest, nil
	}
}

// checkName refuses a certificate that names nobody who may ask.
func (c *clients) checkName(certificate *x509.Certificate) error {
	if c.names == nil || slices.Contains(c.names, certificate.Subject.CommonName) ||
		slices.ContainsFunc(certificate.DNSNames, func(name string) bool { return slices.Contains(c.names, name) }) {
		return nil
	}
	return fmt.Errorf("the client certificate is for %q (DNS names %q), which --client-names does not have",
		certificate.Subject.CommonName, certificate.DNSNames)
}

// still hands on what comes over connections that would be let in now, too:
// the API server keeps them open for long, and an authority that was taken away
// must not be trusted until then.
func (c *clients) still(next http.Handler) http.Handler {
	if c == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := c.authorities.Load().check(r.TLS); err != nil {
			logr.FromContextOrDiscard(r.Context()).Info("ending a connection: its client certificate is no longer accepted",
				"from", r.RemoteAddr, "reason", err.Error())
			panic(http.ErrAbortHandler) // closes it without an answer
		}
		next.ServeHTTP(w, r)
	})
}

// check verifies a client's certificate again, by these authorities. The common
// case, in which they are those of the handshake, costs no signature.
func (a *authorities) check(state *tls.ConnectionState) error {
	if state == nil || len(state.PeerCertificates) == 0 {
		return errors.New("there is none")
	}
	certificate := state.PeerCertificates[0]
	if time.Now().Before(certificate.NotAfter) && slices.ContainsFunc(state.VerifiedChains, func(chain []*x509.Certificate) bool {
		return a.raw[string(chain[len(chain)-1].Raw)]
	}) {
		return nil
	}
	// The same authority may have got another certificate.
	options := x509.VerifyOptions{
		Roots: a.pool, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, other := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(other)
	}
	_, err := certificate.Verify(options)
	return err
}
