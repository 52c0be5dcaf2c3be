// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

func TestFlood(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	tooMany := want{policy.Inconclusive, policy.ReasonLimit, "64"}
	for name, test := range map[string]struct {
		do   func(*testing.T, *registrytest.Registry, registrytest.Image)
		want want
	}{
		".sig, 64 others": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 64)
		}, noMatch},
		".sig, 65 others": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 65)
		}, tooMany},
		".sig, the good one first": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, key)
			r.FloodLegacy(t, i, 70)
		}, accepted("")},
		".sig, the good one 64th": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 63)
			r.SignLegacy(t, i, key)
			r.FloodLegacy(t, i, 10)
		}, accepted("")},
		".sig, the good one 65th": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 64)
			r.SignLegacy(t, i, key)
		}, tooMany},
		".sig, a good bundle beside 65 others": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodLegacy(t, i, 65)
			r.SignBundle(t, i, key)
		}, accepted("")},
		"bundles, 64 others": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodBundles(t, i, 64)
		}, noMatch},
		"bundles, 65 others": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodBundles(t, i, 65)
		}, tooMany},
		"bundles, a good .sig beside 65 others": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodBundles(t, i, 65)
			r.SignLegacy(t, i, key)
		}, accepted("")},
		"a payload that is too large": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.OversizedLegacy(t, i, key, 1<<20)
		}, want{policy.Inconclusive, policy.ReasonLimit, "1048576"}},
		"a payload that just fits": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.OversizedLegacy(t, i, key, 1<<20-4<<10)
		}, accepted("")},
		"a bundle that is too large": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.OversizedBundle(t, i, key, 1<<20)
		}, want{policy.Inconclusive, policy.ReasonLimit, "1048576"}},
		"a good .sig beside too large a bundle": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.OversizedBundle(t, i, key, 1<<20)
			r.SignLegacy(t, i, key)
		}, accepted("")},
		"a good bundle beside too large a .sig": {func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.OversizedLegacy(t, i, key, 1<<20)
			r.SignBundle(t, i, key)
		}, accepted("")},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			test.do(t, r, image)
			test.want.check(t, verdict(t, r, image, by("", key)))
		})
	}
}

// attach makes any bytes a bundle that refers to the image.
func attach(t *testing.T, r *registrytest.Registry, image registrytest.Image, bundle []byte) {
	t.Helper()
	digest, err := name.NewDigest(image.ByDigest(), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	err = ociremote.WriteAttestationNewBundleFormat(digest, bundle, registrytest.SignPredicateType,
		ociremote.WithRemoteOptions(r.BackDoor()))
	if err != nil {
		t.Fatal(err)
	}
}

// bundleOf is the bundle by which key signs the image, not attached to it.
func bundleOf(t *testing.T, image registrytest.Image, key *registrytest.Key) map[string]any {
	t.Helper()
	elsewhere := registrytest.New(t)
	twin := elsewhere.PushImage(t, image.Repository+":"+image.Tag) // the same content
	if twin.Digest != image.Digest {
		t.Fatal("the twin of an image is another image")
	}
	elsewhere.SignBundle(t, twin, key)
	var bundle map[string]any
	for raw, err := range newClient(t, elsewhere).Bundles(t.Context(), asked(t, twin), false) {
		if err == nil {
			err = json.Unmarshal(raw, &bundle)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if bundle == nil {
		t.Fatal("there is no bundle")
	}
	return bundle
}

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// certificate says that public is owned by whom its signer likes.
func certificate(t *testing.T, public crypto.PublicKey, signer *registrytest.Key) string {
	t.Helper()
	block, _ := pem.Decode([]byte(signer.PrivatePEM()))
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "release"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		EmailAddresses: []string{"release@acme.example"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// What a bundle says of keys is the attacker's word. Only the authority's own
// key counts.
func TestBundleBringsItsOwnKey(t *testing.T) {
	key, evil := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, test := range map[string]struct {
		signer   *registrytest.Key
		material any
		media    string
		want     want
	}{
		"the hint of the authority's key": {signer: evil, material: map[string]any{"publicKey": map[string]any{"hint": key.Hint()}}, want: noMatch},
		"no hint":                         {signer: evil, material: map[string]any{"publicKey": map[string]any{}}, want: noMatch},
		"its own key as hint":             {signer: evil, material: map[string]any{"publicKey": map[string]any{"hint": evil.PublicPEM()}}, want: noMatch},
		"its own certificate":             {signer: evil, material: map[string]any{"certificate": map[string]any{"rawBytes": certificate(t, evil.Public(), evil)}}, want: noMatch},
		"a certificate for the right key": {signer: evil, material: map[string]any{"certificate": map[string]any{"rawBytes": certificate(t, key.Public(), evil)}}, want: noMatch},
		"a chain": {signer: evil, material: map[string]any{"x509CertificateChain": map[string]any{"certificates": []any{
			map[string]any{"rawBytes": certificate(t, evil.Public(), evil)},
		}}}, media: "application/vnd.dev.sigstore.bundle+json;version=0.2", want: want{policy.Rejected, "", "no signature"}},
		"no material":                              {signer: evil, material: map[string]any{}, want: want{policy.Rejected, "", "no signature"}},
		"the right key, a misleading hint":         {signer: key, material: map[string]any{"publicKey": map[string]any{"hint": evil.Hint()}}, want: accepted("")},
		"the right key, said to be a certificate":  {signer: key, material: map[string]any{"certificate": map[string]any{"rawBytes": certificate(t, key.Public(), evil)}}, want: noMatch},
		"the right key, with its real hint, again": {signer: key, material: map[string]any{"publicKey": map[string]any{"hint": key.Hint()}}, want: accepted("")},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			bundle := bundleOf(t, image, test.signer)
			bundle["verificationMaterial"] = test.material
			if test.media != "" {
				bundle["mediaType"] = test.media
			}
			attach(t, r, image, encode(t, bundle))
			got := verdict(t, r, image, by("", key))
			if test.want.reason == "" {
				test.want.reason = got.Reason
			}
			test.want.check(t, got)
		})
	}
}

// Every member of a good bundle bent, taken away or doubled: none is accepted,
// none panics, and the good bundle beside it still counts.
func TestBentBundles(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	envelope := func(b map[string]any) map[string]any { return b["dsseEnvelope"].(map[string]any) }
	signatures := func(b map[string]any) []any { return envelope(b)["signatures"].([]any) }
	payload := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	for name, bend := range map[string]func(b map[string]any){
		"no envelope":             func(b map[string]any) { delete(b, "dsseEnvelope") },
		"an empty envelope":       func(b map[string]any) { b["dsseEnvelope"] = map[string]any{} },
		"a null envelope":         func(b map[string]any) { b["dsseEnvelope"] = nil },
		"no signature":            func(b map[string]any) { envelope(b)["signatures"] = []any{} },
		"two signatures":          func(b map[string]any) { envelope(b)["signatures"] = append(signatures(b), signatures(b)...) },
		"an empty signature":      func(b map[string]any) { signatures(b)[0].(map[string]any)["sig"] = "" },
		"no payload":              func(b map[string]any) { delete(envelope(b), "payload") },
		"payload null":            func(b map[string]any) { envelope(b)["payload"] = payload("null") },
		"payload an array":        func(b map[string]any) { envelope(b)["payload"] = payload("[]") },
		"payload deep":            func(b map[string]any) { envelope(b)["payload"] = payload(strings.Repeat("[", 100_000)) },
		"payload of no subject":   func(b map[string]any) { envelope(b)["payload"] = payload(statementOf("[]")) },
		"payload of null subject": func(b map[string]any) { envelope(b)["payload"] = payload(statementOf("[null]")) },
		"payload of no digest":    func(b map[string]any) { envelope(b)["payload"] = payload(statementOf("[{}]")) },
		"payload of many subjects": func(b map[string]any) {
			envelope(b)["payload"] = payload(statementOf("[" + strings.Repeat(`{"digest":{"sha256":"ab"}},`, 5000) + `{}]`))
		},
		"payload type": func(b map[string]any) { envelope(b)["payloadType"] = "text/plain" },
		"no material":  func(b map[string]any) { delete(b, "verificationMaterial") },
		"null material": func(b map[string]any) {
			b["verificationMaterial"] = nil
		},
		"empty certificate": func(b map[string]any) {
			b["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": ""}}
		},
		"no media type":      func(b map[string]any) { delete(b, "mediaType") },
		"another media type": func(b map[string]any) { b["mediaType"] = "application/json" },
		"a future version":   func(b map[string]any) { b["mediaType"] = "application/vnd.dev.sigstore.bundle.v9.9+json" },
		"an unknown member":  func(b map[string]any) { b["x"] = 1 },
		"a message instead": func(b map[string]any) {
			delete(b, "dsseEnvelope")
			b["messageSignature"] = map[string]any{
				"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": base64.StdEncoding.EncodeToString(make([]byte, 32))},
				"signature":     "AAAA",
			}
		},
		"an empty message": func(b map[string]any) {
			delete(b, "dsseEnvelope")
			b["messageSignature"] = map[string]any{}
		},
		"a log entry of nothing": func(b map[string]any) {
			b["verificationMaterial"].(map[string]any)["tlogEntries"] = []any{map[string]any{}}
		},
		"a timestamp of nothing": func(b map[string]any) {
			b["verificationMaterial"].(map[string]any)["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": "AAAA"}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			bundle := bundleOf(t, image, key)
			bend(bundle)
			attach(t, r, image, encode(t, bundle))
			got := verdict(t, r, image, by("", key))
			harmless := slices.Contains([]string{"a log entry of nothing", "a timestamp of nothing"}, name)
			if got.Outcome != policy.Rejected && (!harmless || got.Outcome != policy.Accepted) {
				t.Errorf("verdict = %+v, want Rejected", got)
			}
			r.SignBundle(t, image, key)
			accepted("").check(t, verdict(t, r, image, by("", key)))
		})
	}
	t.Run("not bent", func(t *testing.T) {
		attach(t, r, image, encode(t, bundleOf(t, image, key)))
		accepted("").check(t, verdict(t, r, image, by("", key)))
	})
}

// statementOf is an unsigned statement of the signature's type.
func statementOf(subjects string) string {
	return `{"_type":"https://in-toto.io/Statement/v1","predicateType":"` + registrytest.SignPredicateType + `","subject":` + subjects + `,"predicate":{}}`
}

// The most that a registry can make the engine chew on: the deadline holds.
func TestHeavyBundles(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	bundle := bundleOf(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	hex := strings.TrimPrefix(image.Digest, "sha256:")
	heavy := strings.TrimSuffix(statementOf(`[{"digest":{"sha256":"`+hex+`"}}]`), `{}}`) +
		`{"a":[` + strings.Repeat("[],", 240_000) + `[]]}}` // in base64 just under the bound
	bundle["dsseEnvelope"].(map[string]any)["payload"] = base64.StdEncoding.EncodeToString([]byte(heavy))
	for i := range 64 {
		bundle["verificationMaterial"] = map[string]any{"publicKey": map[string]any{"hint": strings.Repeat("a", i+1)}}
		attach(t, r, image, encode(t, bundle))
	}
	var authorities []cosign.Authority
	for range 32 {
		authorities = append(authorities, by("", key))
	}
	v := newVerifier(t, newClient(t, r), authorities...)
	done := inTime(t, soon)
	got := v.Verify(within(t, time.Second), asked(t, image))
	done()
	if got.Outcome != policy.Inconclusive || got.Reason != policy.ReasonLimit && got.Reason != policy.ReasonDeadline {
		t.Errorf("verdict = %+v, want Inconclusive by a bound or the deadline", got)
	}
}
