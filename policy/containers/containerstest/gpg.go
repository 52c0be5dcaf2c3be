// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containerstest

import (
	"bytes"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Algorithm is one that GnuPG makes keys of.
type Algorithm string

// The algorithms of OpenPGP keys. Ed25519 is the one that GnuPG proposes since
// 2.3, in the form that it writes.
const (
	RSA     Algorithm = "rsa3072"
	NIST    Algorithm = "nistp256"
	Ed25519 Algorithm = "ed25519"
)

// KeyOptions say what is special about an OpenPGP key.
type KeyOptions struct {
	Algorithm Algorithm // Ed25519 if empty
	// Subkey says that a subkey signs, and the primary key only vouches for it.
	Subkey bool
	// Age is how long ago the key was made, Lifetime how long it is good for, 0
	// for ever.
	Age, Lifetime time.Duration
}

// GPG is an OpenPGP key pair.
type GPG struct {
	entity *openpgp.Entity
	config *packet.Config
}

// NewGPG makes a key.
func NewGPG(tb TB, o KeyOptions) *GPG {
	tb.Helper()
	made := time.Now().Add(-o.Age)
	config := &packet.Config{
		Time:            func() time.Time { return made },
		KeyLifetimeSecs: uint32(o.Lifetime / time.Second), //nolint:gosec // a test's own number
	}
	switch o.Algorithm {
	case RSA:
		config.Algorithm, config.RSABits = packet.PubKeyAlgoRSA, 3072
	case NIST:
		config.Algorithm, config.Curve = packet.PubKeyAlgoECDSA, packet.CurveNistP256
	case Ed25519, "":
		config.Algorithm, config.Curve = packet.PubKeyAlgoEdDSA, packet.Curve25519
	default:
		tb.Fatalf("there is no algorithm %q", o.Algorithm)
	}
	entity, err := openpgp.NewEntity("Release", "test", "release@example.com", config)
	must(tb, err)
	if o.Subkey {
		must(tb, entity.AddSigningSubkey(config))
	}
	return &GPG{entity, config}
}

// Revoked is the same key, whose owner says that it is not to be used any more.
// Only its public part differs: who has stolen the private one goes on signing.
func (k *GPG) Revoked(tb TB) *GPG {
	tb.Helper()
	other := *k.entity
	other.Revocations = nil
	must(tb, other.RevokeKey(packet.KeyRetired, "", k.config))
	return &GPG{&other, k.config}
}

// Public is the public key as gpg --export writes it.
func (k *GPG) Public(tb TB) []byte {
	tb.Helper()
	var out bytes.Buffer
	must(tb, k.entity.Serialize(&out))
	return out.Bytes()
}

// Armored is the public key as gpg --export --armor writes it.
func (k *GPG) Armored(tb TB) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, openpgp.PublicKeyType, nil)
	must(tb, err)
	_, err = w.Write(k.Public(tb))
	must(tb, err)
	must(tb, w.Close())
	out.WriteByte('\n')
	return out.Bytes()
}

// Sign signs a claim as containers-signature(5) says: an OpenPGP message that is
// signed and holds what is signed. It is signed as of when the key was made, so
// that one that has run out since can have done it.
func (k *GPG) Sign(tb TB, claim Claim) []byte {
	tb.Helper()
	return k.Message(tb, claim.Simple(tb))
}

// Message signs any content.
func (k *GPG) Message(tb TB, content []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w, err := openpgp.Sign(&out, k.entity, &openpgp.FileHints{IsBinary: true}, k.config)
	must(tb, err)
	_, err = w.Write(content)
	must(tb, err)
	must(tb, w.Close())
	return out.Bytes()
}

// Detached signs a claim in the way that containers-signature(5) does not know:
// the signature alone.
func (k *GPG) Detached(tb TB, claim Claim) []byte {
	tb.Helper()
	var out bytes.Buffer
	must(tb, openpgp.DetachSign(&out, k.entity, bytes.NewReader(claim.Simple(tb)), k.config))
	return out.Bytes()
}
