// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// everything is all the ways in which something is found that belongs to an image.
func everything(client *registry.Client) map[string]func(context.Context, policy.Image) (int, error) {
	all := forms(client)
	all["Attestations"] = func(ctx context.Context, image policy.Image) (int, error) {
		batch, err := gather(client.Attestations(ctx, image))
		return len(batch), err
	}
	return all
}

// fill puts one of everything into an image's place in r.
func fill(t *testing.T, r *registrytest.Registry, image registrytest.Image) {
	t.Helper()
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	r.SignLegacy(t, image, key)
	r.AttestLegacy(t, image, key, registrytest.Attestation{PredicateType: "https://example.com/tested"})
	r.SignBundle(t, image, key)
}

// wantEverything holds that each way finds so many.
func wantEverything(t *testing.T, client *registry.Client, image policy.Image, want int) {
	t.Helper()
	for form, ask := range everything(client) {
		if n, err := ask(t.Context(), image); n != want || err != nil {
			t.Errorf("%s = %d, %v; want %d", form, n, err, want)
		}
	}
}

// elsewhere is an image in another repository, as a rule with a place there has it.
func elsewhere(t *testing.T, repository, digest string, secrets ...string) policy.Image {
	t.Helper()
	image := asked(t, repository+"@"+digest, digest, secrets...)
	image.Apart = true
	return image
}

// The prefix stands before cosign's tags as it is, and before nothing else.
func TestTagPrefix(t *testing.T) {
	t.Parallel()
	for mode, opts := range map[string][]registrytest.Option{"referrers API": nil, "referrers tag": {registrytest.WithoutReferrers()}} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, opts...)
			image := r.PushImage(t, "acme/app:v1")
			fill(t, r, image.At(registrytest.Place{TagPrefix: "team-a_"}))
			client, it := newClient(t, r), askedImage(t, image)
			for form, ask := range everything(client) {
				want := 0
				if form == "Bundles" { // referrers have no tag of cosign's
					want = 1
				}
				if n, err := ask(t.Context(), it); n != want || err != nil {
					t.Errorf("%s without the prefix = %d, %v; want %d", form, n, err, want)
				}
			}
			it.TagPrefix = "team-a_"
			r.Reset()
			wantEverything(t, client, it, 1)
			hex := strings.TrimPrefix(image.Digest, "sha256:")
			manifests := map[string]bool{}
			for _, request := range r.Counted() {
				if _, tag, ok := strings.Cut(request.Path, "/manifests/"); ok && !strings.HasPrefix(tag, "sha256:") {
					manifests[tag] = true
				}
			}
			want := map[string]bool{"team-a_sha256-" + hex + ".sig": true, "team-a_sha256-" + hex + ".att": true}
			if opts != nil {
				want["sha256-"+hex] = true
			}
			if diff := cmp.Diff(want, manifests); diff != "" {
				t.Errorf("tags that were asked for (-want +got):\n%s", diff)
			}
		})
	}
}

// What makes no tag does not become part of an address.
func TestTagPrefixThatMakesNoTag(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	client, it := newClient(t, r), askedImage(t, image)
	for _, prefix := range []string{"../../other/manifests/", "a/b", "a:b", "?", "#", "%2e%2e", " ", "\n", "ä", "-", ".", "x@", strings.Repeat("x", 54)} {
		it.TagPrefix = prefix
		for form, ask := range everything(client) {
			if form == "Bundles" {
				continue
			}
			n, err := ask(t.Context(), it)
			if prefix == "-" || prefix == "." { // registries know what they allow at the beginning; no path comes of it
				wantAtMost(t, err, "")
				continue
			}
			if wantError(t, err, policy.ReasonNotReady, r.Host()); n != 0 || !strings.Contains(err.Error(), "tagPrefix") {
				t.Errorf("%s with %q: %d, %v", form, prefix, n, err)
			}
		}
	}
	for _, request := range r.Requests() {
		if request.Path != "/v2/" && !strings.HasPrefix(request.Path, "/v2/acme/app/manifests/") {
			t.Errorf("asked for %s", request)
		}
	}
}

// COSIGN_REPOSITORY names exactly one repository: nothing is asked of the image's.
func TestAnotherRepository(t *testing.T) {
	t.Parallel()
	for mode, opts := range map[string][]registrytest.Option{"referrers API": nil, "referrers tag": {registrytest.WithoutReferrers()}} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, opts...)
			image := r.PushImage(t, "acme/app:v1")
			fill(t, r, image.At(registrytest.Place{Repository: "signatures/of/all"}))
			client := newClient(t, r)
			wantEverything(t, client, askedImage(t, image), 0)
			r.Reset()
			it := elsewhere(t, r.Host()+"/signatures/of/all", image.Digest)
			wantEverything(t, client, it, 1)
			if batch, err := gather(client.Recheck(t.Context(), it, true)); err != nil || len(batch) != 0 {
				t.Errorf("Recheck = %d, %v; want none: the image is not there, and need not be", len(batch), err)
			}
			for _, request := range r.Counted() {
				if !strings.HasPrefix(request.Path, "/v2/signatures/of/all/") {
					t.Errorf("asked for %s", request)
				}
				if strings.HasSuffix(request.Path, "/manifests/"+image.Digest) {
					t.Errorf("the image was asked for: %s", request)
				}
			}
			it.Apart = false
			_, err := gather(client.Recheck(t.Context(), it, true))
			wantError(t, err, policy.ReasonNotFound, r.Host())
		})
	}
}

// A host that was believed to have no referrers API is asked after all, also where
// signatures alone are.
func TestRecheckElsewhere(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1").At(registrytest.Place{Repository: "signatures"})
	fill(t, r, image)
	client, it := newClient(t, r), elsewhere(t, r.Host()+"/signatures", image.Digest)
	r.Fault(registrytest.First(1, registrytest.Referrers(image)), registrytest.Status(404))
	if batch, err := gather(client.Bundles(t.Context(), it, false)); err != nil || len(batch) != 0 {
		t.Fatalf("Bundles = %d, %v; want none", len(batch), err)
	}
	if batch, err := gather(client.Recheck(t.Context(), it, false)); err != nil || len(batch) != 1 {
		t.Errorf("Recheck = %d, %v; want 1", len(batch), err)
	}
}

// What another registry answers counts for what is there, and names it.
func TestAnotherRegistry(t *testing.T) {
	t.Parallel()
	own, other := registrytest.New(t), registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"))
	image := own.PushImage(t, "acme/app:v1")
	fill(t, own, image)
	it := elsewhere(t, other.Host()+"/signatures", image.Digest)
	t.Run("that has nothing", func(t *testing.T) { wantEverything(t, newClient(t, own, other), it, 0) })
	fill(t, other, image.At(registrytest.Place{Repository: "signatures"}))
	own.Reset()
	wantEverything(t, newClient(t, own, other), it, 1)
	for code, want := range map[int]policy.Reason{
		401: policy.ReasonUnauthorized, 403: policy.ReasonUnauthorized, 404: "", 429: policy.ReasonRateLimited, 500: policy.ReasonRegistryError,
	} {
		remove := other.Fault(registrytest.Ping().Not(), registrytest.Status(code))
		for form, ask := range everything(newClient(t, own, other)) {
			n, err := ask(t.Context(), it)
			if n != 0 {
				t.Errorf("%d, %s: %d items", code, form, n)
			}
			if want == "" {
				wantAtMost(t, err, "")
			} else {
				wantError(t, err, want, other.Host())
			}
		}
		remove()
	}
	if n := len(own.Requests()); n != 0 {
		t.Errorf("the image's own registry was asked: %v", lines(own.Requests()))
	}
	other.Close()
	for _, ask := range everything(newClient(t, own, other)) {
		_, err := ask(t.Context(), it)
		wantError(t, err, policy.ReasonUnreachable, other.Host())
	}
}

// The way to a registry is that of its own image: another's authority, certificate
// or plain HTTP is not taken there.
func TestAnotherRegistryOnItsOwnWay(t *testing.T) {
	t.Parallel()
	one, two := registrytest.NewAuthority(t), registrytest.NewAuthority(t)
	own := registrytest.New(t, registrytest.WithTLS(one))
	other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"), registrytest.WithTLS(two))
	plain := registrytest.New(t, registrytest.WithAddress("127.0.0.3:0"))
	image := own.PushImage(t, "acme/app:v1")
	fill(t, own, image)
	client := newClient(t)
	certified := showing(t, one, one.Client("pratique"))
	wantEverything(t, client, over(certified, askedImage(t, image)), 1)
	for _, r := range []*registrytest.Registry{other, plain} {
		fill(t, r, image.At(registrytest.Place{Repository: "signatures"}))
		it := elsewhere(t, r.Host()+"/signatures", image.Digest)
		for name, wrong := range map[string]*policy.Transport{"the server's": nil, "the image's": certified} {
			for form, ask := range everything(client) {
				n, err := ask(t.Context(), over(wrong, it))
				if n != 0 {
					t.Errorf("%s on %s way: %d", form, name, n)
				}
				wantError(t, err, policy.ReasonUnreachable, r.Host())
			}
		}
		right := trusting(two)
		if r == plain {
			right = inClear()
		}
		r.Reset()
		wantEverything(t, client, over(right, it), 1)
		for _, request := range r.Requests() {
			if request.Certificate != "" {
				t.Errorf("%s came with the certificate of %q", request, request.Certificate)
			}
		}
	}
}

// Each host sees its own credentials and no other's, and those of the place first.
func TestCredentialsElsewhere(t *testing.T) {
	t.Parallel()
	for scheme, with := range authSchemes {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			own := registrytest.New(t, with("puller", "s3cret"))
			other := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0"), with("reader", "s3cret"))
			image := own.PushImage(t, "acme/app:v1")
			fill(t, own, image)
			fill(t, other, image.At(registrytest.Place{Repository: "signatures"}))
			both := []string{secret(own.Host(), "puller", "s3cret"), secret(other.Host(), "stale", "wrong"), secret("registry.example", "never", "shown")}
			client := newClient(t)
			it := over(inClear(), elsewhere(t, other.Host()+"/signatures", image.Digest, both...))
			for form, ask := range everything(client) {
				n, err := ask(t.Context(), it)
				if wantError(t, err, policy.ReasonUnauthorized, other.Host()); n != 0 {
					t.Errorf("%s = %d with a credential that does not work", form, n)
				}
			}
			first, err := credential.Parse([]byte(secret(other.Host(), "reader", "s3cret")))
			if err != nil {
				t.Fatal(err)
			}
			it.First = []credential.Config{first}
			other.Reset()
			wantEverything(t, client, it, 1)
			wantEverything(t, client, over(inClear(), askedImage(t, image, both...)), 1)
			for _, request := range other.Requests() {
				if user := userOf(request); user != "" && user != "reader" {
					t.Errorf("%s came with the credential of %q: that of the place is tried first, and works", request, user)
				}
			}
			for _, request := range own.Requests() {
				if user := userOf(request); user != "" && user != "puller" {
					t.Errorf("%s came with the credential of %q", request, user)
				}
			}
		})
	}
}

// Over plain HTTP that nobody allowed, the place's credentials stay here as well.
func TestFirstCredentialsDoNotGoOverPlainHTTP(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.WithBasicAuth("reader", "s3cret"))
	image := r.PushImage(t, "acme/app:v1").At(registrytest.Place{Repository: "signatures"})
	fill(t, r, image)
	it := elsewhere(t, r.Host()+"/signatures", image.Digest)
	first, err := credential.Parse([]byte(secret(r.Host(), "reader", "s3cret")))
	if err != nil {
		t.Fatal(err)
	}
	it.First = []credential.Config{first}
	for _, ask := range everything(newClient(t, r)) {
		_, err := ask(t.Context(), it)
		wantError(t, err, policy.ReasonUnauthorized, r.Host())
	}
	for _, request := range r.Requests() {
		if request.Authorization != "" {
			t.Errorf("%s came with a credential", request)
		}
	}
}

// kpack signs with COSIGN_DOCKER_MEDIA_TYPES=1 for registries that know nothing else.
func TestDockerMediaTypes(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	docker := image.At(registrytest.Place{Docker: true})
	r.SignLegacy(t, docker, key)
	r.AttestLegacy(t, docker, key, registrytest.Attestation{PredicateType: "https://example.com/tested"})
	const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	// A registry that takes Accept at its word.
	strict := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
			if !strings.Contains(request.Header.Get("Accept"), dockerManifest) {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			next.ServeHTTP(w, request)
		})
	}
	r.Fault(registrytest.Signature(image).Or(registrytest.Attestations(image)), strict)
	client, it := newClient(t, r), askedImage(t, image)
	for form, ask := range everything(client) {
		want := 1
		if form == "Bundles" {
			want = 0
		}
		if n, err := ask(t.Context(), it); n != want || err != nil {
			t.Errorf("%s = %d, %v; want %d", form, n, err, want)
		}
	}
}

// Two who would show a signature repository different credentials, or would go
// there on different ways, are told apart by who asks about the image.
func TestIdentifyElsewhere(t *testing.T) {
	t.Parallel()
	client := newClient(t)
	const host, other = "registry.example", "signatures.example"
	digest := "sha256:" + strings.Repeat("ab12", 16)
	base := func(secrets ...string) policy.Image { return asked(t, host+"/acme/app:v1", digest, secrets...) }
	with := func(image policy.Image, places ...policy.Image) policy.Image {
		for i := range places {
			places[i].Credentials = image.Credentials
		}
		image.Elsewhere = places
		return image
	}
	place := func(transport *policy.Transport) policy.Image {
		image := elsewhere(t, other+"/signatures", digest)
		image.Transport = transport
		return image
	}
	first := place(nil)
	config, err := credential.Parse([]byte(secret(other, "first", "s3cret")))
	if err != nil {
		t.Fatal(err)
	}
	first.First = []credential.Config{config}
	identify := func(image policy.Image) credential.Identity {
		t.Helper()
		identity, err := client.Identify(t.Context(), image)
		if err != nil {
			t.Fatal(err)
		}
		return identity
	}
	a, b := secret(other, "a", "s3cret"), secret(other, "b", "s3cret")
	unusable := func(why string) *policy.Transport { return &policy.Transport{Unusable: why} }
	differ := map[string]policy.Image{
		"no places":                base(),
		"no credentials":           with(base(), place(nil)),
		"a's":                      with(base(a), place(nil)),
		"b's":                      with(base(b), place(nil)),
		"its own first":            with(base(), first),
		"its own first, then a's":  with(base(a), first),
		"another way":              with(base(), place(inClear())),
		"two places":               with(base(), place(nil), place(nil)),
		"the image's credentials":  with(base(secret(host, "a", "s3cret")), place(nil)),
		"a place that is not open": with(base(), place(unusable("its Secret is missing"))),
		"the same for another why": with(base(), place(unusable("its Secret is wrong"))),
	}
	seen := map[credential.Identity]string{}
	for name, image := range differ {
		identity := identify(image)
		if twin, ok := seen[identity]; ok {
			t.Errorf("%s and %s have one identity", name, twin)
		}
		seen[identity] = name
		if again := identify(image); again != identity {
			t.Errorf("%s has two identities", name)
		}
		if strings.Contains(string(identity), "s3cret") {
			t.Errorf("the identity of %s has the password in it", name)
		}
	}
	// Who cannot show the credential anywhere is as good as who has none.
	if identify(base(a)) != identify(base()) {
		t.Error("without places a credential for another host makes a difference")
	}
	if identify(with(base(a), place(nil))) == identify(base(a)) {
		t.Error("a place makes no difference")
	}
	wrong := with(base(), place(nil))
	wrong.Transport = unusable("its Secret is missing")
	if _, err := client.Identify(t.Context(), wrong); err == nil {
		t.Error("an image whose own way is not open has an identity")
	}
}
