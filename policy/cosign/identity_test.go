// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Look-alikes of an identity, in both dialects. Each is signed by a certificate
// that the trust root vouches for.
func TestIdentities(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	type identities []cosign.Identity
	const exactly, anywhere, nowhere = "anchored", "unanchored", "neither"
	const acme = `https://github\.com/acme-co/.*`
	for name, test := range map[string]struct {
		signed  issued
		asked   identities
		accepts string // in which dialect
	}{
		"exact":                               {issued{}, identities{{Issuer: actions, Subject: workflow}}, exactly},
		"exact, a longer subject":             {issued{Subject: workflow + "x"}, identities{{Issuer: actions, Subject: workflow}}, nowhere},
		"exact, a shorter subject":            {issued{Subject: strings.TrimSuffix(workflow, "n")}, identities{{Issuer: actions, Subject: workflow}}, nowhere},
		"exact, in another case":              {issued{Subject: strings.Replace(workflow, "acme", "Acme", 1)}, identities{{Issuer: actions, Subject: workflow}}, nowhere},
		"exact, a longer issuer":              {issued{Issuer: actions + "/"}, identities{{Issuer: actions, Subject: workflow}}, nowhere},
		"exact is no expression":              {issued{Subject: "https://github.com/acme-co/shop"}, identities{{Issuer: actions, Subject: "https://github.com/acme-co/.*"}}, nowhere},
		"by expression":                       {issued{}, identities{{Issuer: actions, SubjectRegExp: acme}}, exactly},
		"by both expressions":                 {issued{}, identities{{IssuerRegExp: `https://token\..*\.com`, SubjectRegExp: acme}}, exactly},
		"the name inside another's":           {issued{Subject: "https://evil.example/https://github.com/acme-co/x"}, identities{{Issuer: actions, SubjectRegExp: acme}}, anywhere},
		"the name in another's query":         {issued{Subject: "https://evil.example/?https://github.com/acme-co/x"}, identities{{Issuer: actions, SubjectRegExp: acme}}, anywhere},
		"a longer owner":                      {issued{Subject: "https://github.com/acme-co-evil/x"}, identities{{Issuer: actions, SubjectRegExp: acme}}, nowhere},
		"a host that ends so":                 {issued{Issuer: "https://token.actions.githubusercontent.com.evil.example"}, identities{{IssuerRegExp: `https://token\.actions\.githubusercontent\.com`, Subject: workflow}}, anywhere},
		"a host that begins so":               {issued{Issuer: "https://evil.example/" + actions}, identities{{IssuerRegExp: `https://token\.actions\.githubusercontent\.com`, Subject: workflow}}, anywhere},
		"an alternative at the end":           {issued{Subject: "https://evil.example/b"}, identities{{Issuer: actions, SubjectRegExp: `a|b`}}, anywhere},
		"an alternative that is whole":        {issued{Email: "b"}, identities{{Issuer: actions, SubjectRegExp: `a|b`}}, exactly},
		"anchors of its own":                  {issued{}, identities{{Issuer: actions, SubjectRegExp: "^" + acme + "$"}}, exactly},
		"lines":                               {issued{Subject: "https://evil.example/%0Ahttps://github.com/acme-co/x"}, identities{{Issuer: actions, SubjectRegExp: `(?m)^` + acme + `$`}}, nowhere},
		"the expression counts":               {issued{}, identities{{Issuer: actions, Subject: workflow, SubjectRegExp: "https://other"}}, nowhere},
		"the expression counts, of issuers":   {issued{}, identities{{Issuer: actions, IssuerRegExp: "https://other", Subject: workflow}}, nowhere},
		"e-mail":                              {issued{Email: "a@acme.example"}, identities{{Issuer: actions, Subject: "a@acme.example"}}, exactly},
		"e-mail, a look-alike":                {issued{Email: "a@acme.example.evil"}, identities{{Issuer: actions, SubjectRegExp: `.*@acme\.example`}}, anywhere},
		"the second of two":                   {issued{}, identities{{Issuer: "x", Subject: "y"}, {Issuer: actions, Subject: workflow}}, exactly},
		"issuer of one, subject of the other": {issued{}, identities{{Issuer: actions, Subject: "y"}, {Issuer: "x", Subject: workflow}}, nowhere},
		"a subject that is the issuer's":      {issued{Subject: actions}, identities{{Issuer: actions, Subject: workflow}}, nowhere},
		"one of two names":                    {issued{Email: "a@acme.example", Subject: "https://other"}, identities{{Issuer: actions, Subject: "a@acme.example"}}, exactly},
		"an empty expression for nothing":     {issued{Nameless: true}, identities{{IssuerRegExp: "(.*)", Subject: workflow}}, nowhere},
	} {
		for form, f := range sigstoreForms {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				f.push(s, r, image, s.Leaf(test.signed), vouching{Log: true})
				for _, unanchored := range []bool{false, true} {
					a := f.asks(s.keyless())
					a.Keyless = &cosign.Keyless{Identities: test.asked, Unanchored: unanchored}
					expected := want{policy.Rejected, policy.ReasonNoMatch, "which none of its identities names"}
					if test.accepts == exactly || unanchored && test.accepts == anywhere {
						expected = accepted("")
					}
					expected.check(t, verdict(t, r, image, a))
				}
			})
		}
	}
}

func TestBadAuthorities(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	key := [][]byte{[]byte(registrytest.NewKey(t, registrytest.ECDSAP256).PublicPEM())}
	keyless := func(identities ...cosign.Identity) cosign.Authority {
		return cosign.Authority{Trust: s.trust(), Keyless: &cosign.Keyless{Identities: identities}}
	}
	with := func(change func(*cosign.Authority)) cosign.Authority {
		a := keyless(cosign.Identity{Issuer: actions, Subject: workflow})
		change(&a)
		return a
	}
	for name, test := range map[string]struct {
		authority cosign.Authority
		says      string
	}{
		"no identities":            {keyless(), "names no identities"},
		"an empty identity":        {keyless(cosign.Identity{}), "identity 0: it has neither issuer nor issuerRegExp"},
		"no issuer":                {keyless(cosign.Identity{Subject: workflow}), "neither issuer"},
		"no subject":               {keyless(cosign.Identity{Issuer: actions}), "neither subject nor subjectRegExp"},
		"a second without subject": {keyless(cosign.Identity{Issuer: actions, Subject: workflow}, cosign.Identity{Issuer: actions}), "identity 1"},
		"no expression":            {keyless(cosign.Identity{Issuer: actions, SubjectRegExp: "("}), "identity 0: its subjectRegExp is not an expression"},
		"half an expression":       {keyless(cosign.Identity{Issuer: actions, SubjectRegExp: "a)|(?:.*"}), "subjectRegExp is not an expression"},
		"issuer no expression":     {keyless(cosign.Identity{IssuerRegExp: "*", Subject: workflow}), "issuerRegExp is not an expression"},
		"no trust root":            {with(func(a *cosign.Authority) { a.Trust = nil }), "no trust root"},
		"log without trust root":   {cosign.Authority{Keys: key, Log: true}, "no trust root"},
		"stamp without trust root": {cosign.Authority{Keys: key, Timestamp: true}, "no trust root"},
		"key and keyless":          {with(func(a *cosign.Authority) { a.Keys = key }), "key and keyless exclude each other"},
		"static and keyless":       {with(func(a *cosign.Authority) { a.Static = cosign.StaticPass }), "static and keyless exclude each other"},
		"a second key unreadable":  {cosign.Authority{Keys: [][]byte{key[0], []byte("x")}}, "key 1: not a public key"},
		"attestation of no type":   {with(func(a *cosign.Authority) { a.Attestations = []cosign.Attestation{{Name: "x"}} }), `attestation 0 ("x") has no predicateType`},
		"nothing to evaluate with": {with(func(a *cosign.Authority) {
			a.Attestations = []cosign.Attestation{{PredicateType: sbom, Policy: &cue}}
		}), "nothing to evaluate it with"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.authority.Name = "release"
			v, err := cosign.New(cosign.Options{}, []cosign.Authority{test.authority})
			if err == nil || v != nil {
				t.Fatalf("New = %v, %v; want an error alone", v, err)
			}
			if !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), `authority "release"`) {
				t.Errorf("error = %q, want the authority and %q in it", err, test.says)
			}
		})
	}
}

// What a certificate says ends up in messages: it is quoted, and cut.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	for name, says := range map[string]issued{
		"control characters": {Issuer: "a\x1b[2J\r\n\u202eb", Email: "x@y"},
		"long":               {Issuer: strings.Repeat("a", 100_000), Subject: "https://x/" + strings.Repeat("b", 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			sigstoreForms[".sig"].push(s, r, image, s.Leaf(says), vouching{Stamp: true})
			want{policy.Rejected, policy.ReasonNoMatch, "which none of its identities names"}.check(t, verdict(t, r, image, s.keyless()))
		})
	}
}
