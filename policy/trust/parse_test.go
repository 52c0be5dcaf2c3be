// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"testing"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrustroot "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"

	"github.com/pratique-dev/pratique/policy/trust"
)

func mustParse(t *testing.T, raw []byte) *trust.Root {
	t.Helper()
	parsed, err := trust.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// has is what a root names: certificate authorities, their logs, transparency
// logs, timestamp authorities.
func has(r *trust.Root) (has [4]bool) {
	return [4]bool{r.HasCertificateAuthorities(), r.HasCertificateLogs(), r.HasTransparencyLogs(), r.HasTimestampAuthorities()}
}

func TestParse(t *testing.T) {
	t.Parallel()
	raw := goodText(t)
	parsed := mustParse(t, raw)
	if got := has(parsed); got != [4]bool{true, true, true, true} {
		t.Errorf("it has %v", got)
	}
	if parsed.Hash != sha256.Sum256(raw) {
		t.Error("its hash is not that of the text")
	}
	if mustParse(t, append(raw, '\n')).Hash == parsed.Hash {
		t.Error("another text has the same hash")
	}
	if got := has(nil); got != [4]bool{} {
		t.Errorf("none has %v", got)
	}
}

// Any one of the parts that can vouch for something is enough.
func TestParseParts(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keep func(from, to *prototrustroot.TrustedRoot)
		want [4]bool
	}{
		"certificate authorities": {func(from, to *prototrustroot.TrustedRoot) { to.CertificateAuthorities = from.CertificateAuthorities }, [4]bool{true, false, false, false}},
		"transparency logs":       {func(from, to *prototrustroot.TrustedRoot) { to.Tlogs = from.Tlogs }, [4]bool{false, false, true, false}},
		"timestamp authorities":   {func(from, to *prototrustroot.TrustedRoot) { to.TimestampAuthorities = from.TimestampAuthorities }, [4]bool{false, false, false, true}},
		"an authority and its log": {func(from, to *prototrustroot.TrustedRoot) {
			to.CertificateAuthorities, to.Ctlogs = from.CertificateAuthorities, from.Ctlogs
		}, [4]bool{true, true, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := goodRoot(t)
			part := &prototrustroot.TrustedRoot{MediaType: whole.MediaType}
			test.keep(whole, part)
			if got := has(mustParse(t, text(t, part))); got != test.want {
				t.Errorf("it has %v, want %v", got, test.want)
			}
		})
	}
}

// wantRefused looks at the error too: one short line that says what is wrong.
func wantRefused(t *testing.T, raw []byte, want string) {
	t.Helper()
	_, err := trust.Parse(raw)
	switch {
	case err == nil:
		t.Fatal("it was accepted")
	case !strings.Contains(err.Error(), want):
		t.Errorf("the error is %q; want %q in it", err, want)
	case strings.ContainsAny(err.Error(), "\n\u00a0") || len(err.Error()) > 300:
		t.Errorf("the error is not one short line: %q", err)
	}
}

func TestParseRefusesText(t *testing.T) {
	t.Parallel()
	good := goodText(t)
	edit := func(old, replacement string) []byte {
		// protojson puts spaces in at random.
		compact := strings.ReplaceAll(string(good), `": "`, `":"`)
		if !strings.Contains(compact, old) {
			t.Fatalf("%s is not in %s", old, compact)
		}
		return []byte(strings.Replace(compact, old, replacement, 1))
	}
	const mediaType = `"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"`
	key, err := x509.MarshalPKCS8PrivateKey(ecdsaKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})
	for name, test := range map[string]struct {
		raw  []byte
		want string
	}{
		"nothing":            {nil, "not JSON"},
		"null":               {[]byte("null"), "no mediaType"},
		"a list":             {[]byte("[]"), "no mediaType"},
		"an empty object":    {[]byte("{}"), "no mediaType"},
		"cut off":            {good[:len(good)/2], "not JSON"},
		"data after the end": {append(bytes.Clone(good), good...), "not JSON"},
		"no media type":      {edit(mediaType+",", ""), "no mediaType"},
		"another media type": {edit(mediaType, `"mediaType":"application/vnd.dev.sigstore.trustedroot.v0.2+json"`), "must be"},
		"a media type twice": {edit(mediaType, mediaType+","+mediaType), "duplicate field"},
		"an unknown name":    {edit(mediaType, mediaType+`,"ctLogs":[]`), "ctLogs"},
		"too long":           {append(bytes.Clone(good), bytes.Repeat([]byte(" "), 1<<20)...), "more than 1048576 bytes"},
		"a private key":      {private, "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, test.raw, test.want)
		})
	}
}

// What is named by mistake may be secret.
func TestParseRepeatsNothingOfAnotherText(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{
		"hunter2", `"hunter2"`, `{"hunter2":"hunter2"}`, `{"mediaType":"hunter2"}`, `{"mediaType":{"a":"hunter2"}}`,
		"-----BEGIN PRIVATE KEY-----\nhunter2",
	} {
		_, err := trust.Parse([]byte(raw))
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("the error for %q is %v", raw, err)
		}
	}
}

func TestParseRefusesParts(t *testing.T) {
	t.Parallel()
	ca := newCertificate(t, "root", nil, ecdsaKey(t, elliptic.P256()))
	leaf := newCertificate(t, "leaf", ca, ecdsaKey(t, elliptic.P256()))
	oddCA := newCertificate(t, "root", nil, ecdsaKey(t, elliptic.P224()))
	for name, test := range map[string]struct {
		spoil func(*prototrustroot.TrustedRoot)
		want  string
	}{
		"nothing in it": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities, r.TimestampAuthorities, r.Tlogs, r.Ctlogs = nil, nil, nil, nil
		}, "of no use"},
		"certificate logs alone": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities, r.TimestampAuthorities, r.Tlogs = nil, nil, nil
		}, "of no use"},
		"an empty chain": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities = append(r.CertificateAuthorities, authority())
		}, "certificateAuthorities[1]: "},
		"no chain": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0].CertChain = nil
		}, "certificateAuthorities[0]: "},
		"a broken certificate": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0].CertChain.Certificates[1].RawBytes = []byte("no certificate")
		}, "certificateAuthorities[0]: "},
		"a leaf for a root": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0] = authority(leaf)
		}, "certificateAuthorities[0]: its chain has a certificate that may not issue"},
		"a chain from the root to the leaf": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0] = authority(ca, leaf)
		}, "certificateAuthorities[0]: its chain has a certificate that may not issue"},
		"a leaf before its issuer": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0] = authority(leaf, ca)
		}, "certificateAuthorities[0]: its chain has a certificate that may not issue"},
		"a weak authority": {func(r *prototrustroot.TrustedRoot) {
			r.CertificateAuthorities[0] = authority(oddCA)
		}, "certificateAuthorities[0]: an ECDSA key on the curve P-224"},
		"timestamps without a root": {func(r *prototrustroot.TrustedRoot) {
			r.TimestampAuthorities[0] = authority(leaf)
		}, "timestampAuthorities[0]: its chain does not end"},
		"timestamps from the root to the leaf": {func(r *prototrustroot.TrustedRoot) {
			r.TimestampAuthorities[0] = authority(ca, leaf)
		}, "timestampAuthorities[0]: its chain does not end"},
		"a weak authority of timestamps": {func(r *prototrustroot.TrustedRoot) {
			r.TimestampAuthorities[0] = authority(leaf, oddCA)
		}, "timestampAuthorities[0]: an ECDSA key on the curve P-224"},
		"a log without a key": {func(r *prototrustroot.TrustedRoot) {
			r.Tlogs[0].PublicKey = nil
		}, "tlogs[0]: "},
		"a log without a time": {func(r *prototrustroot.TrustedRoot) {
			r.Tlogs[0].PublicKey.ValidFor = nil
		}, "tlogs[0]: "},
		"a log whose key is none": {func(r *prototrustroot.TrustedRoot) {
			r.Ctlogs[0].PublicKey.RawBytes = []byte("no key")
		}, "ctlogs[0]: "},
		"a log twice": {func(r *prototrustroot.TrustedRoot) {
			r.Tlogs = append(r.Tlogs, p256Log(t), r.Tlogs[0])
		}, "tlogs[2]: the same logId"},
		"a certificate log under the name of another": {func(r *prototrustroot.TrustedRoot) {
			other := p256Log(t)
			other.LogId = r.Ctlogs[0].LogId
			r.Ctlogs = append(r.Ctlogs, other)
		}, "ctlogs[1]: the same logId"},
		"a log on an odd curve": {func(r *prototrustroot.TrustedRoot) {
			r.Tlogs[0] = newLog(t, ecdsaKey(t, elliptic.P224()), protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
		}, "tlogs[0]: an ECDSA key on the curve P-224"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			message := goodRoot(t)
			test.spoil(message)
			wantRefused(t, text(t, message), test.want)
		})
	}
}

// It says 2048 bits of itself, which the library believes.
func TestParseRefusesShortKeys(t *testing.T) {
	message := goodRoot(t)
	message.Ctlogs[0] = newLog(t, rsaKey(t, 1024), protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256)
	wantRefused(t, text(t, message), "ctlogs[0]: an RSA key of 1024 bits")
	message.Ctlogs[0] = newLog(t, rsaKey(t, 2048), protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256)
	mustParse(t, text(t, message))
}

func TestCompose(t *testing.T) {
	t.Parallel()
	a, b, c := mustParse(t, goodText(t)), mustParse(t, goodText(t)), mustParse(t, goodText(t))
	whole := trust.Compose(a, b, c)
	if got := has(whole); got != [4]bool{true, true, true, true} {
		t.Errorf("it has %v", got)
	}
	if whole.Material.FulcioCertificateAuthorities()[0] != a.Material.FulcioCertificateAuthorities()[0] {
		t.Error("certificate authorities are not those of the first")
	}
	for id, log := range whole.Material.CTLogs() {
		if log != a.Material.CTLogs()[id] {
			t.Error("certificate logs are not those of the first")
		}
	}
	for id, log := range whole.Material.RekorLogs() {
		if log != b.Material.RekorLogs()[id] {
			t.Error("transparency logs are not those of the second")
		}
	}
	if whole.Material.TimestampingAuthorities()[0] != c.Material.TimestampingAuthorities()[0] {
		t.Error("timestamp authorities are not those of the third")
	}
	if _, err := whole.Material.PublicKeyVerifier(""); err == nil {
		t.Error("it has a public key")
	}
}

func TestComposeOfNothing(t *testing.T) {
	t.Parallel()
	a := mustParse(t, goodText(t))
	for _, test := range []struct {
		whole *trust.Root
		want  [4]bool
	}{
		{trust.Compose(nil, nil, nil), [4]bool{}},
		{trust.Compose(a, nil, nil), [4]bool{true, true, false, false}},
		{trust.Compose(nil, a, nil), [4]bool{false, false, true, false}},
		{trust.Compose(nil, nil, a), [4]bool{false, false, false, true}},
	} {
		if got := has(test.whole); got != test.want {
			t.Errorf("it has %v, want %v", got, test.want)
		}
	}
}

func TestComposedHashes(t *testing.T) {
	t.Parallel()
	a, b := mustParse(t, goodText(t)), mustParse(t, goodText(t))
	once, again := trust.Compose(a, b, nil), trust.Compose(a, b, nil)
	if once.Hash != again.Hash {
		t.Error("the same parts have two hashes")
	}
	seen := map[[32]byte]int{a.Hash: -1, b.Hash: -2}
	for i, whole := range []*trust.Root{
		trust.Compose(nil, nil, nil), trust.Compose(a, nil, nil), trust.Compose(nil, a, nil), trust.Compose(nil, nil, a),
		trust.Compose(a, b, nil), trust.Compose(b, a, nil), trust.Compose(a, a, a), trust.Compose(b, b, b),
		trust.Compose(trust.Compose(a, a, a), nil, nil),
	} {
		if other, ok := seen[whole.Hash]; ok {
			t.Errorf("%d has the hash of %d", i, other)
		}
		seen[whole.Hash] = i
	}
}
