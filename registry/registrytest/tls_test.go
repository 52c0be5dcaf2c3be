// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"crypto/tls"
	"net/http"
	"testing"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// A registry asks for a client certificate, and notes it; only if it is told to
// does it insist.
func TestTLS(t *testing.T) {
	t.Parallel()
	authority, stranger := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	for name, test := range map[string]struct {
		demanded bool
		shown    []tls.Certificate
		noted    string
		refused  bool
	}{
		"asked, and nothing shown":    {},
		"asked, and shown":            {shown: []tls.Certificate{authority.Client("one").TLS(t)}, noted: "one"},
		"asked, and a stranger's":     {shown: []tls.Certificate{stranger.Client("two").TLS(t)}, noted: "two"},
		"demanded, and nothing shown": {demanded: true, refused: true},
		"demanded, and shown":         {demanded: true, shown: []tls.Certificate{authority.Client("one").TLS(t)}, noted: "one"},
		"demanded, and a stranger's":  {demanded: true, shown: []tls.Certificate{stranger.Client("two").TLS(t)}, refused: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := []registrytest.Option{registrytest.WithTLS(authority)}
			if test.demanded {
				options = append(options, registrytest.WithClientCertificates(authority))
			}
			r := registrytest.New(t, options...)
			client := http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: authority.Pool(), Certificates: test.shown, MinVersion: tls.VersionTLS12},
			}}
			defer client.CloseIdleConnections()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+r.Host()+"/v2/", nil)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if test.refused {
				if err == nil || len(r.Requests()) > 0 {
					t.Errorf("let in: %v", r.Requests())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
			if got := r.Requests(); len(got) != 1 || got[0].Certificate != test.noted {
				t.Errorf("noted %+v, want the certificate %q", got, test.noted)
			}
		})
	}
}
