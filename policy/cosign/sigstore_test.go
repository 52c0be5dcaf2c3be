// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	ct "github.com/google/certificate-transparency-go"
	"github.com/google/certificate-transparency-go/tls"
	ctx509 "github.com/google/certificate-transparency-go/x509"
	"github.com/google/certificate-transparency-go/x509util"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore-go/pkg/tlog"

	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/trust"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Who signs in these tests, in the real strings.
const (
	actions  = "https://token.actions.githubusercontent.com"
	workflow = "https://github.com/acme-co/shop/.github/workflows/release.yml@refs/heads/main"
)

// sigstore is a whole trust root with the private keys to it: Rekor and the
// timestamp authority are sigstore-go's own for tests, the certificate authority
// and its log are made here, so that certificates are in a log and times can be
// chosen.
type sigstore struct {
	*ca.VirtualSigstore

	t            testing.TB
	root, middle *x509.Certificate
	key          *ecdsa.PrivateKey // of middle
	ctlog        *ecdsa.PrivateKey
	until        time.Time // when the authority ends in the trust root
}

// span is a time in which something is valid.
type span struct{ from, until time.Time }

// around is from some time ago until some time from now.
func around(before, after time.Duration) span {
	return span{time.Now().Add(-before), time.Now().Add(after)}
}

func newSigstore(t testing.TB) *sigstore { return newSigstoreWith(t, around(5*time.Hour, 5*time.Hour)) }

// newSigstoreWith makes one whose intermediate certificate has a validity of its
// own.
func newSigstoreWith(t testing.TB, intermediate span) *sigstore {
	t.Helper()
	virtual, err := ca.NewVirtualSigstore()
	must(t, err)
	s := &sigstore{VirtualSigstore: virtual, t: t, ctlog: newECDSA(t), until: time.Now().Add(5 * time.Hour)}
	rootKey := newECDSA(t)
	authority := func(name string, valid span) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: valid.from, NotAfter: valid.until,
			KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		}
	}
	template := authority("root", around(10*time.Hour, 10*time.Hour))
	s.root = issue(t, template, template, rootKey.Public(), rootKey)
	s.key = newECDSA(t)
	s.middle = issue(t, authority("intermediate", intermediate), s.root, s.key.Public(), rootKey)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newECDSA(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	return key
}

func issue(t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	must(t, err)
	made, err := x509.ParseCertificate(der)
	must(t, err)
	return made
}

// FulcioCertificateAuthorities implements [root.TrustedMaterial].
func (s *sigstore) FulcioCertificateAuthorities() []root.CertificateAuthority {
	return append(s.VirtualSigstore.FulcioCertificateAuthorities(), &root.FulcioCertificateAuthority{
		Root: s.root, Intermediates: []*x509.Certificate{s.middle},
		ValidityPeriodStart: time.Now().Add(-10 * time.Hour), ValidityPeriodEnd: s.until,
	})
}

// CTLogs implements [root.TrustedMaterial].
func (s *sigstore) CTLogs() map[string]*root.TransparencyLog {
	id := keyID(s.t, s.ctlog.Public())
	return map[string]*root.TransparencyLog{hex.EncodeToString(id[:]): {
		ID: id[:], PublicKey: s.ctlog.Public(), HashFunc: crypto.SHA256, SignatureHashFunc: crypto.SHA256,
		ValidityPeriodStart: time.Now().Add(-10 * time.Hour),
	}}
}

func keyID(t testing.TB, public crypto.PublicKey) [sha256.Size]byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	must(t, err)
	return sha256.Sum256(der)
}

// trust is the trust root as authorities have it.
func (s *sigstore) trust() *trust.Root {
	return &trust.Root{Material: s, Hash: keyID(s.t, s.ctlog.Public())}
}

// leaf is a certificate and its key; without a certificate it is a key alone.
type leaf struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// issued is what a certificate says, as workflows have it if nothing else is
// said.
type issued struct {
	issuer, subject, email string
	valid                  span
	unlogged               bool // it is in no certificate log
	nameless               bool // it says nothing of its issuer
}

// leaf issues a certificate, whose validity is that of now.
func (s *sigstore) leaf(says issued) *leaf {
	s.t.Helper()
	if says.issuer == "" {
		says.issuer = actions
	}
	if says.subject == "" && says.email == "" {
		says.subject = workflow
	}
	if says.valid.from.IsZero() {
		says.valid = around(time.Minute, 9*time.Minute)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: says.valid.from, NotAfter: says.valid.until,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	if says.email != "" {
		template.EmailAddresses = []string{says.email}
	}
	if says.subject != "" {
		uri, err := url.Parse(says.subject)
		must(s.t, err)
		template.URIs = []*url.URL{uri}
	}
	if !says.nameless {
		der, err := asn1.Marshal(says.issuer)
		must(s.t, err)
		template.ExtraExtensions = []pkix.Extension{
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, Value: []byte(says.issuer)},
			{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}, Value: der},
		}
	}
	made := &leaf{key: newECDSA(s.t)}
	if !says.unlogged {
		s.log(template, made.key.Public())
	}
	made.certificate = issue(s.t, template, s.middle, made.key.Public(), s.key)
	return made
}

// log adds the promise of the certificate log: it is over the certificate
// without it.
func (s *sigstore) log(template *x509.Certificate, public crypto.PublicKey) {
	s.t.Helper()
	id := keyID(s.t, s.ctlog.Public())
	sct := ct.SignedCertificateTimestamp{
		SCTVersion: ct.V1, LogID: ct.LogID{KeyID: id}, Timestamp: uint64(template.NotBefore.UnixMilli()),
	}
	extension := func() pkix.Extension {
		list, err := x509util.MarshalSCTsIntoSCTList([]*ct.SignedCertificateTimestamp{&sct})
		must(s.t, err)
		raw, err := tls.Marshal(*list)
		must(s.t, err)
		der, err := asn1.Marshal(raw)
		must(s.t, err)
		return pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 4, 2}, Value: der}
	}
	draft := *template
	sct.Signature.Algorithm = tls.SignatureAndHashAlgorithm{Hash: tls.SHA256, Signature: tls.ECDSA}
	draft.ExtraExtensions = append(slices.Clip(draft.ExtraExtensions), extension())
	var chain []*ctx509.Certificate
	for _, der := range [][]byte{issue(s.t, &draft, s.middle, public, s.key).Raw, s.middle.Raw} {
		parsed, err := ctx509.ParseCertificates(der)
		must(s.t, err)
		chain = append(chain, parsed...)
	}
	entry, err := ct.MerkleTreeLeafForEmbeddedSCT(chain, sct.Timestamp)
	must(s.t, err)
	input, err := ct.SerializeSCTSignatureInput(sct, ct.LogEntry{Leaf: *entry})
	must(s.t, err)
	sct.Signature.Signature = sign(s.t, s.ctlog, input)
	template.ExtraExtensions = append(template.ExtraExtensions, extension())
}

func sign(t testing.TB, key crypto.Signer, message []byte) []byte {
	t.Helper()
	digest := sha256.Sum256(message)
	signed, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	must(t, err)
	return signed
}

// pem is the certificate or, without one, the public key.
func (l *leaf) pem(t testing.TB) []byte {
	t.Helper()
	if l.certificate != nil {
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.certificate.Raw})
	}
	der, err := x509.MarshalPKIXPublicKey(l.key.Public())
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// vouching is what comes with a signature.
type vouching struct {
	log, stamp bool
	at         time.Time // of the log entry; now if zero
	// The entry of something else: its signature, signer or what was signed.
	entryOf *entry
	// stampOf is what the timestamp is of, if not of the signature.
	stampOf []byte
	// bend changes the log entry after it was signed.
	bend func(*record)
}

// entry is what a log entry says.
type entry struct {
	by        *leaf
	signature []byte
	content   []byte // the payload of a signature, the envelope of an attestation
	statement []byte // nil for a hashedrekord
}

// record is a log entry with what the log says of it.
type record struct {
	Body           string
	IntegratedTime int64
	LogIndex       int64
	LogID          string
	SET            []byte
}

func (s *sigstore) record(e *entry, v vouching) *record {
	s.t.Helper()
	if v.entryOf != nil {
		e = v.entryOf
	}
	digest := func(content []byte) map[string]string {
		return map[string]string{"algorithm": "sha256", "value": hash(content)}
	}
	b64 := base64.StdEncoding.EncodeToString
	body := map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": digest(e.content)},
		"signature": map[string]any{"content": b64(e.signature), "publicKey": map[string]string{"content": b64(e.by.pem(s.t))}},
	}}
	if e.statement != nil {
		body["kind"] = "dsse"
		body["spec"] = map[string]any{
			"envelopeHash": digest(e.content), "payloadHash": digest(e.statement),
			"signatures": []map[string]string{{"signature": b64(e.signature), "verifier": b64(e.by.pem(s.t))}},
		}
	}
	at := v.at
	if at.IsZero() {
		at = time.Now()
	}
	id, err := s.RekorLogID()
	must(s.t, err)
	made := &record{Body: b64(toJSON(s.t, body)), IntegratedTime: at.Unix(), LogID: id}
	made.SET, err = s.RekorSignPayload(tlog.RekorPayload{Body: made.Body, IntegratedTime: made.IntegratedTime, LogID: id})
	must(s.t, err)
	if v.bend != nil {
		v.bend(made)
	}
	return made
}

func hash(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	must(t, err)
	return raw
}

func (s *sigstore) stamp(over []byte, v vouching) []byte {
	s.t.Helper()
	if v.stampOf != nil {
		over = v.stampOf
	}
	made, err := s.TimestampResponse(over)
	must(s.t, err)
	return made
}

// layer signs a payload as cosign 2 does, or an envelope if there is a statement
// in it: what is returned goes under a .sig or a .att tag.
func (s *sigstore) layer(by *leaf, payload, statement []byte, v vouching) (content []byte, annotations map[string]string) {
	s.t.Helper()
	annotations = map[string]string{}
	var over, signature []byte
	content = payload
	if statement == nil {
		signature = sign(s.t, by.key, payload)
		annotations["dev.cosignproject.cosign/signature"] = base64.StdEncoding.EncodeToString(signature)
		over = signature
	} else {
		signature = sign(s.t, by.key, preAuthentication(statement))
		content = toJSON(s.t, dsse(statement, signature))
		over = content
		annotations["dev.cosignproject.cosign/signature"] = ""
	}
	if by.certificate != nil {
		annotations["dev.sigstore.cosign/certificate"] = string(by.pem(s.t))
		annotations["dev.sigstore.cosign/chain"] = string((&leaf{certificate: s.middle}).pem(s.t)) + string((&leaf{certificate: s.root}).pem(s.t))
	}
	if v.log {
		r := s.record(&entry{by, signature, content, statement}, v)
		annotations["dev.sigstore.cosign/bundle"] = string(toJSON(s.t, map[string]any{
			"SignedEntryTimestamp": r.SET,
			"Payload":              map[string]any{"body": r.Body, "integratedTime": r.IntegratedTime, "logIndex": r.LogIndex, "logID": r.LogID},
		}))
	}
	if v.stamp {
		annotations["dev.sigstore.cosign/rfc3161timestamp"] = string(toJSON(s.t, map[string]any{"SignedRFC3161Timestamp": s.stamp(over, v)}))
	}
	return content, annotations
}

// preAuthentication is what is signed of an envelope (DSSE, "PAE").
func preAuthentication(statement []byte) []byte {
	const payloadType = "application/vnd.in-toto+json"
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement)
}

func dsse(statement, signature []byte) map[string]any {
	return map[string]any{
		"payloadType": "application/vnd.in-toto+json", "payload": statement,
		"signatures": []any{map[string]any{"sig": signature}},
	}
}

// bundle signs a statement as cosign 3 does.
func (s *sigstore) bundle(by *leaf, statement []byte, v vouching) map[string]any {
	s.t.Helper()
	signature := sign(s.t, by.key, preAuthentication(statement))
	envelope := dsse(statement, signature)
	material := map[string]any{"publicKey": map[string]any{"hint": "x"}}
	if by.certificate != nil {
		material = map[string]any{"certificate": map[string]any{"rawBytes": by.certificate.Raw}}
	}
	if v.log {
		material["tlogEntries"] = []any{s.tlogEntry(s.record(&entry{by, signature, toJSON(s.t, envelope), statement}, v))}
	}
	if v.stamp {
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": s.stamp(signature, v)}}}
	}
	return map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": material, "dsseEnvelope": envelope,
	}
}

func (s *sigstore) tlogEntry(r *record) map[string]any {
	s.t.Helper()
	body, err := base64.StdEncoding.DecodeString(r.Body)
	must(s.t, err)
	id, err := hex.DecodeString(r.LogID)
	must(s.t, err)
	proof, err := s.GetInclusionProof(body)
	must(s.t, err)
	rootHash, err := hex.DecodeString(*proof.RootHash)
	must(s.t, err)
	var said struct{ Kind string }
	must(s.t, json.Unmarshal(body, &said))
	return map[string]any{
		"logIndex": strconv.FormatInt(r.LogIndex, 10), "logId": map[string]any{"keyId": id},
		"kindVersion":      map[string]any{"kind": said.Kind, "version": "0.0.1"},
		"integratedTime":   strconv.FormatInt(r.IntegratedTime, 10),
		"inclusionPromise": map[string]any{"signedEntryTimestamp": r.SET},
		"inclusionProof": map[string]any{
			"logIndex": "0", "treeSize": "1", "rootHash": rootHash, "hashes": []string{},
			"checkpoint": map[string]any{"envelope": *proof.Checkpoint},
		},
		"canonicalizedBody": body,
	}
}

// second is a bundle with an entry of Rekor 2 and a timestamp. Its certificate
// is in no log.
func (s *sigstore) second(email, issuer string, statement []byte) map[string]any {
	s.t.Helper()
	made, err := s.AttestHashedRekordV2(email, issuer, statement)
	must(s.t, err)
	content, err := made.SignatureContent()
	must(s.t, err)
	material, err := made.VerificationContent()
	must(s.t, err)
	stamps, err := made.Timestamps()
	must(s.t, err)
	entries, err := made.TlogEntries()
	must(s.t, err)
	logged := entries[0].TransparencyLogEntry()
	return map[string]any{
		"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{
			"certificate": map[string]any{"rawBytes": material.Certificate().Raw},
			"tlogEntries": []any{map[string]any{
				"logIndex": "0", "logId": map[string]any{"keyId": logged.GetLogId().GetKeyId()},
				"kindVersion": map[string]any{"kind": "hashedrekord", "version": "0.0.2"},
				"inclusionProof": map[string]any{
					"logIndex": "0", "treeSize": "1", "rootHash": logged.GetInclusionProof().GetRootHash(), "hashes": []string{},
					"checkpoint": map[string]any{"envelope": logged.GetInclusionProof().GetCheckpoint().GetEnvelope()},
				},
				"canonicalizedBody": logged.GetCanonicalizedBody(),
			}},
			"timestampVerificationData": map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": stamps[0]}}},
		},
		"dsseEnvelope": dsse(statement, content.Signature()),
	}
}

// payloadOf is what cosign 2 signs of an image.
func payloadOf(image registrytest.Image, annotations string) []byte {
	if annotations == "" {
		annotations = "null"
	}
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":%s}`, image.Name(), image.Digest, annotations)
}

// sbom is a type of attestation.
const sbom = "https://spdx.dev/Document"

// statement says something about an image.
func statement(image registrytest.Image, predicateType, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":%q,"digest":{"sha256":%q},"annotations":{"env":"prod"}}],`+
		`"predicateType":%q,"predicate":%s}`, image.Name(), strings.TrimPrefix(image.Digest, "sha256:"), predicateType, predicate)
}

// form is a way in which something is said of an image; attests says that it is
// an attestation.
type form struct {
	attests bool
	push    func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching)
}

// sigstoreForms are all of them.
var sigstoreForms = map[string]form{
	".sig": {false, func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching) {
		content, annotations := s.layer(by, payloadOf(image, `{"env":"prod"}`), nil, v)
		r.PushSignatureLayer(s.t, image, content, annotations)
	}},
	"bundle": {false, func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching) {
		r.PushBundle(s.t, image, toJSON(s.t, s.bundle(by, statement(image, registrytest.SignPredicateType, "{}"), v)))
	}},
	".att": {true, func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching) {
		content, annotations := s.layer(by, nil, statement(image, sbom, `{"a":1}`), v)
		r.PushAttestationLayer(s.t, image, content, annotations)
	}},
	"attestation bundle": {true, func(s *sigstore, r *registrytest.Registry, image registrytest.Image, by *leaf, v vouching) {
		r.PushBundle(s.t, image, toJSON(s.t, s.bundle(by, statement(image, sbom, `{"a":1}`), v)))
	}},
}

// asks is an authority for the form.
func (f form) asks(a cosign.Authority) cosign.Authority {
	if f.attests {
		a.Attestations = []cosign.Attestation{{Name: "sbom", PredicateType: sbom}}
	}
	return a
}

// keyless is an authority of the workflow.
func (s *sigstore) keyless() cosign.Authority {
	return cosign.Authority{
		Name: "release", Trust: s.trust(),
		Keyless: &cosign.Keyless{Identities: []cosign.Identity{{Issuer: actions, Subject: workflow}}},
	}
}
