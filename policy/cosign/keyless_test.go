// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// Everything that can come with a signature or an attestation, in every form, by
// key and keyless, against everything that an authority can ask for.
func TestMatrix(t *testing.T) {
	t.Parallel()
	s := newSigstore(t)
	yesNo := []bool{false, true}
	for name, form := range sigstoreForms {
		for _, keyless := range yesNo {
			for _, logged := range yesNo {
				for _, stamped := range yesNo {
					t.Run(fmt.Sprintf("%s, keyless %t, log %t, timestamp %t", name, keyless, logged, stamped), func(t *testing.T) {
						t.Parallel()
						r := registrytest.New(t)
						image := r.PushImage(t, "acme/app:v1")
						by := &leaf{Key: newECDSA(t)}
						authority := cosign.Authority{Name: "release", Keys: [][]byte{by.PEM(t)}}
						if keyless {
							by, authority = s.Leaf(issued{}), s.keyless()
						}
						form.push(s, r, image, by, vouching{Log: logged, Stamp: stamped})
						for _, wantsLog := range yesNo {
							for _, wantsStamp := range yesNo {
								a := form.asks(authority)
								a.Trust, a.Log, a.Timestamp = s.trust(), wantsLog, wantsStamp
								good := (logged || !wantsLog) && (stamped || !wantsStamp) && (!keyless || logged || stamped)
								expected := accepted(`authority "release"`)
								if !good {
									expected = want{policy.Rejected, policy.ReasonNoMatch, "vouches for belongs to it"}
								}
								t.Logf("log %t, timestamp %t", wantsLog, wantsStamp)
								expected.check(t, verdict(t, r, image, a))
							}
						}
					})
				}
			}
		}
	}
}

// broke is one thing that is wrong with an image that is signed keyless.
type broke struct {
	by   *leaf
	v    vouching
	bend func(*cosign.Authority)
	want want
}

// Each case changes one thing of what a certificate signed, in every form.
func TestKeylessOneThingWrong(t *testing.T) {
	t.Parallel()
	s, foreign := newSigstore(t), newSigstore(t)
	brief := &sigstore{cosigntest.NewWith(t, around(5*time.Hour, -4*time.Minute))}
	ended := newSigstore(t)
	ended.Until = time.Now().Add(-time.Minute)
	otherLog := *s.Sigstore
	otherLog.CTLog = newECDSA(t)
	expired := issued{Valid: around(30*time.Minute, -20*time.Minute)}
	long := issued{Valid: around(3*time.Hour, time.Hour)}
	inTime, logged := time.Now().Add(-25*time.Minute), vouching{Log: true}
	refused := func(says string) want { return want{policy.Rejected, policy.ReasonNoMatch, says} }
	const untimed, uncertified, lapsed = "neither a log entry nor a signed timestamp", "not vouched for by the trust root", "outside the time in which its certificate"
	another := &entry{By: s.Leaf(issued{}), Content: []byte("x"), Statement: []byte("y"), Signature: []byte("z")}
	ignoreSCT := func(a *cosign.Authority) { a.Keyless.IgnoreSCT = true }
	for name, test := range map[string]struct {
		on *sigstore
		broke
	}{
		"nothing":                          {s, broke{s.Leaf(issued{}), logged, nil, accepted(`signed by "` + workflow + `" (issuer "` + actions + `")`)}},
		"another subject":                  {s, broke{s.Leaf(issued{Subject: "https://github.com/evil/x"}), logged, nil, refused(`signed by "https://github.com/evil/x" (issuer "` + actions + `"), which none of its identities names`)}},
		"another issuer":                   {s, broke{s.Leaf(issued{Issuer: "https://evil.example"}), logged, nil, refused(`(issuer "https://evil.example"), which none`)}},
		"no issuer":                        {s, broke{s.Leaf(issued{Nameless: true}), logged, anyone, refused("which none of its identities names")}},
		"the certificate of another root":  {s, broke{foreign.Leaf(issued{}), logged, nil, refused(uncertified)}},
		"all of another root":              {foreign, broke{foreign.Leaf(issued{}), vouching{Log: true, Stamp: true}, trusting(s), refused(untimed)}},
		"in no certificate log":            {s, broke{s.Leaf(issued{Unlogged: true}), logged, nil, refused("(SCT)")}},
		"in no certificate log, ignored":   {s, broke{s.Leaf(issued{Unlogged: true}), logged, ignoreSCT, accepted("")}},
		"in another certificate log":       {s, broke{otherLog.Leaf(issued{}), logged, nil, refused("(SCT)")}},
		"untimed within its ten minutes":   {s, broke{s.Leaf(issued{}), vouching{}, nil, refused(untimed)}},
		"untimed, ignoring SCT":            {s, broke{s.Leaf(issued{}), vouching{}, ignoreSCT, refused(untimed)}},
		"expired, untimed":                 {s, broke{s.Leaf(expired), vouching{}, nil, refused(untimed)}},
		"expired, logged in time":          {s, broke{s.Leaf(expired), vouching{Log: true, At: inTime}, nil, accepted("")}},
		"expired, logged since":            {s, broke{s.Leaf(expired), logged, nil, refused(lapsed)}},
		"expired, stamped since":           {s, broke{s.Leaf(expired), vouching{Stamp: true}, nil, refused("")}},
		"logged before it was valid":       {s, broke{s.Leaf(issued{}), vouching{Log: true, At: inTime}, nil, refused(lapsed)}},
		"logged when the log was not":      {s, broke{s.Leaf(long), vouching{Log: true, At: time.Now().Add(-2 * time.Hour)}, nil, refused(untimed)}},
		"logged when the log was":          {s, broke{s.Leaf(long), vouching{Log: true, At: time.Now().Add(-50 * time.Minute)}, nil, accepted("")}},
		"intermediate expired since":       {brief, broke{brief.Leaf(issued{Valid: around(6*time.Minute, 4*time.Minute)}), logged, nil, refused(uncertified)}},
		"intermediate expired, stamped":    {brief, broke{brief.Leaf(issued{Valid: around(6*time.Minute, 4*time.Minute)}), vouching{Stamp: true}, nil, refused(uncertified)}},
		"intermediate expired after it":    {brief, broke{brief.Leaf(issued{Valid: around(6*time.Minute, 4*time.Minute)}), vouching{Log: true, At: time.Now().Add(-5 * time.Minute)}, nil, accepted("")}},
		"intermediate expired, untimed":    {brief, broke{brief.Leaf(issued{Valid: around(6*time.Minute, 4*time.Minute)}), vouching{}, nil, refused(untimed)}},
		"the authority has ended":          {ended, broke{ended.Leaf(issued{}), logged, nil, refused(uncertified)}},
		"no certificate":                   {s, broke{&leaf{Key: newECDSA(t)}, logged, nil, refused("with a certificate")}},
		"entry of another artefact":        {s, broke{s.Leaf(issued{}), vouching{Log: true, EntryOf: another}, nil, refused(untimed)}},
		"entry with an altered time":       {s, broke{s.Leaf(issued{}), vouching{Log: true, Bend: func(r *record) { r.IntegratedTime++ }}, nil, refused(untimed)}},
		"entry with an altered place":      {s, broke{s.Leaf(issued{}), vouching{Log: true, Bend: func(r *record) { r.LogIndex++ }}, nil, refused(untimed)}},
		"entry with an altered promise":    {s, broke{s.Leaf(issued{}), vouching{Log: true, Bend: func(r *record) { r.SET[10] ^= 1 }}, nil, refused(untimed)}},
		"entry without a promise":          {s, broke{s.Leaf(issued{}), vouching{Log: true, Bend: func(r *record) { r.SET = nil }}, nil, refused(untimed)}},
		"timestamp of something else":      {s, broke{s.Leaf(issued{}), vouching{Stamp: true, StampOf: []byte("x")}, nil, refused(untimed)}},
		"stamp of something else, logged":  {s, broke{s.Leaf(issued{}), vouching{Log: true, Stamp: true, StampOf: []byte("x")}, nil, accepted("")}},
		"entry of something else, stamped": {s, broke{s.Leaf(issued{}), vouching{Log: true, EntryOf: another, Stamp: true}, nil, accepted("")}},
	} {
		for form, f := range sigstoreForms {
			t.Run(name+", "+form, func(t *testing.T) {
				t.Parallel()
				r := registrytest.New(t)
				image := r.PushImage(t, "acme/app:v1")
				f.push(test.on, r, image, test.by, test.v)
				a := f.asks(test.on.keyless())
				if test.bend != nil {
					test.bend(&a)
				}
				test.want.check(t, verdict(t, r, image, a))
				if test.want.outcome == policy.Accepted {
					return
				}
				// A good one beside it still counts.
				f.push(s, r, image, s.Leaf(issued{}), vouching{Log: true})
				accepted("").check(t, verdict(t, r, image, f.asks(s.keyless())))
			})
		}
	}
}

// anyone has an authority name everybody.
func anyone(a *cosign.Authority) {
	a.Keyless.Identities = []cosign.Identity{{IssuerRegExp: ".*", SubjectRegExp: ".*"}}
}

// trusting has an authority trust another root.
func trusting(s *sigstore) func(*cosign.Authority) {
	return func(a *cosign.Authority) { a.Trust = s.trust() }
}
