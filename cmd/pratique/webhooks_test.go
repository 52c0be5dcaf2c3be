// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/util/cert"

	"github.com/pratique-dev/pratique/internal/arming"
)

// TestWebhookFlags: what would leave the API server with nobody to ask, or with
// nobody to believe, is refused at the start.
func TestWebhookFlags(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--policies goes without one":           {"--manage-webhooks", "--cert-secret=a", "--policies=x"},
		"in one of them":                        {"--manage-webhooks", "--cert-secret=a", "--cert-dir=x"},
		"it names no Secret":                    {"--manage-webhooks", "--cert-secret="},
		"--cert-secret needs --manage-webhooks": {"--cert-secret=a"},
		"nobody can check a self-signed":        {"--manage-webhooks"},
		"--ca-bundle-file needs --cert-dir":     {"--manage-webhooks", "--cert-secret=a", "--ca-bundle-file=x"},
		"one of them writes the CA bundle":      {"--manage-webhooks", "--cert-secret=a", "--webhook-annotations=cert-manager.io/inject-ca-from=a/b"},
		"reading --webhook-timeout":             {"--webhook-timeout=31s"},
		"whole seconds":                         {"--webhook-timeout=1500ms"},
		"reading --cert-times":                  {"--cert-times=1h,1h,1h"},
		"reading --webhook-name":                {"--webhook-name="},
		"reading --webhook-service":             {"--webhook-service=A"},
		"reading --exempt-namespaces":           {"--exempt-namespaces=A"},
		"must be Fail|Ignore":                   {"--failure-policy=Allow"},
	} {
		_, stderr, code := call(t, append([]string{"serve", "--bind-address=x"}, args...)...)
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit code %d and %q, want %q", args, code, stderr, want)
		}
	}
}

// TestWebhookURL: what is refused is not repeated, as it may hold a password.
func TestWebhookURL(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "http://hush.example", "https://hush.example/path", "https://:9443", "https://hush:hush@a.example", "https://hush:hush@a.example:%",
	} {
		_, stderr, code := call(t, "serve", "--bind-address=x", "--webhook-url="+url)
		if code != exitUsage || !strings.Contains(stderr, "reading --webhook-url: the URL is not one such as") || strings.Contains(stderr, "hush") {
			t.Errorf("%q: exit code %d and %q", url, code, stderr)
		}
	}
}

// TestSwitchFlags: both verbs refuse what makes no sense before they ask anybody.
func TestSwitchFlags(t *testing.T) {
	t.Parallel()
	for _, verb := range []string{"disarm", "arm"} {
		for want, arg := range map[string]string{
			"--wait: -1s is negative": "--wait=-1s", "--webhook-name: it is empty": "--webhook-name=", "reading --namespace": "--namespace=A", "unexpected argument": "now",
		} {
			if _, stderr, code := call(t, verb, arg); code != exitUsage || !strings.Contains(stderr, want) {
				t.Errorf("%s %s: exit code %d and %q", verb, arg, code, stderr)
			}
		}
	}
}

// TestWhereIsAsked is where API servers ask, and for what the certificate is.
func TestWhereIsAsked(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"":                      "pratique.own.svc:443",
		"https://a.example":     "a.example:443",
		"https://a.example:99/": "a.example:99",
		"https://[::1]:99":      "[::1]:99",
	} {
		s := &hookSettings{webhookFlags: webhookFlags{service: "pratique", url: url}}
		if got := s.probe("own"); got != (arming.Probe{Host: want}) {
			t.Errorf("%q: %+v", url, got)
		}
	}
	s := &hookSettings{webhookFlags: webhookFlags{service: "pratique", url: "https://[::1]:99"}}
	if got := strings.Join(s.hosts("own"), " "); got != "pratique.own.svc ::1" {
		t.Errorf("got %q", got)
	}
}

// TestBundleFile: API servers get whole certificates, or what they had.
func TestBundleFile(t *testing.T) {
	t.Parallel()
	good, key, err := cert.GenerateSelfSignedCertKey("localhost", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"good": {good, ""}, "key": {append(key, good...), "may hold certificates alone"},
		"half": {good[:len(good)/2], "not complete"}, "empty": {nil, "no certificate"},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "ca.crt"), test.content, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := (&hookSettings{certDir: dir}).bundleFile(t.Context())
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if bundle, err := (&hookSettings{certDir: t.TempDir()}).bundleFile(t.Context()); err != nil || bundle != nil {
		t.Errorf("without a file: %q, %v", bundle, err)
	}
	named := &hookSettings{webhookFlags: webhookFlags{caBundleFile: filepath.Join(t.TempDir(), "none")}}
	if _, err := named.bundleFile(t.Context()); err == nil {
		t.Error("one that is named and not there")
	}
}
