// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"testing"

	"github.com/sigstore/sigstore-go/pkg/root"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
	"github.com/pratique-dev/pratique/e2e/sigstore"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// scan is a predicate type of nobody's.
const scan = "https://example.com/scan/v1"

// An attestation must be there, by the key, and its policy fulfilled; then no
// signature is asked for.
func clusterPolicyAttestations(t *testing.T) {
	r := newRoom(t, included)
	key, other := newKey(t), newKey(t)
	name := r.cip(t, "", fmt.Sprintf("{name: scanner, key: {data: %q}, attestations: [{name: scanned, predicateType: %q, policy: {type: cue, data: %q}}]}",
		key.PublicPEM, scan, "predicate: critical: 0"))
	for form, attest := range map[string]signer.OptionsFunc{"two": cosign2.Attest, "three": cosign3.Attest} {
		by := func(written string, key signer.Key, critical int) registrytest.Image {
			t.Helper()
			image := r.unsigned(t, form+"-"+written)
			if err := attest(t.Context(), image.ByDigest(), signer.Options{
				Key: &key, Attestation: signer.Attestation{Type: scan, Predicate: fmt.Appendf(nil, `{"critical": %d}`, critical)},
			}); err != nil {
				t.Fatal(err)
			}
			return image
		}
		good := by("good:v1", key, 0)
		r.says(t, r.attempt(pod("x", good.ByTag())))
		r.try(t.Context(), pod("x", good.ByTag())).admitted(t, good.ByBoth())
		r.try(t.Context(), pod("x", by("bad:v1", key, 3).ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name, "critical")
		r.try(t.Context(), pod("x", by("forged:v1", other, 0).ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
	}
	r.try(t.Context(), pod("x", r.cosigned(t, "signed:v1", cosign3.Sign, key).ByTag())).refused(t, rejected, name)
}

// source says where signatures are, and nowhere else are they looked for.
func clusterPolicyElsewhere(t *testing.T) {
	r := newRoom(t, included)
	key := newKey(t)
	repository := r.prefix() + "signatures"
	name := r.cip(t, "", fmt.Sprintf("{name: release, key: {data: %q}, source: [{oci: %q}]}", key.PublicPEM, repository))
	elsewhere, beside := r.unsigned(t, "app:v1"), r.cosigned(t, "app:v2", cosign2.Sign, key)
	if err := cosign2.SignWith(t.Context(), elsewhere.ByDigest(), signer.Options{Key: &key, Repository: repository}); err != nil {
		t.Fatal(err)
	}
	r.says(t, r.attempt(pod("x", elsewhere.ByTag())))
	r.try(t.Context(), pod("x", elsewhere.ByTag())).admitted(t, elsewhere.ByBoth())
	r.try(t.Context(), pod("x", beside.ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name, "no signature")
}

// trustRoot makes or replaces a TrustRoot of a Sigstore's keys.
func (r *room) trustRoot(t *testing.T, from sigstore.Root) (name string) {
	t.Helper()
	type members = map[string]any
	text := func(kind string, blocks ...[]byte) []byte {
		var all bytes.Buffer
		for _, block := range blocks {
			if err := pem.Encode(&all, &pem.Block{Type: kind, Bytes: block}); err != nil {
				t.Fatal(err)
			}
		}
		return all.Bytes()
	}
	chain := func(certificates ...*x509.Certificate) []byte {
		var raw [][]byte
		for _, c := range certificates {
			raw = append(raw, c.Raw)
		}
		return text("CERTIFICATE", raw...)
	}
	log := func(l *root.TransparencyLog) members {
		der, err := x509.MarshalPKIXPublicKey(l.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		return members{"baseURL": l.BaseURL, "hashAlgorithm": "sha-256", "publicKey": text("PUBLIC KEY", der)}
	}
	subject := members{"organization": "acme-co", "commonName": "sigstore"}
	spec, err := json.Marshal(members{"sigstoreKeys": members{
		"certificateAuthorities": []members{{
			"subject": subject, "uri": "https://fulcio.example", "certChain": chain(append(from.Fulcio.Intermediates, from.Fulcio.Root)...),
		}},
		"timestampAuthorities": []members{{
			"subject": subject, "uri": "https://timestamp.example",
			"certChain": chain(append(append([]*x509.Certificate{from.Timestamp.Leaf}, from.Timestamp.Intermediates...), from.Timestamp.Root)...),
		}},
		"tLogs": []members{log(from.Rekor1)}, "ctLogs": []members{log(from.CTLog)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r.sigstoreObject(t, "TrustRoot", "", " "+string(spec))
}

// Certificates, log entries and timestamps are those of the Sigstore that a
// TrustRoot describes.
func clusterPolicyTrustRoot(t *testing.T) {
	s, err := sigstore.Start(t.Context(), sigstore.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	other, err := sigstore.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(t, included)
	flow := sigstore.Workflow{Repository: "acme-co/shop"}
	as := func(written string, w sigstore.Workflow, sign signer.OptionsFunc, o signer.Options) registrytest.Image {
		t.Helper()
		if o.IdentityToken, err = s.ActionsToken(w); err != nil {
			t.Fatal(err)
		}
		o.Services = s.Services
		image := r.unsigned(t, written)
		if err := sign(t.Context(), image.ByDigest(), o); err != nil {
			t.Fatal(err)
		}
		return image
	}
	logged := as("logged:v1", flow, cosign2.SignWith, signer.Options{Log: signer.RekorV1})
	bundle := as("bundle:v1", flow, cosign3.SignWith, signer.Options{Log: signer.RekorV1})
	stamped := as("stamped:v1", flow, cosign3.SignWith, signer.Options{Timestamp: true})
	fork := as("fork:v1", sigstore.Workflow{Repository: "acme-co/shop-fork"}, cosign3.SignWith, signer.Options{Log: signer.RekorV1, Timestamp: true})

	authority := func(more string) string {
		return fmt.Sprintf("{name: release, keyless: {trustRootRef: %s, identities: [{issuer: %q, subject: %q}]}%s}",
			r.namespace, sigstore.ActionsIssuer, flow.Subject(), more)
	}
	name := r.cip(t, "", authority(""))
	r.says(t, r.attempt(pod("x", logged.ByTag())), "Inconclusive by ClusterImagePolicy", name, "it does not exist")
	r.trustRoot(t, s.Root)
	r.says(t, r.attempt(pod("x", logged.ByTag())))
	for _, image := range []registrytest.Image{logged, bundle, stamped} {
		r.try(t.Context(), pod("x", image.ByTag())).admitted(t, image.ByBoth())
	}
	r.try(t.Context(), pod("x", fork.ByTag())).refused(t, rejected, "Rejected by ClusterImagePolicy", name)
	// An entry of its log, and nothing in its place.
	r.cip(t, "", authority(fmt.Sprintf(", ctlog: {trustRootRef: %s}", r.namespace)))
	r.says(t, r.attempt(pod("x", stamped.ByTag())), "Rejected by ClusterImagePolicy", name)
	for _, image := range []registrytest.Image{logged, bundle} {
		r.try(t.Context(), pod("x", image.ByTag())).admitted(t, image.ByBoth())
	}
	// A timestamp, and nothing in its place.
	r.cip(t, "", authority(fmt.Sprintf(", rfc3161timestamp: {trustRootRef: %s}", r.namespace)))
	r.says(t, r.attempt(pod("x", logged.ByTag())), "Rejected by ClusterImagePolicy", name)
	r.try(t.Context(), pod("x", stamped.ByTag())).admitted(t, stamped.ByBoth())
	// The TrustRoot becomes another Sigstore's: what was verified counts no more.
	r.trustRoot(t, other)
	r.says(t, r.attempt(pod("x", stamped.ByTag())), "Rejected by ClusterImagePolicy", name)
}
