// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package signer_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/dsse"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/pratique-dev/pratique/e2e/registry"
	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
	"github.com/pratique-dev/pratique/e2e/signer/cosign3"
)

// TestMain makes every call that leaves loopback fail, so that these tests also
// prove that signing makes none. Proxies are read once, hence not in a test.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		if err := os.Setenv(name, "http://127.0.0.1:1"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func TestCosign2(t *testing.T) {
	// The comma is what the parser of cosign's flag would split at.
	annotations := map[string]string{"env": "prod,eu", "team": "shop"}
	image, hash := push(t, startMemory(t))
	key := newKey(t, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
	// Signed by digest and by tag, with two keys: one manifest, two layers.
	if err := cosign2.Sign(t.Context(), key, image.Context().Digest(hash.String()).String(), annotations); err != nil {
		t.Fatal(err)
	}
	other := newKey(t, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
	if err := cosign2.Sign(t.Context(), other, image.String(), nil); err != nil {
		t.Fatal(err)
	}
	if err := cosign2.Sign(t.Context(), key, image.String(), map[string]string{"k": "a=b"}); err == nil {
		t.Error("cosign 2 takes an annotation with = in its value; signer.Func says that it does not")
	}

	signatures, err := remote.Image(image.Context().Tag(hash.Algorithm + "-" + hash.Hex + ".sig"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := signatures.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Layers) != 2 {
		t.Fatalf("%d signatures, want 2", len(manifest.Layers))
	}
	for i, want := range []struct {
		key         signer.Key
		annotations map[string]string
	}{{key, annotations}, {other, nil}} {
		layer := manifest.Layers[i]
		if got := string(layer.MediaType); got != "application/vnd.dev.cosign.simplesigning.v1+json" {
			t.Errorf("media type %s", got)
		}
		payload := content(t, signatures, i)
		sig, err := base64.StdEncoding.DecodeString(layer.Annotations["dev.cosignproject.cosign/signature"])
		if err != nil {
			t.Fatal(err)
		}
		if err := verifier(t, want.key).VerifySignature(bytes.NewReader(sig), bytes.NewReader(payload)); err != nil {
			t.Errorf("signature %d: %v", i, err)
		}
		for name := range layer.Annotations {
			if name != "dev.cosignproject.cosign/signature" {
				t.Errorf("signature %d has %s: it was to have no certificate and no log entry", i, name)
			}
		}
		var signed struct {
			Critical struct {
				Image struct {
					Digest string `json:"docker-manifest-digest"`
				}
			}
			Optional map[string]string
		}
		if err := json.Unmarshal(payload, &signed); err != nil {
			t.Fatal(err)
		}
		if signed.Critical.Image.Digest != hash.String() {
			t.Errorf("signature %d is of %s, want %s", i, signed.Critical.Image.Digest, hash)
		}
		if diff := cmp.Diff(want.annotations, signed.Optional, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("annotations of signature %d (-want +got):\n%s", i, diff)
		}
	}
}

func TestCosign3(t *testing.T) {
	for name, start := range map[string]func(*testing.T) string{"referrers API": startMemory, "referrers tag": startDistribution} {
		t.Run(name, func(t *testing.T) {
			image, hash := push(t, start(t))
			key := newKey(t, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
			annotations := map[string]string{"env": "prod,eu=1", "team": "shop"}
			if err := cosign3.Sign(t.Context(), key, image.Context().Digest(hash.String()).String(), annotations); err != nil {
				t.Fatal(err)
			}
			other := newKey(t, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
			if err := cosign3.Sign(t.Context(), other, image.String(), nil); err != nil {
				t.Fatal(err)
			}

			// The registries list them in no order: each key finds its own.
			all := bundles(t, image.Context().Digest(hash.String()))
			if len(all) != 2 {
				t.Fatalf("%d bundles, want 2", len(all))
			}
			for _, want := range []struct {
				key         signer.Key
				annotations map[string]string
			}{{key, annotations}, {other, nil}} {
				var verified []statement
				for _, b := range all {
					if s, err := b.verify(verifier(t, want.key)); err == nil {
						verified = append(verified, s)
					}
				}
				if len(verified) != 1 {
					t.Fatalf("%d bundles verify with one key, want 1", len(verified))
				}
				s := verified[0]
				if s.PredicateType != "https://sigstore.dev/cosign/sign/v1" {
					t.Errorf("predicateType %s is not that of a signature", s.PredicateType)
				}
				if len(s.Subject) != 1 || s.Subject[0].Digest["sha256"] != hash.Hex {
					t.Fatalf("subject %v, want %s", s.Subject, hash)
				}
				if diff := cmp.Diff(want.annotations, s.Subject[0].Annotations, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("annotations (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// Every kind of key that an ImageConfig may name signs in both forms.
func TestKeys(t *testing.T) {
	host := startMemory(t)
	for _, algorithm := range []protocommon.PublicKeyDetails{
		protocommon.PublicKeyDetails_PKIX_ECDSA_P384_SHA_384,
		protocommon.PublicKeyDetails_PKIX_ECDSA_P521_SHA_512,
		protocommon.PublicKeyDetails_PKIX_RSA_PKCS1V15_2048_SHA256,
		protocommon.PublicKeyDetails_PKIX_ED25519_PH,
	} {
		t.Run(algorithm.String(), func(t *testing.T) {
			key := newKey(t, algorithm)
			image, hash := push(t, host)
			for name, sign := range map[string]signer.Func{"cosign 2": cosign2.Sign, "cosign 3": cosign3.Sign} {
				if err := sign(t.Context(), key, image.Context().Digest(hash.String()).String(), nil); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			legacy, err := remote.Image(image.Context().Tag(hash.Algorithm + "-" + hash.Hex + ".sig"))
			if err != nil {
				t.Fatal(err)
			}
			manifest, err := legacy.Manifest()
			if err != nil {
				t.Fatal(err)
			}
			sig, err := base64.StdEncoding.DecodeString(manifest.Layers[0].Annotations["dev.cosignproject.cosign/signature"])
			if err != nil {
				t.Fatal(err)
			}
			if err := verifier(t, key).VerifySignature(bytes.NewReader(sig), bytes.NewReader(content(t, legacy, 0))); err != nil {
				t.Errorf("cosign 2: %v", err)
			}
			all := bundles(t, image.Context().Digest(hash.String()))
			if len(all) != 1 {
				t.Fatalf("%d bundles, want 1", len(all))
			}
			if _, err := all[0].verify(verifier(t, key)); err != nil {
				t.Errorf("cosign 3: %v", err)
			}
		})
	}
}

func TestSignFails(t *testing.T) {
	image, hash := push(t, startMemory(t))
	key := newKey(t, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
	type call struct {
		ctx         context.Context
		key         signer.Key
		image       string
		annotations map[string]string
	}
	for name, sign := range map[string]signer.Func{"cosign 2": cosign2.Sign, "cosign 3": cosign3.Sign} {
		for _, test := range []struct {
			name  string
			spoil func(*call)
			want  string
		}{
			{"wrong password", func(c *call) { c.key.Password = "guess" }, "decrypt"},
			{"no key", func(c *call) { c.key.PrivateFile += ".not" }, "no such file"},
			{"no image", func(c *call) { c.image = image.String() + ".not" }, "MANIFEST_UNKNOWN"},
			{"bad reference", func(c *call) { c.image = "UPPER CASE" }, `signing image "UPPER CASE"`},
			{"canceled", func(c *call) {
				var cancel context.CancelFunc
				c.ctx, cancel = context.WithCancel(c.ctx)
				cancel()
			}, "context canceled"},
			{"too late", func(c *call) {
				var cancel context.CancelFunc
				c.ctx, cancel = context.WithTimeout(c.ctx, -time.Second)
				t.Cleanup(cancel)
			}, "context deadline exceeded"},
		} {
			t.Run(name+"/"+test.name, func(t *testing.T) {
				c := call{t.Context(), key, image.Context().Digest(hash.String()).String(), nil}
				test.spoil(&c)
				err := sign(c.ctx, c.key, c.image, c.annotations)
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%v, want %q in it", err, test.want)
				}
			})
		}
	}
}

// A registry that does not answer holds up neither version past the deadline.
func TestSignEndsAtTheDeadline(t *testing.T) {
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		<-r.Context().Done()
	}))
	defer silent.Close()
	defer silent.CloseClientConnections()
	image := strings.TrimPrefix(silent.URL, "http://") + "/acme/app@sha256:" + strings.Repeat("0", 64)
	key := newKey(t, protocommon.PublicKeyDetails_PKIX_ECDSA_P256_SHA_256)
	for name, sign := range map[string]signer.Func{"cosign 2": cosign2.Sign, "cosign 3": cosign3.Sign} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			begin := time.Now()
			if err := sign(ctx, key, image, nil); err == nil {
				t.Error("signed what is not there")
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

func TestGenerateKeyPair(t *testing.T) {
	dir := t.TempDir() + "/new/folder"
	key, err := signer.GenerateKeyPair(dir, "secret")
	if err != nil {
		t.Fatal(err)
	}
	public, err := os.ReadFile(key.PublicFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(public) != key.PublicPEM || !strings.HasPrefix(key.PublicPEM, "-----BEGIN PUBLIC KEY-----\n") {
		t.Errorf("public key %q in the file, %q in the Key", public, key.PublicPEM)
	}
	if info, err := os.Stat(key.PrivateFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v, %v; want mode 0600", info, err)
	}
	if _, err := signer.GenerateKeyPairWith(dir, "", protocommon.PublicKeyDetails_PUBLIC_KEY_DETAILS_UNSPECIFIED); err == nil {
		t.Error("made a key of no algorithm")
	}
}

func newKey(t *testing.T, algorithm protocommon.PublicKeyDetails) signer.Key {
	t.Helper()
	key, err := signer.GenerateKeyPairWith(t.TempDir(), "secret", algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func verifier(t *testing.T, key signer.Key) signature.Verifier {
	t.Helper()
	public, err := cryptoutils.UnmarshalPEMToPublicKey([]byte(key.PublicPEM))
	if err != nil {
		t.Fatal(err)
	}
	v, err := signature.LoadDefaultVerifier(public, options.WithED25519ph()) // see GenerateKeyPairWith
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func startMemory(t *testing.T) string {
	t.Helper()
	return started(t)(registry.Memory(registry.Options{}))
}

func startDistribution(t *testing.T) string {
	t.Helper()
	return started(t)(registry.Distribution(registry.Options{Dir: t.TempDir()}))
}

func started(t *testing.T) func(*registry.Registry, error) string {
	return func(r *registry.Registry, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Stop(); err != nil {
				t.Error(err)
			}
		})
		return r.Host
	}
}

// push puts a new image into the registry.
func push(t *testing.T, host string) (name.Tag, v1.Hash) {
	t.Helper()
	tag, err := name.NewTag(host + "/acme/app:v1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, image); err != nil {
		t.Fatal(err)
	}
	hash, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return tag, hash
}

// A bundle is the part of a Sigstore bundle that these tests look at.
type bundle struct {
	MediaType            string
	VerificationMaterial map[string]json.RawMessage
	Envelope             json.RawMessage `json:"dsseEnvelope"`
}

type statement struct {
	PredicateType string
	Subject       []struct {
		Digest      map[string]string
		Annotations map[string]string
	}
}

func (b bundle) verify(v signature.Verifier) (statement, error) {
	if err := dsse.WrapVerifier(v).VerifySignature(bytes.NewReader(b.Envelope), nil); err != nil {
		return statement{}, err
	}
	var envelope struct{ Payload []byte }
	if err := json.Unmarshal(b.Envelope, &envelope); err != nil {
		return statement{}, err
	}
	var s statement
	return s, json.Unmarshal(envelope.Payload, &s)
}

// bundles returns those that refer to the image.
func bundles(t *testing.T, image name.Digest) []bundle {
	t.Helper()
	index, err := remote.Referrers(image)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var all []bundle
	for _, descriptor := range manifest.Manifests {
		artefact, err := remote.Image(image.Context().Digest(descriptor.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		var b bundle
		if err := json.Unmarshal(content(t, artefact, 0), &b); err != nil {
			t.Fatal(err)
		}
		if b.MediaType != "application/vnd.dev.sigstore.bundle.v0.3+json" {
			t.Errorf("media type %s", b.MediaType)
		}
		if material := fmt.Sprint(len(b.VerificationMaterial), b.VerificationMaterial["publicKey"] != nil); material != "1 true" {
			t.Errorf("verification material %v, want a public key alone", b.VerificationMaterial)
		}
		all = append(all, b)
	}
	return all
}

// content returns what the image's layer number i holds.
func content(t *testing.T, image v1.Image, i int) []byte {
	t.Helper()
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[i].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
