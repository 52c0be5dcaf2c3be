// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// publicPEM writes a public key of any kind.
func publicPEM(t *testing.T, key crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestBadKeys(t *testing.T) {
	good := registrytest.NewKey(t, registrytest.ECDSAP256)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(good.PublicPEM()))
	const noKey = "not a public key in PEM form"
	for name, test := range map[string]struct {
		authority cosign.Authority
		says      string
	}{
		"empty":               {cosign.Authority{}, "neither key nor static"},
		"key of no bytes":     {cosign.Authority{Keys: [][]byte{{}}}, noKey},
		"key and static":      {cosign.Authority{Keys: [][]byte{[]byte(good.PublicPEM())}, Static: cosign.StaticPass}, "exclude each other"},
		"key and static fail": {cosign.Authority{Keys: [][]byte{[]byte(good.PublicPEM())}, Static: cosign.StaticFail}, "exclude each other"},
		"static unknown":      {cosign.Authority{Static: "Pass"}, "neither key nor static"},
		"annotations alone":   {cosign.Authority{Annotations: map[string]string{"a": "b"}}, "neither key nor static"},
		"words":               {cosign.Authority{Keys: [][]byte{[]byte("cosign.pub")}}, noKey},
		"white space":         {cosign.Authority{Keys: [][]byte{[]byte(" \n")}}, noKey},
		"DER":                 {cosign.Authority{Keys: [][]byte{block.Bytes}}, noKey},
		"cut short":           {cosign.Authority{Keys: [][]byte{[]byte(good.PublicPEM()[:100])}}, noKey},
		"PEM of garbage":      {cosign.Authority{Keys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")})}}, noKey},
		"PEM of nothing":      {cosign.Authority{Keys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY"})}}, noKey},
		"another type":        {cosign.Authority{Keys: [][]byte{pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: block.Bytes})}}, noKey},
		"private key":         {cosign.Authority{Keys: [][]byte{[]byte(good.PrivatePEM())}}, noKey},
		"RSA of 1024 bits":    {cosign.Authority{Keys: [][]byte{[]byte(publicPEM(t, small.Public()))}}, "1024 bits: at least 2048"},
		"P-224":               {cosign.Authority{Keys: [][]byte{[]byte(publicPEM(t, p224.Public()))}}, "curve P-224"},
		"X25519":              {cosign.Authority{Keys: [][]byte{[]byte(publicPEM(t, x25519.Public()))}}, "use ECDSA, RSA or Ed25519"},
		"unknown hash":        {cosign.Authority{Keys: [][]byte{[]byte(good.PublicPEM())}, Hash: crypto.Hash(99)}, "hash"},
		"weak hash":           {cosign.Authority{Keys: [][]byte{[]byte(good.PublicPEM())}, Hash: crypto.MD5}, "hash"},
		"SHA-224 with RSA":    {cosign.Authority{Keys: [][]byte{[]byte(registrytest.NewKey(t, registrytest.RSA2048).PublicPEM())}, Hash: crypto.SHA224}, "hash"},
	} {
		t.Run(name, func(t *testing.T) {
			authority := test.authority
			authority.Name = "release"
			// A good one beside it does not hide it.
			for _, list := range [][]cosign.Authority{{authority}, {by("good", good), authority}, {authority, by("good", good)}} {
				v, err := cosign.New(cosign.Options{}, list)
				if err == nil || v != nil {
					t.Fatalf("New = %v, %v; want an error alone", v, err)
				}
				if !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), `authority "release"`) {
					t.Errorf("error = %q, want the authority and %q in it", err, test.says)
				}
				if len(test.authority.Keys) > 0 && len(test.authority.Keys[0]) > 10 && strings.Contains(err.Error(), string(test.authority.Keys[0][:10])) {
					t.Errorf("error = %q, want nothing of the key in it", err)
				}
			}
		})
	}
	t.Run("no authorities", func(t *testing.T) {
		if v, err := cosign.New(cosign.Options{}, nil); err == nil || v != nil {
			t.Errorf("New = %v, %v; want an error alone", v, err)
		}
	})
	t.Run("a nameless one is called by its place", func(t *testing.T) {
		_, err := cosign.New(cosign.Options{}, []cosign.Authority{by("", good), {Keys: [][]byte{[]byte("x")}}})
		if err == nil || !strings.Contains(err.Error(), `authority "1"`) {
			t.Errorf("error = %v, want the place", err)
		}
	})
}

// How people's files look: with text around the key, and other line ends.
func TestKeyFiles(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, key)
	for name, written := range map[string]string{
		"as it is":       key.PublicPEM(),
		"no last line":   strings.TrimSpace(key.PublicPEM()),
		"text before it": "# the release key\n" + key.PublicPEM(),
		"blank lines":    "\n\n" + key.PublicPEM() + "\n\n",
		"CR LF":          strings.ReplaceAll(key.PublicPEM(), "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			accepted("").check(t, verdict(t, r, image, cosign.Authority{Keys: [][]byte{[]byte(written)}}))
		})
	}
}
