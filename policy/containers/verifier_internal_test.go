// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
)

const name = "example.com/acme/app:v1"

// expect checks a verdict, and that its message is one line without what is of
// this machine.
func expect(t *testing.T, v policy.Verdict, outcome policy.Outcome, reason policy.Reason, says string) {
	t.Helper()
	if v.Outcome != outcome || v.Reason != reason || !strings.Contains(v.Message, says) {
		t.Errorf("verdict = %s %s: %s; want %s %s: …%s…", v.Outcome, v.Reason, v.Message, outcome, reason, says)
	}
	if strings.ContainsAny(v.Message, "\n\r\x1b") || strings.Contains(v.Message, t.TempDir()) || strings.Contains(v.Message, "pratique-image") {
		t.Errorf("message = %q", v.Message)
	}
}

// One signature, and one thing about it that changes.
func TestSignedBy(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	s := newShelf()
	digest, other := s.image(1), s.image(2)
	good := newGPG(asEd25519, day, 0)
	subkey := newGPG(asNIST, day, 0)
	must(0, subkey.AddSigningSubkey(&subkey.config))
	revoked := newGPG(asEd25519, day, 0)
	byRevoked := revoked.sign(digest, name)
	must(0, revoked.RevokeKey(packet.KeySuperseded, "", &revoked.config))
	ended := newGPG(asEd25519, day, 0)
	ended.config.SigLifetimeSecs = 60
	for name, row := range map[string]struct {
		keys      []byte
		signature []byte
		outcome   policy.Outcome
		reason    policy.Reason
		says      string
	}{
		"good":              {good.public(), good.sign(digest, name), policy.Accepted, policy.ReasonVerified, "signedBy (requirement 0)"},
		"armored":           {good.armored(), good.sign(digest, name), policy.Accepted, policy.ReasonVerified, ""},
		"NIST":              pass(newGPG(asNIST, day, 0), digest),
		"RSA":               pass(newGPG(asRSA, day, 0), digest),
		"subkey":            pass(subkey, digest),
		"not ended yet":     pass(newGPG(asEd25519, day, 2*day), digest),
		"key ended":         fail(newGPG(asEd25519, 2*day, day), digest, "key expired"),
		"signature ended":   fail(ended, digest, "signature expired"),
		"key revoked":       {revoked.public(), byRevoked, policy.Rejected, policy.ReasonNoMatch, "revoked"},
		"another key":       {newGPG(asEd25519, day, 0).public(), good.sign(digest, name), policy.Rejected, policy.ReasonNoMatch, "Key not found"},
		"another image":     {good.public(), good.sign(other, name), policy.Rejected, policy.ReasonNoMatch, "does not match"},
		"another statement": {good.public(), good.message([]byte("{}\n\x1b[31m")), policy.Rejected, policy.ReasonNoMatch, "its GPG signature is not accepted: "},
		"cut":               {good.public(), good.sign(digest, name)[:60], policy.Rejected, policy.ReasonNoMatch, ""},
		"an HTML page":      {good.public(), []byte("<html>\n"), policy.Inconclusive, policy.ReasonUnexpected, "no form that can be read"},
		"nothing in it":     {good.public(), nil, policy.Inconclusive, policy.ReasonUnexpected, "no form that can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := newShelf()
			own.manifests = s.manifests
			own.sign(digest, row.signature)
			expect(t, verifier(t, own, byGPG(row.keys)).Verify(t.Context(), byTag(digest)), row.outcome, row.reason, row.says)
		})
	}
}

type signedRow = struct {
	keys      []byte
	signature []byte
	outcome   policy.Outcome
	reason    policy.Reason
	says      string
}

func pass(g gpg, digest string) signedRow {
	return signedRow{g.public(), g.sign(digest, name), policy.Accepted, policy.ReasonVerified, ""}
}

func fail(g gpg, digest, says string) signedRow {
	return signedRow{g.public(), g.sign(digest, name), policy.Rejected, policy.ReasonNoMatch, says}
}

// The identity is that of the tag where it counts, else that of the digest.
func TestIdentity(t *testing.T) {
	t.Parallel()
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	digest := newShelf().image(1)
	for title, row := range map[string]struct {
		image   policy.Image
		signed  string
		matches string
		says    string // empty: accepted
	}{
		"tag":                    {byTag(digest), name, identityDigest, ""},
		"tag beside digest":      {imageOf(name+"@"+digest, digest), name, identityDigest, ""},
		"another tag":            {byTag(digest), "example.com/acme/app:v2", identityDigest, `it is for "example.com/acme/app:v2", and the image is judged as example.com/acme/app:v1; signedIdentity matchRepoDigestOrExact takes`},
		"digest":                 {byDigest(digest), name, identityDigest, ""},
		"digest, exactly":        {byDigest(digest), name, identityExact, `judged as example.com/acme/app@` + digest},
		"cosign":                 {byTag(digest), "example.com/acme/app", identityDigest, "use matchRepository"},
		"cosign, repository":     {byTag(digest), "example.com/acme/app", identityRepo, ""},
		"another repository":     {byTag(digest), "example.com/acme/app2:v1", identityRepo, "takes the same repository"},
		"host in other letters":  {imageOf("EXAMPLE.com:443/acme/app:v1", digest), name, identityExact, ""},
		"Docker Hub's long name": {imageOf("app", digest), "docker.io/library/app:latest", identityExact, ""},
		"with a terminal's code": {byTag(digest), "\x1b[31m\n", identityRepo, `it is for "\x1b[31m\n", and`},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := newShelf()
			s.image(1)
			s.sign(digest, g.sign(digest, row.signed))
			s.attached[digest] = []registry.Signature{attach(key, digest, row.signed)}
			for _, r := range []object{byGPG(g.public()), bySigstore(publicPEM(key.Public()))} {
				v := verifier(t, s, r.with("signedIdentity", object{"type": row.matches})).Verify(t.Context(), row.image)
				if row.says == "" {
					expect(t, v, policy.Accepted, policy.ReasonVerified, "")
				} else {
					expect(t, v, policy.Rejected, policy.ReasonNoMatch, row.says)
				}
			}
		})
	}
}

// All requirements have to be met, and the first that is not is told.
func TestRequirementsAreAnd(t *testing.T) {
	t.Parallel()
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	s := newShelf()
	both, simple, attached, neither := s.image(1), s.image(2), s.image(3), s.image(4)
	for _, digest := range []string{both, simple} {
		s.sign(digest, newGPG(asEd25519, 0, 0).sign(digest, name), g.sign(digest, name))
	}
	for _, digest := range []string{both, attached} {
		s.attached[digest] = []registry.Signature{attach(newECDSA(), digest, name), attach(key, digest, name)}
	}
	v := verifier(t, s, object{"type": kindAccept}, byGPG(g.public()), bySigstore(publicPEM(key.Public())))
	got := v.Verify(t.Context(), byTag(both))
	expect(t, got, policy.Accepted, policy.ReasonVerified, "")
	if want := "signedBy (requirement 1), sigstoreSigned (requirement 2)"; got.Signer != want {
		t.Errorf("signer = %q, want %q", got.Signer, want)
	}
	expect(t, v.Verify(t.Context(), byTag(simple)), policy.Rejected, policy.ReasonNoSignature,
		"sigstoreSigned (requirement 2): no signature by sigstore: none is attached to it (a .sig tag) (not counting 2 of another kind)")
	expect(t, v.Verify(t.Context(), byTag(attached)), policy.Rejected, policy.ReasonNoSignature,
		"signedBy (requirement 1): no signature by GPG: its registry keeps none itself, and there is no registries.d that names a lookaside (--registries-d)")
	expect(t, v.Verify(t.Context(), byTag(neither)), policy.Rejected, policy.ReasonNoSignature, "signedBy (requirement 1)")
	s.sign(neither, newGPG(asEd25519, 0, 0).sign(neither, name), newGPG(asEd25519, 0, 0).sign(neither, name))
	expect(t, v.Verify(t.Context(), byTag(neither)), policy.Rejected, policy.ReasonNoMatch, "none of its 2 GPG signatures is accepted: ")
}

// A signature that the registry keeps itself is of one form whatever it begins
// with; a lookaside has both.
func TestForms(t *testing.T) {
	t.Parallel()
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	s := newShelf()
	digest := s.image(1)
	file := must(attachment(attach(key, digest, name)))
	both := verifier(t, s, byGPG(g.public()), bySigstore(publicPEM(key.Public())))
	s.simple[digest] = []registry.SimpleSignature{{Untrusted: file}, {Untrusted: append([]byte(simplePrefix), g.sign(digest, name)...)}}
	expect(t, both.Verify(t.Context(), byTag(digest)), policy.Accepted, policy.ReasonVerified, "")
	s.simple[digest] = []registry.SimpleSignature{{Untrusted: file}, {Untrusted: g.sign(digest, name), ByRegistry: true}}
	expect(t, both.Verify(t.Context(), byTag(digest)), policy.Accepted, policy.ReasonVerified, "")
	s.simple[digest][0].ByRegistry = true
	expect(t, both.Verify(t.Context(), byTag(digest)), policy.Rejected, policy.ReasonNoSignature, "sigstoreSigned (requirement 1)")
}

// What is not asked for is not fetched.
func TestFetches(t *testing.T) {
	t.Parallel()
	g, key := newGPG(asEd25519, time.Hour, 0), newECDSA()
	for title, row := range map[string]struct {
		requirement object
		unattached  bool
		attached    bool
	}{
		"GPG":                     {byGPG(g.public()), false, false},
		"sigstore":                {bySigstore(publicPEM(key.Public())), false, true},
		"sigstore, not looked at": {bySigstore(publicPEM(key.Public())), true, false},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := newShelf()
			digest := s.image(1)
			s.attached[digest] = []registry.Signature{attach(key, digest, name)}
			v := verifier(t, s, row.requirement)
			v.attached = !row.unattached
			got := v.Verify(t.Context(), byTag(digest))
			if asked := strings.Contains(strings.Join(s.asked, " "), "attached"); asked != row.attached || len(s.asked) < 2 {
				t.Errorf("asked for %v", s.asked)
			}
			if row.unattached {
				expect(t, got, policy.Rejected, policy.ReasonNoSignature, "set use-sigstore-attachments: true in registries.d")
			}
		})
	}
}

// What cannot be read leaves the image unexamined, unless what was read is enough.
func TestUnread(t *testing.T) {
	t.Parallel()
	down := policy.Undecided(policy.ReasonUnreachable, "example.com does not answer").Err()
	g := newGPG(asEd25519, time.Hour, 0)
	for _, row := range []struct {
		title, of string
		err       error
		signed    bool
		outcome   policy.Outcome
		reason    policy.Reason
	}{
		{"manifest", "manifest", down, true, policy.Inconclusive, policy.ReasonUnreachable},
		{"signatures", "simple", down, false, policy.Inconclusive, policy.ReasonUnreachable},
		{"further signatures", "simple", down, true, policy.Accepted, policy.ReasonVerified},
		{"attachments", "attached", down, false, policy.Inconclusive, policy.ReasonUnreachable},
		{"further attachments", "attached", down, true, policy.Accepted, policy.ReasonVerified},
		{"another manifest", "manifest", policy.Refused(policy.ReasonDigestMismatch, "another").Err(), true, policy.Rejected, policy.ReasonDigestMismatch},
		{"anything else", "simple", errors.New("what"), false, policy.Inconclusive, policy.ReasonInternal},
	} {
		t.Run(row.title, func(t *testing.T) {
			t.Parallel()
			s, key := newShelf(), newECDSA()
			digest := s.image(1)
			list := []object{byGPG(g.public())}
			if row.of == "attached" {
				list[0] = bySigstore(publicPEM(key.Public()))
			}
			if row.signed {
				s.sign(digest, g.sign(digest, name))
				s.attached[digest] = []registry.Signature{attach(key, digest, name)}
			}
			s.fail[row.of+" "+digest] = row.err
			expect(t, verifier(t, s, list...).Verify(t.Context(), byTag(digest)), row.outcome, row.reason, "")
		})
	}
}

// A context that ends leaves the image unexamined, also where that looks as if
// there were nothing to find.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	s := newShelf()
	digest := s.image(1)
	v := verifier(t, s, byGPG(newGPG(asEd25519, 0, 0).public()))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	expect(t, v.Verify(ctx, byTag(digest)), policy.Inconclusive, policy.ReasonDeadline, "")
	if len(s.asked) > 0 {
		t.Errorf("asked for %v", s.asked)
	}
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	expect(t, verifier(t, &endingShelf{s, cancel}, byGPG(newGPG(asEd25519, 0, 0).public())).Verify(ctx, byTag(digest)),
		policy.Inconclusive, policy.ReasonDeadline, "")
}

// endingShelf ends the context, and does not notice itself.
type endingShelf struct {
	*shelf
	cancel func()
}

func (s *endingShelf) Manifest(ctx context.Context, image policy.Image) ([]byte, error) {
	s.cancel()
	return s.shelf.Manifest(context.WithoutCancel(ctx), image)
}

// The bytes that are judged are those of the digest, whatever a source says.
func TestManifestIsOfItsDigest(t *testing.T) {
	t.Parallel()
	s, g := newShelf(), newGPG(asEd25519, time.Hour, 0)
	digest, other := s.image(1), s.image(2)
	s.sign(digest, g.sign(other, name))
	s.manifests[digest] = s.manifests[other]
	expect(t, verifier(t, s, byGPG(g.public())).Verify(t.Context(), byTag(digest)), policy.Inconclusive, policy.ReasonUnexpected, "not what its digest says")
}
