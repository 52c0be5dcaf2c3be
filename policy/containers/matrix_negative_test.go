// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/containerstest"
	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// attempt is one image with one signature and one requirement. A negative is the
// positive of its scheme with exactly one thing changed.
type attempt struct {
	image       registrytest.Image
	claim       containerstest.Claim
	requirement requirement
	registries  string
	// put puts the signature where it is looked for; nil is as the scheme does.
	put func()
	// spoil changes a signature on its way there.
	spoil func([]byte) []byte
	bend  func(*containerstest.Attachment)
}

// run makes an image, lets change change the attempt, and judges what came of it.
func (w *world) run(t *testing.T, k kind, repository string, change func(*testing.T, *attempt)) policy.Decision {
	t.Helper()
	a := &attempt{image: w.registry.PushImage(t, repository+":v1"), requirement: k.written, registries: w.everywhere()}
	a.claim = containerstest.Of(a.image, a.image.ByTag())
	change(t, a)
	w.put(t, k.scheme, a)
	rules := w.rules(t, terms{
		policy:     policyText(t, []requirement{rejectAll}, lists{a.image.Name(): {a.requirement}}),
		registries: a.registries,
	})
	return w.decide(t, rules, a.image.ByTag())
}

func (w *world) put(t *testing.T, by scheme, a *attempt) {
	t.Helper()
	if a.put != nil {
		a.put()
		return
	}
	if by == gpg {
		signature := w.gpg.Sign(t, a.claim)
		if a.spoil != nil {
			signature = a.spoil(signature)
		}
		w.lookaside.Put(a.image.Repository, a.image.Digest, signature)
		return
	}
	var signed containerstest.Attachment
	switch by {
	case pki:
		signed = w.pki.Sign(w.leaf, a.claim)
	case fulcio:
		signed = w.sigstore.Sign(w.fulcio, a.claim, true)
	default:
		signed = w.sigstore.Sign(w.key, a.claim, by == logged)
	}
	if a.bend != nil {
		a.bend(&signed)
	}
	signed.Push(t, w.registry, a.image)
}

// negative is what one changed thing leads to.
type negative struct {
	name   string
	change func(*testing.T, *attempt)
	want   want
}

func nothing(*testing.T, *attempt) {}

func TestNegatives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	kinds := map[scheme]kind{}
	for _, k := range w.kinds(t) {
		if _, known := kinds[k.scheme]; !known {
			kinds[k.scheme] = k
		}
	}
	for by, rows := range map[scheme][]negative{
		gpg: w.simpleNegatives(), plain: w.attachedNegatives(), logged: w.loggedNegatives(),
		fulcio: w.fulcioNegatives(), pki: w.pkiNegatives(),
	} {
		rows = append(rows, negative{"nothing", nothing, accepted}, negative{
			"no signature", func(_ *testing.T, a *attempt) { a.put = func() {} }, unsigned,
		})
		rows = append(rows, claimNegatives()...)
		for _, row := range rows {
			t.Run(string(by)+"/"+row.name, func(t *testing.T) {
				t.Parallel()
				name := strings.Map(func(r rune) rune {
					if r >= 'a' && r <= 'z' {
						return r
					}
					return '-'
				}, strings.ToLower(row.name))
				row.want.check(t, w.run(t, kinds[by], "negative/"+string(by)+"/x"+name+"x", row.change))
			})
		}
	}
}

// claimNegatives are what every signature may say wrongly, whoever made it.
func claimNegatives() []negative {
	claimed := func(change func(*containerstest.Claim, registrytest.Image)) func(*testing.T, *attempt) {
		return func(_ *testing.T, a *attempt) { change(&a.claim, a.image) }
	}
	return []negative{
		{"another tag", claimed(func(c *containerstest.Claim, i registrytest.Image) { c.Reference = i.Name() + ":v2" }), otherName},
		{"another repository", claimed(func(c *containerstest.Claim, i registrytest.Image) { c.Reference = i.Name() + "-other:v1" }), otherName},
		{"another host", claimed(func(c *containerstest.Claim, i registrytest.Image) {
			c.Reference = "example.com/" + i.Repository + ":v1"
		}), otherName},
		{"no tag", claimed(func(c *containerstest.Claim, i registrytest.Image) { c.Reference = i.Name() }), otherName},
		{"no reference", claimed(func(c *containerstest.Claim, i registrytest.Image) { c.Reference = "///" }), noMatch("")},
		{"another digest", claimed(func(c *containerstest.Claim, _ registrytest.Image) { c.Digest = "sha256:" + strings.Repeat("0", 64) }), noMatch("does not match")},
		{"no digest", claimed(func(c *containerstest.Claim, _ registrytest.Image) { c.Digest = "latest" }), noMatch("")},
		{"another type", claimed(func(c *containerstest.Claim, _ registrytest.Image) { c.Type = "another container signature" }), noMatch("")},
	}
}

func (w *world) simpleNegatives() []negative {
	spoilt := func(spoil func([]byte) []byte) func(*testing.T, *attempt) {
		return func(_ *testing.T, a *attempt) { a.spoil = spoil }
	}
	instead := func(sign func(t *testing.T, a *attempt) []byte) func(*testing.T, *attempt) {
		return func(t *testing.T, a *attempt) {
			a.put = func() { w.lookaside.Put(a.image.Repository, a.image.Digest, sign(t, a)) }
		}
	}
	byKey := func(o containerstest.KeyOptions) func(*testing.T, *attempt) {
		return func(t *testing.T, a *attempt) {
			key := containerstest.NewGPG(t, o)
			a.requirement = a.requirement.with("keyData", key.Public(t))
			a.put = func() { w.lookaside.Put(a.image.Repository, a.image.Digest, key.Sign(t, a.claim)) }
		}
	}
	// A node stops at what is no signature, whatever else there is.
	unreadable := want{policy.Inconclusive, policy.ReasonUnexpected, "no form that can be read"}
	day := 24 * time.Hour
	return []negative{
		{"another key", func(t *testing.T, a *attempt) {
			a.requirement = a.requirement.with("keyData", containerstest.NewGPG(t, containerstest.KeyOptions{}).Public(t))
		}, noMatch("key")},
		{"key still good", byKey(containerstest.KeyOptions{Age: day, Lifetime: 2 * day}), accepted},
		{"key expired", byKey(containerstest.KeyOptions{Age: 2 * day, Lifetime: day}), noMatch("expired")},
		{"subkey", byKey(containerstest.KeyOptions{Subkey: true}), accepted},
		{"subkey expired", byKey(containerstest.KeyOptions{Subkey: true, Age: 2 * day, Lifetime: day}), noMatch("expired")},
		{"key revoked", func(t *testing.T, a *attempt) {
			a.requirement = a.requirement.with("keyData", w.gpg.Revoked(t).Public(t))
		}, noMatch("revoked")},
		{"last byte changed", spoilt(func(s []byte) []byte { s[len(s)-1] ^= 1; return s }), noMatch("")},
		{"content changed", spoilt(func(s []byte) []byte {
			return bytes.Replace(s, []byte("container signature"), []byte("container Signature"), 1)
		}), noMatch("")},
		{"cut", spoilt(func(s []byte) []byte { return s[:len(s)/2] }), noMatch("")},
		{"empty", spoilt(func([]byte) []byte { return nil }), unreadable},
		{"random bytes", spoilt(func([]byte) []byte { return []byte("no signature at all") }), unreadable},
		{"detached", instead(func(t *testing.T, a *attempt) []byte { return w.gpg.Detached(t, a.claim) }), noMatch("")},
		{"not signed", instead(func(t *testing.T, a *attempt) []byte { return a.claim.Simple(t) }), unreadable},
		{"random bytes before it", func(t *testing.T, a *attempt) {
			a.put = func() {
				w.lookaside.Put(a.image.Repository, a.image.Digest, []byte("no signature at all"))
				w.lookaside.Put(a.image.Repository, a.image.Digest, w.gpg.Sign(t, a.claim))
			}
		}, unreadable},
		{"an attachment's content", instead(func(t *testing.T, a *attempt) []byte { return w.gpg.Message(t, a.claim.Cosign(t)) }), noMatch("")},
		{"an attachment", instead(func(t *testing.T, a *attempt) []byte {
			return w.sigstore.Sign(w.key, a.claim, false).File(t)
		}), want{policy.Rejected, "", "signature"}},
		{"of another image", func(t *testing.T, a *attempt) {
			other := w.registry.PushImage(t, a.image.Repository+":other")
			a.claim.Digest = other.Digest
		}, noMatch("does not match")},
		{"below another image", func(t *testing.T, a *attempt) {
			other := w.registry.PushImage(t, a.image.Repository+":other")
			a.put = func() { w.lookaside.Put(a.image.Repository, other.Digest, w.gpg.Sign(t, a.claim)) }
		}, unsigned},
		{"below another repository", func(t *testing.T, a *attempt) {
			a.put = func() { w.lookaside.Put(a.image.Repository+"-other", a.image.Digest, w.gpg.Sign(t, a.claim)) }
		}, unsigned},
		{"no lookaside", func(_ *testing.T, a *attempt) {
			a.registries = "default-docker:\n  use-sigstore-attachments: true\n"
		}, want{policy.Rejected, policy.ReasonNoSignature, "lookaside"}},
	}
}

func (w *world) attachedNegatives() []negative {
	bent := func(bend func(*containerstest.Attachment)) func(*testing.T, *attempt) {
		return func(_ *testing.T, a *attempt) { a.bend = bend }
	}
	return []negative{
		{"another key", func(t *testing.T, a *attempt) {
			a.requirement = a.requirement.with("keyData", containerstest.NewKey(t).PEM(t))
		}, noMatch("")},
		{"no annotation", bent(func(s *containerstest.Attachment) { delete(s.Annotations, containerstest.SignatureAnnotation) }), noMatch("")},
		{"last byte changed", bent(func(s *containerstest.Attachment) {
			signed, err := base64.StdEncoding.DecodeString(s.Annotations[containerstest.SignatureAnnotation])
			if err != nil {
				panic(err)
			}
			signed[len(signed)-1] ^= 1
			s.Annotations[containerstest.SignatureAnnotation] = base64.StdEncoding.EncodeToString(signed)
		}), noMatch("")},
		{"content changed", bent(func(s *containerstest.Attachment) { s.Payload = append(s.Payload, ' ') }), noMatch("")},
		{"a simple signature's content", func(_ *testing.T, a *attempt) { a.claim.Type = containerstest.SimpleType }, noMatch("")},
		{"of another image", func(t *testing.T, a *attempt) {
			other := w.registry.PushImage(t, a.image.Repository+":other")
			a.claim.Digest = other.Digest
		}, noMatch("does not match")},
		{"below another image", func(t *testing.T, a *attempt) {
			other := w.registry.PushImage(t, a.image.Repository+":other")
			a.put = func() { w.sigstore.Sign(w.key, a.claim, false).Push(t, w.registry, other) }
		}, unsigned},
		{"a simple signature", func(t *testing.T, a *attempt) {
			a.put = func() { w.lookaside.Put(a.image.Repository, a.image.Digest, w.gpg.Sign(t, a.claim)) }
		}, want{policy.Rejected, "", "signature"}},
		{"a bundle", func(t *testing.T, a *attempt) {
			// The library does not read what cosign 3 writes.
			a.put = func() {
				w.sigstore.SignBundle(cosigntest.Target{Registry: w.registry, Image: a.image}, w.key, cosigntest.Vouching{})
			}
		}, unsigned},
		{"an attestation", func(t *testing.T, a *attempt) {
			a.put = func() {
				w.sigstore.AttestLegacy(cosigntest.Target{Registry: w.registry, Image: a.image}, w.key, cosigntest.Vouching{})
			}
		}, unsigned},
		{"not looked for", func(_ *testing.T, a *attempt) {
			a.registries = "default-docker:\n  lookaside: " + w.lookaside.URL() + "\n"
		}, want{policy.Rejected, policy.ReasonNoSignature, "use-sigstore-attachments"}},
		{"said not to look for", func(_ *testing.T, a *attempt) {
			a.registries = "default-docker:\n  use-sigstore-attachments: false\n"
		}, want{policy.Rejected, policy.ReasonNoSignature, "use-sigstore-attachments"}},
		{"from the lookaside", func(t *testing.T, a *attempt) {
			a.put = func() {
				w.lookaside.Put(a.image.Repository, a.image.Digest, w.sigstore.Sign(w.key, a.claim, false).File(t))
			}
		}, accepted},
		// More than is asked for does no harm.
		{"logged as well", func(t *testing.T, a *attempt) {
			a.put = func() { w.sigstore.Sign(w.key, a.claim, true).Push(t, w.registry, a.image) }
		}, accepted},
	}
}

func (w *world) loggedNegatives() []negative {
	// bundleOf gives a signature the log entry of another one.
	bundleOf := func(entry func(t *testing.T, a *attempt) containerstest.Attachment) func(*testing.T, *attempt) {
		return func(t *testing.T, a *attempt) {
			other := entry(t, a)
			a.bend = func(s *containerstest.Attachment) {
				s.Annotations[containerstest.BundleAnnotation] = other.Annotations[containerstest.BundleAnnotation]
			}
		}
	}
	return []negative{
		{"no log entry", func(_ *testing.T, a *attempt) {
			a.bend = func(s *containerstest.Attachment) { delete(s.Annotations, containerstest.BundleAnnotation) }
		}, noMatch(containerstest.BundleAnnotation)},
		{"another log", func(t *testing.T, a *attempt) {
			a.requirement = a.requirement.with("rekorPublicKeyData", containerstest.NewKey(t).PEM(t))
		}, noMatch("")},
		{"entry of another signature", bundleOf(func(t *testing.T, a *attempt) containerstest.Attachment {
			return w.sigstore.Sign(w.key, a.claim, true) // ECDSA: each one is another
		}), noMatch("")},
		{"entry of another image", bundleOf(func(t *testing.T, a *attempt) containerstest.Attachment {
			claim := a.claim
			claim.Digest = "sha256:" + strings.Repeat("0", 64)
			return w.sigstore.Sign(w.key, claim, true)
		}), noMatch("")},
		{"entry of another key", bundleOf(func(t *testing.T, a *attempt) containerstest.Attachment {
			return w.sigstore.Sign(containerstest.NewKey(t), a.claim, true)
		}), noMatch("")},
		{"another key", func(t *testing.T, a *attempt) {
			a.requirement = a.requirement.with("keyData", containerstest.NewKey(t).PEM(t))
		}, noMatch("")},
	}
}

func (w *world) fulcioNegatives() []negative {
	asking := func(field string, value any) func(*testing.T, *attempt) {
		return func(_ *testing.T, a *attempt) {
			asked, _ := a.requirement["fulcio"].(requirement)
			a.requirement = a.requirement.with("fulcio", asked.with(field, value))
		}
	}
	by := func(says cosigntest.Issued) func(*testing.T, *attempt) {
		return func(t *testing.T, a *attempt) {
			a.put = func() { w.sigstore.Sign(w.sigstore.Leaf(says), a.claim, true).Push(t, w.registry, a.image) }
		}
	}
	without := func(annotation string) func(*testing.T, *attempt) {
		return func(_ *testing.T, a *attempt) {
			a.bend = func(s *containerstest.Attachment) { delete(s.Annotations, annotation) }
		}
	}
	return []negative{
		{"another issuer asked for", asking("oidcIssuer", "https://other.example.com"), noMatch("issuer")},
		{"another issuer", by(cosigntest.Issued{Email: email, Issuer: issuer + "/"}), noMatch("issuer")},
		{"no issuer", by(cosigntest.Issued{Email: email, Nameless: true}), noMatch("issuer")},
		{"another email asked for", asking("subjectEmail", "other@acme.example.com"), noMatch("email")},
		{"another email", by(cosigntest.Issued{Email: "x" + email, Issuer: issuer}), noMatch("email")},
		{"a workflow", by(cosigntest.Issued{Issuer: issuer}), noMatch("email")},
		{"another authority", func(t *testing.T, a *attempt) {
			asking("caData", containerstest.NewSigstore(t).CA())(t, a)
		}, noMatch("certificate")},
		{"another log", func(t *testing.T, a *attempt) {
			a.requirement = a.requirement.with("rekorPublicKeyPath", "/etc/rekor/old.pub")
		}, noMatch("")},
		{"no log entry", without(containerstest.BundleAnnotation), noMatch(containerstest.BundleAnnotation)},
		{"no certificate", without(containerstest.CertificateAnnotation), noMatch(containerstest.CertificateAnnotation)},
		{"no chain", without(containerstest.ChainAnnotation), noMatch("certificate")},
		// What counts is that it was good when the log saw it.
		{"certificate expired", by(cosigntest.Issued{
			Email: email, Issuer: issuer, Valid: cosigntest.Around(2*time.Hour, -time.Hour),
		}), noMatch("expired")},
		{"expired since", func(t *testing.T, a *attempt) {
			leaf := w.sigstore.Leaf(cosigntest.Issued{Email: email, Issuer: issuer, Valid: cosigntest.Around(2*time.Hour, -time.Hour)})
			a.put = func() {
				payload, annotations := w.sigstore.Layer(leaf, a.claim.Cosign(t), nil,
					cosigntest.Vouching{Log: true, At: time.Now().Add(-90 * time.Minute)})
				containerstest.Attachment{Payload: payload, Annotations: annotations}.Push(t, w.registry, a.image)
			}
		}, accepted},
		// The library looks at no certificate log.
		{"in no certificate log", by(cosigntest.Issued{Email: email, Issuer: issuer, Unlogged: true}), accepted},
	}
}

func (w *world) pkiNegatives() []negative {
	asking := func(field string, value any) func(*testing.T, *attempt) {
		return func(_ *testing.T, a *attempt) {
			asked, _ := a.requirement["pki"].(requirement)
			a.requirement = a.requirement.with("pki", asked.with(field, value))
		}
	}
	by := func(says containerstest.Subject) func(*testing.T, *attempt) {
		return func(t *testing.T, a *attempt) {
			a.put = func() { w.pki.Sign(w.pki.Leaf(says), a.claim).Push(t, w.registry, a.image) }
		}
	}
	both := func(first, then func(*testing.T, *attempt)) func(*testing.T, *attempt) {
		return func(t *testing.T, a *attempt) { first(t, a); then(t, a) }
	}
	chainless := func(_ *testing.T, a *attempt) {
		a.bend = func(s *containerstest.Attachment) { delete(s.Annotations, containerstest.ChainAnnotation) }
	}
	return []negative{
		{"another email asked for", asking("subjectEmail", "other@acme.example.com"), noMatch("email")},
		{"another email", by(containerstest.Subject{Email: "x" + email}), noMatch("email")},
		{"a hostname besides", asking("subjectHostname", "build.acme.example.com"), accepted},
		{"another hostname besides", asking("subjectHostname", "test.acme.example.com"), noMatch("hostname")},
		{"another authority", func(t *testing.T, a *attempt) {
			asking("caRootsData", containerstest.NewPKI(t).Roots())(t, a)
		}, noMatch("certificate")},
		{"no chain", chainless, noMatch("certificate")},
		{"no chain, but in the policy", both(chainless, asking("caIntermediatesData", w.pki.Intermediates())), accepted},
		{"certificate expired", by(containerstest.Subject{Email: email, Valid: cosigntest.Around(2*time.Hour, -time.Hour)}), noMatch("expired")},
		{"certificate not yet good", by(containerstest.Subject{Email: email, Valid: cosigntest.Around(-time.Hour, 2*time.Hour)}), noMatch("not yet valid")},
		{"certificate of a server", by(containerstest.Subject{Email: email, Usage: x509.ExtKeyUsageServerAuth}), noMatch("usage")},
		{"no certificate", func(_ *testing.T, a *attempt) {
			a.bend = func(s *containerstest.Attachment) { delete(s.Annotations, containerstest.CertificateAnnotation) }
		}, noMatch(containerstest.CertificateAnnotation)},
		{"certificate of another key", func(t *testing.T, a *attempt) {
			other := w.pki.Leaf(containerstest.Subject{Email: email})
			a.bend = func(s *containerstest.Attachment) {
				s.Annotations = maps.Clone(s.Annotations)
				s.Annotations[containerstest.CertificateAnnotation] = string(other.PEM(t))
			}
		}, noMatch("")},
	}
}
