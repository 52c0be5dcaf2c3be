// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"iter"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// By key a log entry and a timestamp are about this signature, this key and this
// image too.
func TestKeyOneThingWrong(t *testing.T) {
	t.Parallel()
	s, foreign := newSigstore(t), newSigstore(t)
	by := &leaf{Key: newECDSA(t)}
	const unlogged, unstamped = "no log entry that the trust root vouches for", "no signed timestamp that the trust root vouches for"
	refused := func(says string) want { return want{policy.Rejected, policy.ReasonNoMatch, says} }
	for name, test := range map[string]struct {
		on         *sigstore
		by         *leaf
		v          vouching
		log, stamp bool
		want       want
	}{
		"logged":                      {s, by, vouching{Log: true}, true, false, accepted("")},
		"stamped":                     {s, by, vouching{Stamp: true}, false, true, accepted("")},
		"both":                        {s, by, vouching{Log: true, Stamp: true}, true, true, accepted("")},
		"by another key":              {s, &leaf{Key: newECDSA(t)}, vouching{Log: true, Stamp: true}, true, true, refused("matches its key")},
		"with a certificate":          {s, s.Leaf(issued{}), vouching{Log: true, Stamp: true}, true, true, refused("matches its key")},
		"with a certificate for key":  {s, &leaf{Certificate: s.Leaf(issued{}).Certificate, Key: by.Key}, vouching{Log: true, Stamp: true}, true, true, refused("")},
		"entry in another log":        {foreign, by, vouching{Log: true}, true, false, refused(unlogged)},
		"stamp of another authority":  {foreign, by, vouching{Stamp: true}, false, true, refused(unstamped)},
		"altered time":                {s, by, vouching{Log: true, Bend: func(r *record) { r.IntegratedTime++ }}, true, false, refused(unlogged)},
		"logged when the log was not": {s, by, vouching{Log: true, At: time.Now().Add(-2 * time.Hour)}, true, false, refused(unlogged)},
		"stamp of something else":     {s, by, vouching{Stamp: true, StampOf: []byte("x")}, false, true, refused(unstamped)},
	} {
		for form, f := range sigstoreForms {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				f.push(test.on, r, image, test.by, test.v)
				a := f.asks(cosign.Authority{Name: "release", Keys: [][]byte{by.PEM(t)}, Trust: s.trust(), Log: test.log, Timestamp: test.stamp})
				test.want.check(t, verdict(t, r, image, a))
			})
		}
	}
}

// A log entry that is good in itself, and of something else: only one of
// signature, signer and payload is not this one's.
func TestEntryOfAnother(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	for _, keyless := range []bool{false, true} {
		by, other := &leaf{Key: newECDSA(t)}, &leaf{Key: newECDSA(t)}
		authority := cosign.Authority{Name: "release", Keys: [][]byte{by.PEM(t)}, Trust: s.trust()}
		if keyless {
			by, other, authority = s.Leaf(issued{}), s.Leaf(issued{}), s.keyless()
		}
		authority.Log = true
		r := registrytest.New(t)
		image, twin := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "acme/other:v1")
		payload, said := payloadOf(image, ""), statement(image, registrytest.SignPredicateType, "{}")
		signature := sign(t, by.Key, preAuthentication(said))
		envelope := toJSON(t, dsse(said, signature))
		for name, e := range map[string]*entry{
			"another signature": {By: by, Signature: sign(t, by.Key, preAuthentication(said)), Content: envelope, Statement: said},
			"another signer":    {By: other, Signature: signature, Content: envelope, Statement: said},
			"another image":     {By: by, Signature: signature, Content: envelope, Statement: statement(twin, registrytest.SignPredicateType, "{}")},
			"all of another":    {By: by, Signature: sign(t, by.Key, payloadOf(twin, "")), Content: payloadOf(twin, "")},
		} {
			t.Run(fmt.Sprintf("%s, keyless %t", name, keyless), func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				bundle := s.Bundle(by, said, vouching{Log: true, EntryOf: e})
				bundle["dsseEnvelope"] = dsse(said, signature)
				r.PushBundle(t, image, toJSON(t, bundle))
				// The same of a .sig: rekor itself refuses a hashedrekord whose
				// signature is not by its key, so each is good in itself.
				legacy := &entry{By: e.By, Content: payload, Signature: sign(t, e.By.Key, payload)}
				if name == "another image" || name == "all of another" {
					legacy = &entry{By: by, Content: payloadOf(twin, ""), Signature: sign(t, by.Key, payloadOf(twin, ""))}
				}
				content, annotations := s.Layer(by, payload, nil, vouching{Log: true, EntryOf: legacy})
				r.PushSignatureLayer(t, image, content, annotations)
				want{policy.Rejected, policy.ReasonNoMatch, "no log entry"}.check(t, verdict(t, r, image, authority))
				sigstoreForms[".sig"].push(s, r, image, by, vouching{Log: true})
				accepted("").check(t, verdict(t, r, image, authority))
			})
		}
	}
}

// One log that is counted twice does not count as two, nor does it spoil the
// others.
func TestOneLogTwice(t *testing.T) {
	t.Parallel()
	s, foreign := newSigstore(t), newSigstore(t)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	by := s.Leaf(issued{})
	for _, on := range []*sigstore{s, foreign} {
		bundle := on.Bundle(by, statement(image, registrytest.SignPredicateType, "{}"), vouching{Log: true})
		material := bundle["verificationMaterial"].(map[string]any)
		material["tlogEntries"] = append(material["tlogEntries"].([]any), material["tlogEntries"].([]any)...)
		r.PushBundle(t, image, toJSON(t, bundle))
	}
	a := s.keyless()
	for _, a.Log = range []bool{false, true} {
		if got := verdict(t, r, image, a); got.Outcome != policy.Rejected {
			t.Errorf("verdict = %+v, want Rejected", got)
		}
	}
	sigstoreForms["bundle"].push(s, r, image, by, vouching{Log: true})
	accepted("").check(t, verdict(t, r, image, a))
}

// Rekor 2 has no times: a timestamp must be there too.
func TestSecondRekor(t *testing.T) {
	t.Parallel()
	s, foreign := newSigstore(t), newSigstore(t)
	const email, issuer = "a@acme.example", "https://accounts.example"
	a := s.keyless()
	a.Keyless = &cosign.Keyless{Identities: []cosign.Identity{{Issuer: issuer, Subject: email}}, IgnoreSCT: true}
	material := func(b map[string]any) map[string]any { return b["verificationMaterial"].(map[string]any) }
	entryOf := func(b map[string]any) map[string]any { return material(b)["tlogEntries"].([]any)[0].(map[string]any) }
	for name, test := range map[string]struct {
		bend func(image registrytest.Image, b map[string]any)
		good [4]bool // if neither, the log, the timestamp, both are asked for
	}{
		"nothing":     {func(registrytest.Image, map[string]any) {}, [4]bool{true, true, true, true}},
		"not stamped": {func(_ registrytest.Image, b map[string]any) { delete(material(b), "timestampVerificationData") }, [4]bool{}},
		"not logged":  {func(_ registrytest.Image, b map[string]any) { delete(material(b), "tlogEntries") }, [4]bool{true, false, true, false}},
		"no proof":    {func(_ registrytest.Image, b map[string]any) { delete(entryOf(b), "inclusionProof") }, [4]bool{}},
		"another tree": {func(_ registrytest.Image, b map[string]any) {
			checkpoint := entryOf(b)["inclusionProof"].(map[string]any)["checkpoint"].(map[string]any)
			checkpoint["envelope"] = strings.Replace(checkpoint["envelope"].(string), "\n1\n", "\n2\n", 1)
		}, [4]bool{true, false, true, false}},
		"in another log": {func(i registrytest.Image, b map[string]any) {
			there := foreign.Second(email, issuer, statement(i, registrytest.SignPredicateType, "{}"))
			material(b)["tlogEntries"] = material(there)["tlogEntries"]
		}, [4]bool{true, false, true, false}},
		"entry of another image": {func(i registrytest.Image, b map[string]any) {
			there := s.Second(email, issuer, statement(i, sbom, "{}"))
			material(b)["tlogEntries"] = material(there)["tlogEntries"]
		}, [4]bool{true, false, true, false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			bundle := s.Second(email, issuer, statement(image, registrytest.SignPredicateType, "{}"))
			test.bend(image, bundle)
			r.PushBundle(t, image, toJSON(t, bundle))
			for i, good := range test.good {
				a := a
				a.Log, a.Timestamp = i&1 != 0, i&2 != 0
				got := verdict(t, r, image, a)
				if (got.Outcome == policy.Accepted) != good || got.Outcome == policy.Inconclusive {
					t.Errorf("log %t, timestamp %t: %+v, want accepted %t", a.Log, a.Timestamp, got, good)
				}
			}
		})
	}
}

// Annotations that nobody can read: alone they are nothing, and beside a good
// signature they are not in its way.
func TestGarbageAnnotations(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	const certificate, chain, bundle, stamp = "dev.sigstore.cosign/certificate", "dev.sigstore.cosign/chain", "dev.sigstore.cosign/bundle", "dev.sigstore.cosign/rfc3161timestamp"
	empty := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"})
	for name, bend := range map[string]func(map[string]string){
		"no certificate":        func(a map[string]string) { delete(a, certificate) },
		"certificate no PEM":    func(a map[string]string) { a[certificate] = "x" },
		"certificate empty":     func(a map[string]string) { a[certificate] = string(empty) },
		"certificate a space":   func(a map[string]string) { a[certificate] = " " },
		"certificate a key":     func(a map[string]string) { a[certificate] = string((&leaf{Key: newECDSA(t)}).PEM(t)) },
		"entry no JSON":         func(a map[string]string) { a[bundle] = "{" },
		"entry null":            func(a map[string]string) { a[bundle] = "null" },
		"entry empty":           func(a map[string]string) { a[bundle] = "{}" },
		"entry's body no text":  func(a map[string]string) { a[bundle] = `{"SignedEntryTimestamp":"","Payload":{"body":{"a":1}}}` },
		"entry's body no entry": func(a map[string]string) { a[bundle] = `{"SignedEntryTimestamp":"","Payload":{"body":"e30="}}` },
		"entry of members only": func(a map[string]string) {
			a[bundle] = `{"SignedEntryTimestamp":"","Payload":{"body":"` + b64(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{}}`) + `"}}`
		},
		"entry of an empty dsse": func(a map[string]string) {
			a[bundle] = `{"SignedEntryTimestamp":"","Payload":{"body":"` + b64(`{"apiVersion":"0.0.1","kind":"dsse","spec":{"signatures":[]}}`) + `"}}`
		},
		"entry of an empty toto": func(a map[string]string) {
			a[bundle] = `{"SignedEntryTimestamp":"","Payload":{"body":"` + b64(`{"apiVersion":"0.0.2","kind":"intoto","spec":{"content":{"envelope":{"signatures":[]}}}}`) + `"}}`
		},
		"entry of an empty rekord": func(a map[string]string) {
			a[bundle] = `{"SignedEntryTimestamp":"","Payload":{"body":"` + b64(`{"apiVersion":"0.0.1","kind":"rekord","spec":{}}`) + `"}}`
		},
		"timestamp no JSON": func(a map[string]string) { delete(a, bundle); a[stamp] = "[" },
		"timestamp empty":   func(a map[string]string) { delete(a, bundle); a[stamp] = "{}" },
		"timestamp garbage": func(a map[string]string) { delete(a, bundle); a[stamp] = `{"SignedRFC3161Timestamp":"AAAA"}` },
	} {
		for _, form := range []string{".sig", ".att"} {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				push, said := r.PushSignatureLayer, []byte(nil)
				if form == ".att" {
					push, said = r.PushAttestationLayer, statement(image, sbom, "{}")
				}
				content, annotations := s.Layer(s.Leaf(issued{}), payloadOf(image, ""), said, vouching{Log: true})
				bend(annotations)
				push(t, image, content, annotations)
				a := sigstoreForms[form].asks(s.keyless())
				for _, a.Timestamp = range []bool{false, true} {
					if got := verdict(t, r, image, a); got.Outcome != policy.Rejected {
						t.Errorf("verdict = %+v, want Rejected", got)
					}
				}
				a.Timestamp = false
				sigstoreForms[form].push(s, r, image, s.Leaf(issued{}), vouching{Log: true})
				accepted("").check(t, verdict(t, r, image, a))
			})
		}
	}
	t.Run("an unknown chain is not believed", func(t *testing.T) {
		t.Parallel()
		foreign := newSigstore(t)
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		content, annotations := s.Layer(foreign.Leaf(issued{}), payloadOf(image, ""), nil, vouching{Log: true})
		annotations[chain] = string((&leaf{Certificate: foreign.Intermediate}).PEM(t)) + string((&leaf{Certificate: foreign.Root}).PEM(t))
		r.PushSignatureLayer(t, image, content, annotations)
		want{policy.Rejected, policy.ReasonNoMatch, "not vouched for by the trust root"}.check(t, verdict(t, r, image, s.keyless()))
	})
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// Log entries and timestamps may name keys that take minutes to verify with.
func TestSlowKeys(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	modulus := new(big.Int).Lsh(big.NewInt(1), 300_000)
	modulus.SetBit(modulus, 0, 1)
	der, err := x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: modulus, E: 1<<31 - 1})
	must(t, err)
	slow := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	signature := make([]byte, 37_501)
	signature[9] = 1
	body := fmt.Sprintf(`{"apiVersion":"0.0.1","kind":"hashedrekord","spec":{"data":{"hash":{"algorithm":"sha256","value":%q}},"signature":{"content":%q,"publicKey":{"content":%q}}}}`,
		hash(nil), base64.StdEncoding.EncodeToString(signature), base64.StdEncoding.EncodeToString(slow))
	limit := want{policy.Inconclusive, policy.ReasonLimit, "log entries of more than"}
	for _, by := range []*leaf{{Key: newECDSA(t)}, s.Leaf(issued{})} {
		for form, f := range sigstoreForms {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			content, annotations := s.Layer(by, payloadOf(image, ""), nil, vouching{})
			said := statement(image, registrytest.SignPredicateType, "{}")
			if f.attests {
				said = statement(image, sbom, "{}")
				content, annotations = s.Layer(by, nil, said, vouching{})
			}
			annotations["dev.sigstore.cosign/bundle"] = string(toJSON(t, map[string]any{"SignedEntryTimestamp": []byte{1}, "Payload": map[string]any{"body": b64(body)}}))
			bundle := s.Bundle(by, said, vouching{Log: true})
			entry := bundle["verificationMaterial"].(map[string]any)["tlogEntries"].([]any)[0].(map[string]any)
			entry["canonicalizedBody"] = []byte(body)
			switch form {
			case ".sig":
				r.PushSignatureLayer(t, image, content, annotations)
			case ".att":
				r.PushAttestationLayer(t, image, content, annotations)
			default:
				r.PushBundle(t, image, toJSON(t, bundle))
			}
			a := f.asks(cosign.Authority{Name: "release", Keys: [][]byte{by.PEM(t)}})
			if by.Certificate != nil {
				a = f.asks(s.keyless())
			}
			limit.check(t, verdict(t, r, image, a))
			f.push(s, r, image, by, vouching{Log: true})
			accepted("").check(t, verdict(t, r, image, a))
		}
	}
	t.Run("timestamps", func(t *testing.T) {
		t.Parallel()
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		bundle := s.Bundle(s.Leaf(issued{}), statement(image, registrytest.SignPredicateType, "{}"), vouching{Stamp: true})
		material := bundle["verificationMaterial"].(map[string]any)
		stamp := map[string]any{"signedTimestamp": make([]byte, 4<<10)}
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{stamp, stamp, stamp, stamp}}
		r.PushBundle(t, image, toJSON(t, bundle))
		want{policy.Inconclusive, policy.ReasonLimit, "timestamps of more than"}.check(t, verdict(t, r, image, s.keyless()))
	})
}

// endless is a real client with signatures and bundles without end.
type endless struct {
	*registry.Client

	signature registry.Signature
	bundle    []byte
}

func forever[T any](one T) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for yield(one, nil) {
		}
	}
}

func (e endless) Signatures(context.Context, policy.Image) iter.Seq2[registry.Signature, error] {
	return forever(e.signature)
}

func (e endless) Attestations(context.Context, policy.Image) iter.Seq2[registry.Signature, error] {
	return forever(e.signature)
}

func (e endless) Bundles(context.Context, policy.Image, bool) iter.Seq2[[]byte, error] {
	return forever(e.bundle)
}

// The context is looked at between verifications: a source that ignores it does
// not keep the verdict back.
func TestEndlessSource(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	stranger := s.Leaf(issued{Subject: "https://evil.example"})
	content, annotations := s.Layer(stranger, payloadOf(image, ""), nil, vouching{Log: true})
	source := endless{
		newClient(t, r), registry.Signature{UntrustedPayload: content, UntrustedAnnotations: annotations},
		toJSON(t, s.Bundle(stranger, statement(image, registrytest.SignPredicateType, "{}"), vouching{Log: true})),
	}
	a, b := s.keyless(), s.keyless()
	b.Attestations = []cosign.Attestation{{Name: "s", PredicateType: registrytest.SignPredicateType}}
	defer inTime(t, soon)()
	got := newVerifier(t, source, a, b).Verify(within(t, 300*time.Millisecond), asked(t, image))
	if got.Outcome != policy.Inconclusive {
		t.Errorf("verdict = %+v, want Inconclusive", got)
	}
}

// More attestations than are verified: the good one among the first counts, and
// signatures are not affected.
func TestFloodOfAttestations(t *testing.T) {
	t.Parallel()
	key, other := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
	a := by("release", key)
	a.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}}
	t.Run("bundles", func(t *testing.T) {
		t.Parallel()
		for _, n := range []int{32, 33} {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			for i := range n {
				r.AttestBundle(t, image, other, predicate(sbom, fmt.Sprint(i)))
			}
			expected := want{policy.Rejected, policy.ReasonNoMatch, "(32 found)"}
			if n > 32 {
				expected = want{policy.Inconclusive, policy.ReasonLimit, "32"}
			}
			expected.check(t, verdict(t, r, image, a))
			r.AttestLegacy(t, image, key, predicate(sbom, ""))
			accepted("").check(t, verdict(t, r, image, a))
			r.SignBundle(t, image, key)
			accepted("").check(t, verdict(t, r, image, by("signs", key)))
		}
	})
	t.Run("bundles of other types", func(t *testing.T) {
		t.Parallel()
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		for i := range 40 {
			r.AttestBundle(t, image, key, predicate(fmt.Sprintf("https://example.com/%d", i), ""))
		}
		r.AttestBundle(t, image, key, predicate(sbom, ""))
		accepted("").check(t, verdict(t, r, image, a))
	})
	t.Run("layers", func(t *testing.T) {
		t.Parallel()
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		r.FloodAttestations(t, image, 40)
		want{policy.Inconclusive, policy.ReasonLimit, "32"}.check(t, verdict(t, r, image, a))
		r.AttestBundle(t, image, key, predicate(sbom, ""))
		accepted("").check(t, verdict(t, r, image, a))
	})
}

// However many keys, each of the signatures is fetched once.
func TestKeysDoNotMultiplyFetches(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	var keys [][]byte
	for range 15 {
		keys = append(keys, []byte(registrytest.NewKey(t, registrytest.ECDSAP256).PublicPEM()))
	}
	for range 3 {
		r.SignLegacy(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
		r.SignBundle(t, image, registrytest.NewKey(t, registrytest.ECDSAP256))
	}
	a := cosign.Authority{Name: "release", Keys: keys}
	want{policy.Rejected, policy.ReasonNoMatch, "no signature matches any of its keys (6 found)"}.check(t, verdict(t, r, image, a, a, a))
	// .sig manifest, 3 payloads; referrers, 3 manifests, 3 bundles; the image.
	if n := len(r.Counted()); n != 12 {
		t.Errorf("%d requests, want 12: %v", n, r.Counted())
	}
	last := registrytest.NewKey(t, registrytest.Ed25519)
	a.Keys = append(a.Keys, []byte(last.PublicPEM()))
	for form, sign := range forms {
		r := registrytest.New(t)
		image := r.PushImage(t, "acme/app:v1")
		sign(t, r, image, last)
		accepted("").check(t, verdict(t, r, image, a))
		_ = form
	}
}

// An envelope may have several signatures, by keys of several authorities.
func TestSeveralSignaturesInOneEnvelope(t *testing.T) {
	t.Parallel()
	first, second, third := &leaf{Key: newECDSA(t)}, &leaf{Key: newECDSA(t)}, &leaf{Key: newECDSA(t)}
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	said := statement(image, sbom, "{}")
	envelope := dsse(said, nil)
	var signatures []any
	for _, by := range []*leaf{first, second} {
		signatures = append(signatures, map[string]any{"keyid": "whatever", "sig": sign(t, by.Key, preAuthentication(said))})
	}
	envelope["signatures"] = signatures
	r.PushAttestationLayer(t, image, toJSON(t, envelope), nil)
	all := map[string]*leaf{"first": first, "second": second, "third": third}
	var authorities []cosign.Authority
	for name, by := range all {
		a := cosign.Authority{Name: name, Keys: [][]byte{by.PEM(t)}, Attestations: []cosign.Attestation{{Name: "s", PredicateType: sbom}}}
		authorities = append(authorities, a)
		if got := verdict(t, r, image, a); (got.Outcome == policy.Accepted) != (by != third) {
			t.Errorf("%s: %+v", name, got)
		}
		// Beside a policy that nothing fulfils the keys of the others are tried first.
		hopeless := a
		hopeless.Name, hopeless.Attestations = "hopeless", []cosign.Attestation{{Name: "v", PredicateType: sbom, Policy: text("no such")}}
		for otherName, other := range all {
			b := a
			b.Name, b.Keys = otherName, [][]byte{other.PEM(t)}
			got := attested(t, r, holding(), image, hopeless, b)
			if (got.Outcome == policy.Accepted) != (other != third) {
				t.Errorf("%s after %s: %+v", otherName, name, got)
			}
		}
	}
	accepted("").check(t, verdict(t, r, image, authorities...))
}

// FuzzLayer feeds a layer's annotations and payload to everything that reads
// them.
func FuzzLayer(f *testing.F) {
	s := newSigstore(f)
	image := registrytest.Image{Registry: "a.io", Repository: "x", Digest: "sha256:" + hash(nil)}
	for _, said := range [][]byte{nil, statement(image, sbom, "{}")} {
		content, annotations := s.Layer(s.Leaf(issued{Subject: "https://evil.example"}), payloadOf(image, ""), said, vouching{Log: true, Stamp: true})
		f.Add(content, toJSON(f, annotations), toJSON(f, s.Bundle(s.Leaf(issued{Subject: "https://evil.example"}), statement(image, sbom, "{}"), vouching{Log: true})))
	}
	v, w := s.keyless(), s.keyless()
	w.Attestations = []cosign.Attestation{{Name: "s", PredicateType: sbom}}
	f.Fuzz(func(t *testing.T, payload, annotations, bundle []byte) {
		untrusted := registry.Signature{UntrustedPayload: payload}
		_ = json.Unmarshal(annotations, &untrusted.UntrustedAnnotations) // none, then
		verifier := newVerifier(t, benched{[]registry.Signature{untrusted}, []registry.Signature{untrusted}, [][]byte{bundle}}, v, w)
		got := verifier.Verify(t.Context(), policy.Image{Digest: image.Digest})
		if got.Outcome == policy.Accepted || strings.Contains(got.Message, "\n") {
			t.Errorf("verdict = %+v", got)
		}
	})
}

// TestManyParts: what takes a library long, or much, before anything is verified
// is not read; and what is good beside it still counts.
func TestManyParts(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	by := s.Leaf(issued{})
	limit := func(says string) want { return want{policy.Inconclusive, policy.ReasonLimit, says} }
	bundleWith := func(image registrytest.Image, change func(material map[string]any, bundle map[string]any)) []byte {
		bundle := s.Bundle(by, statement(image, sbom, "{}"), vouching{Log: true})
		change(bundle["verificationMaterial"].(map[string]any), bundle)
		return toJSON(t, bundle)
	}
	for name, test := range map[string]struct {
		push func(r *registrytest.Registry, image registrytest.Image)
		want want
	}{
		"signatures in an envelope": {func(r *registrytest.Registry, image registrytest.Image) {
			var signatures []map[string]any
			for range 2000 {
				signatures = append(signatures, map[string]any{"keyid": "", "sig": []byte("no")})
			}
			envelope := toJSON(t, map[string]any{
				"payloadType": "application/vnd.in-toto+json", "payload": statement(image, sbom, "{}"), "signatures": signatures,
			})
			r.PushAttestationLayer(t, image, envelope, map[string]string{"dev.cosignproject.cosign/signature": ""})
		}, limit("an attestation's envelope has more than 64 parts")},
		"log entries in a bundle": {func(r *registrytest.Registry, image registrytest.Image) {
			r.PushBundle(t, image, bundleWith(image, func(material, _ map[string]any) {
				material["tlogEntries"] = make([]struct{}, 10_000)
			}))
		}, limit("a bundle has more than 4096 parts")},
		"lines of a checkpoint": {func(r *registrytest.Registry, image registrytest.Image) {
			r.PushBundle(t, image, bundleWith(image, func(material, _ map[string]any) {
				entry := material["tlogEntries"].([]any)[0].(map[string]any)
				entry["inclusionProof"] = map[string]any{"checkpoint": map[string]any{"envelope": strings.Repeat("— log AAAA\n", 5000)}}
			}))
		}, limit("log entries of more than")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			a := s.keyless()
			a.Attestations = []cosign.Attestation{{Name: "sbom", PredicateType: sbom}}
			test.push(r, image)
			test.want.check(t, verdict(t, r, image, a))
			sigstoreForms["attestation bundle"].push(s, r, image, by, vouching{Log: true})
			accepted("").check(t, verdict(t, r, image, a))
		})
	}
}
