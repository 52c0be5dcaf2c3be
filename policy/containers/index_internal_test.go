// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
)

// part is one entry of an index.
func part(digest, os, architecture string) string {
	return string(must(json.Marshal(object{
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
		"platform": object{"os": os, "architecture": architecture},
	})))
}

func indexText(parts ...string) string {
	return `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` + strings.Join(parts, ",") + `]}`
}

func TestIndex(t *testing.T) {
	t.Parallel()
	s, g := newShelf(), newGPG(asEd25519, time.Hour, 0)
	amd, arm, attestation := s.image(1), s.image(2), s.image(3)
	unsigned, gone := s.image(4), "sha256:"+strings.Repeat("0", 64)
	s.fail["manifest "+gone] = policy.Undecided(policy.ReasonNotFound, "example.com answered 404").Err()
	for _, digest := range []string{amd, arm} {
		s.sign(digest, g.sign(digest, name))
	}
	amdPart, armPart, about := part(amd, "linux", "amd64"), part(arm, "linux", "arm64"), part(attestation, "unknown", "unknown")
	unsignedPart, gonePart := part(unsigned, "windows", "amd64"), part(gone, "linux", "s390x")
	nested := s.put(indexText(armPart, about))
	signedIndex := s.put(indexText(unsignedPart, amdPart))
	s.sign(signedIndex, g.sign(signedIndex, name))
	many := make([]string, maxManifests)
	for i := range many {
		many[i] = part(s.image(100+i), "linux", "amd64")
	}
	v := verifier(t, s, byGPG(g.public()))
	for title, row := range map[string]struct {
		index   string
		outcome policy.Outcome
		reason  policy.Reason
		says    string
	}{
		"itself":              {string(s.manifests[signedIndex]), policy.Accepted, policy.ReasonVerified, "the index itself is signed: signedBy (requirement 0)"},
		"each":                {indexText(amdPart, armPart, about), policy.Accepted, policy.ReasonVerified, "each of its 2 platform manifests is signed, the index itself is not"},
		"one in another":      {indexText(amdPart, part(nested, "", "")), policy.Accepted, policy.ReasonVerified, "each of its 2"},
		"a signed one inside": {indexText(part(signedIndex, "", "")), policy.Accepted, policy.ReasonVerified, "each of its 1"},
		"the same twice":      {indexText(amdPart, armPart, amdPart), policy.Accepted, policy.ReasonVerified, "each of its 2"},
		"one is not":          {indexText(amdPart, unsignedPart), policy.Rejected, policy.ReasonNoSignature, "its platform windows/amd64: signedBy (requirement 0): no signature"},
		"one in another is not": {
			indexText(amdPart, part(s.put(indexText(armPart, unsignedPart)), "", "")),
			policy.Rejected, policy.ReasonNoSignature, "its platform windows/amd64: ",
		},
		"one in another is not an index alone": {
			indexText(amdPart, part(s.put(strings.Replace(indexText(armPart), `"manifests"`, `"config":{},"manifests"`, 1)), "linux", "arm64")),
			policy.Rejected, policy.ReasonNoSignature, "its own platforms are not judged: it is both an index and an image",
		},
		"one is gone":           {indexText(amdPart, gonePart), policy.Inconclusive, policy.ReasonNotFound, "its platform linux/s390x: example.com answered 404"},
		"one gone, one not":     {indexText(gonePart, unsignedPart), policy.Rejected, policy.ReasonNoSignature, "its platform windows/amd64, and 1 more: "},
		"only others' marks":    {indexText(about), policy.Rejected, policy.ReasonNoSignature, "its platforms are not judged: it has no manifest that could run"},
		"none":                  {indexText(), policy.Rejected, policy.ReasonNoSignature, "no manifest that could run"},
		"attestation, known OS": {indexText(amdPart, part(attestation, "linux", "unknown")), policy.Rejected, policy.ReasonNoSignature, "linux/unknown"},
		"too many":              {indexText(many...), policy.Inconclusive, policy.ReasonLimit, "more than 63 manifests"},
		"far too many": {
			indexText(strings.Split(strings.Repeat("{} ", maxEntries)+"{}", " ")...), policy.Rejected, policy.ReasonNoSignature, "more than 1024 entries",
		},
		"a platform with a code": {indexText(part(unsigned, "linux\x1b", "amd64\n")), policy.Rejected, policy.ReasonNoSignature, "its platform " + unsigned[:19] + ": "},
		"another hash": {
			indexText(amdPart, part("sha512:"+strings.Repeat("0", 128), "linux", "arm64")), policy.Rejected, policy.ReasonNoSignature, "something else than a sha256",
		},

		// What one node reads as an index may be an image to another.
		"an image as well": {
			strings.Replace(indexText(amdPart), `"manifests"`, `"config":{},"layers":[],"manifests"`, 1),
			policy.Rejected, policy.ReasonNoSignature, "it is both an index and an image",
		},
		"in other letters": {
			strings.Replace(indexText(amdPart), `"manifests"`, `"Layers":[],"manifests"`, 1), policy.Rejected, policy.ReasonNoSignature, "read strictly",
		},
		"a platform that no node reads": {
			indexText(amdPart, strings.Replace(part(unsigned, "unknown", "unknown"), `"platform"`, `"plat_form"`, 1)),
			policy.Rejected, policy.ReasonNoSignature, "its platform " + unsigned[:19] + ": ",
		},
		"a platform that some nodes read": {
			indexText(amdPart, strings.Replace(part(unsigned, "unknown", "unknown"), `"platform"`, `"PLATFORM"`, 1)),
			policy.Rejected, policy.ReasonNoSignature, "read strictly",
		},
		"an OS that no node reads": {
			indexText(amdPart, strings.Replace(part(unsigned, "unknown", "unknown"), `"os"`, `"o_s"`, 1)),
			policy.Rejected, policy.ReasonNoSignature, "its platform " + unsigned[:19] + ": ",
		},
		"an OS that some nodes read": {
			indexText(amdPart, strings.Replace(part(unsigned, "unknown", "unknown"), `"os"`, `"O\u017f"`, 1)),
			policy.Rejected, policy.ReasonNoSignature, "read strictly",
		},
		"an old image as well": {
			strings.Replace(indexText(amdPart), `"manifests"`, `"fsLayers":[],"manifests"`, 1), policy.Rejected, policy.ReasonNoSignature, "both",
		},
		"says it is an image": {
			strings.Replace(indexText(amdPart), "image.index", "image.manifest", 1), policy.Rejected, policy.ReasonNoSignature, "says that it is no index",
		},
		"two lists": {
			strings.Replace(indexText(amdPart), `"manifests"`, `"manifests":[`+unsignedPart+`],"manifests"`, 1),
			policy.Rejected, policy.ReasonNoSignature, "read strictly",
		},
		"two lists in other letters": {
			strings.Replace(indexText(amdPart), `"manifests"`, `"Manifests":[`+unsignedPart+`],"manifests"`, 1),
			policy.Rejected, policy.ReasonNoSignature, "read strictly",
		},
		"two platforms": {
			strings.Replace(indexText(unsignedPart, amdPart), `"platform"`, `"Platform":{"os":"linux"},"platform"`, 1),
			policy.Rejected, policy.ReasonNoSignature, "read strictly",
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			own := newShelf()
			own.simple, own.fail = s.simple, s.fail
			maps.Copy(own.manifests, s.manifests)
			digest := own.put(row.index)
			v := *v
			v.source = own
			got := v.Verify(t.Context(), byTag(digest))
			expect(t, got, row.outcome, row.reason, row.says)
			if (got.Outcome == policy.Accepted) != (got.Signer != "") {
				t.Errorf("signer = %q", got.Signer)
			}
		})
	}
}

// All manifests of an index go by its name.
func TestIndexIdentity(t *testing.T) {
	t.Parallel()
	s, g := newShelf(), newGPG(asEd25519, time.Hour, 0)
	amd := s.image(1)
	index := s.put(indexText(part(amd, "linux", "amd64")))
	v := verifier(t, s, byGPG(g.public()).with("signedIdentity", object{"type": identityExact}))
	s.sign(amd, g.sign(amd, "example.com/acme/app@"+amd))
	expect(t, v.Verify(t.Context(), byDigest(index)), policy.Rejected, policy.ReasonNoMatch, "judged as example.com/acme/app@"+index)
	s.sign(amd, g.sign(amd, "example.com/acme/app@"+index))
	expect(t, v.Verify(t.Context(), byDigest(index)), policy.Accepted, policy.ReasonVerified, "")
}

// Where the index itself could not be examined, nothing says that it fails.
func TestIndexUnread(t *testing.T) {
	t.Parallel()
	s, g := newShelf(), newGPG(asEd25519, time.Hour, 0)
	signed, unsigned := s.image(1), s.image(2)
	s.sign(signed, g.sign(signed, name))
	bad, good := s.put(indexText(part(unsigned, "linux", "amd64"))), s.put(indexText(part(signed, "linux", "amd64")))
	for _, digest := range []string{bad, good} {
		s.fail["simple "+digest] = policy.Undecided(policy.ReasonUnreachable, "it does not answer").Err()
	}
	v := verifier(t, s, byGPG(g.public()))
	expect(t, v.Verify(t.Context(), byTag(bad)), policy.Inconclusive, policy.ReasonUnreachable, "the index itself: it does not answer; its platform linux/amd64: ")
	expect(t, v.Verify(t.Context(), byTag(good)), policy.Accepted, policy.ReasonVerified, "")
	s.panics["simple "+unsigned] = true
	got := v.Verify(t.Context(), byTag(bad))
	expect(t, got, policy.Inconclusive, policy.ReasonUnreachable, "failed unexpectedly")
	if !strings.Contains(got.Trace, "a panic of simple") {
		t.Errorf("trace = %q", got.Trace)
	}
}

// A panic over one manifest does not leave its goroutine.
func TestPanicOfOne(t *testing.T) {
	t.Parallel()
	s := newShelf()
	digest := s.image(1)
	v := verifier(t, s, byGPG(newGPG(asEd25519, time.Hour, 0).public()))
	v.list[0] = nil // over which the library panics
	e := &examination{verifier: v, image: byTag(digest), as: must(identityOf(byTag(digest)))}
	expect(t, e.examine(t.Context(), digest).verdict, policy.Inconclusive, policy.ReasonInternal, "failed unexpectedly")
}

// FuzzIndex: of what has another reading nothing is listed; what is listed has a
// digest, and is all that another reader would run.
func FuzzIndex(f *testing.F) {
	f.Add([]byte(indexText(part(digestOf(nil), "linux", "amd64"))))
	f.Add([]byte(`{"schemaVersion":2,"manifests":null,"Layers":[]}`))
	f.Add([]byte(strings.Replace(indexText(part(digestOf(nil), "linux", "amd64"), part(digestOf([]byte("x")), "unknown", "unknown")), `"platform"`, `"Plat-Form"`, 1)))
	f.Fuzz(func(t *testing.T, untrusted []byte) {
		found, err := readIndex(untrusted)
		if err != nil && found != nil || len(found) > maxEntries {
			t.Errorf("%d entries, %v", len(found), err)
		}
		for _, one := range found {
			if one.describes() || !strings.HasPrefix(one.UntrustedDigest, "sha256:") || one.String() == "" {
				t.Errorf("entry %+v", one)
			}
		}
		var other struct {
			Manifests []struct {
				Digest   string
				Platform struct{ OS, Architecture string }
			}
		}
		if len(found) == 0 || json.Unmarshal(untrusted, &other) != nil {
			return
		}
		for _, one := range other.Manifests {
			known := slices.ContainsFunc(found, func(e entry) bool { return e.UntrustedDigest == one.Digest })
			if unknown := one.Platform.OS == "unknown" && one.Platform.Architecture == "unknown"; !known && !unknown {
				t.Errorf("%+v is not listed", one)
			}
		}
	})
}
