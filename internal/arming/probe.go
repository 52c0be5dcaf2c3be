// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package arming

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Path is where the webhook's own port answers 200 if it could answer reviews.
const Path = "/readyz"

// probeFor bounds one question. The API server waits for 10 s by default; who
// takes that long to say that it is there had better not be relied on.
const probeFor = 5 * time.Second

// Probe asks a replica, on the way that API servers take.
type Probe struct {
	// Host is where, as host:port.
	Host string
	// Clients says that the webhook answers nobody but who shows a certificate for
	// clients, as API servers do. Then it has answered who has seen its own
	// certificate, and that it has the key to it.
	Clients bool
}

// Answers reports why nobody answers to somebody who trusts these authorities,
// in PEM form, or without any those of the system.
func (p Probe) Answers(ctx context.Context, caBundle []byte) error {
	// In TLS 1.3 a client has seen all of that before the server looks at the
	// client's certificate.
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if len(caBundle) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(caBundle) {
			return errors.New("there is no certificate in the authorities")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	if p.Clients {
		connection, err := (&tls.Dialer{NetDialer: &net.Dialer{}, Config: config}).DialContext(ctx, "tcp", p.Host)
		if err != nil {
			return fmt.Errorf("connecting to %s: %w", p.Host, err)
		}
		return connection.Close()
	}
	return p.get(ctx, config)
}

func (p Probe) get(ctx context.Context, config *tls.Config) error {
	target := url.URL{Scheme: "https", Host: p.Host, Path: Path}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("asking %s: %w", p.Host, err)
	}
	client := &http.Client{
		// No proxy: it is not on the way from the API server.
		Transport:     &http.Transport{TLSClientConfig: config, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	response, err := client.Do(request)
	if err != nil {
		return err // names the method and the URL
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("asking %s: it answered %d", target.String(), response.StatusCode)
	}
	return nil
}
