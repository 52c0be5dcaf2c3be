// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"go.podman.io/image/v5/signature"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/config"
)

// files are read in the place of those of this machine.
type files map[string][]byte

func (f files) read(path string) ([]byte, error) {
	if content, ok := f[path]; ok {
		return content, nil
	}
	return noFiles(path)
}

func compiled(t *testing.T, f files, requirements ...object) (*policy.Verification, error) {
	t.Helper()
	return Compile(Options{Source: newShelf()}, written(requirements...), f.read)
}

// Of two armored keys in one text the library alone reads the first.
func TestConcatenatedKeys(t *testing.T) {
	t.Parallel()
	first, second := newGPG(asEd25519, time.Hour, 0), newGPG(asRSA, time.Hour, 0)
	both := slices.Concat([]byte("The keys of the release:\n"), first.armored(), []byte("\nand Zoë's:\r\n"), bytes.ReplaceAll(second.armored(), []byte("\n"), []byte("\r\n")))
	mechanism, identities, err := signature.NewEphemeralGPGSigningMechanism(both)
	if err != nil || len(identities) != 1 {
		t.Errorf("the library reads %d keys (%v): there is nothing to mend any more", len(identities), err)
	} else {
		must(0, mechanism.Close())
	}
	s := newShelf()
	digest := s.image(1)
	s.sign(digest, second.sign(digest, name))
	f := files{"/both.asc": both, "/first.gpg": first.public(), "/second.gpg": second.public(), "/all.gpg": append(first.public(), second.public()...)}
	for title, keys := range map[string]object{
		"armored data": {"keyData": both},
		"armored file": {"keyPath": "/both.asc"},
		"binary file":  {"keyPath": "/all.gpg"},
		"two files":    {"keyPaths": []string{"/first.gpg", "/second.gpg"}},
		"all":          {"keyPaths": []string{"/first.gpg", "/both.asc"}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			keys["type"], keys["keyType"] = "signedBy", "GPGKeys"
			verification, err := Compile(Options{Source: s}, written(keys), f.read)
			if err != nil {
				t.Fatal(err)
			}
			expect(t, verification.Verifier.Verify(t.Context(), byTag(digest)), policy.Accepted, policy.ReasonVerified, "")
		})
	}
	if _, err := compiled(t, f, object{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/first.gpg"}); err != nil {
		t.Error(err)
	}
}

func privatePEM(kind string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte("x")})
}

// Each mistake is told where it is, with what to write instead.
func TestMistakes(t *testing.T) {
	t.Parallel()
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	edwards := must2(ed25519.GenerateKey(rand.Reader))
	var private bytes.Buffer
	must(0, g.SerializePrivate(&private, nil))
	var privateSub bytes.Buffer
	must(0, g.PrimaryKey.Serialize(&privateSub))
	must(0, g.PrimaryIdentity().UserId.Serialize(&privateSub))
	must(0, g.PrimaryIdentity().SelfSignature.Serialize(&privateSub))
	must(0, g.Subkeys[0].PrivateKey.Serialize(&privateSub))
	must(0, g.Subkeys[0].Sig.Serialize(&privateSub))
	armored, cosigned := g.armored(), publicPEM(key.Public())
	f := files{
		"/empty": nil, "/blank": []byte(" \n\n"), "/text": []byte("no key"), "/pem": cosigned, "/gpg": g.public(), "/asc": armored,
		"/private.gpg": private.Bytes(), "/privatesub.gpg": privateSub.Bytes(), "/private.asc": armor1(openpgp.PrivateKeyType, private.Bytes()),
		"/message.asc": armor1("PGP MESSAGE", g.message(nil)), "/cut.asc": armored[:len(armored)-40], "/cut.gpg": g.public()[:40],
		"/mixed":   append(bytes.Clone(armored), g.public()...),
		"/mixed2":  append(g.public(), append([]byte("\n"), armored...)...),
		"/second":  append(bytes.Clone(armored), armor1(openpgp.PublicKeyType, g.public()[:40])...),
		"/huge":    make([]byte, maxKeys+1),
		"/private": privatePEM("ENCRYPTED SIGSTORE PRIVATE KEY"), "/certificate": certificate(t, time.Hour), "/two": append(bytes.Clone(cosigned), cosigned...),
		"/broken": privatePEM("PUBLIC KEY"), "/ed25519": publicPEM(edwards), "/brokenca": privatePEM("CERTIFICATE"), "/cutca": certificate(t, time.Hour)[:60],
	}
	gpgFile := func(path string) object { return object{"type": "signedBy", "keyType": "GPGKeys", "keyPath": path} }
	keyFile := func(path string) object { return object{"type": "sigstoreSigned", "keyPath": path} }
	logFile := func(path string) object { return keyFile("/pem").with("rekorPublicKeyPath", path) }
	pkiFile := func(path string) object {
		return object{"type": "sigstoreSigned", "pki": object{"caRootsData": certificate(t, time.Hour), "caIntermediatesPath": path, "subjectEmail": "a@example.com"}}
	}
	identified := func(identity object) object { return keyFile("/pem").with("signedIdentity", identity) }
	for title, row := range map[string]struct {
		requirement object
		says        []string
	}{
		"type":             {object{"type": "GPGKeys"}, []string{`Unknown policy requirement type "GPGKeys"`, "insecureAcceptAnything"}},
		"no type":          {object{"keyPath": "/x"}, []string{"type", "insecureAcceptAnything"}},
		"base layer":       {object{"type": "signedBaseLayer", "baseLayerIdentity": object{"type": "matchExact"}}, []string{"refuses every image", `"signedBy"`}},
		"broken layer":     {object{"type": "signedBaseLayer"}, []string{"baseLayerIdentity", "refuses every image"}},
		"key type":         {gpgFile("/gpg").with("keyType", "X509Certificates"), []string{"keyType", "refuses every image", `"keyType": "GPGKeys"`}},
		"unknown key type": {gpgFile("/gpg").with("keyType", "GPG"), []string{"keyType", `"keyType": "GPGKeys"`}},
		"no key":           {object{"type": "signedBy", "keyType": "GPGKeys"}, []string{"keyPath", "write one"}},
		"two keys":         {gpgFile("/gpg").with("keyData", g.public()), []string{"keyPath", "write one of them"}},
		"unknown member":   {gpgFile("/gpg").with("keypath", "/gpg"), []string{`Unknown key "keypath"`, `"signedBy" takes keyType`}},
		"identity":         {identified(object{"type": "matchRespository"}), []string{"matchRespository", "matchRepository"}},
		"exact reference":  {identified(object{"type": "exactReference", "dockerReference": "a.io/b"}), []string{"neither a tag nor digest", "exactRepository"}},
		"remapped host":    {identified(object{"type": "remapIdentity", "prefix": "A.io:443/x", "signedPrefix": "b.io"}), []string{"signedIdentity.prefix", `write "a.io/x"`}},
		"remapped Hub":     {identified(object{"type": "remapIdentity", "prefix": "index.docker.io", "signedPrefix": "b.io"}), []string{`write "docker.io"`}},
		"remapped name":    {identified(object{"type": "remapIdentity", "prefix": "busybox", "signedPrefix": "b.io"}), []string{"names no registry", "docker.io/library"}},
		"base64":           {object{"type": "sigstoreSigned", "keyData": "?"}, []string{"base64"}},
		"fulcio and no log": {
			object{"type": "sigstoreSigned", "fulcio": object{"caData": certificate(t, time.Hour), "oidcIssuer": "https://a", "subjectEmail": "a@b"}}, []string{"fulcio needs one of rekorPublicKeyPath"},
		},

		"missing":            {gpgFile("/missing"), []string{`keyPath "/missing": it cannot be read: file does not exist`, "mount the file there"}},
		"empty":              {gpgFile("/empty"), []string{`keyPath "/empty": it is empty`, "gpg --export"}},
		"blank":              {gpgFile("/blank"), []string{`keyPath "/blank": it is empty`}},
		"text":               {gpgFile("/text"), []string{"it holds no GPG key"}},
		"huge":               {gpgFile("/huge"), []string{"larger than 1048576 bytes"}},
		"PEM":                {gpgFile("/pem"), []string{"something else in PEM form", `"sigstoreSigned"`}},
		"private":            {gpgFile("/private.gpg"), []string{"it holds a private key", "gpg --export KEY"}},
		"private subkey":     {gpgFile("/privatesub.gpg"), []string{"it holds a private key"}},
		"private, armored":   {gpgFile("/private.asc"), []string{"it holds a private key", "gpg --armor --export KEY"}},
		"message":            {gpgFile("/message.asc"), []string{"PGP MESSAGE"}},
		"cut":                {gpgFile("/cut.asc"), []string{"cut off"}},
		"cut, binary":        {gpgFile("/cut.gpg"), []string{"no GPG key that can be read"}},
		"mixed":              {gpgFile("/mixed"), []string{"in text and in binary form"}},
		"mixed, binary":      {gpgFile("/mixed2"), []string{"in text and in binary form"}},
		"second is broken":   {gpgFile("/second"), []string{"of its 2 keys in text form, number 2"}},
		"no files":           {object{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []string{}}, []string{"keyPaths: it names no file"}},
		"second file":        {object{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": []string{"/gpg", "/empty"}}, []string{`keyPaths[1] "/empty": it is empty`}},
		"empty data":         {byGPG([]byte{}), []string{"keyData: it is empty"}},
		"sigstore, missing":  {keyFile("/missing"), []string{`keyPath "/missing"`, "does not exist"}},
		"sigstore, empty":    {keyFile("/empty"), []string{"it is empty", "cosign public-key"}},
		"sigstore, text":     {keyFile("/text"), []string{"no key in PEM form"}},
		"sigstore, GPG":      {keyFile("/gpg"), []string{`GPG keys are for "signedBy"`}},
		"sigstore, armored":  {keyFile("/asc"), []string{`GPG keys are for "signedBy"`}},
		"sigstore, private":  {keyFile("/private"), []string{"it holds a private key", "cosign public-key --key"}},
		"sigstore, two":      {keyFile("/two"), []string{"several keys", "keyPaths"}},
		"sigstore, CA":       {keyFile("/certificate"), []string{"a certificate and no key"}},
		"sigstore, broken":   {keyFile("/broken"), []string{"its key cannot be read"}},
		"sigstore, one of":   {object{"type": "sigstoreSigned", "keyPaths": []string{"/pem", "/two"}}, []string{`keyPaths[1] "/two"`}},
		"sigstore, data":     {object{"type": "sigstoreSigned", "keyDatas": [][]byte{cosigned, nil}}, []string{"keyDatas[1]: it is empty"}},
		"Rekor, Ed25519":     {logFile("/ed25519"), []string{`rekorPublicKeyPath "/ed25519": its key is not an ECDSA key`}},
		"Rekor, missing":     {logFile("/missing"), []string{`rekorPublicKeyPath "/missing"`}},
		"CA, missing":        {pkiFile("/missing"), []string{`pki.caIntermediatesPath "/missing": it cannot be read`}},
		"CA, none":           {pkiFile("/text"), []string{"it holds no certificate"}},
		"CA, a key":          {pkiFile("/pem"), []string{"it holds a PUBLIC KEY"}},
		"CA, a private key":  {pkiFile("/private"), []string{"it holds a private key"}},
		"CA, broken":         {pkiFile("/brokenca"), []string{"a certificate that cannot be read"}},
		"CA, cut":            {pkiFile("/cutca"), []string{"something that is no PEM"}},
		"CA, one and a half": {pkiFile("/certificate").with("pki", object{"caRootsData": append(certificate(t, time.Hour), certificate(t, time.Hour)[:60]...), "subjectEmail": "a@b"}), []string{"pki.caRootsData: it holds something that is no PEM"}},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			_, err := compiled(t, f, object{"type": "insecureAcceptAnything"}, row.requirement)
			if err == nil {
				t.Fatal("no error")
			}
			for _, says := range append(row.says, "requirements[1]") {
				if !strings.Contains(err.Error(), says) {
					t.Errorf("error = %q, want …%s…", err, says)
				}
			}
			if m, ok := errors.AsType[*mistake](err); !ok || m.hint == "" || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("error = %q, without a hint, or on several lines", err)
			}
		})
	}
	if _, err := compiled(t, f, gpgFile("/missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want its cause within", err)
	}
	if _, err := Compile(Options{}, nil, f.read); err == nil || !strings.Contains(err.Error(), `{"type": "reject"}`) {
		t.Errorf("error = %v", err)
	}
	if _, err := Compile(Options{}, written(gpgFile("/gpg")), f.read); err == nil {
		t.Error("compiled with nothing to read from")
	}
	for _, raw := range []string{`[]`, `"reject"`, `{`, `{"type":"reject","type":"insecureAcceptAnything"}`, `{"type":"reject"}{}`, ``} {
		if v, err := Compile(Options{}, []json.RawMessage{json.RawMessage(raw)}, f.read); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: compiled to %+v (%v)", raw, v, err)
		}
	}
}

func must2[T, U any](v T, _ U, err error) T { return must(v, err) }

// certificate is one that lives for some time from now on.
func certificate(t *testing.T, life time.Duration) []byte {
	t.Helper()
	return newAuthority(life).pem
}

// What is judged by does not change with the files it was read from.
func TestKeysAreInlined(t *testing.T) {
	t.Parallel()
	key, log := publicPEM(newECDSA().Public()), publicPEM(newECDSA().Public())
	ca := certificate(t, time.Hour)
	f := files{"/key": key, "/log": log, "/ca": ca, "/gpg": newGPG(asEd25519, 0, 0).public()}
	for _, r := range []object{
		{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/gpg"},
		{"type": "sigstoreSigned", "keyPath": "/key", "rekorPublicKeyPath": "/log"},
		{"type": "sigstoreSigned", "keyPaths": []string{"/key", "/log"}, "rekorPublicKeyPaths": []string{"/log"}},
		{"type": "sigstoreSigned", "rekorPublicKeyDatas": [][]byte{log}, "fulcio": object{"caPath": "/ca", "oidcIssuer": "https://a", "subjectEmail": "a@b"}},
		{"type": "sigstoreSigned", "pki": object{"caRootsPath": "/ca", "caIntermediatesPath": "/ca", "subjectHostname": "a.b"}},
	} {
		read, err := readRequirement(written(r)[0], f.read)
		if err != nil {
			t.Errorf("%v: %v", r, err)
			continue
		}
		if strings.Contains(string(read.rewritten), "Path") {
			t.Errorf("%v became %s", r, read.rewritten)
		}
		again, err := readRequirement(read.rewritten, nothing)
		if err != nil || string(again.rewritten) != string(read.rewritten) {
			t.Errorf("%s became %+v (%v)", read.rewritten, again, err)
		}
	}
}

// What decides without an image is known when it is compiled.
func TestFixed(t *testing.T) {
	t.Parallel()
	accept, reject, signed := object{"type": "insecureAcceptAnything"}, object{"type": "reject"}, byGPG(newGPG(asEd25519, 0, 0).public())
	for _, row := range []struct {
		list    []object
		outcome policy.Outcome
		says    string
	}{
		{[]object{accept, accept}, policy.Accepted, "insecureAcceptAnything (requirement 0): accepts every image"},
		{[]object{accept, reject}, policy.Rejected, "reject (requirement 1): refuses every image"},
		{[]object{signed, reject}, policy.Rejected, "reject (requirement 1)"},
	} {
		v, err := compiled(t, nil, row.list...)
		if err != nil || v.Fixed == nil || v.Verifier != nil || v.ByReference || v.Engine != Engine {
			t.Fatalf("%v: %+v, %v", row.list, v, err)
		}
		expect(t, *v.Fixed, row.outcome, policy.ReasonStatic, row.says)
	}
	if v, err := compiled(t, nil, accept, signed); err != nil || v.Fixed != nil || v.Verifier == nil {
		t.Errorf("%+v, %v", v, err)
	}
}

// The hash is of everything that verdicts rest on.
func TestHash(t *testing.T) {
	t.Parallel()
	one, other := newGPG(asEd25519, 0, 0).public(), newGPG(asEd25519, 0, 0).public()
	r := object{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/key"}
	seen := map[[32]byte]string{}
	add := func(what string, o Options, key []byte, byDigest bool, list ...object) {
		o.Source = newShelf()
		v, err := compile(o, written(list...), files{"/key": key}.read, byDigest)
		if err != nil {
			t.Fatal(err)
		}
		if before, ok := seen[v.Hash]; ok {
			t.Errorf("%s has the hash of %s", what, before)
		}
		seen[v.Hash] = what
	}
	add("one", Options{}, one, false, r)
	add("another key", Options{}, other, false, r)
	add("twice", Options{}, one, false, r, r)
	add("attached", Options{Attached: true}, one, false, r)
	add("by digest", Options{}, one, true, r)
	for _, yaml := range []string{"{lookaside: 'https://a.example'}", "{lookaside: 'https://b.example'}", "{use-sigstore-attachments: true}"} {
		registries, problems := config.ParseRegistries([]config.File{{Name: "a.yaml", Content: []byte("default-docker: " + yaml)}})
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		add("registries.d "+yaml, Options{Registries: registries}, one, false, r)
	}
	add("another identity", Options{}, one, false, r.with("signedIdentity", object{"type": "matchExact"}))
	again, err := Compile(Options{Source: newShelf()}, written(r), files{"/key": one}.read)
	if err != nil || seen[again.Hash] != "one" {
		t.Errorf("hash = %x (%v), which is not of the same", again.Hash, err)
	}
}

// Only identities that look at the tag make verdicts depend on it.
func TestByReference(t *testing.T) {
	t.Parallel()
	signed := byGPG(newGPG(asEd25519, 0, 0).public())
	if v, err := compiled(t, nil, signed); err != nil || !v.ByReference {
		t.Errorf("by default: %+v, %v", v, err)
	}
	for want, identities := range map[bool][]object{
		true:  {{"type": identityExact}, {"type": identityDigest}, {"type": identityRemap, "prefix": "localhost:5000/a", "signedPrefix": "b.io"}},
		false: {{"type": identityRepo}, {"type": "exactReference", "dockerReference": "a.io/b:1"}, {"type": "exactRepository", "dockerRepository": "a.io/b"}},
	} {
		for _, identity := range identities {
			list := written(signed.with("signedIdentity", identity))
			v, err := compile(Options{Source: newShelf(), Registries: &config.Registries{}}, list, noFiles, false)
			if err != nil || v.ByReference != want {
				t.Errorf("%v: %+v, %v", identity, v, err)
			}
			if v, err := compile(Options{Source: newShelf()}, list, noFiles, true); err != nil || v.ByReference {
				t.Errorf("%v, by digest: %+v, %v", identity, v, err)
			}
		}
	}
}
