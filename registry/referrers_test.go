// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// modes are a registry with the referrers API and one without.
var modes = map[string][]registrytest.Option{
	"API": nil,
	"tag": {registrytest.WithoutReferrers()},
}

func TestBundles(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	sbom := registrytest.Attestation{PredicateType: "https://spdx.dev/Document", Predicate: map[string]any{}}
	for name, test := range map[string]struct {
		prepare func(*testing.T, *registrytest.Registry, registrytest.Image)
		want    int
		err     policy.Reason
	}{
		"none": {prepare: func(*testing.T, *registrytest.Registry, registrytest.Image) {}},
		"one": {want: 1, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignBundle(t, i, key)
		}},
		"several, and an attestation, which is not judged here": {want: 4, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			for n := range 3 {
				r.SignBundle(t, i, key, fmt.Sprintf("n=%d", n))
			}
			r.AttestBundle(t, i, key, sbom)
		}},
		"one that is broken": {want: 1, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.BrokenBundle(t, i)
		}},
		"one that is too large": {want: 1, err: policy.ReasonLimit, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignBundle(t, i, key)
			r.OversizedBundle(t, i, key, 1<<20)
		}},
		"more than are tried": {want: 64, err: policy.ReasonLimit, prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.FloodBundles(t, i, 65)
		}},
		"a .sig is none": {prepare: func(t *testing.T, r *registrytest.Registry, i registrytest.Image) {
			r.SignLegacy(t, i, key)
		}},
	} {
		for mode, options := range modes {
			t.Run(name+" by "+mode, func(t *testing.T) {
				r := registrytest.New(t, options...)
				image := r.PushImage(t, "acme/app:v1")
				other := r.PushImage(t, "acme/app:v2")
				r.SignBundle(t, other, key)
				test.prepare(t, r, image)
				batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
				if len(batch) != test.want {
					t.Errorf("%d bundles, want %d", len(batch), test.want)
				}
				wantAtMost(t, err, test.err)
			})
		}
	}
}

// A registry without the API is asked for it once in a while, not every time.
func TestBundlesRemembersWhoHasNoAPI(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t, registrytest.WithoutReferrers())
	image := r.PushImage(t, "acme/app:v1")
	other := r.PushImage(t, "acme/other:v1")
	r.SignBundle(t, image, key)
	client := newClient(t, r)
	tag := "GET /v2/acme/app/manifests/" + image.ReferrersTag() + " 200"
	for i, want := range [][]string{
		{"GET /v2/acme/app/referrers/" + image.Digest + " 404", tag},
		{tag},
		{tag},
	} {
		r.Reset()
		batch, err := gather(client.Bundles(t.Context(), askedImage(t, image), false))
		if err != nil || len(batch) != 1 {
			t.Fatalf("Bundles = %d items, %v; want 1", len(batch), err)
		}
		got := lines(r.Counted())
		if diff := cmp.Diff(want, got[:max(0, len(got)-2)]); diff != "" {
			t.Errorf("look-up %d: requests before the bundle (-want +got):\n%s", i, diff)
		}
	}
	r.Reset()
	if _, err := gather(client.Bundles(t.Context(), askedImage(t, other), false)); err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /v2/acme/other/manifests/" + other.ReferrersTag() + " 404"}
	if diff := cmp.Diff(want, lines(r.Counted())); diff != "" {
		t.Errorf("another repository of the host: requests (-want +got):\n%s", diff)
	}
}

// What one host lacks says nothing about another.
func TestBundlesRemembersByHost(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	without := registrytest.New(t, registrytest.WithoutReferrers())
	with := registrytest.New(t)
	client := newClient(t, without, with)
	if _, err := gather(client.Bundles(t.Context(), askedImage(t, without.PushImage(t, "acme/app:v1")), false)); err != nil {
		t.Fatal(err)
	}
	image := with.PushImage(t, "acme/app:v1")
	with.SignBundle(t, image, key)
	batch, err := gather(client.Bundles(t.Context(), askedImage(t, image), false))
	if err != nil || len(batch) != 1 {
		t.Errorf("Bundles = %d items, %v; want 1", len(batch), err)
	}
}

// Somebody else's request made the client believe that the host has no API.
func TestRecheckAsksTheAPI(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignBundle(t, image, key)
	client, it := newClient(t, r), askedImage(t, image)

	remove := r.Fault(registrytest.Referrers(image), registrytest.Status(404))
	wrong, err := gather(client.Bundles(t.Context(), it, false))
	if err != nil || len(wrong) != 0 {
		t.Fatalf("Bundles = %d items, %v; want none", len(wrong), err)
	}
	remove()
	if still, err := gather(client.Bundles(t.Context(), it, false)); err != nil || len(still) != 0 {
		t.Fatalf("Bundles = %d items, %v; want none from memory", len(still), err)
	}
	batch, err := gather(client.Recheck(t.Context(), it, false))
	if err != nil || len(batch) != 1 {
		t.Fatalf("Recheck = %d items, %v; want the bundle", len(batch), err)
	}
	if after, err := gather(client.Bundles(t.Context(), it, false)); err != nil || len(after) != 1 {
		t.Errorf("Bundles after Recheck = %d items, %v; want the memory corrected", len(after), err)
	}

	// With the memory right, Recheck only reads the image.
	r.Reset()
	if batch, err := gather(client.Recheck(t.Context(), it, false)); err != nil || len(batch) != 0 {
		t.Errorf("Recheck = %d items, %v; want none: they were looked for", len(batch), err)
	}
	if got := lines(r.Counted()); len(got) != 1 {
		t.Errorf("requests = %v, want one for the image", got)
	}
}

func TestRecheckWithoutAPI(t *testing.T) {
	r := registrytest.New(t, registrytest.WithoutReferrers())
	image := r.PushImage(t, "acme/app:v1")
	client, it := newClient(t, r), askedImage(t, image)
	if _, err := gather(client.Bundles(t.Context(), it, false)); err != nil {
		t.Fatal(err)
	}
	if batch, err := gather(client.Recheck(t.Context(), it, false)); err != nil || len(batch) != 0 {
		t.Errorf("Recheck = %d items, %v; want nothing", len(batch), err)
	}
	r.Fault(registrytest.Referrers(image), registrytest.Status(500))
	_, err := gather(client.Recheck(t.Context(), it, false))
	wantError(t, err, policy.ReasonRegistryError, r.Host())
}

// page answers the referrers API with a list and a Link header.
func page(link string, referrers ...registrytest.Image) registrytest.Behaviour {
	list := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, r := range referrers {
		digest, err := v1.NewHash(r.Digest)
		if err != nil {
			panic(err)
		}
		list.Manifests = append(list.Manifests, v1.Descriptor{MediaType: types.OCIManifestSchema1, Size: 1, Digest: digest})
	}
	raw, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	if link == "" {
		return answer(200, string(raw), "Content-Type", string(types.OCIImageIndex))
	}
	return answer(200, string(raw), "Content-Type", string(types.OCIImageIndex), "Link", link)
}

func query(q string) registrytest.Match {
	return func(r *http.Request) bool { return r.URL.RawQuery == q }
}

// referrersOf lists the image's referrers by the API.
func referrersOf(t *testing.T, r *registrytest.Registry, image registrytest.Image) []registrytest.Image {
	t.Helper()
	got, err := http.Get("http://" + r.Host() + "/v2/" + image.Repository + "/referrers/" + image.Digest)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	list, err := v1.ParseIndexManifest(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out []registrytest.Image
	for _, d := range list.Manifests {
		out = append(out, registrytest.Image{Registry: image.Registry, Repository: image.Repository, Digest: d.Digest.String()})
	}
	r.Reset()
	return out
}

func TestReferrersPages(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	self := "/v2/acme/app/referrers/"
	for name, test := range map[string]struct {
		link  func(host, digest string) string // of the first page, which has no referrer
		want  int                              // bundles: the second page has one
		err   policy.Reason
		asked int // pages
	}{
		"a path":          {link: func(_, d string) string { return `<` + self + d + `?n=2>; rel="next"` }, want: 1, asked: 2},
		"a whole address": {link: func(h, d string) string { return `<http://` + h + self + d + `?n=2>; rel="next"` }, want: 1, asked: 2},
		"a query":         {link: func(_, _ string) string { return `<?n=2>; rel="next"` }, want: 1, asked: 2},
		"without quotes":  {link: func(_, _ string) string { return `<?n=2>; rel=next` }, want: 1, asked: 2},
		"more parameters": {link: func(_, _ string) string { return `<?n=2>; title="x"; rel="next"; type="y"` }, want: 1, asked: 2},
		"after another":   {link: func(_, _ string) string { return `<?n=0>; rel="first", <?n=2>; rel="next"` }, want: 1, asked: 2},
		"before another":  {link: func(_, _ string) string { return `<?n=2>; rel="next", <?n=0>; rel="first"` }, want: 1, asked: 2},
		"itself":          {link: func(_, d string) string { return `<` + self + d + `>; rel="next"` }, err: policy.ReasonLimit, asked: 8},
		"nothing":         {link: func(_, _ string) string { return `<>; rel="next"` }, err: policy.ReasonLimit, asked: 8},
		"of another kind": {link: func(_, _ string) string { return `<?n=2>; rel="prev"` }, asked: 1},
		"no brackets":     {link: func(_, _ string) string { return `?n=2; rel="next"` }, asked: 1},
		"words":           {link: func(_, _ string) string { return canary }, asked: 1},
		"not an address":  {link: func(_, _ string) string { return `<http://%zz>; rel="next"` }, err: policy.ReasonLimit, asked: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.SignBundle(t, image, key)
			r.Fault(registrytest.Referrers(image).And(query("n=2")), page("", referrersOf(t, r, image)...))
			r.Fault(registrytest.Referrers(image), page(test.link(r.Host(), image.Digest)))
			batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
			if len(batch) != test.want {
				t.Errorf("%d bundles, want %d: %v", len(batch), test.want, lines(r.Counted()))
			}
			wantAtMost(t, err, test.err)
			asked := slices.DeleteFunc(r.Counted(), func(r registrytest.Request) bool { return !strings.Contains(r.Path, "/referrers/") })
			if len(asked) != test.asked {
				t.Errorf("%d pages were asked for, want %d: %v", len(asked), test.asked, lines(asked))
			}
		})
	}
}

// A Link leads nowhere else, and carries no credentials there.
func TestReferrersLinkToAnotherHost(t *testing.T) {
	for name, link := range map[string]string{
		"another address": `<http://OTHER/v2/acme/app/referrers/x>; rel="next"`,
		"no scheme":       `<//OTHER/v2/acme/app/referrers/x>; rel="next"`,
		"with a user":     `<http://user:pw@OTHER/x>; rel="next"`,
		"metadata":        `<http://169.254.169.254/latest>; rel="next"`,
		"a file":          `<file:///etc/passwd>; rel="next"`,
		"no host":         `<http:/v2/x>; rel="next"`,
		"opaque":          `<mailto:x@OTHER>; rel="next"`,
	} {
		t.Run(name, func(t *testing.T) {
			defer inTime(t, soon)()
			other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
			r := registrytest.New(t, registrytest.WithBasicAuth("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			r.Fault(registrytest.Referrers(image), page(strings.ReplaceAll(link, "OTHER", other.Host())))
			batch, err := gather(newClient(t, r, other).Bundles(t.Context(), shownImage(t, image, secret(r.Host(), "user", "s3cret")), false))
			if len(batch) != 0 {
				t.Errorf("%d bundles, want none", len(batch))
			}
			// What was not read is not known to be nothing.
			wantError(t, err, policy.ReasonLimit, r.Host())
			wantVisited(t, other, false)
		})
	}
}

// A list may be as long as it likes: reading it ends.
func TestReferrersWithoutEnd(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignBundle(t, image, key)
	listed := referrersOf(t, r, image)
	t.Run("pages", func(t *testing.T) {
		defer r.Fault(registrytest.Referrers(image), page(`<?n=1>; rel="next"`, listed...))()
		r.Reset()
		batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
		if len(batch) == 0 {
			t.Fatal("no bundles, want those that were read")
		}
		wantError(t, err, policy.ReasonLimit, r.Host())
		if n := len(r.Counted()); n > 8+2*8 {
			t.Errorf("%d requests, want at most 8 pages and 8 bundles", n)
		}
	})
	t.Run("one page", func(t *testing.T) {
		many := slices.Repeat(listed, 500)
		defer r.Fault(registrytest.Referrers(image), page("", many...))()
		r.Reset()
		batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
		if len(batch) != 64 {
			t.Fatalf("%d bundles, want the first 64", len(batch))
		}
		wantError(t, err, policy.ReasonLimit, "")
		if n := len(r.Counted()); n != 1+2*64 {
			t.Errorf("%d requests, want the list and 64 bundles", n)
		}
	})
}

// Whoever attaches SBOMs by the hundred does not push the bundle out.
func TestBundlesAmongOtherReferrers(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignBundle(t, image, key)
	signed := referrersOf(t, r, image)[0]
	var list []string
	for i := range 300 {
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"size":1,"digest":"sha256:%064x","artifactType":"application/spdx+json"}`,
			types.OCIManifestSchema1, i))
	}
	for name, kind := range map[string]string{
		"called a bundle":          "application/vnd.dev.sigstore.bundle.v0.3+json",
		"called by its config":     "application/vnd.oci.empty.v1+json",
		"called nothing":           "",
		"called a bundle, version": "application/vnd.dev.sigstore.bundle+json;version=0.3",
	} {
		t.Run(name, func(t *testing.T) {
			last := fmt.Sprintf(`{"mediaType":%q,"size":1,"digest":%q,"artifactType":%q}`, types.OCIManifestSchema1, signed.Digest, kind)
			body := `{"schemaVersion":2,"manifests":[` + strings.Join(append(slices.Clone(list), last), ",") + `]}`
			defer r.Fault(registrytest.Referrers(image), registrytest.Body(string(types.OCIImageIndex), body))()
			batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
			if len(batch) != 1 {
				t.Errorf("%d bundles, want the one", len(batch))
			}
			wantError(t, err, policy.ReasonLimit, r.Host())
		})
	}
}

func TestReferrersHostileList(t *testing.T) {
	for name, body := range map[string]string{
		"empty":            "",
		"not JSON":         canary,
		"an array":         "[]",
		"another type":     `{"mediaType":"` + string(types.OCIManifestSchema1) + `","manifests":[]}`,
		"manifests a word": `{"manifests":"` + canary + `"}`,
		"cut short":        `{"manifests":[`,
		"trailing":         `{"manifests":[]} ` + canary,
		"nested deep":      `{"manifests":` + strings.Repeat("[", 1<<20),
	} {
		for mode, options := range modes {
			t.Run(name+" by "+mode, func(t *testing.T) {
				defer inTime(t, soon)()
				r := registrytest.New(t, options...)
				image := r.PushImage(t, "acme/app:v1")
				match := registrytest.Referrers(image)
				if mode == "tag" {
					match = registrytest.Manifest("acme/app:" + image.ReferrersTag())
				}
				r.Fault(match, registrytest.Body(string(types.OCIImageIndex), body))
				batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
				wantError(t, err, policy.ReasonUnexpected, r.Host())
				if len(batch) != 0 {
					t.Errorf("%d bundles, want none", len(batch))
				}
			})
		}
	}
}

// One entry of a list that cannot be used does not hide the others.
func TestReferrersHostileEntry(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	hex := strings.Repeat("ab12", 16)
	for name, entry := range map[string]string{
		"a path for a digest":  `{"digest":"../../` + canary + `","size":1}`,
		"a word for a digest":  `{"digest":"` + canary + `","size":1}`,
		"another algorithm":    `{"digest":"sha512:` + hex + hex + `","size":1}`,
		"an unknown algorithm": `{"digest":"blake3:` + hex + `","size":1}`,
		"no digest":            `{"size":1}`,
		"not there":            `{"digest":"sha256:` + hex + `","size":1}`,
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.SignBundle(t, image, key)
			good := fmt.Sprintf(`{"mediaType":%q,"size":1,"digest":%q}`, types.OCIManifestSchema1, referrersOf(t, r, image)[0].Digest)
			body := `{"schemaVersion":2,"manifests":[` + entry + "," + good + `]}`
			r.Fault(registrytest.Referrers(image), registrytest.Body(string(types.OCIImageIndex), body))
			batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
			if len(batch) != 1 {
				t.Fatalf("%d bundles, want the good one", len(batch))
			}
			if err == nil {
				t.Errorf("no error for the entry that cannot be used")
			}
			for _, request := range r.Requests() {
				if strings.Contains(request.Path, canary) || strings.Contains(request.Path, "..") {
					t.Errorf("what was sent became an address: %s", request)
				}
			}
		})
	}
}

// What is sent in the place of a referrer is no answer: it might have been a
// bundle.
func TestReferrerContradictsItsDigest(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, body := range map[string]string{"a page": "<html>", "another manifest": manifestOf(), "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.SignBundle(t, image, key)
			referrer := referrersOf(t, r, image)[0]
			r.Fault(registrytest.Manifest(referrer.ByDigest()), registrytest.Body(string(types.OCIManifestSchema1), body))
			batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
			wantError(t, err, policy.ReasonUnexpected, r.Host())
			if len(batch) != 0 {
				t.Errorf("%d bundles, want none", len(batch))
			}
		})
	}
}

// What is attached and is no bundle is passed over: it is not an error, and
// not a signature.
func TestReferrersThatAreNoBundles(t *testing.T) {
	layer := func(kind string) string {
		return `{"mediaType":"` + kind + `","digest":"sha256:` + strings.Repeat("ab12", 16) + `","size":1}`
	}
	const bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
	for name, manifest := range map[string]string{
		"garbage":       canary,
		"an index":      `{"schemaVersion":2,"mediaType":"` + string(types.OCIImageIndex) + `","manifests":[]}`,
		"no layer":      manifestOf(),
		"two layers":    manifestOf(layer(bundle), layer(bundle)),
		"another layer": manifestOf(layer("application/spdx+json")),
		"a prefix":      manifestOf(layer("x" + bundle)),
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			sum := sha256.Sum256([]byte(manifest))
			digest := "sha256:" + hex.EncodeToString(sum[:])
			list := `{"schemaVersion":2,"manifests":[{"digest":"` + digest + `","size":1}]}`
			r.Fault(registrytest.Referrers(image), registrytest.Body(string(types.OCIImageIndex), list))
			r.Fault(registrytest.Manifest(r.Host()+"/acme/app@"+digest), registrytest.Body(string(types.OCIManifestSchema1), manifest))
			batch, err := gather(newClient(t, r).Bundles(t.Context(), askedImage(t, image), false))
			if err != nil || len(batch) != 0 {
				t.Errorf("Bundles = %d items, %v; want nothing", len(batch), err)
			}
		})
	}
}

// Spec section 12, both rows that cosign is measured by.
func TestCost(t *testing.T) {
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	for name, test := range map[string]struct {
		sign            func(*testing.T, *registrytest.Registry, registrytest.Image)
		options         []registrytest.Option
		requests, depth int
	}{
		".sig": {
			sign:     func(t *testing.T, r *registrytest.Registry, i registrytest.Image) { r.SignLegacy(t, i, key) },
			requests: 4, depth: 3,
		},
		".sig behind a token": {
			sign:     func(t *testing.T, r *registrytest.Registry, i registrytest.Image) { r.SignLegacy(t, i, key) },
			options:  []registrytest.Option{registrytest.WithTokenAuth("user", "s3cret")},
			requests: 4, depth: 3,
		},
		"bundle": {
			sign:     func(t *testing.T, r *registrytest.Registry, i registrytest.Image) { r.SignBundle(t, i, key) },
			requests: 5, depth: 4,
		},
		"bundle without the API": {
			sign:     func(t *testing.T, r *registrytest.Registry, i registrytest.Image) { r.SignBundle(t, i, key) },
			options:  []registrytest.Option{registrytest.WithoutReferrers()},
			requests: 6, depth: 5,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := registrytest.New(t, test.options...)
			image := r.PushImage(t, "acme/app:v1")
			test.sign(t, r, image)
			client, it := newClient(t, r), shownImage(t, image, secret(r.Host(), "user", "s3cret"))
			// Long enough that what is asked at the same time overlaps.
			r.Fault(registrytest.Ping().Or(path("/token")).Not(), registrytest.Delay(50*time.Millisecond))
			if _, err := client.Resolve(t.Context(), it); err != nil {
				t.Fatal(err)
			}
			askBoth(t, client, it)
			if got := len(r.Counted()); got != test.requests {
				t.Errorf("%d requests, want %d: %v", got, test.requests, lines(r.Counted()))
			}
			if got := registrytest.Depth(r.Counted()); got != test.depth {
				t.Errorf("%d one after another, want %d: %v", got, test.depth, lines(r.Counted()))
			}
			if other := len(r.Requests()) - len(r.Counted()); other > 2 {
				t.Errorf("%d logins and tokens, want at most one each: %v", other, lines(r.Requests()))
			}
		})
	}
}

// askBoth looks for both forms at the same time, as the engine does.
func askBoth(t *testing.T, client *registry.Client, image policy.Image) {
	t.Helper()
	done := make(chan error, 2)
	for _, ask := range forms(client) {
		go func() {
			_, err := ask(t.Context(), image)
			done <- err
		}()
	}
	for range cap(done) {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
