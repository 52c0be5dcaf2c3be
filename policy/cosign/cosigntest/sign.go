// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosigntest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tlog"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Vouching is what comes with a signature.
type Vouching struct {
	Log, Stamp bool
	At         time.Time // of the log entry; now if zero
	// EntryOf is of something else: its signature, signer or what was signed.
	EntryOf *Entry
	// StampOf is what the timestamp is of, if not of the signature.
	StampOf []byte
	// Bend changes the log entry after it was signed.
	Bend func(*Record)
}

// Entry is what a log entry says.
type Entry struct {
	By        *Leaf
	Signature []byte
	Content   []byte // the payload of a signature, the envelope of an attestation
	Statement []byte // nil for a hashedrekord
}

// Record is a log entry with what the log says of it.
type Record struct {
	Body           string
	IntegratedTime int64
	LogIndex       int64
	LogID          string
	SET            []byte
}

func (s *Sigstore) record(e *Entry, v Vouching) *Record {
	s.tb.Helper()
	if v.EntryOf != nil {
		e = v.EntryOf
	}
	digest := func(content []byte) map[string]string {
		return map[string]string{"algorithm": "sha256", "value": hash(content)}
	}
	b64 := base64.StdEncoding.EncodeToString
	body := map[string]any{"apiVersion": "0.0.1", "kind": "hashedrekord", "spec": map[string]any{
		"data":      map[string]any{"hash": digest(e.Content)},
		"signature": map[string]any{"content": b64(e.Signature), "publicKey": map[string]string{"content": b64(e.By.PEM(s.tb))}},
	}}
	if e.Statement != nil {
		body["kind"] = "dsse"
		body["spec"] = map[string]any{
			"envelopeHash": digest(e.Content), "payloadHash": digest(e.Statement),
			"signatures": []map[string]string{{"signature": b64(e.Signature), "verifier": b64(e.By.PEM(s.tb))}},
		}
	}
	at := v.At
	if at.IsZero() {
		at = time.Now()
	}
	id, err := s.RekorLogID()
	must(s.tb, err)
	made := &Record{Body: b64(toJSON(s.tb, body)), IntegratedTime: at.Unix(), LogID: id}
	made.SET, err = s.RekorSignPayload(tlog.RekorPayload{Body: made.Body, IntegratedTime: made.IntegratedTime, LogID: id})
	must(s.tb, err)
	if v.Bend != nil {
		v.Bend(made)
	}
	return made
}

func hash(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

func toJSON(tb TB, v any) []byte {
	tb.Helper()
	raw, err := json.Marshal(v)
	must(tb, err)
	return raw
}

func (s *Sigstore) stamp(over []byte, v Vouching) []byte {
	s.tb.Helper()
	if v.StampOf != nil {
		over = v.StampOf
	}
	made, err := s.TimestampResponse(over)
	must(s.tb, err)
	return made
}

// Layer signs a payload as cosign 2 does, or an envelope if there is a statement
// in it: what is returned goes under a .sig or a .att tag.
func (s *Sigstore) Layer(by *Leaf, payload, statement []byte, v Vouching) (content []byte, annotations map[string]string) {
	s.tb.Helper()
	annotations = map[string]string{}
	var over, signature []byte
	content = payload
	if statement == nil {
		signature = Sign(s.tb, by.Key, payload)
		annotations["dev.cosignproject.cosign/signature"] = base64.StdEncoding.EncodeToString(signature)
		over = signature
	} else {
		signature = Sign(s.tb, by.Key, PreAuthentication(statement))
		content = toJSON(s.tb, Envelope(statement, signature))
		over = content
		annotations["dev.cosignproject.cosign/signature"] = ""
	}
	if by.Certificate != nil {
		annotations["dev.sigstore.cosign/certificate"] = string(by.PEM(s.tb))
		annotations["dev.sigstore.cosign/chain"] = string((&Leaf{Certificate: s.Intermediate}).PEM(s.tb)) + string((&Leaf{Certificate: s.Root}).PEM(s.tb))
	}
	if v.Log {
		r := s.record(&Entry{by, signature, content, statement}, v)
		annotations["dev.sigstore.cosign/bundle"] = string(toJSON(s.tb, map[string]any{
			"SignedEntryTimestamp": r.SET,
			"Payload":              map[string]any{"body": r.Body, "integratedTime": r.IntegratedTime, "logIndex": r.LogIndex, "logID": r.LogID},
		}))
	}
	if v.Stamp {
		annotations["dev.sigstore.cosign/rfc3161timestamp"] = string(toJSON(s.tb, map[string]any{"SignedRFC3161Timestamp": s.stamp(over, v)}))
	}
	return content, annotations
}

// PreAuthentication is what is signed of an envelope (DSSE, "PAE").
func PreAuthentication(statement []byte) []byte {
	const payloadType = "application/vnd.in-toto+json"
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement)
}

// Envelope is a statement with its signature, as both forms of attestations have
// it.
func Envelope(statement, signature []byte) map[string]any {
	return map[string]any{
		"payloadType": "application/vnd.in-toto+json", "payload": statement,
		"signatures": []any{map[string]any{"sig": signature}},
	}
}

// Bundle signs a statement as cosign 3 does.
func (s *Sigstore) Bundle(by *Leaf, statement []byte, v Vouching) map[string]any {
	s.tb.Helper()
	signature := Sign(s.tb, by.Key, PreAuthentication(statement))
	envelope := Envelope(statement, signature)
	material := map[string]any{"publicKey": map[string]any{"hint": "x"}}
	if by.Certificate != nil {
		material = map[string]any{"certificate": map[string]any{"rawBytes": by.Certificate.Raw}}
	}
	if v.Log {
		material["tlogEntries"] = []any{s.tlogEntry(s.record(&Entry{by, signature, toJSON(s.tb, envelope), statement}, v))}
	}
	if v.Stamp {
		material["timestampVerificationData"] = map[string]any{"rfc3161Timestamps": []any{map[string]any{"signedTimestamp": s.stamp(signature, v)}}}
	}
	return map[string]any{
		"mediaType":            "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": material, "dsseEnvelope": envelope,
	}
}

func (s *Sigstore) tlogEntry(r *Record) map[string]any {
	s.tb.Helper()
	body, err := base64.StdEncoding.DecodeString(r.Body)
	must(s.tb, err)
	id, err := hex.DecodeString(r.LogID)
	must(s.tb, err)
	proof, err := s.GetInclusionProof(body)
	must(s.tb, err)
	rootHash, err := hex.DecodeString(*proof.RootHash)
	must(s.tb, err)
	var said struct{ Kind string }
	must(s.tb, json.Unmarshal(body, &said))
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

// Second is a bundle with an entry of Rekor 2 and a timestamp. Its certificate
// is in no log.
func (s *Sigstore) Second(email, issuer string, statement []byte) map[string]any {
	s.tb.Helper()
	made, err := s.AttestHashedRekordV2(email, issuer, statement)
	must(s.tb, err)
	content, err := made.SignatureContent()
	must(s.tb, err)
	material, err := made.VerificationContent()
	must(s.tb, err)
	stamps, err := made.Timestamps()
	must(s.tb, err)
	entries, err := made.TlogEntries()
	must(s.tb, err)
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
		"dsseEnvelope": Envelope(statement, content.Signature()),
	}
}

// Payload is what cosign 2 signs of an image.
func Payload(image registrytest.Image, annotations string) []byte {
	if annotations == "" {
		annotations = "null"
	}
	return fmt.Appendf(nil, `{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},`+
		`"type":"cosign container image signature"},"optional":%s}`, image.Name(), image.Digest, annotations)
}

// SBOM is a type of attestation.
const SBOM = "https://spdx.dev/Document"

// Statement says something about an image.
func Statement(image registrytest.Image, predicateType, predicate string) []byte {
	return fmt.Appendf(nil, `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":%q,"digest":{"sha256":%q},"annotations":{"env":"prod"}}],`+
		`"predicateType":%q,"predicate":%s}`, image.Name(), strings.TrimPrefix(image.Digest, "sha256:"), predicateType, predicate)
}

// Target is where what is signed is put.
type Target struct {
	Registry *registrytest.Registry
	Image    registrytest.Image
}

// SignLegacy signs the image as cosign 2 does, with the annotation env=prod.
func (s *Sigstore) SignLegacy(to Target, by *Leaf, v Vouching) {
	s.tb.Helper()
	content, annotations := s.Layer(by, Payload(to.Image, `{"env":"prod"}`), nil, v)
	to.Registry.PushSignatureLayer(s.tb, to.Image, content, annotations)
}

// SignBundle signs the image as cosign 3 does, with the annotation env=prod.
func (s *Sigstore) SignBundle(to Target, by *Leaf, v Vouching) {
	s.tb.Helper()
	said := Statement(to.Image, registrytest.SignPredicateType, "{}")
	to.Registry.PushBundle(s.tb, to.Image, toJSON(s.tb, s.Bundle(by, said, v)))
}

// AttestLegacy attests an [SBOM] as cosign 2 does.
func (s *Sigstore) AttestLegacy(to Target, by *Leaf, v Vouching) {
	s.tb.Helper()
	content, annotations := s.Layer(by, nil, Statement(to.Image, SBOM, `{"a":1}`), v)
	to.Registry.PushAttestationLayer(s.tb, to.Image, content, annotations)
}

// AttestBundle attests an [SBOM] as cosign 3 does.
func (s *Sigstore) AttestBundle(to Target, by *Leaf, v Vouching) {
	s.tb.Helper()
	to.Registry.PushBundle(s.tb, to.Image, toJSON(s.tb, s.Bundle(by, Statement(to.Image, SBOM, `{"a":1}`), v)))
}
