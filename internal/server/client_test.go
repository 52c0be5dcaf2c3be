// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package server_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/pratique-dev/pratique/internal/server"
)

// holder has a certificate and its key: an authority, or a client.
type holder struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	// above are the certificates between it and the authority.
	above [][]byte
}

// issue makes a certificate for clients that is valid now, as change says
// otherwise. Without an issuer it is self-signed.
func issue(t *testing.T, issuer *holder, change func(*x509.Certificate)) *holder {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(template)
	made := &holder{key: key}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.certificate, issuer.key
		made.above = issuer.above
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	if made.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return made
}

// newAuthority makes one that others trust, or one below issuer.
func newAuthority(t *testing.T, name string, issuer *holder) *holder {
	t.Helper()
	made := issue(t, issuer, func(c *x509.Certificate) {
		c.Subject.CommonName = name
		c.IsCA, c.BasicConstraintsValid = true, true
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign, nil
	})
	if issuer != nil {
		made.above = [][]byte{made.certificate.Raw}
	}
	return made
}

// reissued is the same authority, with the same key, in another certificate.
func (h *holder) reissued(t *testing.T) *holder {
	t.Helper()
	template := *h.certificate
	template.SerialNumber = big.NewInt(1)
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, h.key.Public(), h.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &holder{certificate: certificate, key: h.key}
}

func (h *holder) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.certificate.Raw}))
}

// client shows h's certificate whatever the server asks for; nil shows none.
func (h *holder) client(t *testing.T, version uint16) *http.Client {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version}
	if h != nil {
		shown := &tls.Certificate{Certificate: append([][]byte{h.certificate.Raw}, h.above...), PrivateKey: h.key}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return shown, nil }
	}
	transport := &http.Transport{TLSClientConfig: config}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// named is a change of a certificate: its common name, and its DNS names.
func named(name string, dns ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject, c.DNSNames = pkix.Name{CommonName: name}, dns }
}

// save writes the file of authorities as a whole.
func save(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// post sends a review. Whoever is turned away gets an error, and no answer.
func post(t *testing.T, client *http.Client, o server.Options, path string) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+o.BindAddress+path, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusOK || string(body) != "answered" || err != nil {
		t.Errorf("%s: %q, %v", response.Status, body, err)
	}
	return nil
}

// closed is a server that answers none but clients of the authorities in a file.
func closed(t *testing.T, authorities string, names ...string) (o server.Options, answered *atomic.Int64) {
	t.Helper()
	answered = &atomic.Int64{}
	o = options(t, func(w http.ResponseWriter, _ *http.Request) {
		answered.Add(1)
		_, _ = io.WriteString(w, "answered")
	})
	o.Mutate, o.ValidateImageConfig = o.Validate, o.Validate
	o.ClientCAFile, o.ClientNames = filepath.Join(t.TempDir(), "ca.crt"), names
	save(t, o.ClientCAFile, authorities)
	return o, answered
}

// TestClientCertificate: who has no certificate that is good gets nothing, not
// even a word about why.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	const name = "api-server"
	authority, other := newAuthority(t, "ca", nil), newAuthority(t, "ca", nil)
	below := newAuthority(t, "below", authority)
	unproven := issue(t, below, named(name))
	unproven.above = nil
	anyone, anyoneAnswered := closed(t, "for the API server\n"+authority.pem())
	only, onlyAnswered := closed(t, newAuthority(t, "unused", nil).pem()+authority.pem(), "spare", name)
	var log lines
	for _, o := range []server.Options{anyone, only} {
		start(t, o, logr.FromSlogHandler(slog.NewTextHandler(&log, nil)))
	}
	signed := func(changes ...func(*x509.Certificate)) *holder {
		return issue(t, authority, func(c *x509.Certificate) {
			named(name)(c)
			for _, change := range changes {
				change(c)
			}
		})
	}
	type answers struct{ anyone, only bool }
	for title, test := range map[string]struct {
		client *holder
		want   answers
	}{
		"no certificate":       {nil, answers{}},
		"self-signed":          {issue(t, nil, named(name)), answers{}},
		"another authority":    {issue(t, other, named(name)), answers{}},
		"expired":              {signed(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), answers{}},
		"not valid yet":        {signed(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), answers{}},
		"for servers alone":    {signed(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), answers{}},
		"unknown intermediate": {unproven, answers{}},
		"no name":              {signed(named("")), answers{anyone: true}},
		"another name":         {signed(named("kubelet", "kubelet.example.com")), answers{anyone: true}},
		"a longer name":        {signed(named(name+".example.com", "x."+name)), answers{anyone: true}},
		"a wildcard":           {signed(named("*", "*", "*."+name)), answers{anyone: true}},
		"as an organization": {signed(func(c *x509.Certificate) {
			c.Subject = pkix.Name{Organization: []string{name}}
			c.EmailAddresses = []string{name}
		}), answers{anyone: true}},
		"common name":  {signed(), answers{true, true}},
		"DNS name":     {signed(named("kubelet", "x", name)), answers{true, true}},
		"no usage":     {signed(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), answers{true, true}},
		"intermediate": {issue(t, below, named(name)), answers{true, true}},
	} {
		for version, versionName := range map[uint16]string{tls.VersionTLS12: "TLS 1.2", tls.VersionTLS13: "TLS 1.3"} {
			for _, path := range []string{"/mutate", "/validate", "/validate-imageconfig"} {
				client := test.client.client(t, version)
				got := answers{post(t, client, anyone, path) == nil, post(t, client, only, path) == nil}
				if got != test.want {
					t.Errorf("%s, %s, %s: got %+v, want %+v", title, versionName, path, got, test.want)
				}
			}
		}
	}
	if got, want := [2]int64{anyoneAnswered.Load(), onlyAnswered.Load()}, [2]int64{54, 24}; got != want {
		t.Errorf("answered %d, want %d", got, want)
	}
	if got := log.count("ending a connection"); got != 0 {
		t.Errorf("%d were turned away after the handshake only", got)
	}
	// The others are where they were: for probes, which show no certificate.
	for _, path := range []string{"/healthz", "/readyz"} {
		if status, body := get(t.Context(), "http://"+only.HealthAddress+path); status != http.StatusOK {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
}

// TestNoResumption: each connection shows its certificate anew.
func TestNoResumption(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t, "ca", nil)
	o, _ := closed(t, authority.pem())
	start(t, o)
	client := issue(t, authority, named("a")).client(t, tls.VersionTLS13)
	transport, ok := client.Transport.(*http.Transport)
	if !ok {
		t.Fatal("another transport")
	}
	transport.DisableKeepAlives = true
	transport.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(0)
	var resumed bool
	transport.TLSClientConfig.VerifyConnection = func(state tls.ConnectionState) error {
		resumed = resumed || state.DidResume
		return nil
	}
	for range 3 {
		if err := post(t, client, o, "/validate"); err != nil {
			t.Fatal(err)
		}
	}
	if resumed {
		t.Error("a connection was resumed")
	}
}

// TestClientAuthoritiesChange: the file's authorities hold at once, for
// connections that are open too, and a file that is no good changes nothing.
func TestClientAuthoritiesChange(t *testing.T) {
	t.Parallel()
	before, after := newAuthority(t, "before", nil), newAuthority(t, "after", nil)
	o, _ := closed(t, before.pem())
	var log lines
	stop, ended := start(t, o, logr.FromSlogHandler(slog.NewTextHandler(&log, nil)))
	// Each keeps its connection.
	old := issue(t, before, named("old")).client(t, tls.VersionTLS13)
	renewed := issue(t, after, named("renewed")).client(t, tls.VersionTLS13)
	expect := func(step string, oldAnswered, renewedAnswered bool) {
		t.Helper()
		if err := post(t, old, o, "/validate"); (err == nil) != oldAnswered {
			t.Errorf("%s: signed by the first: %v", step, err)
		}
		if err := post(t, renewed, o, "/validate"); (err == nil) != renewedAnswered {
			t.Errorf("%s: signed by the second: %v", step, err)
		}
	}
	// The file is read often, but not at once: a line says that it has been.
	change := func(content, line string) {
		t.Helper()
		seen := log.count(line)
		save(t, o.ClientCAFile, content)
		await(t, func() bool { return log.count(line) > seen })
	}
	const read, failed = `msg="read --client-ca-file"`, "cannot use --client-ca-file"
	expect("at first", true, false)
	change(before.pem()+after.pem(), read)
	expect("both", true, true)
	change(before.reissued(t).pem()+after.pem(), read)
	expect("reissued", true, true)
	change(after.pem(), read)
	expect("the second alone", false, true)
	for _, broken := range []string{"", before.pem() + after.pem()[:100]} {
		change(broken, failed)
		expect("broken", false, true)
	}
	if err := os.Remove(o.ClientCAFile); err != nil {
		t.Fatal(err)
	}
	await(t, func() bool { return log.count("no such file") > 0 })
	time.Sleep(2 * time.Second) // it is read again, and nothing more is said
	expect("no file", false, true)
	change(before.pem(), read)
	expect("the first again", true, false)
	if got := log.count(failed); got != 3 { // once for each, however often it is read
		t.Errorf("%d lines about a file that is no good:\n%s", got, log.String())
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestClientAuthoritiesMistakes: it does not start with a file of which it
// would use a part.
func TestClientAuthoritiesMistakes(t *testing.T) {
	t.Parallel()
	authority := newAuthority(t, "ca", nil)
	der, err := x509.MarshalPKCS8PrivateKey(authority.key)
	if err != nil {
		t.Fatal(err)
	}
	good := authority.pem()
	for name, test := range map[string]struct{ content, want string }{
		"empty":     {"", "holds no certificate in PEM form"},
		"no PEM":    {"no PEM", "holds no certificate in PEM form"},
		"a key":     {good + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), `holds a "PRIVATE KEY"`},
		"malformed": {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), "holds a malformed certificate"},
		"cut off":   {good + good[:len(good)/2], "holds a certificate that is damaged or not complete"},
		"damaged":   {strings.Replace(good, "\nMII", "\n!II", 1) + good, "holds a certificate that is damaged or not complete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o, _ := closed(t, test.content)
			err := server.Run(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), "reading --client-ca-file: "+o.ClientCAFile+" "+test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
	o, _ := closed(t, "")
	o.ClientCAFile = "/no/such/file"
	if err := server.Run(t.Context(), o); !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "reading --client-ca-file: ") {
		t.Errorf("got %v", err)
	}
}

// lines collects what is logged.
type lines struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }
