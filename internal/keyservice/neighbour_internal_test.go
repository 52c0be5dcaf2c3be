// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package keyservice

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// secret is what no error may hold.
const secret = "hvs.hunter2"

// neighbour stands in for a service on loopback.
type neighbour struct {
	*httptest.Server

	mu       sync.Mutex
	status   int
	body     string
	requests []string
}

// newNeighbour answers what it is told; name is what a request asks for.
func newNeighbour(t *testing.T, withTLS bool, name func(*http.Request) string) *neighbour {
	t.Helper()
	n := &neighbour{status: http.StatusOK}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.requests = append(n.requests, name(r))
		w.WriteHeader(n.status)
		_, _ = w.Write([]byte(n.body))
	}))
	n.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes that fail on purpose
	if withTLS {
		n.StartTLS()
	} else {
		n.Start()
	}
	t.Cleanup(n.Close)
	return n
}

func (n *neighbour) answer(status int, body string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.status, n.body = status, body
}

// asked forgets the requests that it returns.
func (n *neighbour) asked() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked := n.requests
	n.requests = nil
	return asked
}

func toJSON(t *testing.T, value any) string {
	t.Helper()
	raw, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

type object = map[string]any

// newVault stands in for the transit engine of Vault, which the environment
// names.
func newVault(t *testing.T) *neighbour {
	t.Helper()
	n := newNeighbour(t, false, func(r *http.Request) string {
		return r.Method + " " + r.URL.Path + " " + r.Header.Get("X-Vault-Token")
	})
	t.Setenv("VAULT_ADDR", n.URL)
	t.Setenv("VAULT_TOKEN", secret)
	return n
}

// transit is what Vault says of a key, of which there was another version.
func transit(t *testing.T, kind, publicKey string) string {
	t.Helper()
	return toJSON(t, object{"data": object{"latest_version": 2, "keys": object{
		"1": object{"name": "ecdsa-p256", "public_key": pemOf(t, newKey(t))},
		"2": object{"name": kind, "public_key": publicKey},
	}}})
}

func TestVault(t *testing.T) {
	n := newVault(t)
	first, second := pemOf(t, newKey(t)), pemOf(t, newKey(t))
	n.answer(http.StatusOK, transit(t, "ecdsa-p256", first))
	r := New(Options{})
	run(t, r)
	if asked := n.asked(); len(asked) > 0 {
		t.Errorf("before it was needed it was asked for %v", asked)
	}
	got, err := r.Wait(t.Context(), vaultKey)
	if err != nil || string(got) != first {
		t.Fatalf("the key is %s, %v", got, err)
	}
	for range 1000 {
		want(t, r, vaultKey, first, "")
	}
	if diff := cmp.Diff([]string{"GET /v1/transit/keys/release " + secret}, n.asked()); diff != "" {
		t.Errorf("it was asked for something else (-want +got):\n%s", diff)
	}
	// The next refresh is not answered from what the provider remembers.
	n.answer(http.StatusOK, transit(t, "ecdsa-p256", second))
	if got, err := r.fetch(t.Context(), vaultKey); err != nil || string(got) != second {
		t.Errorf("the key is %s, %v", got, err)
	}
	if asked := n.asked(); len(asked) != 1 {
		t.Errorf("it was asked for %v", asked)
	}
}

func TestEd25519InVault(t *testing.T) {
	n := newVault(t)
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	n.answer(http.StatusOK, transit(t, "ed25519", base64.StdEncoding.EncodeToString(public)))
	if got, err := New(Options{}).fetch(t.Context(), vaultKey); err != nil || string(got) != pemOf(t, public) {
		t.Errorf("the key is %s, %v", got, err)
	}
}

// wantFailure looks for what services say, too.
func wantFailure(t *testing.T, reference, message string) {
	t.Helper()
	got, err := New(Options{}).fetch(t.Context(), reference)
	switch {
	case err == nil || got != nil:
		t.Errorf("it is a key: %s, %v", got, err)
	case !strings.Contains(err.Error(), message):
		t.Errorf("the error is %q, want %q", err, message)
	case strings.Contains(err.Error(), secret), strings.Contains(err.Error(), "as it said"), strings.Contains(err.Error(), "\n"):
		t.Errorf("the error repeats too much: %q", err)
	}
}

func TestVaultThatFails(t *testing.T) {
	echo := toJSON(t, object{"errors": []string{"as it said: " + secret}})
	for name, test := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"refuses":           {http.StatusForbidden, echo, "does not let Pratique read the key (403)"},
		"knows no such key": {http.StatusNotFound, `{"errors":[]}`, "knows no such key"},
		"is sealed":         {http.StatusServiceUnavailable, echo, "it answered 503"},
		"is no Vault":       {http.StatusOK, "<html>as it said: " + secret, "could not be asked"},
		"says nothing":      {http.StatusOK, "", "knows no such key"},
		"gives no key":      {http.StatusOK, toJSON(t, object{"data": object{"as it said": secret}}), "could not be asked"},
		"gives a symmetric key": {
			http.StatusOK, toJSON(t, object{"data": object{"latest_version": 1, "keys": object{"1": 1442851412}}}),
			"could not be asked",
		},
		"gives something else": {http.StatusOK, transit(t, "ecdsa-p256", "as it said: "+secret), "could not be asked"},
	} {
		t.Run(name, func(t *testing.T) {
			newVault(t).answer(test.status, test.body)
			wantFailure(t, vaultKey, test.want)
		})
	}
}

func TestVaultThatIsNotThere(t *testing.T) {
	n := newVault(t)
	address := n.Listener.Addr().String()
	n.Close()
	wantFailure(t, vaultKey, "it cannot be reached at "+address)
}

func TestVaultThatIsNotTrusted(t *testing.T) {
	n := newNeighbour(t, true, func(r *http.Request) string { return r.URL.Path })
	t.Setenv("VAULT_ADDR", n.URL)
	t.Setenv("VAULT_TOKEN", secret)
	wantFailure(t, vaultKey, "its certificate is not trusted")
	if asked := n.asked(); len(asked) > 0 {
		t.Errorf("it was asked for %v", asked)
	}
}

func TestVaultThatIsNotSet(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("VAULT_ADDR", "")
	t.Setenv("BAO_ADDR", "")
	t.Setenv("VAULT_TOKEN", "")
	t.Setenv("BAO_TOKEN", "")
	wantFailure(t, vaultKey, "VAULT_ADDR")
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	wantFailure(t, vaultKey, "VAULT_TOKEN")
}

// newAWS stands in for AWS's service; references name it by its host.
func newAWS(t *testing.T) (n *neighbour, reference string) {
	t.Helper()
	n = newNeighbour(t, true, func(r *http.Request) string { return r.Header.Get("X-Amz-Target") })
	roots := filepath.Join(t.TempDir(), "roots.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Certificate().Raw})
	if err := os.WriteFile(roots, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"HOME": t.TempDir(), "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": secret,
		"AWS_PROFILE": "", "AWS_CONFIG_FILE": "", "AWS_SHARED_CREDENTIALS_FILE": "",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": roots,
	} {
		t.Setenv(name, value)
	}
	return n, "awskms://" + n.Listener.Addr().String() + "/alias/release"
}

func awsAnswer(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return toJSON(t, object{"PublicKey": der, "KeyMetadata": object{"SigningAlgorithms": []string{"ECDSA_SHA_256"}}})
}

func TestAWS(t *testing.T) {
	n, reference := newAWS(t)
	key := newKey(t)
	n.answer(http.StatusOK, awsAnswer(t, key))
	if got, err := New(Options{}).fetch(t.Context(), reference); err != nil || string(got) != pemOf(t, key) {
		t.Fatalf("the key is %s, %v", got, err)
	}
	// It is asked what the key is, and to do nothing.
	if diff := cmp.Diff([]string{"TrentService.GetPublicKey", "TrentService.DescribeKey"}, n.asked()); diff != "" {
		t.Errorf("it was asked for something else (-want +got):\n%s", diff)
	}
}

func TestAWSThatFails(t *testing.T) {
	for code, want := range map[string]string{
		"AccessDeniedException":    "does not let Pratique read the key (AccessDeniedException)",
		"NotFoundException":        "knows no such key",
		"DisabledException":        "it answered DisabledException",
		"as it said: " + secret:    "could not be asked",
		strings.Repeat("Many", 99): "could not be asked",
	} {
		t.Run(code[:4], func(t *testing.T) {
			n, reference := newAWS(t)
			n.answer(http.StatusBadRequest, toJSON(t, object{"__type": code, "message": "as it said: " + secret}))
			wantFailure(t, reference, want)
		})
	}
}

func TestAWSThatIsNotSet(t *testing.T) {
	_, reference := newAWS(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	wantFailure(t, reference, "no credentials")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", secret)
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	wantFailure(t, awsKey, "AWS_REGION")
}

// A host that a reference names is not trusted for being named: no request
// reaches it before its certificate was verified.
func TestAWSOnAnotherHost(t *testing.T) {
	n, reference := newAWS(t)
	t.Setenv("AWS_CA_BUNDLE", "")
	wantFailure(t, reference, "its certificate is not trusted")
	if asked := n.asked(); len(asked) > 0 {
		t.Errorf("it was asked for %v", asked)
	}
}
