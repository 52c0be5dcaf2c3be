// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

// How the servers work together is tested where they are used, in package
// sigstore.

func TestUsage(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"", "usage: servers -dir DIR"},
		{"-dir=/nonexistent more", "usage: servers -dir DIR"},
		{"-dir=/nonexistent -issuer=http://example.com", "not an https URL"},
	} {
		t.Run(test.args, func(t *testing.T) {
			err := run(t.Context(), strings.Fields(test.args))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %q in it", err, test.want)
			}
		})
	}
}

func TestProxy(t *testing.T) {
	issuer := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host)
	}))
	defer issuer.Close()
	server := httptest.NewServer(proxy(map[string]bool{"example.com:443": true}, issuer.Listener.Addr().String()))
	defer server.Close()
	way, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := issuer.Client().Transport.(*http.Transport).Clone()
	transport.Proxy = http.ProxyURL(way)
	client := &http.Client{Transport: transport}
	defer client.CloseIdleConnections()

	response, err := client.Get("https://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "example.com" {
		t.Errorf("answer %q (%v), want the name that was asked for", body, err)
	}
	for _, target := range []string{"https://example.org/", "https://example.com:8443/"} {
		if response, err := client.Get(target); err == nil {
			_ = response.Body.Close()
			t.Errorf("%s: answered", target)
		}
	}
	plain, err := client.Get("http://example.com/")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Body.Close()
	if plain.StatusCode != http.StatusForbidden {
		t.Errorf("without TLS: status %d, want %d", plain.StatusCode, http.StatusForbidden)
	}
}

// Each side may say all and then listen.
func TestRelay(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer inner.Close()
	go func() {
		connection, err := inner.Accept()
		if err != nil {
			return
		}
		defer connection.Close()
		question, _ := io.ReadAll(connection)
		_, _ = connection.Write(append(question, " answered"...))
	}()
	outer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	go accept(outer, inner.Addr().String())

	connection, err := net.Dial("tcp", outer.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "asked and"); err != nil {
		t.Fatal(err)
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(connection); err != nil || string(got) != "asked and answered" {
		t.Errorf("%q (%v)", got, err)
	}
}
