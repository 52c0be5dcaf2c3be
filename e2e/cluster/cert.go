// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

const (
	// certLifetime is longer than anybody keeps a demo running.
	certLifetime = 7 * 24 * time.Hour
	// clockSkew is how far a certificate reaches back, for clocks that differ.
	clockSkew = time.Hour
	// serialBits is the size of a serial number: RFC 5280 section 4.1.2.2
	// allows 20 octets, and random ones need no record.
	serialBits = 128
)

// A ServingCert is the certificate of a TLS server on 127.0.0.1, such as a
// webhook, with the authority that issued it. The files tls.crt and tls.key are
// named as controller-runtime's webhook server expects them.
type ServingCert struct {
	// CAPEM is the authority's certificate, CertPEM the server's, KeyPEM the
	// server's private key (PKCS #8), all PEM encoded.
	CAPEM, CertPEM, KeyPEM []byte
	// CAFile, CertFile and KeyFile are where they are: ca.crt, tls.crt, tls.key.
	CAFile, CertFile, KeyFile string
}

// NewServingCert makes an authority and a certificate for 127.0.0.1, ::1,
// localhost and the given further names or addresses, and writes them to the
// folder dir, which it makes if need be. It is good for a week.
func NewServingCert(dir string, hosts ...string) (ServingCert, error) {
	leaf, err := servingTemplate(append([]string{"127.0.0.1", "::1", "localhost"}, hosts...))
	if err != nil {
		return ServingCert{}, err
	}
	return newCert(dir, leaf)
}

// A ClientCert is the certificate by which a client is known, with the authority
// that issued it; its fields are as a ServingCert's.
type ClientCert ServingCert

// NewClientCert makes an authority and a client's certificate with a common
// name, as NewServingCert does for a server.
func NewClientCert(dir, name string) (ClientCert, error) {
	leaf, err := newTemplate(name)
	if err != nil {
		return ClientCert{}, err
	}
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, err := newCert(dir, leaf)
	return ClientCert(cert), err
}

// newCert makes an authority, has it issue the certificate, and writes both.
func newCert(dir string, leaf *x509.Certificate) (ServingCert, error) {
	ca, caKey, err := newAuthority()
	if err != nil {
		return ServingCert{}, err
	}
	cert, key, err := issue(ca, caKey, leaf)
	if err != nil {
		return ServingCert{}, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return ServingCert{}, fmt.Errorf("encoding the key: %w", err)
	}
	s := ServingCert{
		CAPEM:    encodePEM("CERTIFICATE", ca.Raw),
		CertPEM:  encodePEM("CERTIFICATE", cert),
		KeyPEM:   encodePEM("PRIVATE KEY", keyDER),
		CAFile:   filepath.Join(dir, "ca.crt"),
		CertFile: filepath.Join(dir, "tls.crt"),
		KeyFile:  filepath.Join(dir, "tls.key"),
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return ServingCert{}, fmt.Errorf("making the certificate's folder: %w", err)
	}
	for path, content := range map[string][]byte{s.CAFile: s.CAPEM, s.CertFile: s.CertPEM, s.KeyFile: s.KeyPEM} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return ServingCert{}, fmt.Errorf("writing the certificate: %w", err)
		}
	}
	return s, nil
}

// CABundle is the authority as a manifest's clientConfig.caBundle wants it:
// the PEM text in base64. (In a Go object the field takes CAPEM itself.)
func (s ServingCert) CABundle() string {
	return base64.StdEncoding.EncodeToString(s.CAPEM)
}

func newAuthority() (*x509.Certificate, crypto.Signer, error) {
	template, err := newTemplate("pratique-e2e-ca")
	if err != nil {
		return nil, nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating the authority's key: %w", err)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, fmt.Errorf("creating the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("parsing the authority's certificate: %w", err)
	}
	return cert, key, nil
}

func issue(ca *x509.Certificate, caKey crypto.Signer, leaf *x509.Certificate) (der []byte, key crypto.Signer, err error) {
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating the key: %w", err)
	}
	der, err = x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("creating the certificate: %w", err)
	}
	return der, key, nil
}

func servingTemplate(hosts []string) (*x509.Certificate, error) {
	template, err := newTemplate(hosts[0])
	if err != nil {
		return nil, err
	}
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return template, nil
}

func newTemplate(commonName string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    now.Add(-clockSkew),
		NotAfter:     now.Add(certLifetime),
	}, nil
}

// writeKeyPair makes the key that signs the tokens of ServiceAccounts.
func writeKeyPair(privateFile, publicFile string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generating the service account key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encoding the service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encoding the service account key: %w", err)
	}
	if err := os.WriteFile(privateFile, encodePEM("PRIVATE KEY", private), 0o600); err != nil {
		return fmt.Errorf("writing the service account key: %w", err)
	}
	if err := os.WriteFile(publicFile, encodePEM("PUBLIC KEY", public), 0o600); err != nil {
		return fmt.Errorf("writing the service account key: %w", err)
	}
	return nil
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
