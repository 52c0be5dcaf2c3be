// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package config_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"go.podman.io/image/v5/signature"

	"github.com/pratique-dev/pratique/policy/containers/config"
)

// policies are each about one thing, by its name.
func policies() map[string]string {
	list := map[string]string{
		"empty":              "",
		"blank":              " \n\n",
		"no JSON":            "transports:\n  docker: {}\n",
		"a list":             "[]",
		"mark":               "\ufeff{\"default\": [{\"type\": \"reject\"}]}",
		"trailing data":      "{\"default\": [{\"type\": \"reject\"}]}\n{}",
		"trailing bracket":   "{\"default\": [{\"type\": \"reject\"}]}\n}",
		"closed too early":   "{\"default\": [{\"type\": \"reject\"}]},\n\"transports\": {}}",
		"never closed":       "{\"default\": [{\"type\": \"reject\"}",
		"nothing closed":     "{\"transports\": {\n\"docker\": {",
		"brace is missing":   "{\"default\": [{\"type\": \"reject\"],\n\"transports\": {}}",
		"bracket is missing": "{\"default\": [{\"type\": \"reject\"},\n\"transports\": {}}",
		"wrong bracket":      "{\"default\": [{\"type\": \"reject\"]],\n\"transports\": {\"docker\": {\"\": []}}}",
		"two wrong brackets": "{\"default\": [{\"type\": \"reject\"}},\n\"transports\": {\"docker\": {\"\": [{\"type\": \"reject\"}]]}}",
		"too deep":           strings.Repeat("[{\"a\":", 40),
		"comment":            "{// why\n\"default\": [{\"type\": \"reject\"}]}",
		"shell comment":      "# why\n{\"default\": [{\"type\": \"reject\"}]}",
		"endless comment":    "{\"default\": [{\"type\": \"reject\"}]}\n/* }",
		"trailing commas":    "{\"default\": [{\"type\": \"reject\",\n},\n],\n}",
		"two commas":         "{\"default\": [{\"type\": \"reject\"},, {\"type\": \"reject\"}]}",
		"missing commas":     "{\"default\": [{\"type\": \"reject\"}\n{\"type\": \"reject\"}]\n\"transports\": {}}",
		"missing colon":      "{\"default\" [{\"type\": \"reject\"}]}",
		"missing value":      "{\"default\": [{\"type\": }]}",
		"open text":          "{\"default\": [{\"type\": \"reject}],\n\"transports\": {}}",
		"single quotes":      "{'default': [{\"type\": 'reject'}]}",
		"no quotes":          "{default: [{\"type\": reject}], \"transports\": None}",
		"escape":             `{"default": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "C:\keys"}]}`,
		"True":               `{"default": True}`,

		"no default":         `{"transports": {}}`,
		"empty default":      `{"default": []}`,
		"null default":       `{"default": null}`,
		"default is a text":  `{"default": "reject"}`,
		"default is single":  `{"default": {"type": "reject"}}`,
		"default twice":      "{\"default\": [{\"type\": \"reject\"}],\n\"default\": [{\"type\": \"reject\"}]}",
		"Default":            `{"Default": [{"type": "reject"}]}`,
		"defautl":            `{"defautl": [{"type": "reject"}]}`,
		"other member":       `{"default": [{"type": "reject"}], "comment": "x"}`,
		"null transports":    `{"default": [{"type": "reject"}], "transports": null}`,
		"transports a list":  `{"default": [{"type": "reject"}], "transports": []}`,
		"docker a list":      `{"default": [{"type": "reject"}], "transports": {"docker": [{"type": "reject"}]}}`,
		"docker twice":       `{"default": [{"type": "reject"}], "transports": {"docker": {}, "docker": {}}}`,
		"other transports":   `{"default": [{"type": "reject"}], "transports": {"docker-daemon": {"": [{"type": "insecureAcceptAnything"}]}, "dir": {}, "oci": {}}}`,
		"unknown transports": `{"default": [{"type": "reject"}], "transports": {"Docker": {}, "registry": {}}}`,
		"bad in another":     `{"default": [{"type": "reject"}], "transports": {"dir": {"": [{"type": "signedBy"}]}}}`,
		"bad in an unknown":  `{"default": [{"type": "reject"}], "transports": {"what": {"": []}}}`,
	}
	for name, requirement := range requirements() {
		list[name] = "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"docker\": {\"example.com\": [\n" + requirement + "\n]}}}"
	}
	for name, scopes := range scopes() {
		list[name] = "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"docker\": {\n" + scopes + "\n}}}"
	}
	return list
}

// requirements are single ones.
func requirements() map[string]string {
	list := map[string]string{
		"good reject":    `{"type": "reject"}`,
		"good accept":    `{"type": "insecureAcceptAnything"}`,
		"good signedBy":  `{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/gpg/a.gpg"}`,
		"good sigstore":  `{"type": "sigstoreSigned", "keyPath": "/a.pub", "signedIdentity": {"type": "matchRepository"}}`,
		"null":           `null`,
		"a text":         `"reject"`,
		"no type":        `{}`,
		"null type":      `{"type": null}`,
		"empty type":     `{"type": ""}`,
		"number":         `{"type": 5}`,
		"unknown type":   `{"type": "deny"}`,
		"misspelt type":  `{"type": "signdBy", "keyType": "GPGKeys", "keyPath": "/a"}`,
		"type's case":    `{"type": "Reject"}`,
		"Type":           `{"Type": "reject"}`,
		"key type":       `{"type": "GPGKeys", "keyPath": "/a"}`,
		"type twice":     `{"type": "reject", "type": "reject"}`,
		"two types":      "{\"type\": \"signedBy\",\n\"type\": \"GPGKeys\", \"keyPath\": \"/a\"}",
		"two types both": "{\"type\": \"GPGKeys\",\n\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/a\"}",
		"reject's key":   `{"type": "reject", "keyPath": "/a"}`,
		"base layer":     `{"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchRepository"}}`,
		"no base layer":  `{"type": "signedBaseLayer"}`,
		"beside reject":  `{"type": "reject"}, {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a"}`,
		"beside accept":  `{"type": "insecureAcceptAnything"}, {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a"}`,
	}
	for name, rest := range map[string]string{
		"no keyType":        `"keyPath": "/a"`,
		"unknown keyType":   `"keyType": "PGP", "keyPath": "/a"`,
		"X509 keyType":      `"keyType": "X509Certificates", "keyPath": "/a"`,
		"CAs keyType":       `"keyType": "signedByX509CAs", "keyPath": "/a"`,
		"signedBy keyType":  `"keyType": "signedByGPGKeys", "keyPath": "/a"`,
		"keyType's case":    `"KeyType": "GPGKeys", "keyPath": "/a"`,
		"no key":            `"keyType": "GPGKeys"`,
		"two keys":          `"keyType": "GPGKeys", "keyPath": "/a", "keyData": "AAAA"`,
		"keyFile":           `"keyType": "GPGKeys", "keyFile": "/a"`,
		"keypath":           `"keyType": "GPGKeys", "keypath": "/a"`,
		"null keyPath":      `"keyType": "GPGKeys", "keyPath": null`,
		"empty keyPath":     `"keyType": "GPGKeys", "keyPath": ""`,
		"keyPath is a list": `"keyType": "GPGKeys", "keyPath": ["/a"]`,
		"relative keyPath":  `"keyType": "GPGKeys", "keyPath": "keys/a.gpg"`,
		"secret keyPath":    `"keyType": "GPGKeys", "keyPath": "secret://name/key"`,
		"empty keyPaths":    `"keyType": "GPGKeys", "keyPaths": []`,
		"null keyPaths":     `"keyType": "GPGKeys", "keyPaths": null`,
		"keyPaths is text":  `"keyType": "GPGKeys", "keyPaths": "/a"`,
		"keyPaths' item":    `"keyType": "GPGKeys", "keyPaths": ["/a", 5, "", "b", "secret://x/y"]`,
		"keyData no base64": `"keyType": "GPGKeys", "keyData": "base64-encoded"`,
		"keyData PEM":       `"keyType": "GPGKeys", "keyData": "-----BEGIN PGP PUBLIC KEY BLOCK-----"`,
		"empty keyData":     `"keyType": "GPGKeys", "keyData": ""`,
		"null keyData":      `"keyType": "GPGKeys", "keyData": null`,
		"keyDatas":          `"keyType": "GPGKeys", "keyDatas": ["AAAA"]`,
	} {
		list["signedBy: "+name] = `{"type": "signedBy", ` + rest + `}`
	}
	const identity = `, "signedIdentity": {"type": "matchRepository"}`
	for name, rest := range map[string]string{
		"none":                `"signedIdentity": {"type": "matchRepository"}`,
		"two":                 `"keyPath": "/a", "fulcio": {}` + identity,
		"keyDatas":            `"keyDatas": ["AAAA", "?"]` + identity,
		"empty keyDatas":      `"keyDatas": []` + identity,
		"keyType":             `"keyType": "GPGKeys", "keyPath": "/a"` + identity,
		"fulcio":              `"fulcio": {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}, "rekorPublicKeyPath": "/r"` + identity,
		"fulcio alone":        `"fulcio": {"caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}` + identity,
		"empty fulcio":        `"fulcio": {}, "rekorPublicKeyPath": "/r"` + identity,
		"fulcio's texts":      `"fulcio": {"caData": "AAAA", "oidcIssuer": "", "subjectEmail": 5}, "rekorPublicKeyPath": "/r"` + identity,
		"fulcio's CAs":        `"fulcio": {"caData": "AAAA", "caPath": "/ca", "oidcIssuer": "https://i", "subjectEmail": "a@b"}, "rekorPublicKeyPath": "/r"` + identity,
		"fulcio misspelt":     `"fulcio": {"caPath": "/ca", "oidcIssuer": "https://i", "subjectemail": "a@b"}, "rekorPublicKeyPath": "/r"` + identity,
		"fulcio null":         `"fulcio": null, "rekorPublicKeyPath": "/r"` + identity,
		"pki":                 `"pki": {"caRootsPath": "/ca", "subjectEmail": "a@b"}` + identity,
		"pki with rekor":      `"pki": {"caRootsPath": "/ca", "subjectHostname": "b"}, "rekorPublicKeyPath": "/r"` + identity,
		"pki for nobody":      `"pki": {"caRootsData": "AAAA", "caIntermediatesPath": "/a", "caIntermediatesData": "AAAA"}` + identity,
		"pki without roots":   `"pki": {"subjectEmail": "a@b", "caIntermediatesData": "AAAA"}` + identity,
		"two rekor keys":      `"keyPath": "/a", "rekorPublicKeyPath": "/r", "rekorPublicKeyPaths": ["/r"]` + identity,
		"rekor misspelt":      `"keyPath": "/a", "rekorPublickeyPath": "/r"` + identity,
		"empty rekor key":     `"keyPath": "/a", "rekorPublicKeyPath": ""` + identity,
		"empty rekor list":    `"keyPath": "/a", "rekorPublicKeyDatas": []` + identity,
		"default identity":    `"keyPath": "/a"`,
		"remapped identity":   `"keyPath": "/a", "signedIdentity": {"type": "remapIdentity", "prefix": "a.io", "signedPrefix": "b.io"}`,
		"exactRepository":     `"keyPath": "/a", "signedIdentity": {"type": "exactRepository", "dockerRepository": "a.io/b"}`,
		"relative in a list":  `"keyPaths": ["a"]` + identity,
		"secret in a list":    `"keyPaths": ["secret://a/b"]` + identity,
		"null signedIdentity": `"keyPath": "/a", "signedIdentity": null`,
	} {
		list["sigstoreSigned: "+name] = `{"type": "sigstoreSigned", ` + rest + `}`
	}
	for name, identity := range map[string]string{
		"null":               `null`,
		"text":               `"matchExact"`,
		"empty":              `{}`,
		"misspelt":           `{"type": "matchRespository"}`,
		"unknown":            `{"type": "any"}`,
		"superfluous":        `{"type": "matchExact", "prefix": "a.io"}`,
		"no reference":       `{"type": "exactReference"}`,
		"no tag":             `{"type": "exactReference", "dockerReference": "a.io/b"}`,
		"tag":                `{"type": "exactReference", "dockerReference": "a.io/b:c"}`,
		"no such reference":  `{"type": "exactReference", "dockerReference": "a.io/B:c"}`,
		"no repository":      `{"type": "exactRepository"}`,
		"bad repository":     `{"type": "exactRepository", "dockerRepository": "https://a.io/b"}`,
		"repository's tag":   `{"type": "exactRepository", "dockerRepository": "a.io/b:c"}`,
		"no prefixes":        `{"type": "remapIdentity"}`,
		"no signedPrefix":    `{"type": "remapIdentity", "prefix": "a.io/b"}`,
		"short prefix":       `{"type": "remapIdentity", "prefix": "busybox", "signedPrefix": "team/short"}`,
		"slash":              `{"type": "remapIdentity", "prefix": "a.io/", "signedPrefix": "b.io/c/"}`,
		"prefix's tag":       `{"type": "remapIdentity", "prefix": "a.io/b:c", "signedPrefix": "a.io/B"}`,
		"prefix's scheme":    `{"type": "remapIdentity", "prefix": "https://a.io", "signedPrefix": "a.io:5000"}`,
		"prefix's digest":    `{"type": "remapIdentity", "prefix": "a.io/b@sha256:00", "signedPrefix": "localhost/x"}`,
		"prefix of the hub":  `{"type": "remapIdentity", "prefix": "index.docker.io/library", "signedPrefix": "a.io"}`,
		"prefix of no host":  `{"type": "remapIdentity", "prefix": "a_b.io/x", "signedPrefix": "a..io"}`,
		"dockerreference":    `{"type": "exactReference", "dockerreference": "a.io/b:c"}`,
		"reference a number": `{"type": "exactReference", "dockerReference": 5}`,
	} {
		list["identity: "+name] = `{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/a", "signedIdentity": ` + identity + `}`
	}
	return list
}

// scopes are members of the transport docker.
func scopes() map[string]string {
	list := map[string]string{
		"scope twice": "\"a.io\": [{\"type\": \"reject\"}],\n\"a.io\": [{\"type\": \"reject\"}]",
		"same scope":  "\"docker.io/acme\": [{\"type\": \"reject\"}],\n\"index.docker.io/acme\": [{\"type\": \"insecureAcceptAnything\"}]",
		"same host":   "\"a.io\": [{\"type\": \"reject\"}],\n\"A.io:443\": [{\"type\": \"insecureAcceptAnything\"}]",
		"empty scope": `"a.io": []`,
		"null scope":  `"a.io": null`,
	}
	digest := "@sha256:" + strings.Repeat("0", 64)
	for _, scope := range []string{
		"", "example.com", "example.com:5000", "localhost", "localhost/x", "registry:5000/x", "[::1]:5000/x", "docker.io", "docker.io/acme", "docker.io/library/busybox:1",
		"*.example.com", "*.io", "example.com/a/b", "example.com/a:v1", "example.com/a" + digest, "EXAMPLE.com/a",

		"*.example.com/ns", "*.example.com:5000", "ex*.com", "*", "*.", "*.a.*.com", "**.com", "example.com/*", "busybox", "busybox:latest", "acme/app", "docker.io/",
		"example.com/Acme", "example.com/Acme:v1", "https://example.com", "example.com//a", "/a", "example.com/a:", "example.com/a:v1:v2", "example.com/a" + digest + "x",
		"example.com/a@sha256:00", "example.com/a@sha512:" + strings.Repeat("0", 128), "example.com/a:v1" + digest, "docker.io/busybox:1",
		"exa mple.com", "-.com", "example.com:port", "example..com", "*.-", "*.example.com.", "*.EXAMPLE.com",
	} {
		list["scope "+scope] = `"` + scope + `": [{"type": "reject"}]`
	}
	return list
}

// stricter are those that the library takes, though they would reject all, or
// mean something else than is written.
var stricter = []string{
	"base layer", "signedBy: X509 keyType", "signedBy: CAs keyType", "signedBy: signedBy keyType", "same scope", "same host",
	"signedBy: secret keyPath", "signedBy: keyPaths' item", "sigstoreSigned: secret in a list", "sigstoreSigned: empty rekor key",
	"identity: short prefix", "identity: prefix of no host",
}

// TestMistakes: each mistake has a message of its own, in its line, and what the
// library refuses has one.
func TestMistakes(t *testing.T) {
	t.Parallel()
	list := policies()
	var all strings.Builder
	for _, name := range slices.Sorted(maps.Keys(list)) {
		policy, problems := config.ParsePolicy(config.File{Name: "f", Content: []byte(list[name])})
		_, err := signature.NewPolicyFromBytes([]byte(list[name]))
		if bad := hasError(problems); bad == (policy != nil) || bad != (err != nil || slices.Contains(stricter, name)) {
			t.Errorf("%s: an error: %t, a policy: %t; the library says %v", name, bad, policy != nil, err)
		}
		all.WriteString("== " + name + "\n" + told(problems))
	}
	golden(t, "testdata/mistakes.golden", all.String())
}

// FuzzParsePolicy: what the library refuses has an error, and what has none is
// what the library reads.
func FuzzParsePolicy(f *testing.F) {
	for _, content := range policies() {
		f.Add([]byte(content))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		policy, problems := config.ParsePolicy(config.File{Name: "f", Content: content})
		_, err := signature.NewPolicyFromBytes(content)
		if bad := hasError(problems); bad == (policy != nil) || err != nil && !bad {
			t.Errorf("an error: %t, a policy: %t; the library says %v", bad, policy != nil, err)
		}
		for _, p := range problems {
			if strings.ContainsAny(p.Error(), "\n\r") || p.Line < 0 || p.Line > 1+strings.Count(string(content), "\n") {
				t.Errorf("a problem in line %d: %q", p.Line, p.Error())
			}
		}
		if policy != nil && len(policy.Default.List) == 0 {
			t.Error("a default that asks nothing")
		}
	})
}
