// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/sigstore/rekor-tiles/v2/pkg/note"
	"github.com/sigstore/sigstore-go/pkg/root"
)

const (
	// authorityLifetime is what Sigstore's own root certificate has.
	authorityLifetime = 10 * 365 * 24 * time.Hour
	// clockSkew is how far a certificate reaches back.
	clockSkew = time.Hour
	// serialBits is the size of a serial number (RFC 5280 section 4.1.2.2).
	serialBits = 128
	// organization is in the name of every certificate.
	organization = "pratique-e2e"
	// origin is how Rekor 2 signs its checkpoints. Verifiers expect the host of
	// the log's address in the trusted root, without a port.
	origin = "127.0.0.1"
	// timestampPath is where the timestamp authority answers.
	timestampPath = "/api/v1/timestamp"
)

// keys are what the servers read, by file name, and what is public of it.
type keys struct {
	files   map[string][]byte
	root    Root
	issuers issuers
}

// newKeys makes everything anew. The kinds of key are those of the public
// Sigstore: P-384 for the authorities, P-256 for Rekor 1 and the certificate
// transparency log, Ed25519 for Rekor 2.
func newKeys() (*keys, error) {
	k := &keys{files: map[string][]byte{}}
	for _, make := range []func() error{k.fulcio, k.timestamp, k.logs, k.web, k.tokens} {
		if err := make(); err != nil {
			return nil, fmt.Errorf("making Sigstore's keys: %w", err)
		}
	}
	return k, nil
}

// write writes the files into the folder.
func (k *keys) write(dir string) error {
	for name, content := range k.files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return fmt.Errorf("writing Sigstore's keys: %w", err)
		}
	}
	return nil
}

// fulcio makes a root and the intermediate authority that issues.
func (k *keys) fulcio() error {
	top, err := newAuthority("fulcio root", nil)
	if err != nil {
		return err
	}
	issuer, err := newAuthority("fulcio intermediate", top)
	if err != nil {
		return err
	}
	k.root.Fulcio = &root.FulcioCertificateAuthority{
		Root: top.certificate, Intermediates: []*x509.Certificate{issuer.certificate},
		ValidityPeriodStart: start(), URI: "http://" + origin,
	}
	k.files["fulcio-root.pem"] = certificatePEM(top.certificate)
	k.files["fulcio-chain.pem"] = append(certificatePEM(issuer.certificate), certificatePEM(top.certificate)...)
	return k.private("fulcio.key", issuer.key)
}

// timestamp makes a root and the certificate that stamps.
func (k *keys) timestamp() error {
	top, err := newAuthority("timestamp root", nil)
	if err != nil {
		return err
	}
	template, err := certificate("timestamp authority")
	if err != nil {
		return err
	}
	// RFC 3161 section 2.3: this purpose alone, and critical, which crypto/x509
	// leaves it to us to say.
	purpose, err := asn1.Marshal([]asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 8}})
	if err != nil {
		return fmt.Errorf("encoding the purpose of a certificate: %w", err)
	}
	template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 37}, Critical: true, Value: purpose}}
	leaf, err := issue(template, top)
	if err != nil {
		return err
	}
	k.root.Timestamp = &root.SigstoreTimestampingAuthority{
		Root: top.certificate, Leaf: leaf.certificate,
		ValidityPeriodStart: start(), URI: "http://" + origin + timestampPath,
	}
	k.files["timestamp-chain.pem"] = append(certificatePEM(leaf.certificate), certificatePEM(top.certificate)...)
	return k.private("timestamp.key", leaf.key)
}

// logs makes the keys of the three logs. Rekor 1 and the certificate
// transparency log are known by the hash of their key (RFC 6962 section 3.2),
// Rekor 2 by a hash of its origin and key.
func (k *keys) logs() error {
	for name, place := range map[string]**root.TransparencyLog{"ctlog": &k.root.CTLog, "rekor1": &k.root.Rekor1} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return fmt.Errorf("generating the key of %s: %w", name, err)
		}
		public, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			return fmt.Errorf("encoding the key of %s: %w", name, err)
		}
		id := sha256.Sum256(public)
		*place = newLog(id[:], key.Public())
		k.files[name+".pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
		if err := k.private(name+".key", key); err != nil {
			return err
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generating the key of rekor2: %w", err)
	}
	_, id, err := note.KeyHash(origin, public)
	if err != nil {
		return fmt.Errorf("finding the name of rekor2's key: %w", err)
	}
	k.root.Rekor2 = newLog(id, public)
	// The younger one: equal periods would leave the order in the file to chance.
	k.root.Rekor2.ValidityPeriodStart = start().AddDate(5, 0, 0)
	return k.private("rekor2.key", private)
}

func newLog(id []byte, key crypto.PublicKey) *root.TransparencyLog {
	return &root.TransparencyLog{
		BaseURL: "http://" + origin, ID: id, ValidityPeriodStart: start(),
		HashFunc: crypto.SHA256, PublicKey: key, SignatureHashFunc: crypto.SHA256,
	}
}

// web makes what the issuers' server shows to Fulcio.
func (k *keys) web() error {
	top, err := newAuthority("web root", nil)
	if err != nil {
		return err
	}
	template, err := certificate("oidc issuers")
	if err != nil {
		return err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, issuer := range Issuers() {
		address, err := url.Parse(issuer)
		if err != nil {
			return fmt.Errorf("reading issuer %q: %w", issuer, err)
		}
		template.DNSNames = append(template.DNSNames, address.Hostname())
	}
	leaf, err := issue(template, top)
	if err != nil {
		return err
	}
	k.files["web-root.pem"] = certificatePEM(top.certificate)
	k.files["web.pem"] = certificatePEM(leaf.certificate)
	return k.private("web.key", leaf.key)
}

// tokens makes the key of the issuers' tokens, and Fulcio's list of them.
func (k *keys) tokens() (err error) {
	if k.issuers, err = newIssuers(); err != nil {
		return err
	}
	jwks, err := json.Marshal(k.issuers.public())
	if err != nil {
		return fmt.Errorf("encoding the issuers' key: %w", err)
	}
	type object = map[string]any
	believed := object{}
	for issuer, kind := range issuerTypes() {
		believed[issuer] = object{"IssuerURL": issuer, "ClientID": audience, "Type": kind}
	}
	config, err := json.Marshal(object{"OIDCIssuers": believed})
	if err != nil {
		return fmt.Errorf("encoding Fulcio's configuration: %w", err)
	}
	maps.Copy(k.files, map[string][]byte{"jwks.json": jwks, "fulcio.json": config})
	return nil
}

func (k *keys) private(name string, key any) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", name, err)
	}
	k.files[name] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return nil
}

// start is since when the trusted root believes in everything: before the first
// certificate of any of it.
func start() time.Time { return time.Date(2020, time.January, 1, 0, 0, 0, 0, time.UTC) }

// A pair is a certificate with its key.
type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// newAuthority makes an authority for parent to vouch for; nil means itself. An
// intermediate one may only do what its purpose says.
func newAuthority(name string, parent *pair) (*pair, error) {
	template, err := certificate(name)
	if err != nil {
		return nil, err
	}
	template.IsCA = true
	template.BasicConstraintsValid = true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if parent != nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
		template.MaxPathLenZero = true
	}
	return issue(template, parent)
}

func certificate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{organization}, CommonName: name},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(authorityLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}, nil
}

// issue makes a key and its certificate, signed by parent or else by itself.
func issue(template *x509.Certificate, parent *pair) (*pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
	}
	if parent == nil {
		parent = &pair{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.certificate, key.Public(), parent.key)
	if err != nil {
		return nil, fmt.Errorf("issuing certificate %q: %w", template.Subject.CommonName, err)
	}
	issued, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("reading certificate %q: %w", template.Subject.CommonName, err)
	}
	return &pair{issued, key}, nil
}

func certificatePEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
