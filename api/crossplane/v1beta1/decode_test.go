// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package v1beta1_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/api/crossplane/v1beta1"
)

// whole is an object with everything in it; the tests break one thing.
const whole = `{
  "apiVersion": "pkg.crossplane.io/v1beta1",
  "kind": "ImageConfig",
  "metadata": {"name": "acme", "generation": 3, "new": true},
  "spec": {
    "matchImages": [{"prefix": "registry1.com/acme-co/"}, {"type": "Prefix", "prefix": "registry2.com/"}],
    "registry": {"authentication": {"pullSecretRef": {"name": "acme-pull"}}},
    "verification": {
      "provider": "Cosign",
      "cosign": {"authorities": [{
        "name": "release",
        "key": {"secretRef": {"name": "keys", "key": "cosign.pub"}, "hashAlgorithm": " SHA512 "},
        "keyless": {"identities": [{"issuer": "i", "subjectRegExp": "s"}], "insecureIgnoreSCT": true},
        "attestations": [{"name": "sbom", "predicateType": "spdxjson"}]
      }]}
    },
    "rewriteImage": {"prefix": "mirror.corp/acme/"},
    "runtime": {"configRef": {"apiVersion": "pkg.crossplane.io/v1beta1", "kind": "DeploymentRuntimeConfig", "name": "r"}, "more": [1]}
  },
  "status": {"conditions": [{"type": "Ready"}]}
}`

func TestDecode(t *testing.T) {
	t.Parallel()
	got, err := v1beta1.Decode([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	got.Spec.Runtime = nil
	want := &v1beta1.ImageConfig{
		TypeMeta:   metav1.TypeMeta{APIVersion: "pkg.crossplane.io/v1beta1", Kind: "ImageConfig"},
		ObjectMeta: metav1.ObjectMeta{Name: "acme", Generation: 3},
		Spec: v1beta1.ImageConfigSpec{
			MatchImages: []v1beta1.ImageMatch{{Type: "Prefix", Prefix: "registry1.com/acme-co/"}, {Type: "Prefix", Prefix: "registry2.com/"}},
			Registry: &v1beta1.Registry{Authentication: &v1beta1.Authentication{
				PullSecretRef: v1beta1.LocalObjectReference{Name: "acme-pull"},
			}},
			Verification: &v1beta1.Verification{
				Provider: "Cosign",
				Cosign: &v1beta1.Cosign{Authorities: []v1beta1.Authority{{
					Name: "release",
					Key:  &v1beta1.Key{SecretRef: v1beta1.SecretKeyReference{Name: "keys", Key: "cosign.pub"}, HashAlgorithm: " SHA512 "},
					Keyless: &v1beta1.Keyless{
						Identities: []v1beta1.Identity{{Issuer: "i", SubjectRegExp: "s"}}, InsecureIgnoreSCT: true,
					},
					Attestations: []v1beta1.Attestation{{Name: "sbom", PredicateType: "spdxjson"}},
				}}},
			},
			RewriteImage: &v1beta1.RewriteImage{Prefix: "mirror.corp/acme/"},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What is written and cannot be read is never passed over.
func TestDecodeStrictly(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		was, is string
		want    string // part of the error
		object  bool   // is returned beside it
	}{
		"unknown section":      {`"rewriteImage": {`, `"restrict": {}, "rewriteImage": {`, `unknown field "spec.restrict"`, true},
		"another case":         {`"verification": {`, `"Verification": {`, `unknown field "spec.Verification"`, true},
		"deep inside":          {`"issuer": "i"`, `"issuer": "i", "issuerRegexp": "x"`, `unknown field "spec.verification.cosign.authorities[0].keyless.identities[0].issuerRegexp"`, true},
		"registry.tls":         {`"registry": {`, `"registry": {"tls": {}, `, `unknown field "spec.registry.tls"`, true},
		"twice":                {`"provider": "Cosign"`, `"provider": "Cosign", "provider": "Cosign"`, `duplicate field "spec.verification.provider"`, true},
		"null":                 {`"identities": [{"issuer": "i", "subjectRegExp": "s"}]`, `"identities": null`, `identities: null`, true},
		"wrong type":           {`"rewriteImage": {"prefix": "mirror.corp/acme/"}`, `"rewriteImage": "mirror.corp/acme/"`, `spec.rewriteImage`, true},
		"no spec":              {`"spec": {`, `"status": {}, "spec2": {`, `spec: Required value`, true},
		"spec in another case": {`"spec": {`, `"Spec": {`, `unknown field "Spec"`, true},
		"another version":      {`crossplane.io/v1beta1",`, `crossplane.io/v1beta2",`, `expected "pkg.crossplane.io/v1beta1"`, false},
		"another kind":         {`"kind": "ImageConfig"`, `"kind": "Provider"`, `expected`, false},
		"no JSON":              {`{`, `(`, `decoding ImageConfig`, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broken := strings.Replace(whole, test.was, test.is, 1)
			if broken == whole {
				t.Fatal("nothing is broken")
			}
			got, err := v1beta1.Decode([]byte(broken))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			if (got != nil) != test.object {
				t.Errorf("object %v", got)
			}
		})
	}
}
