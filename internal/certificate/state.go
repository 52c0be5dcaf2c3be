// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package certificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY" // PKCS #8
)

// state is what the Secret holds, as far as it can be used.
type state struct {
	authorities []authority // newest first
	leaf        *leaf       // nil: none that has its key
	// damaged says that the Secret held something else besides, or less.
	damaged bool
}

// parse reads the Secret. What cannot be used is left out: a leaf whose key is
// not its own, a key of no authority, an authority that is none.
func parse(untrustedData map[string][]byte) state {
	var s state
	known := map[string]bool{}
	certificates, whole := blocks(untrustedData[keyAuthorities], pemCertificate)
	for _, der := range certificates {
		c, err := x509.ParseCertificate(der)
		if err != nil || !c.IsCA || !c.BasicConstraintsValid || known[string(c.Raw)] {
			whole = false
			continue
		}
		known[string(c.Raw)] = true
		s.authorities = append(s.authorities, authority{certificate: c})
	}
	s.damaged = !whole || len(s.authorities) == 0
	keys, whole := blocks(untrustedData[keyAuthoritiesKey], pemKey)
	s.damaged = s.damaged || !whole
	for _, der := range keys {
		s.damaged = !s.give(der) || s.damaged
	}
	s.leaf = parseLeaf(untrustedData)
	s.damaged = s.damaged || s.leaf == nil
	return s
}

// give gives an authority its key, and reports whether one had it.
func (s *state) give(der []byte) bool {
	key, err := parseKey(der)
	if err != nil {
		return false
	}
	for i, a := range s.authorities {
		if key.PublicKey.Equal(a.certificate.PublicKey) {
			s.authorities[i].key = key
			return true
		}
	}
	return false
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("it is not of the kind that Pratique makes")
	}
	return key, nil
}

func parseLeaf(untrustedData map[string][]byte) *leaf {
	certificates, whole := blocks(untrustedData[keyLeaf], pemCertificate)
	keys, wholeToo := blocks(untrustedData[keyLeafKey], pemKey)
	if !whole || !wholeToo || len(certificates) != 1 || len(keys) != 1 {
		return nil
	}
	c, err := x509.ParseCertificate(certificates[0])
	if err != nil {
		return nil
	}
	key, err := parseKey(keys[0])
	if err != nil || !key.PublicKey.Equal(c.PublicKey) {
		return nil
	}
	return &leaf{c, key}
}

// blocks returns the contents of all blocks of one type, and whether there was
// nothing else.
func blocks(text []byte, kind string) (contents [][]byte, whole bool) {
	whole = true
	begun := bytes.Count(text, []byte("-----BEGIN "))
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		begun--
		if block.Type != kind {
			whole = false
			continue
		}
		contents = append(contents, block.Bytes)
	}
	return contents, whole && begun == 0
}

// data is the Secret that holds the state.
func (s state) data() (map[string][]byte, error) {
	data := map[string][]byte{keyAuthorities: s.bundle()}
	for _, a := range s.authorities {
		if a.key == nil {
			continue
		}
		text, err := encodeKey(a.key)
		if err != nil {
			return nil, err
		}
		data[keyAuthoritiesKey] = append(data[keyAuthoritiesKey], text...)
	}
	if s.leaf == nil {
		return data, nil
	}
	data[keyLeaf] = encode(s.leaf.certificate)
	text, err := encodeKey(s.leaf.key)
	if err != nil {
		return nil, err
	}
	data[keyLeafKey] = text
	return data, nil
}

// bundle is what the API server is to trust.
func (s state) bundle() []byte {
	var text []byte
	for _, a := range s.authorities {
		text = append(text, encode(a.certificate)...)
	}
	return text
}

func encode(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: c.Raw})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}
