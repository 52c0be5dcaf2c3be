// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// headerTimeout closes a connection whose client says nothing.
const headerTimeout = 10 * time.Second

// startIssuers serves what Fulcio reads of an OIDC issuer, its discovery
// document and its keys, for every issuer of the options: with TLS, under the
// real name, whatever that is. Fulcio gets there through a proxy, which leads
// every one of these names here and any other nowhere. Tokens are made by the
// tests, which have the key.
func startIssuers(o options) error {
	keys, err := os.ReadFile(filepath.Join(o.dir, "jwks.json"))
	if err != nil {
		return fmt.Errorf("reading the issuers' keys: %w", err)
	}
	mux := http.NewServeMux()
	hosts := map[string]bool{}
	for _, issuer := range o.issuers {
		address, err := url.Parse(issuer)
		if err != nil {
			return fmt.Errorf("reading issuer %q: %w", issuer, err)
		}
		hosts[net.JoinHostPort(address.Hostname(), "443")] = true
		document, err := json.Marshal(map[string]any{
			"issuer":                                issuer,
			"jwks_uri":                              issuer + "/keys",
			"id_token_signing_alg_values_supported": []string{"RS256"},
		})
		if err != nil {
			return fmt.Errorf("encoding the document of issuer %q: %w", issuer, err)
		}
		place := "GET " + address.Hostname() + address.Path
		mux.HandleFunc(place+"/.well-known/openid-configuration", answer(document))
		mux.HandleFunc(place+"/keys", answer(keys))
	}

	server := &http.Server{Handler: mux, ReadHeaderTimeout: headerTimeout}
	listener, err := net.Listen("tcp", loopback(issuersPort))
	if err != nil {
		return fmt.Errorf("listening for the issuers: %w", err)
	}
	go func() {
		_ = server.ServeTLS(listener, filepath.Join(o.dir, "web.pem"), filepath.Join(o.dir, "web.key"))
	}()
	return startProxy(hosts)
}

func answer(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}
}

// startProxy serves CONNECT for the hosts, which are all the issuers' server.
func startProxy(hosts map[string]bool) error {
	listener, err := net.Listen("tcp", loopback(proxyPort))
	if err != nil {
		return fmt.Errorf("listening for the proxy: %w", err)
	}
	server := &http.Server{ReadHeaderTimeout: headerTimeout, Handler: proxy(hosts, loopback(issuersPort))}
	go func() { _ = server.Serve(listener) }()
	return nil
}

// proxy leads to the address for whoever asks for one of the hosts.
func proxy(hosts map[string]bool, address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || !hosts[r.Host] {
			http.Error(w, "there is no way to "+r.Host, http.StatusForbidden)
			return
		}
		if err := connect(w, address); err != nil {
			fmt.Fprintln(os.Stderr, "servers: proxy:", err)
		}
	})
}

// connect makes a connection of the request and joins it with one to the
// address.
func connect(w http.ResponseWriter, address string) error {
	issuers, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer issuers.Close()
	client, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer client.Close()
	if err := establish(buffered); err != nil {
		return err
	}
	join(client, issuers)
	return nil
}

// establish tells the client that its connection stands. A client speaks TLS
// only after that, so nothing of it can be in the buffer.
func establish(buffered *bufio.ReadWriter) error {
	if _, err := buffered.WriteString("HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return err
	}
	return buffered.Flush()
}
