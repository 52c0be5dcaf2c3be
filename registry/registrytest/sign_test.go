// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registrytest_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	ociremote "github.com/sigstore/cosign/v2/pkg/oci/remote"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	signatureoptions "github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/pratique-dev/pratique/registry/registrytest"
)

// modes are the two ways clients find referrers.
func modes(t *testing.T, run func(t *testing.T, opts ...registrytest.Option)) {
	t.Helper()
	t.Run("referrers API", func(t *testing.T) { run(t) })
	t.Run("referrers tag", func(t *testing.T) { run(t, registrytest.WithoutReferrers()) })
}

func verifier(t *testing.T, key *registrytest.Key, hash crypto.Hash) signature.Verifier {
	t.Helper()
	v, err := signature.LoadVerifier(key.Public(), hash)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// count is how many signatures were found, and how many of them hold.
type count struct{ Found, Good int }

// legacy judges the image's ".sig" over the network with cosign.
func legacy(t *testing.T, image registrytest.Image, v signature.Verifier, annotations map[string]any) count {
	t.Helper()
	digest, err := name.NewDigest(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	hash, err := v1.NewHash(image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	signatures, err := ociremote.Signatures(digest.Tag(image.SignatureTag()))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := signatures.Get()
	if err != nil {
		t.Fatal(err)
	}
	opts := &cosign.CheckOpts{
		SigVerifier: v, IgnoreTlog: true, ClaimVerifier: cosign.SimpleClaimVerifier, Annotations: annotations,
	}
	got := count{Found: len(layers)}
	for _, layer := range layers {
		if _, err := cosign.VerifyImageSignature(t.Context(), layer, hash, opts); err == nil {
			got.Good++
		}
	}
	return got
}

// referrerBundles returns the raw bundles that a client finds by the image's referrers.
func referrerBundles(t *testing.T, image registrytest.Image) [][]byte {
	t.Helper()
	digest, err := name.NewDigest(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(digest)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	found := make([][]byte, 0, len(manifest.Manifests))
	for _, descriptor := range manifest.Manifests {
		artifact, err := remote.Image(digest.Digest(descriptor.Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		layers, err := artifact.Layers()
		if err != nil {
			t.Fatal(err)
		}
		content, err := layers[0].Compressed()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(content)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, raw)
	}
	return found
}

// statements verifies the image's bundles over the network with sigstore-go and returns how many there are and
// the predicateTypes of those that hold.
func statements(t *testing.T, image registrytest.Image, v signature.Verifier) (int, []string) {
	t.Helper()
	key := root.NewExpiringKey(v, time.Time{}, time.Time{})
	trusted := root.NewTrustedPublicKeyMaterial(func(string) (root.TimeConstrainedVerifier, error) { return key, nil })
	sev, err := verify.NewVerifier(trusted, verify.WithNoObserverTimestamps())
	if err != nil {
		t.Fatal(err)
	}
	digest, err := hex.DecodeString(strings.TrimPrefix(image.Digest, "sha256:"))
	if err != nil {
		t.Fatal(err)
	}
	raws := referrerBundles(t, image)
	var types []string
	for _, raw := range raws {
		b := &bundle.Bundle{}
		if err := b.UnmarshalJSON(raw); err != nil {
			continue
		}
		policy := verify.NewPolicy(verify.WithArtifactDigest("sha256", digest), verify.WithKey())
		if result, err := sev.Verify(b, policy); err == nil {
			types = append(types, result.Statement.GetPredicateType())
		}
	}
	return len(raws), types
}

// bundles is statements, counting only signatures as good.
func bundles(t *testing.T, image registrytest.Image, v signature.Verifier) count {
	t.Helper()
	found, types := statements(t, image, v)
	got := count{Found: found}
	for _, predicateType := range types {
		if predicateType == registrytest.SignPredicateType {
			got.Good++
		}
	}
	return got
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: (-want +got)\n%s", what, diff)
	}
}

func TestEveryKeySigns(t *testing.T) {
	r := registrytest.New(t)
	tests := map[string]struct {
		kind registrytest.Kind
		hash crypto.Hash
	}{
		"P-256":             {registrytest.ECDSAP256, crypto.SHA256},
		"P-256 with SHA384": {registrytest.ECDSAP256, crypto.SHA384},
		"P-384":             {registrytest.ECDSAP384, crypto.SHA256},
		"P-384 with SHA384": {registrytest.ECDSAP384, crypto.SHA384},
		"P-521 with SHA512": {registrytest.ECDSAP521, crypto.SHA512},
		"RSA 2048":          {registrytest.RSA2048, crypto.SHA256},
		"RSA with SHA512":   {registrytest.RSA2048, crypto.SHA512},
		"RSA 4096":          {registrytest.RSA4096, crypto.SHA256},
		"Ed25519":           {registrytest.Ed25519, crypto.SHA256},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			key, stranger := registrytest.NewKey(t, test.kind), registrytest.NewKey(t, test.kind)
			image := r.PushImage(t, "acme/keys:v1")
			signing := key.WithHash(test.hash)
			r.SignLegacy(t, image, signing, "env=prod")
			r.SignBundle(t, image, signing, "env=prod")

			good, other := verifier(t, key, test.hash), verifier(t, stranger, test.hash)
			equal(t, "legacy", legacy(t, image, good, map[string]any{"env": "prod"}), count{1, 1})
			equal(t, "legacy, other annotation", legacy(t, image, good, map[string]any{"env": "dev"}), count{1, 0})
			equal(t, "legacy, other key", legacy(t, image, other, nil), count{1, 0})
			equal(t, "bundle", bundles(t, image, good), count{1, 1})
			equal(t, "bundle, other key", bundles(t, image, other), count{1, 0})
			if test.kind != registrytest.Ed25519 && test.hash != crypto.SHA256 {
				wrong := verifier(t, key, crypto.SHA256)
				equal(t, "legacy, other hash", legacy(t, image, wrong, nil), count{1, 0})
				equal(t, "bundle, other hash", bundles(t, image, wrong), count{1, 0})
			}
		})
	}
}

func TestAsCosignChoosesTheAlgorithm(t *testing.T) {
	r := registrytest.New(t)
	for _, kind := range []registrytest.Kind{
		registrytest.ECDSAP256, registrytest.ECDSAP384, registrytest.ECDSAP521, registrytest.Ed25519,
	} {
		t.Run(string(kind), func(t *testing.T) {
			key := registrytest.NewKey(t, kind)
			image := r.PushImage(t, "acme/cosign:v1")
			r.SignLegacy(t, image, key.AsCosign())
			r.SignBundle(t, image, key.AsCosign())
			v, err := signature.LoadDefaultVerifier(key.Public(), signatureoptions.WithED25519ph())
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "legacy", legacy(t, image, v, nil), count{1, 1})
			equal(t, "bundle", bundles(t, image, v), count{1, 1})
			want := count{1, 0} // but for P-256 it is another algorithm than the package's default
			if kind == registrytest.ECDSAP256 {
				want.Good = 1
			}
			equal(t, "legacy by SHA-256 or pure", legacy(t, image, verifier(t, key, crypto.SHA256), nil), want)
		})
	}
}

func TestSignaturesAddUp(t *testing.T) {
	modes(t, func(t *testing.T, opts ...registrytest.Option) {
		r := registrytest.New(t, opts...)
		index := r.PushIndex(t, "acme/index:v1")
		a, b := registrytest.NewKey(t, registrytest.ECDSAP256), registrytest.NewKey(t, registrytest.ECDSAP256)
		for _, key := range []*registrytest.Key{a, b, a} {
			r.SignLegacy(t, index.Image, key)
			r.SignBundle(t, index.Image, key)
		}
		equal(t, "legacy", legacy(t, index.Image, verifier(t, a, crypto.SHA256), nil), count{3, 2})
		equal(t, "bundles", bundles(t, index.Image, verifier(t, a, crypto.SHA256)), count{3, 2})
		equal(t, "bundles of a platform", bundles(t, index.Manifests[0], verifier(t, a, crypto.SHA256)), count{})
	})
}

// The shape is what cosign 3.1 writes; a change here must be checked against it.
func TestBundleShape(t *testing.T) {
	modes(t, func(t *testing.T, opts ...registrytest.Option) {
		r := registrytest.New(t, opts...)
		key := registrytest.NewKey(t, registrytest.ECDSAP256)
		image := r.PushImage(t, "acme/shape:v1")
		r.SignBundle(t, image, key, "env=prod")

		var raw struct {
			MediaType            string
			VerificationMaterial json.RawMessage
			DSSEEnvelope         struct {
				Payload     []byte
				PayloadType string
				Signatures  []struct{ Sig []byte }
			}
		}
		found := referrerBundles(t, image)
		if len(found) != 1 {
			t.Fatalf("got %d referrers, want 1", len(found))
		}
		if err := json.Unmarshal(found[0], &raw); err != nil {
			t.Fatal(err)
		}
		equal(t, "media type", raw.MediaType, "application/vnd.dev.sigstore.bundle.v0.3+json")
		equal(t, "payload type", raw.DSSEEnvelope.PayloadType, "application/vnd.in-toto+json")
		equal(t, "signatures", len(raw.DSSEEnvelope.Signatures), 1)
		var material, statement any
		for from, into := range map[*any][]byte{&material: raw.VerificationMaterial, &statement: raw.DSSEEnvelope.Payload} {
			if err := json.Unmarshal(into, from); err != nil {
				t.Fatal(err)
			}
		}
		equal(t, "material", material, any(map[string]any{"publicKey": map[string]any{"hint": key.Hint()}}))
		equal(t, "statement", statement, any(map[string]any{
			"_type":         "https://in-toto.io/Statement/v1",
			"predicateType": "https://sigstore.dev/cosign/sign/v1",
			"predicate":     map[string]any{},
			"subject": []any{map[string]any{
				"digest":      map[string]any{"sha256": strings.TrimPrefix(image.Digest, "sha256:")},
				"annotations": map[string]any{"env": "prod"},
			}},
		}))
		artifactManifest(t, image)

		digest, err := name.NewDigest(image.ByDigest())
		if err != nil {
			t.Fatal(err)
		}
		byCosign, _, err := cosign.GetBundles(t.Context(), digest, &cosign.CheckOpts{})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "bundles that cosign finds", len(byCosign), 1)
	})
}

// artifactManifest checks the manifest that carries the image's only bundle.
func artifactManifest(t *testing.T, image registrytest.Image) {
	t.Helper()
	digest, err := name.NewDigest(image.ByDigest())
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Referrers(digest)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	descriptor, err := remote.Get(digest.Digest(list.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		ArtifactType string
		Config       struct{ MediaType string }
		Layers       []struct{ MediaType string }
		Subject      struct{ Digest string }
		Annotations  map[string]string
	}
	if err := json.Unmarshal(descriptor.Manifest, &manifest); err != nil {
		t.Fatal(err)
	}
	const bundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	equal(t, "artifactType", manifest.ArtifactType, bundleType)
	equal(t, "layers", manifest.Layers, []struct{ MediaType string }{{bundleType}})
	equal(t, "config", manifest.Config.MediaType, "application/vnd.oci.empty.v1+json")
	equal(t, "subject", manifest.Subject.Digest, image.Digest)
	equal(t, "content", manifest.Annotations["dev.sigstore.bundle.content"], "dsse-envelope")
	equal(t, "predicateType", manifest.Annotations["dev.sigstore.bundle.predicateType"], registrytest.SignPredicateType)
}

func TestAttestationIsNoSignature(t *testing.T) {
	modes(t, func(t *testing.T, opts ...registrytest.Option) {
		r := registrytest.New(t, opts...)
		key := registrytest.NewKey(t, registrytest.ECDSAP256)
		image := r.PushImage(t, "acme/attested:v1")
		r.AttestBundle(t, image, key, registrytest.Attestation{
			PredicateType: "https://spdx.dev/Document", Predicate: map[string]any{"spdxVersion": "SPDX-2.3"},
			Annotated: registrytest.SignPredicateType,
		})
		found, types := statements(t, image, verifier(t, key, crypto.SHA256))
		equal(t, "found", found, 1)
		equal(t, "verified statements", types, []string{"https://spdx.dev/Document"})
		equal(t, "signatures", bundles(t, image, verifier(t, key, crypto.SHA256)), count{1, 0})
		artifactManifest(t, image) // its annotation lies
	})
}

func TestSpoilers(t *testing.T) {
	tests := map[string]struct {
		spoil   func(t *testing.T, r *registrytest.Registry, image, signed registrytest.Image, key *registrytest.Key)
		legacy  count
		bundles count
	}{
		"untouched": {
			func(*testing.T, *registrytest.Registry, registrytest.Image, registrytest.Image, *registrytest.Key) {},
			count{1, 1}, count{1, 1},
		},
		"tampered": {
			func(t *testing.T, r *registrytest.Registry, image, _ registrytest.Image, _ *registrytest.Key) {
				r.TamperLegacy(t, image)
				r.TamperBundles(t, image)
			}, count{1, 0}, count{1, 0},
		},
		"of another image": {
			func(t *testing.T, r *registrytest.Registry, image, signed registrytest.Image, _ *registrytest.Key) {
				r.CopyLegacy(t, signed, image)
				r.TamperBundles(t, image)
				r.CopyBundles(t, signed, image)
			}, count{1, 0}, count{2, 0},
		},
		"garbage beside": {
			func(t *testing.T, r *registrytest.Registry, image, _ registrytest.Image, _ *registrytest.Key) {
				r.GarbageLegacy(t, image)
				r.BrokenBundle(t, image)
			}, count{3, 1}, count{2, 1},
		},
		"flooded": {
			func(t *testing.T, r *registrytest.Registry, image, _ registrytest.Image, _ *registrytest.Key) {
				r.FloodLegacy(t, image, 70)
				r.FloodBundles(t, image, 5)
			}, count{71, 1}, count{6, 1},
		},
		"empty": {
			func(t *testing.T, r *registrytest.Registry, image, _ registrytest.Image, _ *registrytest.Key) {
				r.EmptyLegacy(t, image)
			}, count{0, 0}, count{1, 1},
		},
		"oversized": {
			func(t *testing.T, r *registrytest.Registry, image, _ registrytest.Image, key *registrytest.Key) {
				r.EmptyLegacy(t, image)
				r.OversizedLegacy(t, image, key, 2<<20)
				r.OversizedBundle(t, image, key, 2<<20)
			}, count{1, 1}, count{2, 2},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, opts ...registrytest.Option) {
				r := registrytest.New(t, opts...)
				key := registrytest.NewKey(t, registrytest.ECDSAP256)
				image, signed := r.PushImage(t, "acme/app:v1"), r.PushImage(t, "acme/other:v1")
				for _, i := range []registrytest.Image{image, signed} {
					r.SignLegacy(t, i, key)
					r.SignBundle(t, i, key)
				}
				test.spoil(t, r, image, signed, key)
				equal(t, "legacy", legacy(t, image, verifier(t, key, crypto.SHA256), nil), test.legacy)
				equal(t, "bundles", bundles(t, image, verifier(t, key, crypto.SHA256)), test.bundles)
			})
		})
	}
}

// What is wrong with spoilt content must be just what the spoiler says.
func TestSpoilersSpoilOneThing(t *testing.T) {
	r := registrytest.New(t)
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	t.Run("oversized", func(t *testing.T) {
		image := r.PushImage(t, "acme/big:v1")
		r.OversizedBundle(t, image, key, 1<<20)
		if raw := referrerBundles(t, image)[0]; len(raw) <= 1<<20 {
			t.Errorf("bundle of %d bytes, want more than %d", len(raw), 1<<20)
		}
	})
	t.Run("broken", func(t *testing.T) {
		image := r.PushImage(t, "acme/broken:v1")
		r.BrokenBundle(t, image)
		raw := string(referrerBundles(t, image)[0])
		equal(t, "begins as a bundle", strings.HasPrefix(raw, `{"mediaType":`), true)
		equal(t, "is JSON", json.Valid([]byte(raw)), false)
	})
	t.Run("tampered", func(t *testing.T) {
		image := r.PushImage(t, "acme/tampered:v1")
		r.SignBundle(t, image, key)
		r.TamperBundles(t, image)
		b := &bundle.Bundle{}
		if err := b.UnmarshalJSON(referrerBundles(t, image)[0]); err != nil {
			t.Fatal(err)
		}
		var statement struct {
			PredicateType string
			Predicate     map[string]string
			Subject       []struct{ Digest map[string]string }
		}
		if err := json.Unmarshal(b.GetDsseEnvelope().GetPayload(), &statement); err != nil {
			t.Fatal(err)
		}
		equal(t, "predicateType", statement.PredicateType, registrytest.SignPredicateType)
		equal(t, "predicate", statement.Predicate, map[string]string{"tampered": "yes"})
		equal(t, "subject", "sha256:"+statement.Subject[0].Digest["sha256"], image.Digest)
	})
}

func TestKeyIsWrittenOut(t *testing.T) {
	for _, kind := range []registrytest.Kind{registrytest.ECDSAP256, registrytest.RSA2048, registrytest.Ed25519} {
		t.Run(string(kind), func(t *testing.T) {
			key := registrytest.NewKey(t, kind)
			public, _ := pem.Decode([]byte(key.PublicPEM()))
			private, _ := pem.Decode([]byte(key.PrivatePEM()))
			if public == nil || private == nil {
				t.Fatal("not PEM")
			}
			parsed, err := x509.ParsePKCS8PrivateKey(private.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			der, err := x509.MarshalPKIXPublicKey(parsed.(crypto.Signer).Public())
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "public half", der, public.Bytes)
			sum := sha256.Sum256(der)
			equal(t, "hint", key.Hint(), base64.StdEncoding.EncodeToString(sum[:]))
		})
	}
}
