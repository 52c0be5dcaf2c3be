// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"iter"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// While the first signatures of a long list are tried, the list is not held:
// whoever asks about many images of one hostile host at once would fill the
// memory with what is never looked at.
func TestListsAreNotHeld(t *testing.T) {
	const images, most = 8, 512 << 10 // bytes for each list: held whole it takes 2 MiB
	r := registrytest.New(t)
	client := newClient(t, r)
	crowd := registrytest.Crowd(10_000)
	var all []policy.Image
	for i := range images {
		image := r.PushImage(t, fmt.Sprintf("acme/app-%d:v1", i))
		r.Fault(registrytest.Signature(image), crowd)
		all = append(all, askedImage(t, image))
	}
	inUse := func() uint64 {
		r.Reset()
		runtime.GC()
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		return now.HeapAlloc
	}
	without := inUse()
	var begun []iter.Seq2[registry.Signature, error]
	for _, it := range all {
		begun = append(begun, client.Signatures(t.Context(), it))
	}
	if with := inUse(); with > without+images*most {
		t.Errorf("%d KiB for each of %d lists, want at most %d", (with-without)>>10/images, images, most>>10)
	}
	if batch, err := gather(begun[0]); len(batch) != 0 || err == nil { // and keeps all of them in memory until here
		t.Errorf("Signatures = %d, %v; want none and an error", len(batch), err)
	}
	runtime.KeepAlive(begun)
}

// Whose credentials make a registry hang does not make those wait whom it
// answers, however often he asks.
func TestHangingCredentialSlowsOnlyItself(t *testing.T) {
	// HTTP/2 would have all of them share one connection.
	r := registrytest.New(t, registrytest.WithBasicAuth("slow", "s3cret"), registrytest.WithBasicAuth("quick", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	slow := func(request *http.Request) bool {
		user, _, _ := request.BasicAuth()
		return user == "slow"
	}
	r.Fault(slow, registrytest.Hang())
	client := newClient(t, r)
	ctx := within(t, 5*time.Minute)
	for i := range 50 {
		it := shown(t, fmt.Sprintf("%s/acme/app-%d:v1", r.Host(), i), "", secret(r.Host(), "slow", "s3cret"))
		go func() { _, _ = client.Resolve(ctx, it) }() // it is over when the test is
	}
	hanging := func() (n int) {
		for _, request := range r.Requests() {
			if userOf(request) == "slow" {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(soon); hanging() < 16; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of them ask", hanging())
		}
	}
	it := shownImage(t, image, secret(r.Host(), "quick", "s3cret"))
	if got, err := client.Resolve(within(t, 5*time.Second), it); err != nil || got.Digest != image.Digest {
		t.Errorf("with %d requests that hang: Resolve = %+v, %v; want %s", hanging(), got, err, image.Digest)
	}
}

// However slowly one host sends the rest of what is large, another host's large
// answers have places in memory left.
func TestLargeBodiesOfOneHost(t *testing.T) {
	t.Parallel()
	slow, other := registrytest.New(t), registrytest.New(t)
	image := other.PushImage(t, "acme/app:v1")
	other.Fault(registrytest.Signature(image), registrytest.Crowd(5_000))
	slow.Fault(registrytest.Any(), stall(300<<10))
	client := newClient(t, slow, other)
	ctx := within(t, 5*time.Minute)
	for i := range 16 {
		it := asked(t, fmt.Sprintf("%s/acme/app-%d:v1", slow.Host(), i), image.Digest)
		go func() { _, _ = gather(client.Signatures(ctx, it)) }() // it is over when the test is
	}
	for end := time.Now().Add(soon); len(slow.Requests()) < 2*16; time.Sleep(time.Millisecond) { // a login each, and the manifest
		if time.Now().After(end) {
			t.Fatalf("%d requests", len(slow.Requests()))
		}
	}
	// More signatures than are tried: all of it was read.
	if _, err := gather(client.Signatures(within(t, 5*time.Second), askedImage(t, image))); err == nil {
		t.Error("no error")
	} else {
		wantError(t, err, policy.ReasonLimit, other.Host())
	}
}

// stall sends so many bytes of a manifest, and nothing after them.
func stall(bytes int) registrytest.Behaviour {
	return func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/v2/" {
				return
			}
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write(make([]byte, bytes))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		})
	}
}
