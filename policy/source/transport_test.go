// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// withTLS is the good config with a TLS Secret.
func withTLS(t *testing.T, name string) object {
	t.Helper()
	return newObject(t).set(t, "spec.registry.tls", map[string]any{"certSecretRef": map[string]any{"name": name}})
}

// tlsData is the contents of a TLS Secret in which all is well.
func tlsData(authority *registrytest.Authority) map[string][]byte {
	pair := authority.Client("pratique")
	return map[string][]byte{"ca.crt": authority.PEM(), "tls.crt": pair.Certificate, "tls.key": pair.Key}
}

// compileTLS compiles with a Secret of such contents.
func compileTLS(t *testing.T, o object, kind corev1.SecretType, data map[string][]byte) source.Compiled {
	t.Helper()
	secrets := ownSecrets(t)
	secrets["acme-tls"] = &corev1.Secret{Type: kind, Data: data}
	return compile(t, o, secrets)
}

func TestCompileTransport(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	data := tlsData(authority)
	for name, c := range map[string]struct {
		kind        corev1.SecretType
		keys        string // in the Secret, and whose contents they have
		authorities bool
		certificate bool
	}{
		"all":                          {corev1.SecretTypeOpaque, "ca.crt tls.crt tls.key", true, true},
		"of the type for it":           {corev1.SecretTypeTLS, "tls.crt tls.key", false, true},
		"an authority alone":           {corev1.SecretTypeOpaque, "ca.crt", true, false},
		"Flux's names":                 {corev1.SecretTypeOpaque, "caFile=ca.crt certFile=tls.crt keyFile=tls.key", true, true},
		"some of Flux's":               {corev1.SecretTypeOpaque, "caFile=ca.crt tls.crt keyFile=tls.key", true, true},
		"others beside the standard's": {corev1.SecretTypeOpaque, "ca.crt caFile=tls.key tls.crt certFile=ca.crt tls.key keyFile=ca.crt", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secret := map[string][]byte{"unrelated": []byte("x")}
			for field := range strings.FieldsSeq(c.keys) {
				key, of, ok := strings.Cut(field, "=")
				if !ok {
					of = key
				}
				secret[key] = data[of]
			}
			compiled := compileTLS(t, withTLS(t, "acme-tls"), c.kind, secret)
			got := compiled.Rule.Transport
			if !compiled.Ready || got == nil || got.Unusable != "" || got.PlainHTTP || got.Hash == [32]byte{} {
				t.Fatalf("ready %t, %q, transport %+v", compiled.Ready, compiled.Message, got)
			}
			if (got.Authorities != nil) != c.authorities || c.authorities && !bytes.Equal(got.Authorities, data["ca.crt"]) {
				t.Errorf("authorities %q", got.Authorities)
			}
			if (got.Certificate != nil) != c.certificate || c.certificate && got.Certificate.Leaf.Subject.CommonName != "pratique" {
				t.Errorf("certificate %+v", got.Certificate)
			}
			if compiled.Rule.Verification.Verifier == nil {
				t.Error("it verifies nothing")
			}
		})
	}
	plain := compile(t, newObject(t).set(t, "spec.registry.insecurePlainHTTP", true), ownSecrets(t))
	if got := plain.Rule.Transport; !plain.Ready || got == nil || !got.PlainHTTP || got.Hash == [32]byte{} {
		t.Errorf("plain HTTP: ready %t, %q, transport %+v", plain.Ready, plain.Message, got)
	}
	if got := compile(t, newObject(t).set(t, "spec.registry.insecurePlainHTTP", false), ownSecrets(t)).Rule.Transport; got != nil {
		t.Errorf("nothing is said, and transport is %+v", got)
	}
}

// Breaking one thing of a TLS Secret makes it not ready, and nobody is asked in
// another way than the one that was meant.
func TestCompileTransportMistakes(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	data, other := tlsData(authority), tlsData(authority)
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("c4n4ry")})
	long := func(n int) []byte { return bytes.Repeat([]byte("c4n4ry\n"), n/6) }
	for name, c := range map[string]struct {
		change  map[string][]byte // nil removes
		message string
	}{
		"nothing":                  {map[string][]byte{"ca.crt": nil, "tls.crt": nil, "tls.key": nil}, `it has none of the keys "ca.crt" (or "caFile"), "tls.crt" (or "certFile") with "tls.key" (or "keyFile")`},
		"no key":                   {map[string][]byte{"tls.key": nil}, `it has the key "tls.crt" and not "tls.key" (or "keyFile")`},
		"no certificate":           {map[string][]byte{"tls.crt": nil}, `it has the key "tls.key" and not "tls.crt" (or "certFile")`},
		"no certificate, Flux's":   {map[string][]byte{"tls.crt": nil, "tls.key": nil, "keyFile": data["tls.key"]}, `it has the key "keyFile" and not "tls.crt" (or "certFile")`},
		"another's key":            {map[string][]byte{"tls.key": other["tls.key"]}, `key "tls.key": not the private key of the certificate under "tls.crt"`},
		"another kind of key":      {map[string][]byte{"tls.key": rsaKey(t)}, `key "tls.key": not the private key of the certificate under "tls.crt"`},
		"empty key":                {map[string][]byte{"tls.key": {}}, `key "tls.key": no private key in PEM form`},
		"key of garbage":           {map[string][]byte{"tls.key": []byte("c4n4ry")}, `key "tls.key": no private key in PEM form`},
		"encrypted key":            {map[string][]byte{"tls.key": encrypted}, `key "tls.key": no private key in PEM form`},
		"key that is too long":     {map[string][]byte{"tls.key": long(65 << 10)}, `key "tls.key": more than 65536 bytes`},
		"certificate for the key":  {map[string][]byte{"tls.key": data["tls.crt"]}, `key "tls.key": no private key in PEM form`},
		"key for the certificate":  {map[string][]byte{"tls.crt": data["tls.key"]}, `key "tls.crt": something else than certificates`},
		"empty certificate":        {map[string][]byte{"tls.crt": {}}, `key "tls.crt": no certificate in PEM form`},
		"certificate of garbage":   {map[string][]byte{"tls.crt": block("CERTIFICATE", "c4n4ry")}, `key "tls.crt": certificate 1 cannot be parsed`},
		"certificate too long":     {map[string][]byte{"tls.crt": long(65 << 10)}, `key "tls.crt": more than 65536 bytes`},
		"chain, second of garbage": {map[string][]byte{"tls.crt": append(bytes.Clone(data["tls.crt"]), block("CERTIFICATE", "c4n4ry")...)}, `key "tls.crt": certificate 2 cannot be parsed`},
		"authorities of garbage":   {map[string][]byte{"ca.crt": []byte("c4n4ry")}, `key "ca.crt": no certificate in PEM form`},
		"empty authorities":        {map[string][]byte{"ca.crt": {}}, `key "ca.crt": no certificate in PEM form`},
		"Flux's authorities":       {map[string][]byte{"ca.crt": nil, "caFile": []byte("c4n4ry")}, `key "caFile": no certificate in PEM form`},
		"authorities, one cut off": {map[string][]byte{"ca.crt": append(bytes.Clone(data["ca.crt"]), data["ca.crt"][:100]...)}, `key "ca.crt": a certificate in it is cut off`},
		"authorities and a key":    {map[string][]byte{"ca.crt": append(bytes.Clone(data["ca.crt"]), data["tls.key"]...)}, `key "ca.crt": something else than certificates`},
		"authorities too long":     {map[string][]byte{"ca.crt": long(513 << 10)}, `key "ca.crt": more than 524288 bytes`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			broken := maps.Clone(data)
			for key, value := range c.change {
				if broken[key] = value; value == nil {
					delete(broken, key)
				}
			}
			compiled := compileTLS(t, withTLS(t, "acme-tls"), corev1.SecretTypeOpaque, broken)
			message := `spec.registry.tls.certSecretRef: secret "acme-tls": ` + c.message
			checkHeld(t, compiled, v1alpha1.ReasonSecretInvalid, message)
			checkUnusable(t, compiled, message)
			alone := compileTLS(t, withTLS(t, "acme-tls").set(t, "spec.verification", nil), corev1.SecretTypeOpaque, broken)
			checkUnusable(t, alone, message)
			if a := alone.Rule.Authentication; a == nil || a.Problem != "" {
				t.Errorf("the pull secret is blamed: %+v", a)
			}
			if alone.Ready || alone.Reason != v1alpha1.ReasonSecretInvalid || alone.Rule.Verification != nil {
				t.Errorf("without verification: ready %t, %s, verification %+v", alone.Ready, alone.Reason, alone.Rule.Verification)
			}
		})
	}
	secrets := ownSecrets(t)
	for name, c := range map[string]struct{ reason, message string }{
		"absent":     {v1alpha1.ReasonSecretNotFound, `spec.registry.tls.certSecretRef: secret "absent" does not exist`},
		"unreadable": {v1alpha1.ReasonReadFailed, `spec.registry.tls.certSecretRef: reading secret "unreadable"`},
	} {
		compiled := compile(t, withTLS(t, name), secrets)
		checkHeld(t, compiled, c.reason, c.message)
		checkUnusable(t, compiled, c.message)
	}
	both := compileTLS(t, withTLS(t, "acme-tls").set(t, "spec.registry.insecurePlainHTTP", true), corev1.SecretTypeOpaque, data)
	checkHeld(t, both, v1alpha1.ReasonInvalid, "tls contradicts insecurePlainHTTP")
	checkUnusable(t, both, `ImageConfig "acme" cannot be read`)
}

// checkUnusable: it is known that the registry is not reached in another way, and
// nothing that was read is repeated.
func checkUnusable(t *testing.T, compiled source.Compiled, message string) {
	t.Helper()
	got := compiled.Rule.Transport
	if got == nil || got.Unusable == "" || !strings.Contains(got.Unusable, message) || got.Hash == [32]byte{} || got.PlainHTTP ||
		got.Authorities != nil || got.Certificate != nil {
		t.Errorf("transport %+v, want it unusable: %s", got, message)
	}
	if text := compiled.Message + fmt.Sprintf("%+v", got); strings.Contains(text, "c4n4ry") || strings.Contains(text, "BEGIN") {
		t.Errorf("the Secret is repeated: %s", text)
	}
}

func block(kind, content string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(content)})
}

func rsaKey(t *testing.T) []byte {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return block("RSA PRIVATE KEY", string(x509.MarshalPKCS1PrivateKey(key)))
}

// Whether a certificate is still good is the registry's to say; the status tells.
func TestCompileExpiredCertificate(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	pair := authority.ClientUntil("old", time.Now().Add(-time.Minute))
	compiled := compileTLS(t, withTLS(t, "acme-tls"), corev1.SecretTypeTLS, map[string][]byte{"tls.crt": pair.Certificate, "tls.key": pair.Key})
	if !compiled.Ready || !strings.Contains(compiled.Message, `the client certificate in secret "acme-tls" is out of date`) {
		t.Errorf("ready %t, message %q", compiled.Ready, compiled.Message)
	}
	if got := compiled.Rule.Transport; got.Unusable != "" || got.Certificate == nil {
		t.Errorf("transport %+v", got)
	}
	fresh := compileTLS(t, withTLS(t, "acme-tls"), corev1.SecretTypeTLS, tlsData(authority))
	if strings.Contains(fresh.Message, "out of date") {
		t.Errorf("message %q of a certificate that is good", fresh.Message)
	}
}

// Everything that a way consists of is in its hash, and nothing else.
func TestCompileTransportHash(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	data, other := tlsData(authority), tlsData(authority)
	seen := map[[32]byte]string{}
	add := func(name string, transport *policy.Transport) {
		t.Helper()
		if taken, ok := seen[transport.Hash]; ok {
			t.Errorf("%s and %s have one hash", name, taken)
		}
		seen[transport.Hash] = name
	}
	of := func(data map[string][]byte) *policy.Transport {
		t.Helper()
		return compileTLS(t, withTLS(t, "acme-tls"), corev1.SecretTypeOpaque, data).Rule.Transport
	}
	add("all", of(data))
	add("another pair", of(map[string][]byte{"ca.crt": data["ca.crt"], "tls.crt": other["tls.crt"], "tls.key": other["tls.key"]}))
	add("an authority", of(map[string][]byte{"ca.crt": data["ca.crt"]}))
	add("another authority", of(map[string][]byte{"ca.crt": registrytest.NewAuthority(t).PEM()}))
	add("a pair", of(map[string][]byte{"tls.crt": data["tls.crt"], "tls.key": data["tls.key"]}))
	add("plain HTTP", compile(t, newObject(t).set(t, "spec.registry.insecurePlainHTTP", true), ownSecrets(t)).Rule.Transport)
	add("unusable", of(nil))
	add("unusable, for another reason", of(map[string][]byte{"ca.crt": {}}))

	renamed := map[string][]byte{"caFile": data["ca.crt"], "certFile": data["tls.crt"], "keyFile": data["tls.key"], "more": []byte("x")}
	if of(renamed).Hash != of(data).Hash {
		t.Error("the same under other keys, another hash")
	}
}

// Realms alone are a reason to be selected for credentials.
func TestCompileRealms(t *testing.T) {
	t.Parallel()
	o := newObject(t).set(t, "spec.registry.authentication", map[string]any{"realms": []any{"Auth.Example.org:443", "login.example.org:8443"}})
	compiled := compile(t, o, ownSecrets(t))
	if !compiled.Ready || compiled.Rule.Authentication == nil {
		t.Fatalf("ready %t, %q, %+v", compiled.Ready, compiled.Message, compiled.Rule.Authentication)
	}
	if diff := cmp.Diff([]string{"auth.example.org", "login.example.org:8443"}, compiled.Rule.Authentication.Realms); diff != "" {
		t.Errorf("realms (-want +got):\n%s", diff)
	}
	if s := selected(t, compiled.Rule, "registry1.com/acme-co/app:v1"); s.Authentication != compiled.Rule {
		t.Error("not selected")
	}
	// A Secret that is missing leaves them as they are.
	o.set(t, "spec.registry.authentication.pullSecretRef", map[string]any{"name": "absent"})
	if got := compile(t, o, ownSecrets(t)).Rule.Authentication; got == nil || len(got.Realms) != 2 {
		t.Errorf("authentication %+v", got)
	}
}

// Of ImageConfigs with the same prefix the first by name is used, and the others
// say so, for each purpose by itself.
func TestConflictsAreTold(t *testing.T) {
	t.Parallel()
	registryOf := func(name, prefix, registry string) string {
		return fmt.Sprintf("apiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: %s}\nspec:\n  matchImages: [{prefix: %s}]\n  registry: %s\n",
			name, prefix, registry)
	}
	const realms, plain = "authentication: {realms: [auth.example.org]}", "insecurePlainHTTP: true"
	dir := t.TempDir()
	write(t, dir+"/a.yaml", strings.Join([]string{
		registryOf("b-both", "a.io/", "{"+realms+", "+plain+"}"),
		registryOf("a-realms", "a.io/", "{"+realms+"}"),
		registryOf("c-plain", "a.io/", "{"+plain+"}"),
		registryOf("d-elsewhere", "b.io/", "{"+realms+", "+plain+"}"),
	}, "---\n"))
	const authentication = `; registry.authentication of ImageConfig "a-realms" comes first for a.io/, where both apply`
	const transport = `; registry.tls or insecurePlainHTTP of ImageConfig "b-both" comes first for a.io/, where both apply`
	got := map[string]string{}
	for _, c := range open(t, dir).Compiled() {
		got[c.Rule.Name] = strings.TrimPrefix(c.Message, "compiled and in force")
	}
	want := map[string]string{"a-realms": "", "b-both": authentication, "c-plain": transport, "d-elsewhere": ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what they say (-want +got):\n%s", diff)
	}
}
