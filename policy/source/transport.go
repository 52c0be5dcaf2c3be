// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
)

const (
	// maxAuthorities bounds ca.crt, in bytes: twice what Mozilla's whole list takes.
	maxAuthorities = 512 << 10
	// maxPair bounds tls.crt and tls.key, in bytes each: no server takes a longer
	// message with a certificate (crypto/tls, maxHandshake).
	maxPair = 64 << 10
)

// The keys of a TLS Secret (Kubernetes, "TLS secrets"), and those by which Flux
// knows the same (source-controller, "Cert secret reference").
var (
	keyAuthorities = secretKey{"ca.crt", "caFile", maxAuthorities}
	keyCertificate = secretKey{corev1.TLSCertKey, "certFile", maxPair}
	keyPrivate     = secretKey{corev1.TLSPrivateKeyKey, "keyFile", maxPair}
)

// secretKey is a key of a Secret, and another one that is read where it is absent.
type secretKey struct {
	standard, flux string
	most           int // bytes
}

// String names a key for people.
func (k secretKey) String() string { return fmt.Sprintf("%q (or %q)", k.standard, k.flux) }

// part is what stands under a key.
type part struct {
	key   string // the one that was read
	data  []byte
	given bool
}

func (k secretKey) in(secret *corev1.Secret) (part, error) {
	found := part{key: k.standard}
	found.data, found.given = secret.Data[k.standard]
	if !found.given {
		found.key = k.flux
		found.data, found.given = secret.Data[k.flux]
	}
	if len(found.data) > k.most {
		return part{}, found.wrong("more than %d bytes", k.most)
	}
	return found, nil
}

// wrong is a mistake in what stands under a key. It must not repeat that.
func (p part) wrong(format string, args ...any) error {
	return fmt.Errorf("key %q: %s", p.key, fmt.Sprintf(format, args...))
}

// transport reads how the registry is reached. While that is not known nobody
// is asked: neither the server's own way nor that of a shorter prefix is what
// was meant.
func (c *compilation) transport() {
	registry := c.config.Spec.Registry
	switch {
	case registry == nil || registry.TLS == nil && !registry.InsecurePlainHTTP:
	case registry.TLS != nil && registry.InsecurePlainHTTP: // of which validation tells
		c.rule.Transport = unusable("its ImageConfig contradicts itself")
	case registry.InsecurePlainHTTP:
		c.rule.Transport = &policy.Transport{PlainHTTP: true, Hash: hashParts("plain HTTP")}
	default:
		transport, problem := c.tls("spec.registry.tls.certSecretRef", string(registry.TLS.CertSecretRef.Name))
		if problem != nil {
			transport = unusable(oneLine(problem.message))
			c.unreachable(problem)
		}
		c.rule.Transport = transport
	}
}

// unreachable notes why the registry cannot be asked. What the rule selects for
// verification is held back; a rule without one has nothing to hold.
func (c *compilation) unreachable(problem *mistake) {
	if c.config.Spec.Verification != nil {
		c.problems = append(c.problems, problem)
	} else {
		c.pullProblems = append(c.pullProblems, problem)
	}
}

func unusable(why string) *policy.Transport {
	return &policy.Transport{Unusable: why, Hash: hashParts("unusable", why)}
}

// hashParts identifies a list of texts.
func hashParts(parts ...string) [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q", parts))
}

func (c *compilation) tls(path, name string) (*policy.Transport, *mistake) {
	secret, problem := c.secret(path, name)
	if problem != nil {
		return nil, problem
	}
	transport, err := parseTLS(secret)
	if err != nil {
		return nil, wrong(v1alpha1.ReasonSecretInvalid, "%s: secret %q: %v", path, name, err)
	}
	if transport.Certificate != nil {
		// It is shown all the same: whether it is good is the registry's to say.
		if now, leaf := time.Now(), transport.Certificate.Leaf; now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
			c.notes = append(c.notes, fmt.Sprintf("the client certificate in secret %q is out of date", name))
		}
	}
	return transport, nil
}

// tlsParts are what a TLS Secret may have.
type tlsParts struct{ authorities, certificate, private part }

// parseTLS reads a TLS Secret, whatever its type. Its error names keys and never
// repeats what stands under them.
func parseTLS(secret *corev1.Secret) (*policy.Transport, error) {
	parts, err := partsOf(secret)
	if err != nil {
		return nil, err
	}
	transport := &policy.Transport{
		Hash: hashParts("TLS", string(parts.authorities.data), string(parts.certificate.data), string(parts.private.data)),
	}
	if parts.authorities.given {
		if transport.Authorities, err = parts.authorities.certificates(); err != nil {
			return nil, err
		}
	}
	if parts.certificate.given {
		if transport.Certificate, err = pair(parts.certificate, parts.private); err != nil {
			return nil, err
		}
	}
	return transport, nil
}

// partsOf finds the parts: authorities, or a pair, or both.
func partsOf(secret *corev1.Secret) (parts tlsParts, err error) {
	if parts.authorities, err = keyAuthorities.in(secret); err != nil {
		return parts, err
	}
	if parts.certificate, err = keyCertificate.in(secret); err != nil {
		return parts, err
	}
	if parts.private, err = keyPrivate.in(secret); err != nil {
		return parts, err
	}
	const half = "it has the key %q and not %s: a client certificate needs both"
	switch {
	case parts.certificate.given && !parts.private.given:
		return parts, fmt.Errorf(half, parts.certificate.key, keyPrivate)
	case parts.private.given && !parts.certificate.given:
		return parts, fmt.Errorf(half, parts.private.key, keyCertificate)
	case !parts.authorities.given && !parts.certificate.given:
		return parts, fmt.Errorf("it has none of the keys %s, %s with %s", keyAuthorities, keyCertificate, keyPrivate)
	}
	return parts, nil
}

// certificates returns certificates in PEM form. That all are read is held here:
// those who use them pass over what they do not understand.
func (p part) certificates() ([]byte, error) {
	read := 0
	for rest := p.data; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, p.wrong("something else than certificates is in it")
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, p.wrong("certificate %d cannot be parsed", read+1)
		}
		read++
	}
	if read == 0 {
		return nil, p.wrong("no certificate in PEM form")
	}
	if bytes.Count(p.data, []byte("-----BEGIN ")) != read {
		return nil, p.wrong("a certificate in it is cut off, or not in PEM form")
	}
	return p.data, nil
}

// pair joins a certificate and its private key.
func pair(certificate, private part) (*tls.Certificate, error) {
	chain, err := certificate.certificates()
	if err != nil {
		return nil, err
	}
	joined, err := tls.X509KeyPair(chain, private.data)
	if err == nil {
		return &joined, nil
	}
	if !private.isPrivateKey() {
		return nil, private.wrong("no private key in PEM form, or one that is encrypted or cannot be parsed")
	}
	return nil, private.wrong("not the private key of the certificate under %q", certificate.key)
}

// isPrivateKey reports whether there is a private key, in the forms that
// crypto/tls reads.
func (p part) isPrivateKey() bool {
	for block, rest := pem.Decode(p.data); block != nil; block, rest = pem.Decode(rest) {
		_, pkcs8 := x509.ParsePKCS8PrivateKey(block.Bytes)
		_, pkcs1 := x509.ParsePKCS1PrivateKey(block.Bytes)
		_, sec1 := x509.ParseECPrivateKey(block.Bytes)
		if pkcs8 == nil || pkcs1 == nil || sec1 == nil {
			return true
		}
	}
	return false
}
