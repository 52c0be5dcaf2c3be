// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package containers_test

import (
	"fmt"
	"testing"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/containers/containerstest"
	"github.com/pratique-dev/pratique/policy/cosign/cosigntest"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// What is expected here was worked out from the words of
// containers-policy.json(5), beside each rule below, and by nothing that is
// under test.

// vendor is where images are signed before they are mirrored here.
const vendor = "vendor.example.com"

// shapes are the sorts of images, with the manifests of them that are signed.
type shape string

const (
	single    shape = "single"
	itself    shape = "index"     // signed is the index
	platforms shape = "platforms" // signed is each manifest of it
	lacking   shape = "lacking"   // signed is each but one
)

// push pushes an image, and says which of its manifests are to be signed.
func (s shape) push(t *testing.T, r *registrytest.Registry, written string) (image registrytest.Image, toSign []registrytest.Image) {
	t.Helper()
	if s == single {
		image = r.PushImage(t, written)
		return image, []registrytest.Image{image}
	}
	index := r.PushIndex(t, written)
	switch s {
	case itself:
		return index.Image, []registrytest.Image{index.Image}
	case platforms:
		return index.Image, index.Manifests
	default:
		return index.Image, index.Manifests[:len(index.Manifests)-1]
	}
}

// complete reports whether such an image is signed as a whole: an index is
// accepted if it verifies itself, or if each of its platforms does (spec
// section 10).
func (s shape) complete() bool { return s != lacking }

// claim is the name that a signature says that its image has.
type claim struct {
	name          string
	vendor, other bool   // that is in another repository
	tag           string // empty: it names no tag
	digest        bool   // it names the image's digest
}

func (c claim) of(image registrytest.Image) string {
	written := image.Name()
	switch {
	case c.vendor:
		written = vendor + "/" + image.Repository
	case c.other:
		written += "-other"
	}
	if c.tag != "" {
		written += ":" + c.tag
	}
	if c.digest {
		written += "@" + image.Digest
	}
	return written
}

// asWritten is what tools that copy and sign images claim: the reference that
// they copy to. What cosign claims is the repository alone.
var (
	asWritten = claim{name: "own-tag", tag: "v1"}
	claims    = []claim{
		asWritten,
		{name: "own-other-tag", tag: "v2"},
		{name: "own-repository"},
		{name: "own-digest", digest: true},
		{name: "other-repository", other: true, tag: "v1"},
		{name: "vendor-tag", vendor: true, tag: "v1"},
		{name: "vendor-other-tag", vendor: true, tag: "v2"},
		{name: "vendor-repository", vendor: true},
	}
)

// judged is by which identity an image is judged: by that which counts of what
// was written (spec section 2).
type judged string

const (
	byTag    judged = "tag"
	byDigest judged = "digest"
)

// identity is a signedIdentity with what it means.
type identity struct {
	name    string
	written func(image registrytest.Image) requirement // for an image's repository
	// holds says whether a signature with a claim is for an image.
	holds func(c claim, by judged) bool
	// variant says that only the full table has it.
	variant bool
}

func fixed(r requirement) func(registrytest.Image) requirement {
	return func(registrytest.Image) requirement { return r }
}

// repoDigestOrExact is the rule for an image that is called name:v1 or by its
// digest in a repository that is the vendor's or our own. "If the image identity
// carries a tag, the identity in the signature must exactly match; if it uses a
// digest reference, it must be in the same repository (using any tag)". A claim of a
// repository alone is no identity here: "cosign-created signatures only contain a
// repository, so only matchRepository and exactRepository can be used to accept
// them".
func repoDigestOrExact(c claim, by judged, ofVendor bool) bool {
	switch {
	case c.tag == "" && !c.digest:
		return false
	case by == byTag:
		return c.vendor == ofVendor && !c.other && c.tag == "v1" && !c.digest
	default:
		return c.vendor == ofVendor && !c.other
	}
}

var identities = []identity{
	// "If the signedIdentity field is missing, it is treated as matchRepoDigestOrExact."
	{"omitted", fixed(nil), func(c claim, by judged) bool { return repoDigestOrExact(c, by, false) }, false},
	{
		"matchRepoDigestOrExact", fixed(requirement{"type": "matchRepoDigestOrExact"}),
		func(c claim, by judged) bool { return repoDigestOrExact(c, by, false) }, false,
	},
	{
		// "Must exactly match the image identity": by digest a signature that claims a tag
		// fails, and only one that claims this digest can hold.
		"matchExact", fixed(requirement{"type": "matchExact"}),
		func(c claim, by judged) bool {
			if by == byTag {
				return c == asWritten
			}
			return c.digest && c.tag == "" && !c.vendor && !c.other
		}, false,
	},
	{
		// "Must be in the same repository as the image identity": no tag is looked at.
		"matchRepository", fixed(requirement{"type": "matchRepository"}),
		func(c claim, _ judged) bool { return !c.vendor && !c.other }, false,
	},
	{
		// "Must exactly match a specified identity": the image's own does not count.
		"exactReference", func(i registrytest.Image) requirement {
			return requirement{"type": "exactReference", "dockerReference": vendor + "/" + i.Repository + ":v1"}
		},
		func(c claim, _ judged) bool { return c.vendor && c.tag == "v1" }, false,
	},
	{
		"exactReference-own", func(i registrytest.Image) requirement {
			return requirement{"type": "exactReference", "dockerReference": i.Name() + ":v1"}
		},
		func(c claim, _ judged) bool { return c == asWritten }, true,
	},
	{
		// "In the same repository as a specified identity", again whatever the image is.
		"exactRepository", func(i registrytest.Image) requirement {
			return requirement{"type": "exactRepository", "dockerRepository": vendor + "/" + i.Repository}
		},
		func(c claim, _ judged) bool { return c.vendor }, false,
	},
	{
		"exactRepository-own", func(i registrytest.Image) requirement {
			return requirement{"type": "exactRepository", "dockerRepository": i.Name()}
		},
		func(c claim, _ judged) bool { return !c.vendor && !c.other }, true,
	},
	{
		// "If the image identity matches the prefix, that prefix is replaced; matching
		// then follows matchRepoDigestOrExact".
		"remapIdentity", func(i registrytest.Image) requirement {
			return requirement{"type": "remapIdentity", "prefix": i.Registry, "signedPrefix": vendor}
		},
		func(c claim, by judged) bool { return repoDigestOrExact(c, by, true) }, false,
	},
	{
		// "Otherwise it is used unchanged": a prefix ends at a component.
		"remapIdentity-elsewhere", func(i registrytest.Image) requirement {
			return requirement{
				"type": "remapIdentity", "signedPrefix": vendor,
				"prefix": i.Name()[:len(i.Name())-1], // up to the middle of a component
			}
		},
		func(c claim, by judged) bool { return repoDigestOrExact(c, by, false) }, true,
	},
}

// scheme is a way of signing: it puts a signature where it is looked for.
type scheme string

const (
	gpg    scheme = "gpg"
	plain  scheme = "key"
	logged scheme = "logged" // with an entry of the log
	fulcio scheme = "fulcio"
	pki    scheme = "pki"
)

// kind is a requirement that has to be satisfied by signatures of a scheme.
type kind struct {
	name    string
	scheme  scheme
	written requirement
	full    bool // it is tried with every claim
}

// subject is a repository. Its tag v1 names one image, and did name another
// before: both are signed alike.
type subject struct {
	shape        shape
	claim        claim
	current, old registrytest.Image
}

// world is what the table is about.
type world struct {
	*site
	gpg      *containerstest.GPG
	key      *cosigntest.Leaf
	sigstore *containerstest.Sigstore
	fulcio   *cosigntest.Leaf
	pki      *containerstest.PKI
	leaf     *cosigntest.Leaf // of pki
	subjects map[scheme][]subject
}

// The people of the tests.
const (
	email  = "release@acme.example.com"
	issuer = "https://accounts.acme.example.com"
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		site: newSite(t), gpg: containerstest.NewGPG(t, containerstest.KeyOptions{}), key: containerstest.NewKey(t),
		sigstore: containerstest.NewSigstore(t), pki: containerstest.NewPKI(t), subjects: map[scheme][]subject{},
	}
	w.fulcio = w.sigstore.Leaf(cosigntest.Issued{Email: email, Issuer: issuer})
	w.leaf = w.pki.Leaf(containerstest.Subject{Email: email, Hostname: "build.acme.example.com"})
	w.files = files{
		"/etc/gpg/release.gpg": w.gpg.Public(t), "/etc/gpg/old.asc": containerstest.NewGPG(t, containerstest.KeyOptions{}).Armored(t),
		"/etc/cosign/release.pub": w.key.PEM(t), "/etc/cosign/old.pub": containerstest.NewKey(t).PEM(t),
		"/etc/rekor/rekor.pub": w.sigstore.Rekor(), "/etc/rekor/old.pub": containerstest.NewKey(t).PEM(t),
		"/etc/fulcio/ca.pem": w.sigstore.CA(), "/etc/pki/roots.pem": w.pki.Roots(), "/etc/pki/issuer.pem": w.pki.Intermediates(),
	}
	for _, by := range []scheme{gpg, plain, logged, fulcio, pki} {
		for _, form := range []shape{single, itself, platforms, lacking} {
			for _, c := range claims {
				if c == asWritten || (by == gpg || by == plain) && (form == single || form == itself) {
					w.subjects[by] = append(w.subjects[by], w.subject(t, by, form, c))
				}
			}
		}
	}
	return w
}

func (w *world) subject(t *testing.T, by scheme, form shape, c claim) subject {
	t.Helper()
	made := subject{shape: form, claim: c}
	written := fmt.Sprintf("%s/%s/%s:v1", by, form, c.name)
	for _, image := range []*registrytest.Image{&made.old, &made.current} {
		var toSign []registrytest.Image
		*image, toSign = form.push(t, w.registry, written)
		for _, each := range toSign {
			w.sign(t, by, each, containerstest.Of(each, c.of(each)))
		}
	}
	return made
}

// sign signs an image by a scheme and puts the signature where it is looked for.
func (w *world) sign(t *testing.T, by scheme, image registrytest.Image, claimed containerstest.Claim) {
	t.Helper()
	switch by {
	case gpg:
		w.lookaside.Put(image.Repository, image.Digest, w.gpg.Sign(t, claimed))
	case pki:
		w.pki.Sign(w.leaf, claimed).Push(t, w.registry, image)
	case fulcio:
		w.sigstore.Sign(w.fulcio, claimed, true).Push(t, w.registry, image)
	default:
		w.sigstore.Sign(w.key, claimed, by == logged).Push(t, w.registry, image)
	}
}

// kinds are all requirements that look at signatures, with their keys in each way.
func (w *world) kinds(t *testing.T) []kind {
	t.Helper()
	gpgKey, key, other := w.gpg.Public(t), w.key.PEM(t), containerstest.NewKey(t).PEM(t)
	by := func(field string, value any) requirement {
		return requirement{"type": "signedBy", "keyType": "GPGKeys", field: value}
	}
	sigstore := func(field string, value any) requirement { return requirement{"type": "sigstoreSigned", field: value} }
	withCA := func(field string, value any) requirement {
		return sigstore("fulcio", requirement{"oidcIssuer": issuer, "subjectEmail": email, field: value})
	}
	return []kind{
		{"signedBy keyData", gpg, by("keyData", gpgKey), true},
		{"signedBy keyPath", gpg, by("keyPath", "/etc/gpg/release.gpg"), false},
		{"signedBy keyPaths", gpg, by("keyPaths", []string{"/etc/gpg/old.asc", "/etc/gpg/release.gpg"}), false},
		{"sigstoreSigned keyData", plain, sigstore("keyData", key), true},
		{"sigstoreSigned keyPath", plain, sigstore("keyPath", "/etc/cosign/release.pub"), false},
		{"sigstoreSigned keyPaths", plain, sigstore("keyPaths", []string{"/etc/cosign/old.pub", "/etc/cosign/release.pub"}), false},
		{"sigstoreSigned keyDatas", plain, sigstore("keyDatas", [][]byte{other, key}), false},
		{"sigstoreSigned keyData rekorPublicKeyData", logged, sigstore("keyData", key).with("rekorPublicKeyData", w.sigstore.Rekor()), false},
		{
			"sigstoreSigned keyPath rekorPublicKeyPaths", logged, sigstore("keyPath", "/etc/cosign/release.pub").
				with("rekorPublicKeyPaths", []string{"/etc/rekor/old.pub", "/etc/rekor/rekor.pub"}), false,
		},
		{"fulcio caData rekorPublicKeyPath", fulcio, withCA("caData", w.sigstore.CA()).with("rekorPublicKeyPath", "/etc/rekor/rekor.pub"), false},
		{
			"fulcio caPath rekorPublicKeyDatas", fulcio, withCA("caPath", "/etc/fulcio/ca.pem").
				with("rekorPublicKeyDatas", [][]byte{other, w.sigstore.Rekor()}), false,
		},
		{"pki caRootsData email", pki, sigstore("pki", requirement{"caRootsData": w.pki.Roots(), "subjectEmail": email}), false},
		{"pki caRootsPath hostname", pki, sigstore("pki", requirement{
			"caRootsPath": "/etc/pki/roots.pem", "caIntermediatesPath": "/etc/pki/issuer.pem", "subjectHostname": "build.acme.example.com",
		}), false},
	}
}

// asked is a reference to an image of a subject, with the identity by which it is
// to be judged.
type asked struct {
	name    string
	written func(subject) string
	by      judged
}

var references = []asked{
	{"tag", func(s subject) string { return s.current.ByTag() }, byTag},
	{"digest", func(s subject) string { return s.current.ByDigest() }, byDigest},
	{"tag and its digest", func(s subject) string { return s.current.ByBoth() }, byTag},
	// The tag names another image now: it is the author's claim, and does not count.
	{"tag and another digest", func(s subject) string { return s.old.ByBoth() }, byDigest},
}

// TestTable runs each requirement with each identity on each sort of image and
// reference.
func TestTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, k := range w.kinds(t) {
		for _, as := range identities {
			if as.variant && !k.full {
				continue
			}
			t.Run(k.name+"/"+as.name, func(t *testing.T) {
				t.Parallel()
				w.table(t, k, as)
			})
		}
	}
	for name, row := range map[string]struct {
		requirement requirement
		want        want
	}{
		// "Accepts any image", and "rejects every image": neither looks at it.
		"insecureAcceptAnything": {acceptAnything, want{policy.Accepted, policy.ReasonStatic, ""}},
		"reject":                 {rejectAll, want{policy.Rejected, policy.ReasonStatic, "reject"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range w.subjects[gpg] {
				for _, ref := range references {
					row.want.check(t, w.judge(t, ref.written(s), row.requirement))
				}
			}
		})
	}
}

func (w *world) table(t *testing.T, k kind, as identity) {
	t.Helper()
	scopes := lists{}
	var written []string
	var wants []want
	for _, s := range w.subjects[k.scheme] {
		if s.claim != asWritten && !k.full {
			continue
		}
		scopes[s.current.Name()] = []requirement{k.written.identified(as.written(s.current))}
		for _, ref := range references {
			written = append(written, ref.written(s))
			wants = append(wants, expected(s, as, ref))
		}
	}
	rules := w.rules(t, terms{policy: policyText(t, []requirement{rejectAll}, scopes)})
	for i, decision := range w.decider().Decide(t.Context(), question(t, rules, written...)) {
		wants[i].check(t, decision)
	}
}

// expected is the verdict for a subject that is signed by the key that is asked
// for.
func expected(s subject, as identity, ref asked) want {
	switch {
	case !as.holds(s.claim, ref.by):
		return otherName
	case !s.shape.complete():
		// One platform has no signature, nor has the index: which node would run that
		// one is not known.
		return want{policy.Rejected, policy.ReasonNoSignature, "its platform linux/arm64: "}
	default:
		return accepted
	}
}
