// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

const mib = 1 << 20

// attested are the two forms in which attestations are found, and how anything
// is put there.
func attested(client *registry.Client) map[string]attestedForm {
	return map[string]attestedForm{
		"Attestations": {
			ask: func(ctx context.Context, image policy.Image) (all [][]byte, err error) {
				layers, err := gather(client.Attestations(ctx, image))
				for _, layer := range layers {
					all = append(all, layer.UntrustedPayload)
				}
				return all, err
			},
			push: func(t *testing.T, r *registrytest.Registry, image registrytest.Image, content []byte) {
				t.Helper()
				r.PushAttestationLayer(t, image, content, nil)
			},
		},
		"Bundles": {
			ask: func(ctx context.Context, image policy.Image) ([][]byte, error) {
				return gather(client.Bundles(ctx, image, true))
			},
			push: func(t *testing.T, r *registrytest.Registry, image registrytest.Image, content []byte) {
				t.Helper()
				r.PushBundle(t, image, content)
			},
		},
	}
}

type attestedForm struct {
	ask  func(context.Context, policy.Image) ([][]byte, error)
	push func(*testing.T, *registrytest.Registry, registrytest.Image, []byte)
}

func TestAttestations(t *testing.T) {
	t.Parallel()
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	about := registrytest.Attestation{PredicateType: "https://example.com/tested", Predicate: map[string]any{"passed": true}}
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.SignLegacy(t, image, key)
	client := newClient(t, r)
	if batch, err := gather(client.Attestations(t.Context(), askedImage(t, image))); err != nil || len(batch) != 0 {
		t.Errorf("with a signature alone: %d attestations, %v; want none", len(batch), err)
	}
	first := registrytest.NewEnvelope(t, image, key, about)
	r.PushAttestationLayer(t, image, first, map[string]string{"predicateType": "of the first"})
	r.AttestLegacy(t, image, key, about)
	r.Reset()
	batch, err := gather(client.Attestations(t.Context(), askedImage(t, image)))
	if err != nil || len(batch) != 2 {
		t.Fatalf("%d attestations, %v; want 2", len(batch), err)
	}
	if !bytes.Equal(batch[0].UntrustedPayload, first) || batch[0].UntrustedAnnotations["predicateType"] != "of the first" {
		t.Errorf("the first is %s, %v", batch[0].UntrustedPayload, batch[0].UntrustedAnnotations)
	}
	if batch[1].UntrustedAnnotations["predicateType"] != about.PredicateType {
		t.Errorf("the second has the annotations %v", batch[1].UntrustedAnnotations)
	}
	if n := len(r.Counted()); n != 3 {
		t.Errorf("%d requests, want the manifest and 2 envelopes: %v", n, lines(r.Counted()))
	}
	if batch, err := gather(client.Signatures(t.Context(), askedImage(t, image))); err != nil || len(batch) != 1 {
		t.Errorf("%d signatures, %v; want 1: attestations are none", len(batch), err)
	}
}

// Spec section 6: 32 attestations under the tag, 64 referrers.
func TestAttestationsAreBounded(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		push, want int
		err        policy.Reason
	}{
		"as many as are tried":    {push: 32, want: 32},
		"one more than are tried": {push: 33, want: 32, err: policy.ReasonLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.FloodAttestations(t, image, test.push)
			batch, err := gather(newClient(t, r).Attestations(t.Context(), askedImage(t, image)))
			if len(batch) != test.want {
				t.Errorf("%d attestations, want %d", len(batch), test.want)
			}
			wantAtMost(t, err, test.err)
			if test.err != "" {
				wantError(t, err, test.err, r.Host()+" lists more attestations than the 32 that are tried")
			}
			if n := len(r.Counted()); n != 1+test.want {
				t.Errorf("%d requests, want the manifest and %d envelopes", n, test.want)
			}
		})
	}
}

// Each may have 4 MiB, whatever is beside it, and they keep their order although
// what is large waits for its turn.
func TestAttestationSizes(t *testing.T) {
	t.Parallel()
	sized := func(sizes ...int) (all [][]byte) {
		for i, size := range sizes {
			all = append(all, bytes.Repeat([]byte{'a' + byte(i)}, size))
		}
		return all
	}
	for name, test := range map[string]struct {
		pushed [][]byte
		want   int // of the first of them
		err    policy.Reason
	}{
		"as large as a signature": {pushed: sized(mib), want: 1},
		"a byte larger":           {pushed: sized(mib + 1), want: 1},
		"the largest":             {pushed: sized(4 * mib), want: 1},
		"too large":               {pushed: sized(4*mib + 1), err: policy.ReasonLimit},
		"too large beside others": {pushed: sized(10, 2*mib, 4*mib+1), want: 2, err: policy.ReasonLimit},
		"large and small ones":    {pushed: sized(3*mib, 10, 4*mib, 20, mib, 2*mib, 2*mib, 2*mib, 2*mib, 2*mib, 30), want: 11},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			client := newClient(t, r)
			for form, attested := range attested(client) {
				image := r.PushImage(t, "acme/"+strings.ToLower(form)+":v1")
				for _, content := range test.pushed {
					attested.push(t, r, image, content)
				}
				got, err := attested.ask(within(t, soon), askedImage(t, image))
				wantAtMost(t, err, test.err)
				if test.err != "" {
					wantError(t, err, test.err, r.Host())
					if !strings.Contains(err.Error(), "4194304") {
						t.Errorf("%s: %v does not name the bound", form, err)
					}
				}
				if form == "Bundles" { // referrers have no order
					got = inOrder(got, test.pushed)
				}
				if len(got) != test.want {
					t.Fatalf("%s: %d, want %d", form, len(got), test.want)
				}
				for i, content := range got {
					if !bytes.Equal(content, test.pushed[i]) {
						t.Errorf("%s: number %d has %d bytes of %q, want %d of %q", form, i, len(content), content[0], len(test.pushed[i]), test.pushed[i][0])
					}
				}
			}
		})
	}
}

// inOrder sorts what was got as it was pushed.
func inOrder(got, pushed [][]byte) (sorted [][]byte) {
	for _, one := range pushed {
		for _, other := range got {
			if bytes.Equal(one, other) {
				sorted = append(sorted, other)
			}
		}
	}
	return sorted
}

// Who looks for signatures is not given what only attestations may be.
func TestBundlesWithoutAttestationsAreSmall(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.PushBundle(t, image, make([]byte, mib+1))
	r.PushBundle(t, image, make([]byte, mib))
	client := newClient(t, r)
	batch, err := gather(client.Bundles(t.Context(), askedImage(t, image), false))
	wantError(t, err, policy.ReasonLimit, r.Host())
	if len(batch) != 1 || len(batch[0]) != mib {
		t.Errorf("%d bundles, want the smaller one", len(batch))
	}
	if batch, err := gather(client.Bundles(t.Context(), askedImage(t, image), true)); err != nil || len(batch) != 2 {
		t.Errorf("with attestations: %d bundles, %v; want 2", len(batch), err)
	}
	// Nothing remembers that the host has no referrers API, so there is no more to ask.
	if batch, err := gather(client.Recheck(t.Context(), askedImage(t, image), true)); err != nil || len(batch) != 0 {
		t.Errorf("Recheck = %d, %v; want none", len(batch), err)
	}
}

func TestRecheckFindsAttestations(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	image := r.PushImage(t, "acme/app:v1")
	r.PushBundle(t, image, make([]byte, 2*mib))
	client, it := newClient(t, r), askedImage(t, image)
	remove := r.Fault(registrytest.Referrers(image), registrytest.Status(404))
	if batch, err := gather(client.Bundles(t.Context(), it, true)); err != nil || len(batch) != 0 {
		t.Fatalf("Bundles = %d, %v; want none", len(batch), err)
	}
	remove()
	_, err := gather(client.Recheck(t.Context(), it, false))
	wantError(t, err, policy.ReasonLimit, r.Host())

	r.Fault(registrytest.First(1, registrytest.Referrers(image)), registrytest.Status(404))
	if _, err := gather(client.Bundles(t.Context(), it, true)); err != nil {
		t.Fatal(err)
	}
	if batch, err := gather(client.Recheck(t.Context(), it, true)); err != nil || len(batch) != 1 {
		t.Errorf("Recheck = %d, %v; want 1", len(batch), err)
	}
}

// C35 for attestations: what a registry sends without end, or says that it will,
// costs what the bounds allow.
func TestAttestationsHostileAnswers(t *testing.T) {
	t.Parallel()
	hex := strings.Repeat("ab12", 16)
	layer := func(digest, size string) string {
		return manifestOf(`{"mediaType":"application/vnd.dsse.envelope.v1+json","digest":"` + digest + `","size":` + size + `}`)
	}
	body := func(b string) registrytest.Behaviour { return registrytest.Body(string(types.OCIManifestSchema1), b) }
	for name, test := range map[string]struct {
		fault    registrytest.Behaviour
		deadline time.Duration
		want     policy.Reason
		requests int // at most
	}{
		"4 GiB promised":        {registrytest.HugeLength(4 << 30), soon, policy.ReasonLimit, 1},
		"more promised":         {registrytest.HugeLength(1 << 20), 500 * time.Millisecond, policy.ReasonDeadline, 1},
		"64 MiB packed":         {registrytest.Bomb(64 << 20), soon, policy.ReasonUnexpected, 1},
		"10,000 attestations":   {registrytest.Crowd(10_000), soon, policy.ReasonLimit, 33},
		"digests that are none": {registrytest.HostileDigests("", "sha256:../../"+hex, "sha256:"+hex+"?"+canary), soon, policy.ReasonUnexpected, 1},
		"a digest that is none, large": {
			body(layer("sha256:../../"+canary, "2097152")), soon, policy.ReasonUnexpected, 1,
		},
		"no such envelope, large": {body(layer("sha256:"+hex, "2097152")), soon, policy.ReasonNotFound, 2},
		"far too large":           {body(layer("sha256:"+hex, "9223372036854775807")), soon, policy.ReasonLimit, 1},
		"negative size":           {body(layer("sha256:"+hex, "-4194304")), soon, policy.ReasonNotFound, 2},
		"not JSON":                {body(canary), soon, policy.ReasonUnexpected, 1},
		"404":                     {answer(404, canary), soon, "", 1},
		"401":                     {answer(401, canary), soon, policy.ReasonUnauthorized, 1},
		"403":                     {answer(403, canary), soon, policy.ReasonUnauthorized, 1},
		"500":                     {answer(500, canary), soon, policy.ReasonRegistryError, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			defer inTime(t, soon)()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.FloodAttestations(t, image, 1)
			r.Fault(registrytest.Attestations(image), test.fault)
			batch, err := gather(newClient(t, r).Attestations(within(t, test.deadline), askedImage(t, image)))
			if len(batch) != 0 {
				t.Errorf("%d attestations, want none", len(batch))
			}
			wantAtMost(t, err, test.want)
			if n := len(r.Counted()); n > test.requests {
				t.Errorf("%d requests, want at most %d: %v", n, test.requests, lines(r.Counted()))
			}
			for _, request := range r.Requests() {
				if strings.Contains(request.Path+request.Query, canary) || strings.Contains(request.Path, "..") {
					t.Errorf("what was sent became an address: %s", request)
				}
			}
		})
	}
}

// One envelope that cannot be read does not hide the others, and is not hidden,
// be it large or small.
func TestAttestationsHostileBlob(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault registrytest.Behaviour
		want  policy.Reason
	}{
		"404":           {registrytest.Status(404), policy.ReasonNotFound},
		"401":           {registrytest.Status(401), policy.ReasonUnauthorized},
		"500":           {registrytest.Status(500), policy.ReasonRegistryError},
		"another blob":  {answer(200, `{"payload":""}`), policy.ReasonUnexpected},
		"one byte more": {padded, policy.ReasonUnexpected},
		"an empty blob": {answer(200, ""), policy.ReasonUnexpected},
		"oversized":     {registrytest.Oversized(4*mib + 1), policy.ReasonLimit},
		"without end":   {registrytest.Endless(), policy.ReasonLimit},
		"huge length":   {registrytest.Header("Content-Length", "99999999999"), policy.ReasonLimit},
	} {
		for label, size := range map[string]int{"small": 100, "large": 2 * mib} {
			t.Run(name+", "+label, func(t *testing.T) {
				t.Parallel()
				defer inTime(t, soon)()
				r := registrytest.New(t)
				client := newClient(t, r)
				for form, attested := range attested(client) {
					image := r.PushImage(t, "acme/"+strings.ToLower(form)+":v1")
					for i := range 3 {
						attested.push(t, r, image, bytes.Repeat([]byte{byte(i)}, size))
					}
					r.Fault(registrytest.First(1, registrytest.Blob(image.Repository)), test.fault)
					batch, err := attested.ask(t.Context(), askedImage(t, image))
					if len(batch) != 2 {
						t.Errorf("%s: %d, want the 2 others", form, len(batch))
					}
					wantError(t, err, test.want, r.Host())
				}
			})
		}
	}
}

// What has more bytes than its descriptor says is not read into the place of
// something small, and what has fewer is what its digest says.
func TestAttestationsOfAnotherSize(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		bytes int
		said  string
		want  int
		err   policy.Reason
	}{
		"says less":         {2 * mib, "1", 0, policy.ReasonLimit},
		"says a little":     {100, "1", 1, ""},
		"says more":         {100, "4194304", 1, ""},
		"says less, large":  {3 * mib, "1048577", 1, ""},
		"says none":         {100, "0", 1, ""},
		"says too much":     {100, "4194305", 0, policy.ReasonLimit},
		"says what is none": {100, "-1", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t)
			image := r.PushImage(t, "acme/app:v1")
			r.PushAttestationLayer(t, image, make([]byte, test.bytes), nil)
			r.Fault(registrytest.Attestations(image), func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
					usual := captured(next, request)
					_, _ = w.Write(bytes.ReplaceAll(usual, fmt.Appendf(nil, `"size":%d`, test.bytes), []byte(`"size":`+test.said)))
				})
			})
			batch, err := gather(newClient(t, r).Attestations(t.Context(), askedImage(t, image)))
			if len(batch) != test.want {
				t.Errorf("%d attestations, want %d", len(batch), test.want)
			}
			wantAtMost(t, err, test.err)
		})
	}
}

// However slowly one host sends what is large, its small answers come.
func TestLargeAttestationsSlowNothingSmall(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	key := registrytest.NewKey(t, registrytest.ECDSAP256)
	signed := r.PushImage(t, "acme/signed:v1")
	r.SignLegacy(t, signed, key)
	r.AttestLegacy(t, signed, key, registrytest.Attestation{PredicateType: "https://example.com/small"})
	client := newClient(t, r)
	ctx := within(t, 5*time.Minute)
	const images = 12
	for i := range images {
		image := r.PushImage(t, fmt.Sprintf("acme/slow-%d:v1", i))
		for n := range 4 {
			r.PushAttestationLayer(t, image, bytes.Repeat([]byte{byte(n)}, 4*mib), nil)
		}
		r.Fault(registrytest.Blob(image.Repository), stall(300<<10))
		it := askedImage(t, image)
		go func() { _, _ = gather(client.Attestations(ctx, it)) }() // it is over when the test is
	}
	blobs := func() (n int) {
		for _, request := range r.Requests() {
			if strings.Contains(request.Path, "/blobs/") {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(soon); blobs() < images; time.Sleep(time.Millisecond) { // of each one: the others wait for their turn
		if time.Now().After(end) {
			t.Fatalf("%d of them are asked for", blobs())
		}
	}
	it := askedImage(t, signed)
	if batch, err := gather(client.Signatures(within(t, soon), it)); err != nil || len(batch) != 1 {
		t.Errorf("Signatures = %d, %v; want 1", len(batch), err)
	}
	if batch, err := gather(client.Attestations(within(t, soon), it)); err != nil || len(batch) != 1 {
		t.Errorf("Attestations = %d, %v; want 1", len(batch), err)
	}
}

// Many large ones of one host, all at once: all are read, in turn.
func TestManyLargeAttestations(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t)
	client := newClient(t, r)
	ended := make(chan error)
	const images, each = 12, 3
	for i := range images {
		image := r.PushImage(t, fmt.Sprintf("acme/app-%d:v1", i))
		for n := range each {
			r.PushAttestationLayer(t, image, bytes.Repeat([]byte{byte(n)}, 2*mib), nil)
		}
		it := askedImage(t, image)
		go func() {
			batch, err := gather(client.Attestations(within(t, soon), it))
			if err == nil && len(batch) != each {
				err = fmt.Errorf("%d attestations", len(batch))
			}
			ended <- err
		}()
	}
	for range images {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
