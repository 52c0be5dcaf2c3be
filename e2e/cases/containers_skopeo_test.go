// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cases_test

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/e2e/signer"
	"github.com/pratique-dev/pratique/e2e/signer/cosign2"
)

// judgment is what two judges make of one image: skopeo's, which is a node's,
// and ours.
type judgment struct{ skopeo, ours bool }

var (
	bothAccept = judgment{true, true}
	bothRefuse = judgment{}
	// Over an index they differ, by contract: a node knows which of its images it
	// will run, and judges that one. Whoever admits does not know; the index is
	// accepted if it verifies itself or each of its images does.
	onlyOurs   = judgment{ours: true}
	onlySkopeo = judgment{skopeo: true}
)

// signing is a signature to make.
type signing struct {
	key string
	// as is what it claims to be of; without it, what is signed by its tag.
	as string
	of subject
}

// subject is what of an index is signed.
type subject int

const (
	theImage     subject = iota // or the index itself
	theFirst                    // of its images, that for linux/amd64
	allPlatforms                // each of its images, not the index
	another                     // something else, whose signature is moved here
)

// garbage is a signature by nobody.
const garbage = "garbage"

// A comparison is a policy and an image that both judge. In the texts there are
// $HOST, $REPO and $DIGEST of the image, $NAME of the comparison, $KEYS, the
// folder of public keys, $LOOKASIDE and $EMPTY, two lookaside servers, and
// $FOLDER, that of the first one's files.
type comparison struct {
	signed []signing
	// list of requirements for the repository, everything else is rejected; or
	// else policy, all of it.
	list, policy string
	// registries is the content of registries.d; empty is the lookaside for the host.
	registries string
	index      bool
	// cosign attaches a signature by the pair of keys in $KEYS/cosign.pub.
	cosign bool

	byTag, byDigest judgment
	// older is in the refusal of a skopeo that does not have it yet, or not any
	// more: then only ours is judged.
	older string
	// rules are the scopes that may be named for our verdict; without any the
	// repository.
	rules []string
	// skipped says that the default lets it through.
	skipped bool
}

const (
	// bySubkey: until 2025 the judge took no signature by a subkey.
	bySubkey = "is not accepted"
	// debianOnly: Debian 12 builds skopeo without this.
	debianOnly = "sigstore disabled"
)

// TestPolicyAsSkopeo: pratique verify judges an image by a policy.json and a
// registries.d as skopeo does.
func TestPolicyAsSkopeo(t *testing.T) {
	t.Parallel()
	s := newSigners(t, rsaKey, nistKey, ed25519Key, subKey, expiredKey, revokedKey)
	cosignKey := keyPair(t)
	prepareKeyFiles(t, s, cosignKey)
	full, vacant := newLookaside(t), newLookaside(t)
	w := &comparing{s: s, cosign: cosignKey, full: full, vacant: vacant}
	all := map[string]comparison{}
	for _, some := range []map[string]comparison{
		comparedKeys(s, t), comparedIdentities(), comparedScopes(), comparedLookasides(), comparedAttachments(cosignKey), comparedIndexes(),
	} {
		maps.Copy(all, some)
	}
	// Signed while the key was good.
	var later []string
	for name, one := range all {
		if slices.ContainsFunc(one.signed, func(s signing) bool { return s.key == revokedKey }) {
			later = append(later, name)
		}
		w.publish(t, name, one)
	}
	if len(later) == 0 {
		t.Error("nothing is signed by the key that is revoked")
	}
	if err := s.Revoke(t.Context(), s.keys[revokedKey]); err != nil {
		t.Fatal(err)
	}
	s.export(t, revokedKey)
	for name, one := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.compare(t, name, one)
		})
	}
}

// comparing is what the comparisons share.
type comparing struct {
	s            *signers
	cosign       signer.Key
	full, vacant *lookaside
	images       map[string]published
}

// prepareKeyFiles writes key files of other shapes than those of the signers.
func prepareKeyFiles(t *testing.T, s *signers, cosignKey signer.Key) {
	t.Helper()
	for file, content := range map[string]string{
		"two.gpg":    s.keyring(t, false, rsaKey, nistKey),
		"two.asc":    s.keyring(t, true, rsaKey, nistKey),
		"joined.asc": s.keyring(t, true, rsaKey) + s.keyring(t, true, nistKey),
		"joined.gpg": s.keyring(t, false, rsaKey) + s.keyring(t, false, nistKey),
		"empty.gpg":  "",
		"cosign.pub": cosignKey.PublicPEM,
		"other.pub":  keyPair(t).PublicPEM,
	} {
		writeFile(t, filepath.Join(s.folder, file), content)
	}
}

// repository is that of a comparison, which needs a path of its own: hosts are
// no part of paths in a lookaside.
func (w *comparing) repository(name string) string {
	return shared.distribution.Host + "/as-skopeo/" + name + "/app"
}

func (w *comparing) publish(t *testing.T, name string, c comparison) {
	t.Helper()
	var platforms []published
	var image published
	if c.index {
		image, platforms = publishPlatforms(t, w.repository(name), "v1")
	} else {
		image = publish(t, w.repository(name), "v1", false)
	}
	if w.images == nil {
		w.images = map[string]published{}
	}
	w.images[name] = image
	for _, one := range c.signed {
		as := w.fill(name, one.as)
		if as == "" {
			as = image.byTag()
		}
		subjects := []published{image}
		switch one.of {
		case theImage, another:
		case theFirst:
			subjects = platforms[:1]
		case allPlatforms:
			subjects = platforms
		}
		for _, subject := range subjects {
			w.full.put(t, image.repository, subject.digest, w.signature(t, one, as, subject))
		}
	}
	if c.cosign {
		if err := cosign2.Sign(t.Context(), w.cosign, image.byDigest(), nil); err != nil {
			t.Fatal(err)
		}
	}
}

func (w *comparing) signature(t *testing.T, one signing, as string, subject published) []byte {
	t.Helper()
	manifest := manifestOf(t, subject)
	switch {
	case one.key == garbage:
		// Its first byte is that of an OpenPGP packet.
		return []byte{0x90, 0x0d, 0x03, 0x00, 0x01}
	case one.of == another:
		manifest = append(manifest, '\n')
	}
	return w.s.signature(t, one.key, as, manifest)
}

// fill puts in what the texts of a comparison leave open.
func (w *comparing) fill(name, text string) string {
	return strings.NewReplacer(
		"$HOST", shared.distribution.Host, "$REPO", w.repository(name), "$DIGEST", w.images[name].digest, "$NAME", name,
		"$KEYS", w.s.folder, "$LOOKASIDE", w.full.URL, "$EMPTY", w.vacant.URL, "$FOLDER", w.full.folder,
	).Replace(text)
}

// compare asks both judges, by tag and by digest.
func (w *comparing) compare(t *testing.T, name string, c comparison) {
	t.Helper()
	if c.policy == "" {
		c.policy = `{"default": [{"type": "reject"}], "transports": {"docker": {"$REPO": ` + c.list + `}}}`
	}
	if c.registries == "" {
		c.registries = `docker: {"$HOST": {lookaside: "$LOOKASIDE"}}`
	}
	if len(c.rules) == 0 {
		c.rules = []string{"$REPO"}
	}
	policy, registries := filepath.Join(t.TempDir(), "policy.json"), registriesD(t, w.fill(name, c.registries))
	writeFile(t, policy, w.fill(name, c.policy))
	image := w.images[name]
	references, wants := []string{image.byTag(), image.byDigest()}, []judgment{c.byTag, c.byDigest}
	ours, exit := verify(t, []string{"--containers-policy", policy, "--registries-d", registries}, references...)
	if len(ours) != len(references) {
		t.Fatalf("%d verdicts", len(ours))
	}
	if good := c.byTag.ours && c.byDigest.ours; good != (exit == 0) {
		t.Errorf("exit code %d", exit)
	}
	for i, reference := range references {
		want := wants[i]
		if !c.index && want.ours != want.skopeo {
			t.Fatal("only over an index may they differ")
		}
		theirs, err := w.s.Judge(t.Context(), reference, policy, registries)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s\nskopeo: %t %s\nours: %s %+v", reference, theirs.Accepted, theirs.Reason, ours[i].Outcome, ours[i].Findings)
		unable := c.older != "" && strings.Contains(theirs.Reason, c.older)
		if theirs.Accepted != want.skopeo && !unable {
			t.Errorf("%s: skopeo accepts: %t, want %t", reference, theirs.Accepted, want.skopeo)
		}
		if accepted := ours[i].Outcome == "Accepted" || c.skipped && ours[i].Outcome == "Skipped"; accepted != want.ours {
			t.Errorf("%s: ours is %s; want accepted: %t", reference, ours[i].Outcome, want.ours)
		}
		w.named(t, name, c, ours[i])
	}
}

// named fails the test unless our verdict names the rule that it is by. What the
// default lets through has none.
func (w *comparing) named(t *testing.T, name string, c comparison, ours verified) {
	t.Helper()
	for _, finding := range ours.Findings {
		if ours.Outcome == "Skipped" {
			if finding.Rule != "" || !c.skipped {
				t.Errorf("%s: skipped by %q", ours.Image, finding.Rule)
			}
			continue
		}
		scope, ok := strings.CutPrefix(finding.Rule, "policy.json/")
		if !ok || finding.Engine != "ContainersPolicy" || !slices.Contains(strings.Fields(w.fill(name, strings.Join(c.rules, " "))), scope) {
			t.Errorf("%s: judged by %q of %q, want %q", ours.Image, finding.Rule, finding.Engine, c.rules)
		}
		if finding.Message == "" {
			t.Errorf("%s: nobody says why", ours.Image)
		}
	}
}

// comparedKeys are keys of all kinds, in files of all shapes.
func comparedKeys(s *signers, t *testing.T) map[string]comparison {
	t.Helper()
	all := map[string]comparison{}
	for _, key := range []string{rsaKey, nistKey, ed25519Key, subKey} {
		one := comparison{signed: []signing{{key: key}}, byTag: bothAccept, byDigest: bothAccept}
		if key == subKey {
			one.older = bySubkey
		}
		one.list = "[" + gpgSigned("$KEYS/"+key+".gpg") + "]"
		all["key-"+key] = one
		one.list = "[" + gpgSigned("$KEYS/"+key+".asc") + "]"
		all["key-armored-"+key] = one
		one.list = fmt.Sprintf(`[{"type": "signedBy", "keyType": "GPGKeys", "keyData": %q}]`,
			base64.StdEncoding.EncodeToString([]byte(s.keyring(t, false, key))))
		all["key-data-"+key] = one
	}
	for _, file := range []string{"two.gpg", "two.asc", "joined.gpg", "joined.asc"} {
		for _, key := range []string{rsaKey, nistKey} {
			all["key-"+key+"-of-"+strings.Replace(file, ".", "-", 1)] = comparison{
				signed: []signing{{key: key}}, list: "[" + gpgSigned("$KEYS/"+file) + "]", byTag: bothAccept, byDigest: bothAccept,
			}
		}
	}
	for _, key := range []string{expiredKey, revokedKey} {
		all["key-"+key] = comparison{signed: []signing{{key: key}}, list: "[" + gpgSigned("$KEYS/"+key+".gpg") + "]"}
	}
	all["key-another"] = comparison{signed: []signing{{key: nistKey}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]"}
	all["key-empty"] = comparison{signed: []signing{{key: nistKey}}, list: "[" + gpgSigned("$KEYS/empty.gpg") + "]"}
	all["key-not-there"] = comparison{signed: []signing{{key: nistKey}}, list: "[" + gpgSigned("$KEYS/missing.gpg") + "]"}
	all["unsigned"] = comparison{list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]"}
	all["another-signature-first"] = comparison{
		signed: []signing{{key: nistKey}, {key: rsaKey, as: "$REPO:v2"}, {key: rsaKey}},
		list:   "[" + gpgSigned("$KEYS/rsa.gpg") + "]", byTag: bothAccept, byDigest: bothAccept,
	}
	all["garbage-first"] = comparison{
		signed: []signing{{key: garbage}, {key: rsaKey}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]", byTag: bothAccept, byDigest: bothAccept,
	}
	all["garbage-only"] = comparison{signed: []signing{{key: garbage}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]"}
	all["of-another-image"] = comparison{signed: []signing{{key: rsaKey, of: another}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]"}
	all["both-required"] = comparison{
		signed: []signing{{key: nistKey}, {key: rsaKey}},
		list:   "[" + gpgSigned("$KEYS/rsa.gpg") + "," + gpgSigned("$KEYS/nist.gpg") + "]", byTag: bothAccept, byDigest: bothAccept,
	}
	all["both-required-one-there"] = comparison{
		signed: []signing{{key: rsaKey}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "," + gpgSigned("$KEYS/nist.gpg") + "]",
	}
	return all
}

// comparedIdentities are the six kinds of signedIdentity.
func comparedIdentities() map[string]comparison {
	identity := func(kind string, fields ...string) string {
		return "[" + gpgSigned("$KEYS/rsa.gpg", `"signedIdentity": {"type": "`+kind+`"`+strings.Join(append([]string{""}, fields...), ", ")+"}") + "]"
	}
	const exactly, repository = `"dockerReference": "vendor.example/app:v7"`, `"dockerRepository": "vendor.example/app"`
	const prefix, signedPrefix = `"prefix": "$HOST/as-skopeo"`, `"signedPrefix": "vendor.example/signed"`
	both := judgment{true, true}
	all := map[string]comparison{}
	for _, one := range []struct {
		name, list, claims string
		byTag, byDigest    judgment
	}{
		{"default-this-tag", identity("matchRepoDigestOrExact"), "$REPO:v1", both, both},
		{"default-another-tag", identity("matchRepoDigestOrExact"), "$REPO:v2", bothRefuse, both},
		{"default-digest", identity("matchRepoDigestOrExact"), "$REPO@$DIGEST", bothRefuse, both},
		{"default-no-tag", identity("matchRepoDigestOrExact"), "$REPO", bothRefuse, bothRefuse},
		{"default-elsewhere", identity("matchRepoDigestOrExact"), "vendor.example/app:v1", bothRefuse, bothRefuse},
		{"default-omitted", "[" + gpgSigned("$KEYS/rsa.gpg") + "]", "$REPO:v2", bothRefuse, both},
		{"exact-this-tag", identity("matchExact"), "$REPO:v1", both, bothRefuse},
		{"exact-another-tag", identity("matchExact"), "$REPO:v2", bothRefuse, bothRefuse},
		{"exact-digest", identity("matchExact"), "$REPO@$DIGEST", bothRefuse, both},
		{"repository-another-tag", identity("matchRepository"), "$REPO:v2", both, both},
		{"repository-elsewhere", identity("matchRepository"), "vendor.example/app:v1", bothRefuse, bothRefuse},
		{"exact-reference", identity("exactReference", exactly), "vendor.example/app:v7", both, both},
		{"exact-reference-another-tag", identity("exactReference", exactly), "vendor.example/app:v8", bothRefuse, bothRefuse},
		{"exact-reference-itself", identity("exactReference", exactly), "$REPO:v1", bothRefuse, bothRefuse},
		{"exact-repository", identity("exactRepository", repository), "vendor.example/app:v8", both, both},
		{"exact-repository-itself", identity("exactRepository", repository), "$REPO:v1", bothRefuse, bothRefuse},
		{"remapped", identity("remapIdentity", prefix, signedPrefix), "vendor.example/signed/$NAME/app:v1", both, both},
		{"remapped-another-tag", identity("remapIdentity", prefix, signedPrefix), "vendor.example/signed/$NAME/app:v2", bothRefuse, both},
		{"remapped-itself", identity("remapIdentity", prefix, signedPrefix), "$REPO:v1", bothRefuse, bothRefuse},
		{"remapped-not-its-prefix", identity("remapIdentity", `"prefix": "$HOST/as"`, signedPrefix), "$REPO:v1", both, both},
	} {
		all["identity-"+one.name] = comparison{
			signed: []signing{{key: rsaKey, as: one.claims}}, list: one.list, byTag: one.byTag, byDigest: one.byDigest,
		}
	}
	return all
}

// comparedScopes are all the levels at which a scope may be, from the image to
// the default.
func comparedScopes() map[string]comparison {
	const reject, anything = `[{"type": "reject"}]`, `[{"type": "insecureAcceptAnything"}]`
	policy := func(otherwise string, scopes ...string) string {
		return `{"default": ` + otherwise + `, "transports": {"docker": {` + strings.Join(scopes, ", ") + `}}}`
	}
	scope := func(name, list string) string { return fmt.Sprintf("%q: %s", name, list) }
	signed := "[" + gpgSigned("$KEYS/rsa.gpg") + "]"
	all := map[string]comparison{}
	// What takes the image in, the wider one always rejecting.
	levels := []string{"$REPO", "$HOST/as-skopeo/$NAME", "$HOST/as-skopeo", "$HOST", "*.0.0.1", "*.0.1", "*.1", ""}
	for i, level := range levels {
		name := fmt.Sprintf("scope-level-%d", i)
		scopes := []string{scope(level, anything)}
		for _, wider := range levels[i+1:] {
			scopes = append(scopes, scope(wider, reject))
		}
		rules := []string{cmp.Or(level, "docker")} // the transport's own default
		all[name] = comparison{policy: policy(reject, scopes...), rules: rules, skipped: level == "", byTag: bothAccept, byDigest: bothAccept}
		scopes[0] = scope(level, reject)
		for j, wider := range levels[i+1:] {
			scopes[j+1] = scope(wider, anything)
		}
		all[name+"-rejects"] = comparison{policy: policy(anything, scopes...), rules: rules}
		all[name+"-signed"] = comparison{
			signed: []signing{{key: rsaKey}}, policy: policy(reject, scope(level, signed)), rules: rules, byTag: bothAccept, byDigest: bothAccept,
		}
	}
	all["scope-tag"] = comparison{policy: policy(reject, scope("$REPO:v1", anything)), byTag: bothAccept, rules: []string{"$REPO:v1", "default"}}
	// By tag both must accept, the digest's own scope and that of the tag.
	all["scope-digest"] = comparison{
		policy: policy(reject, scope("$REPO@$DIGEST", anything)), byDigest: bothAccept, rules: []string{"$REPO@$DIGEST", "default"},
	}
	all["scope-another-tag"] = comparison{
		policy: policy(anything, scope("$REPO:v2", reject)), byTag: bothAccept, byDigest: bothAccept, skipped: true,
	}
	// None of these takes it in.
	for name, outside := range map[string]string{
		"part-of-a-name": "$HOST/as-skopeo/scope-part-of-a-nam", "no-port": "127.0.0.1", "its-own-domain": "*.127.0.0.1", "another-repository": "$REPO/more",
	} {
		all["scope-"+name] = comparison{policy: policy(reject, scope(outside, anything)), rules: []string{"default"}}
	}
	all["default"] = comparison{policy: `{"default": [{"type": "insecureAcceptAnything"}]}`, skipped: true, byTag: bothAccept, byDigest: bothAccept}
	all["default-rejects"] = comparison{policy: `{"default": [{"type": "reject"}]}`, rules: []string{"default"}}
	all["default-signed"] = comparison{
		signed: []signing{{key: rsaKey}}, policy: policy(signed), rules: []string{"default"}, byTag: bothAccept, byDigest: bothAccept,
	}
	all["anything-and-signed"] = comparison{
		list: `[{"type": "insecureAcceptAnything"}, ` + gpgSigned("$KEYS/rsa.gpg") + "]", signed: []signing{{key: rsaKey}},
		byTag: bothAccept, byDigest: bothAccept,
	}
	all["anything-and-unsigned"] = comparison{list: `[{"type": "insecureAcceptAnything"}, ` + gpgSigned("$KEYS/rsa.gpg") + "]"}
	all["reject-and-signed"] = comparison{
		list: `[` + gpgSigned("$KEYS/rsa.gpg") + `, {"type": "reject"}]`, signed: []signing{{key: rsaKey}},
	}
	return all
}

// comparedLookasides are the ways to say where signatures are.
func comparedLookasides() map[string]comparison {
	all := map[string]comparison{}
	for _, one := range []struct {
		name, registries string
		want             judgment
	}{
		{"host", `docker: {"$HOST": {lookaside: "$LOOKASIDE"}}`, bothAccept},
		{"trailing-slash", `docker: {"$HOST": {lookaside: "$LOOKASIDE/"}}`, bothAccept},
		{"path", `docker: {"$HOST": {lookaside: "$EMPTY"}, "$HOST/as-skopeo": {lookaside: "$LOOKASIDE"}}`, bothAccept},
		{"path-wins", `docker: {"$HOST": {lookaside: "$LOOKASIDE"}, "$HOST/as-skopeo": {lookaside: "$EMPTY"}}`, bothRefuse},
		{"repository", `docker: {"$HOST/as-skopeo": {lookaside: "$EMPTY"}, "$REPO": {lookaside: "$LOOKASIDE"}}`, bothAccept},
		{"default", `default-docker: {lookaside: "$LOOKASIDE"}`, bothAccept},
		{"default-loses", "default-docker: {lookaside: \"$LOOKASIDE\"}\ndocker: {\"$HOST\": {lookaside: \"$EMPTY\"}}", bothRefuse},
		{"default-for-a-field", "default-docker: {lookaside: \"$LOOKASIDE\"}\ndocker: {\"$HOST\": {use-sigstore-attachments: true}}", bothAccept},
		{"former-name", `docker: {"$HOST": {sigstore: "$LOOKASIDE"}}`, bothAccept},
		{"staging-is-not-read", `docker: {"$HOST": {lookaside: "$EMPTY", lookaside-staging: "$LOOKASIDE"}}`, bothRefuse},
		{"folder", `docker: {"$HOST": {lookaside: "file://$FOLDER"}}`, bothAccept},
		{"another-host", `docker: {"other.example": {lookaside: "$LOOKASIDE"}}`, bothRefuse},
		{"none", `docker: {}`, bothRefuse},
		{"empty-server", `docker: {"$HOST": {lookaside: "$EMPTY"}}`, bothRefuse},
		{"down", `docker: {"$HOST": {lookaside: "http://127.0.0.1:1"}}`, bothRefuse},
	} {
		all["lookaside-"+one.name] = comparison{
			signed: []signing{{key: rsaKey}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]", registries: one.registries,
			byTag: one.want, byDigest: one.want,
		}
	}
	all["lookaside-tag"] = comparison{
		signed: []signing{{key: rsaKey}}, list: "[" + gpgSigned("$KEYS/rsa.gpg") + "]", byTag: bothAccept,
		registries: `docker: {"$HOST": {lookaside: "$EMPTY"}, "$REPO:v1": {lookaside: "$LOOKASIDE"}}`,
	}
	return all
}

// comparedAttachments are signatures that cosign attached.
func comparedAttachments(key signer.Key) map[string]comparison {
	const attached = `docker: {"$HOST": {use-sigstore-attachments: true}}`
	const byFile, byRepository = `"keyPath": "$KEYS/cosign.pub"`, `"signedIdentity": {"type": "matchRepository"}`
	byData := fmt.Sprintf(`"keyData": %q`, base64.StdEncoding.EncodeToString([]byte(key.PublicPEM)))
	list := func(fields ...string) string {
		return `[{"type": "sigstoreSigned", ` + strings.Join(fields, ", ") + "}]"
	}
	accepted := comparison{cosign: true, registries: attached, byTag: bothAccept, byDigest: bothAccept}
	refused := comparison{cosign: true, registries: attached}
	with := func(c comparison, list string) comparison {
		c.list = list
		return c
	}
	all := map[string]comparison{
		"sigstore-file":       with(accepted, list(byFile, byRepository)),
		"sigstore-data":       with(accepted, list(byData, byRepository)),
		"sigstore-repository": with(accepted, list(byFile, `"signedIdentity": {"type": "exactRepository", "dockerRepository": "$REPO"}`)),
		"sigstore-elsewhere":  with(refused, list(byFile, `"signedIdentity": {"type": "exactRepository", "dockerRepository": "vendor.example/app"}`)),
		// cosign does not say which tag it signs.
		"sigstore-default-identity": with(refused, list(byFile)),
		"sigstore-exact":            with(refused, list(byFile, `"signedIdentity": {"type": "matchExact"}`)),
		"sigstore-another-key":      with(refused, list(`"keyPath": "$KEYS/other.pub"`, byRepository)),
		"sigstore-no-key":           with(refused, list(`"keyPath": "$KEYS/missing.pub"`, byRepository)),
		"sigstore-unsigned":         {registries: attached, list: list(byFile, byRepository)},
		"sigstore-not-looked-for":   {cosign: true, list: list(byFile, byRepository)},
		"sigstore-turned-off": {
			cosign: true, list: list(byFile, byRepository),
			registries: "default-docker: {use-sigstore-attachments: true}\ndocker: {\"$HOST\": {use-sigstore-attachments: false}}",
		},
		"sigstore-by-default": {
			cosign: true, list: list(byFile, byRepository), byTag: bothAccept, byDigest: bothAccept,
			registries: "default-docker: {use-sigstore-attachments: true}\ndocker: {\"$HOST\": {lookaside: \"$LOOKASIDE\"}}",
		},
		"sigstore-and-gpg": {
			cosign: true, signed: []signing{{key: rsaKey}}, byTag: bothAccept, byDigest: bothAccept,
			list:       `[{"type": "sigstoreSigned", ` + byFile + `, ` + byRepository + `}, ` + gpgSigned("$KEYS/rsa.gpg") + `]`,
			registries: `docker: {"$HOST": {lookaside: "$LOOKASIDE", use-sigstore-attachments: true}}`,
		},
		"sigstore-is-not-gpg": with(refused, "["+gpgSigned("$KEYS/rsa.gpg")+"]"),
		"gpg-is-not-sigstore": {
			signed: []signing{{key: rsaKey}}, list: list(byFile, byRepository),
			registries: `docker: {"$HOST": {lookaside: "$LOOKASIDE", use-sigstore-attachments: true}}`,
		},
	}
	for name, one := range all {
		one.older = debianOnly
		all[name] = one
	}
	return all
}

// comparedIndexes are what of an index may be signed.
func comparedIndexes() map[string]comparison {
	signed := "[" + gpgSigned("$KEYS/rsa.gpg") + "]"
	index := func(want judgment, signings ...signing) comparison {
		return comparison{index: true, signed: signings, list: signed, byTag: want, byDigest: want}
	}
	return map[string]comparison{
		"index-itself":      index(onlyOurs, signing{key: rsaKey}),
		"index-all":         index(bothAccept, signing{key: rsaKey}, signing{key: rsaKey, of: allPlatforms}),
		"index-images":      index(bothAccept, signing{key: rsaKey, of: allPlatforms}),
		"index-one-image":   index(onlySkopeo, signing{key: rsaKey, of: theFirst}),
		"index-another-key": index(bothRefuse, signing{key: nistKey}, signing{key: nistKey, of: allPlatforms}),
		"index-unsigned":    index(bothRefuse),
		// cosign sign without --recursive.
		"index-sigstore": {
			index: true, cosign: true, older: debianOnly, registries: `docker: {"$HOST": {use-sigstore-attachments: true}}`, byTag: onlyOurs, byDigest: onlyOurs,
			list: `[{"type": "sigstoreSigned", "keyPath": "$KEYS/cosign.pub", "signedIdentity": {"type": "matchRepository"}}]`,
		},
		"index-anything": {index: true, list: `[{"type": "insecureAcceptAnything"}]`, byTag: bothAccept, byDigest: bothAccept},
	}
}
