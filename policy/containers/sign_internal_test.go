// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"iter"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/reference"
	"github.com/pratique-dev/pratique/registry"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// gpg is a key that signs, as of some time.
type gpg struct {
	*openpgp.Entity
	config packet.Config
}

var (
	asEd25519 = packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Curve: packet.Curve25519}
	asNIST    = packet.Config{Algorithm: packet.PubKeyAlgoECDSA, Curve: packet.CurveNistP256}
	asRSA     = packet.Config{Algorithm: packet.PubKeyAlgoRSA, RSABits: 2048}
)

// newGPG makes a key some time ago, which lives for some time from then on.
func newGPG(as packet.Config, ago, life time.Duration) gpg {
	made := time.Now().Add(-ago)
	as.Time = func() time.Time { return made }
	as.KeyLifetimeSecs = uint32(life / time.Second)
	return gpg{must(openpgp.NewEntity("Release", "", "release@example.com", &as)), as}
}

func (g gpg) public() []byte {
	var b bytes.Buffer
	must(0, g.Serialize(&b))
	return b.Bytes()
}

func armor1(kind string, content []byte) []byte {
	var b bytes.Buffer
	w := must(armor.Encode(&b, kind, nil))
	must(w.Write(content))
	must(0, w.Close())
	return append(b.Bytes(), '\n')
}

func (g gpg) armored() []byte { return armor1(openpgp.PublicKeyType, g.public()) }

// message signs anything.
func (g gpg) message(content []byte) []byte {
	var b bytes.Buffer
	config := g.config
	config.KeyLifetimeSecs = 0
	w := must(openpgp.Sign(&b, g.Entity, nil, &config))
	must(w.Write(content))
	must(0, w.Close())
	return b.Bytes()
}

func (g gpg) sign(digest, name string) []byte {
	return g.message(claimText("atomic container signature", digest, name))
}

// claimText is what is signed (containers-signature(5); cosign, "Signature
// Specification").
func claimText(kind, digest, name string) []byte {
	return must(json.Marshal(map[string]any{
		"critical": map[string]any{
			"type": kind, "image": map[string]string{"docker-manifest-digest": digest},
			"identity": map[string]string{"docker-reference": name},
		},
		"optional": map[string]any{"creator": "a test"},
	}))
}

func newECDSA() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) }

func publicPEM(key crypto.PublicKey) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))})
}

func attach(key *ecdsa.PrivateKey, digest, name string) registry.Signature {
	payload := claimText("cosign container image signature", digest, name)
	hash := sha256.Sum256(payload)
	return registry.Signature{
		UntrustedPayload:   payload,
		UntrustedMediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
		UntrustedAnnotations: map[string]string{
			"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(must(ecdsa.SignASN1(rand.Reader, key, hash[:]))),
		},
	}
}

func digestOf(content []byte) string {
	hash := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(hash[:])
}

// shelf is a Source that holds bytes, by digest: it stands for a network.
type shelf struct {
	mutex     sync.Mutex
	asked     []string
	lookaside *url.URL // the last
	manifests map[string][]byte
	simple    map[string][]registry.SimpleSignature
	attached  map[string][]registry.Signature
	// fail and panics are for what "manifest", "simple" or "attached" and a digest say.
	fail   map[string]error
	panics map[string]bool
}

func newShelf() *shelf {
	return &shelf{
		manifests: map[string][]byte{}, simple: map[string][]registry.SimpleSignature{}, attached: map[string][]registry.Signature{},
		fail: map[string]error{}, panics: map[string]bool{},
	}
}

// put keeps a manifest.
func (s *shelf) put(manifest string) (digest string) {
	digest = digestOf([]byte(manifest))
	s.manifests[digest] = []byte(manifest)
	return digest
}

const imageManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[],"annotations":{"n":"%d"}}`

// image keeps one image, and another for each number.
func (s *shelf) image(n int) string { return s.put(fmt.Sprintf(imageManifest, n)) }

// sign adds signatures as a lookaside has them.
func (s *shelf) sign(digest string, signatures ...[]byte) {
	for _, one := range signatures {
		s.simple[digest] = append(s.simple[digest], registry.SimpleSignature{Untrusted: one})
	}
}

func (s *shelf) ask(what string, image policy.Image) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.asked = append(s.asked, what)
	if s.panics[what+" "+image.Digest] {
		panic("a panic of " + what)
	}
	return s.fail[what+" "+image.Digest]
}

func (s *shelf) Manifest(ctx context.Context, image policy.Image) ([]byte, error) {
	if err := s.ask("manifest", image); err != nil {
		return nil, err
	}
	return s.manifests[image.Digest], ctx.Err()
}

func (s *shelf) Attachments(_ context.Context, image policy.Image) iter.Seq2[registry.Signature, error] {
	return list(s.attached[image.Digest], func() error { return s.ask("attached", image) })
}

func (s *shelf) SimpleSignatures(_ context.Context, image policy.Image, lookaside *url.URL) iter.Seq2[registry.SimpleSignature, error] {
	s.mutex.Lock()
	s.lookaside = lookaside
	s.mutex.Unlock()
	return list(s.simple[image.Digest], func() error { return s.ask("simple", image) })
}

// list yields all, and then what ends says.
func list[T any](all []T, ends func() error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, one := range all {
			if !yield(one, nil) {
				return
			}
		}
		if err := ends(); err != nil {
			var none T
			yield(none, err)
		}
	}
}

// object is JSON as one writes it.
type object map[string]any

func (o object) with(name string, value any) object {
	changed := object{name: value}
	for k, v := range o {
		if k != name {
			changed[k] = v
		}
	}
	return changed
}

func written(requirements ...object) []json.RawMessage {
	var all []json.RawMessage
	for _, one := range requirements {
		all = append(all, must(json.Marshal(one)))
	}
	return all
}

func byGPG(keys []byte) object {
	return object{"type": kindSignedBy, "keyType": "GPGKeys", "keyData": keys}
}

func bySigstore(key []byte) object { return object{"type": kindSigstore, "keyData": key} }

func verifier(tb testing.TB, s Source, requirements ...object) *Verifier {
	tb.Helper()
	verification, err := Compile(Options{Source: s, Attached: true}, written(requirements...), noFiles)
	if err != nil {
		tb.Fatal(err)
	}
	return verification.Verifier.(*Verifier)
}

func noFiles(path string) ([]byte, error) {
	return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
}

// imageOf is an image as it is judged: its tag, if it has one, counts.
func imageOf(name, digest string) policy.Image {
	return policy.Image{Reference: must(reference.Parse(name)), Digest: digest}
}

func byTag(digest string) policy.Image { return imageOf("example.com/acme/app:v1", digest) }

func byDigest(digest string) policy.Image { return imageOf("example.com/acme/app@"+digest, digest) }

// bomb is an OpenPGP message that inflates to a size.
func bomb(size int) []byte {
	var b bytes.Buffer
	compressed := must(packet.SerializeCompressed(nopCloser{&b}, packet.CompressionZLIB, nil))
	literal := must(packet.SerializeLiteral(compressed, true, "", 0))
	chunk := make([]byte, 1<<16)
	for ; size > 0; size -= len(chunk) {
		must(literal.Write(chunk))
	}
	must(0, literal.Close())
	must(0, compressed.Close())
	return b.Bytes()
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
