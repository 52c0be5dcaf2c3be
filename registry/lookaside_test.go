// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// lookasideAt is the address of a lookaside server.
func lookasideAt(t *testing.T, l *registrytest.Lookaside) *url.URL {
	t.Helper()
	return parsed(t, l.URL())
}

func parsed(t *testing.T, address string) *url.URL {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// texts are what is in signatures.
func texts(signatures []registry.SimpleSignature) []string {
	var out []string
	for _, s := range signatures {
		text := string(s.Untrusted)
		if s.ByRegistry {
			text += ", by the registry"
		}
		out = append(out, text)
	}
	return out
}

// wantTexts holds all that comes of an image against what is to.
func wantTexts(t *testing.T, client *registry.Client, image policy.Image, lookaside *url.URL, want ...string) {
	t.Helper()
	got, err := gather(client.SimpleSignatures(within(t, soon), image, lookaside))
	if err != nil {
		t.Errorf("SimpleSignatures: %v", err)
	}
	if diff := cmp.Diff(want, texts(got)); diff != "" {
		t.Errorf("signatures (-want +got):\n%s", diff)
	}
}

// beside is a registry with an image, and a lookaside server with n signatures of
// it, which are called 1, 2, ….
func beside(t *testing.T, n int) (*registrytest.Registry, registrytest.Image, *registrytest.Lookaside) {
	t.Helper()
	r, l := registrytest.New(t), registrytest.NewLookaside(t)
	image := r.PushImage(t, "acme/team/app:v1")
	for i := range n {
		l.Put(image.Repository, image.Digest, fmt.Append(nil, i+1))
	}
	return r, image, l
}

func TestLookaside(t *testing.T) {
	t.Parallel()
	for name, n := range map[string]int{"none": 0, "one": 1, "several": 3, "as many as are tried": 64, "one more": 65, "a hundred": 100} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image, l := beside(t, n)
			l.Put("acme/team", image.Digest, []byte("another's"))
			l.Put(image.Repository, "sha256:"+strings.Repeat("0", 64), []byte("another's"))
			client, it := newClient(t, r), askedImage(t, image)
			got, err := gather(client.SimpleSignatures(within(t, soon), it, lookasideAt(t, l)))
			var want, requests []string
			for i := range min(n, 64) {
				want = append(want, fmt.Sprint(i+1))
			}
			if diff := cmp.Diff(want, texts(got)); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}
			for i := range min(n+1, 65) {
				status := 200
				if i == n {
					status = 404
				}
				requests = append(requests, fmt.Sprintf("GET /sigstore/acme/team/app@%s/signature-%d %d", strings.Replace(image.Digest, ":", "=", 1), i+1, status))
			}
			if diff := cmp.Diff(requests, lines(l.Requests())); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if n <= 64 {
				wantAtMost(t, err, "")
			} else {
				wantError(t, err, policy.ReasonLimit, l.Host())
			}
			l.Reset()
			if wantTexts(t, client, it, nil); len(l.Requests()) != 0 {
				t.Errorf("without a lookaside it is asked: %v", lines(l.Requests()))
			}
		})
	}
}

// What is not a signature or its absence leaves it unknown whether there are any.
func TestLookasideFailures(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		fault    registrytest.Behaviour
		want     policy.Reason
		says     string
		deadline time.Duration
		asked    int // so often, if it matters
	}{
		"204":                {fault: answer(204, ""), want: policy.ReasonUnexpected, says: "204"},
		"302 without a word": {fault: answer(302, ""), want: policy.ReasonUnexpected, says: "302"},
		"400":                {fault: registrytest.Status(400), want: policy.ReasonUnexpected, says: "400"},
		"401":                {fault: registrytest.Challenge(`Basic realm="` + canary + `"`), want: policy.ReasonUnauthorized, says: "must answer 404"},
		"403":                {fault: registrytest.Status(403), want: policy.ReasonUnauthorized, says: "must answer 404"},
		"405":                {fault: registrytest.Status(405), want: policy.ReasonUnexpected, says: "405"},
		"410":                {fault: registrytest.Status(410), want: policy.ReasonUnexpected, says: "410"},
		"429":                {fault: registrytest.Status(429), want: policy.ReasonRateLimited, says: "429"},
		"500":                {fault: registrytest.Status(500), want: policy.ReasonRegistryError, says: "500"},
		"503 for ever":       {fault: registrytest.RetryAfter(503, "0"), want: policy.ReasonRegistryError, says: "503", asked: 4},
		"a lost connection":  {fault: hangUp, want: policy.ReasonUnreachable, says: "cannot be reached"},
		"reset mid body":     {fault: registrytest.ResetMidBody(), want: policy.ReasonUnreachable},
		"one byte too many":  {fault: registrytest.Oversized(1<<20 + 1), want: policy.ReasonLimit, says: "1048576"},
		"without end":        {fault: registrytest.Endless(), want: policy.ReasonLimit, says: "1048576"},
		"a huge length":      {fault: registrytest.HugeLength(4 << 30), want: policy.ReasonLimit, says: "1048576"},
		"no answer":          {fault: registrytest.Hang(), deadline: 300 * time.Millisecond, want: policy.ReasonDeadline, says: "in time"},
		"a slow answer":      {fault: registrytest.SlowDrip(time.Minute), deadline: 300 * time.Millisecond, want: policy.ReasonDeadline, says: "in time"},
		"another scheme":     {fault: answer(302, "", "Location", "ftp://x.example/"), want: policy.ReasonUnreachable, says: "exchange failed"},
		"no scheme":          {fault: answer(302, "", "Location", "file:///etc/passwd"), want: policy.ReasonUnreachable, says: "exchange failed"},
		"in circles":         {fault: answer(302, "", "Location", "?"+canary), want: policy.ReasonLimit, says: "more than 5 times", asked: 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image, l := beside(t, 3)
			l.Fault(registrytest.Stored(image.Repository, image.Digest, 2), test.fault)
			if test.deadline == 0 {
				test.deadline = soon
			}
			base := lookasideAt(t, l)
			base.User, base.RawQuery = url.UserPassword("user", canary), "token="+canary
			got, err := gather(newClient(t, r).SimpleSignatures(within(t, test.deadline), askedImage(t, image), base))
			wantError(t, err, test.want, l.Host())
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("message = %q, want %q in it", err, test.says)
			}
			if diff := cmp.Diff([]string{"1"}, texts(got)); diff != "" {
				t.Errorf("signatures (-want +got):\n%s", diff)
			}
			asked := 0
			for _, request := range l.Requests() {
				if strings.HasSuffix(request.Path, "signature-2") {
					asked++
				}
				if strings.HasSuffix(request.Path, "signature-3") {
					t.Error("it is asked for what follows")
				}
			}
			if test.asked != 0 && asked != test.asked {
				t.Errorf("asked %d times, want %d", asked, test.asked)
			}
		})
	}
}

// What is answered after all is read, and nothing of it is made into anything else.
func TestLookasideAnswers(t *testing.T) {
	t.Parallel()
	packed := registrytest.Bomb(2 << 20)
	for name, test := range map[string]struct {
		match registrytest.Match
		fault registrytest.Behaviour
		want  func(text string) bool
	}{
		"later":              {registrytest.First(2, registrytest.Any()), registrytest.RetryAfter(503, "0"), func(text string) bool { return text == "1" }},
		"after a reset":      {registrytest.First(1, registrytest.Any()), registrytest.ResetMidBody(), func(text string) bool { return text == "1" }},
		"slowly":             {registrytest.First(1, registrytest.Any()), registrytest.SlowDrip(time.Millisecond), func(text string) bool { return text == "1" }},
		"packed":             {registrytest.First(1, registrytest.Any()), packed, func(text string) bool { return strings.HasPrefix(text, "\x1f\x8b") && len(text) < 1<<20 }},
		"as large as may be": {registrytest.First(1, registrytest.Any()), registrytest.Oversized(1 << 20), func(text string) bool { return len(text) == 1<<20 }},
		"empty":              {registrytest.First(1, registrytest.Any()), answer(200, ""), func(text string) bool { return text == "" }},
		"as HTML":            {registrytest.First(1, registrytest.Any()), answer(200, "<html>", "Content-Type", "text/html"), func(text string) bool { return text == "<html>" }},
		"after 5 redirects":  {registrytest.First(5, registrytest.Any()), answer(307, "", "Location", "?"), func(text string) bool { return text == "1" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image, l := beside(t, 1)
			l.Fault(test.match, test.fault)
			got, err := gather(newClient(t, r).SimpleSignatures(within(t, soon), askedImage(t, image), lookasideAt(t, l)))
			if err != nil || len(got) != 1 || !test.want(string(got[0].Untrusted)) {
				t.Errorf("%d signatures, %v; want another one", len(got), err)
			}
		})
	}
}

// What the address of a lookaside says is kept where it is a path or a query.
func TestLookasideAddresses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ below, path, query string }{
		"none":                {"", "", ""},
		"a slash":             {"/", "", ""},
		"a path":              {"/a/b", "/a/b", ""},
		"a path with slashes": {"/a/b//", "/a/b", ""},
		"a query":             {"/a?x=y&z=%2F", "/a", "x=y&z=%2F"},
		"an empty query":      {"/a?", "/a", ""},
		"a fragment":          {"/a#b", "/a", ""},
		"an escaped path":     {"/a%2Fb%20c/", "/a/b c", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image, l := beside(t, 0)
			var address string
			l.Fault(func(request *http.Request) bool { address = request.RequestURI; return true }, registrytest.Status(404))
			base := parsed(t, "http://"+l.Host()+test.below)
			wantTexts(t, newClient(t, r), askedImage(t, image), base)
			requests := l.Requests()
			want := test.path + "/acme/team/app@" + strings.Replace(image.Digest, ":", "=", 1) + "/signature-1"
			if len(requests) != 1 || requests[0].Path != want || requests[0].Query != test.query {
				t.Errorf("requests %+v, want %s with the query %q", requests, want, test.query)
			}
			if strings.Contains(test.below, "%2Fb") && !strings.HasPrefix(address, "/a%2Fb%20c/acme/") {
				t.Errorf("asked for %s, want the escapes of the address", address)
			}
		})
	}
}

// A lookaside is on a host of its own, and never sees what registries are shown.
func TestLookasideSeesNoCredentials(t *testing.T) {
	t.Parallel()
	for scheme, with := range authSchemes {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			r := registrytest.New(t, with("user", "s3cret"))
			image := r.PushImage(t, "acme/app:v1")
			l, elsewhere := registrytest.NewLookaside(t), registrytest.NewLookaside(t, registrytest.WithAddress("127.0.0.2:0"))
			for _, l := range []*registrytest.Lookaside{l, elsewhere} {
				l.Put(image.Repository, image.Digest, []byte("1"))
			}
			var mu sync.Mutex
			var referers []string
			elsewhere.Fault(func(request *http.Request) bool {
				mu.Lock()
				defer mu.Unlock()
				if referer := request.Header.Get("Referer"); referer != "" {
					referers = append(referers, referer)
				}
				return false
			}, nil)
			l.Fault(registrytest.Stored(image.Repository, image.Digest, 1), func(http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
					w.Header().Set("Set-Cookie", "a=b")
					http.Redirect(w, request, "http://eve:pw@"+elsewhere.Host()+request.URL.Path, http.StatusFound)
				})
			})
			base := lookasideAt(t, l)
			base.User, base.RawQuery = url.UserPassword("admin", "pw"), "sig=s3cret"
			it := shownImage(t, image, secret(r.Host(), "user", "s3cret"), secret(l.Host(), "user", "s3cret"), secret(elsewhere.Host(), "user", "s3cret"))
			wantTexts(t, newClient(t, r), it, base, "1")
			if len(elsewhere.Requests()) == 0 || len(l.Requests()) == 0 {
				t.Fatal("nobody was asked")
			}
			for _, request := range append(l.Requests(), elsewhere.Requests()...) {
				if request.Authorization != "" || request.Cookie != "" || request.Body != "" {
					t.Errorf("%s came with credentials: %q %q %q", request, request.Authorization, request.Cookie, request.Body)
				}
			}
			for _, request := range elsewhere.Requests() {
				if request.Query != "" {
					t.Errorf("%s came with the query %q of another host", request, request.Query)
				}
			}
			if len(referers) != 0 {
				t.Errorf("it is told where from: %q", referers)
			}
		})
	}
}

// Nor is it what registries are at that are on the same host.
func TestLookasideOnTheRegistrysHost(t *testing.T) {
	t.Parallel()
	r := registrytest.New(t, registrytest.WithBasicAuth("user", "s3cret"))
	image := r.PushImage(t, "acme/app:v1")
	_, err := gather(newClient(t, r).SimpleSignatures(t.Context(), shownImage(t, image, secret(r.Host(), "user", "s3cret")), parsed(t, "http://"+r.Host()+"/x")))
	wantError(t, err, policy.ReasonUnauthorized, r.Host())
	for _, request := range r.Requests() {
		if strings.HasPrefix(request.Path, "/x/") && request.Authorization != "" {
			t.Errorf("%s came with credentials", request)
		}
	}
}

func TestEgressOfLookasides(t *testing.T) {
	t.Parallel()
	one := netip.MustParsePrefix("127.0.0.1/32")
	for name, test := range map[string]struct {
		o         registry.Options
		redirect  bool
		permitted bool
		says      string
	}{
		"allowed":                 {o: registry.Options{AllowCIDRs: []netip.Prefix{loopback}}, permitted: true},
		"refused by default":      {o: registry.Options{AllowCIDRs: []netip.Prefix{one}}, says: "--registry-allow-cidrs"},
		"denied":                  {o: registry.Options{AllowCIDRs: []netip.Prefix{loopback}, DenyCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, says: "127.0.0.2 is"},
		"redirected":              {o: registry.Options{AllowCIDRs: []netip.Prefix{loopback}}, redirect: true, permitted: true},
		"redirected, and refused": {o: registry.Options{AllowCIDRs: []netip.Prefix{one}}, redirect: true, says: "--registry-allow-cidrs"},
		"redirected, and denied":  {o: registry.Options{AllowCIDRs: []netip.Prefix{loopback}, DenyCIDRs: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}, redirect: true, says: "127.0.0.2 is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image, first := beside(t, 0)
			l := registrytest.NewLookaside(t, registrytest.WithAddress("127.0.0.2:0"))
			l.Put(image.Repository, image.Digest, []byte("1"))
			base := lookasideAt(t, l)
			if test.redirect {
				first.Fault(registrytest.Any(), registrytest.Redirect("http://"+l.Host()))
				base = lookasideAt(t, first)
			}
			test.o.Insecure = []string{r.Host()}
			client := newClientWith(t, test.o)
			if test.permitted {
				wantTexts(t, client, askedImage(t, image), base, "1")
				return
			}
			_, err := gather(client.SimpleSignatures(within(t, soon), askedImage(t, image), base))
			wantError(t, err, policy.ReasonUnreachable, base.Host)
			if !strings.Contains(err.Error(), test.says) {
				t.Errorf("message = %q, want %q in it", err, test.says)
			}
			if n := len(l.Requests()); n != 0 {
				t.Errorf("%d requests arrived, want none", n)
			}
		})
	}
}

func TestLookasideOverTLS(t *testing.T) {
	t.Parallel()
	authority := registrytest.NewAuthority(t)
	for name, test := range map[string]struct {
		trusted bool
		order   func(l, plain *registrytest.Lookaside) string // what is asked
		says    string
	}{
		"trusted":     {trusted: true, order: func(l, _ *registrytest.Lookaside) string { return l.URL() }},
		"not trusted": {order: func(l, _ *registrytest.Lookaside) string { return l.URL() }, says: "for a lookaside --ca-file"},
		"leads to plain HTTP": {trusted: true, says: "from HTTPS to plain HTTP", order: func(l, plain *registrytest.Lookaside) string {
			l.Fault(registrytest.Any(), registrytest.Redirect("http://"+plain.Host()))
			return l.URL()
		}},
		"is led to from plain HTTP": {trusted: true, order: func(l, plain *registrytest.Lookaside) string {
			plain.Fault(registrytest.Any(), registrytest.Redirect("https://"+l.Host()))
			return plain.URL()
		}},
		"does not speak it": {trusted: true, says: "would begin with http://", order: func(_, plain *registrytest.Lookaside) string {
			return strings.Replace(plain.URL(), "http://", "https://", 1)
		}},
		"speaks it alone": {trusted: true, says: "may speak HTTPS", order: func(l, _ *registrytest.Lookaside) string {
			return strings.Replace(l.URL(), "https://", "http://", 1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, image, plain := beside(t, 1)
			l := registrytest.NewLookaside(t, registrytest.WithTLS(authority))
			l.Put(image.Repository, image.Digest, []byte("1"))
			o := registry.Options{AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{r.Host()}}
			if test.trusted {
				o.RootCAs = authority.Pool()
			}
			client, base := newClientWith(t, o), parsed(t, test.order(l, plain))
			if test.says == "" {
				wantTexts(t, client, askedImage(t, image), base, "1")
				return
			}
			got, err := gather(client.SimpleSignatures(within(t, soon), askedImage(t, image), base))
			if err == nil || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), base.Host) || len(got) != 0 {
				t.Errorf("%d signatures, %v; want %q", len(got), err, test.says)
			}
			if len(plain.Requests()) != 0 {
				t.Error("it is asked over plain HTTP")
			}
		})
	}
}

// Proxies serve lookasides as well, and what they lead to is judged as it is
// for registries.
func TestLookasideThroughProxy(t *testing.T) {
	r, image, l := beside(t, 2)
	proxy := registrytest.NewProxy(t, map[string]string{"sigs.example.com": l.Host()})
	throughProxy(t, proxy, "127.0.0.1")
	base := lookasideAt(t, l)
	base.Host = "sigs.example.com"
	client := newNamedClient(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{r.Host()}}, nil)
	wantTexts(t, client, askedImage(t, image), base, "1", "2")
	if n := len(proxy.Targets()); n != 3 {
		t.Errorf("the proxy was asked %v, want 3 requests", proxy.Targets())
	}
	for _, host := range []string{"169.254.169.254", "localhost"} {
		base.Host = host
		_, err := gather(client.SimpleSignatures(within(t, soon), askedImage(t, image), base))
		wantError(t, err, policy.ReasonUnreachable, host)
	}
	if n := len(proxy.Targets()); n != 3 {
		t.Errorf("the proxy was asked for what is refused: %v", proxy.Targets())
	}
}

// Each request is counted, under the host that it went to.
func TestLookasideIsObserved(t *testing.T) {
	t.Parallel()
	r, image, l := beside(t, 1)
	var mu sync.Mutex
	seen := map[string]int{}
	client := newClientWith(t, registry.Options{
		AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{r.Host()},
		Observe: func(host string, status int, _ time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if host == l.Host() {
				seen[fmt.Sprint(status)]++
			}
		},
	})
	wantTexts(t, client, askedImage(t, image), lookasideAt(t, l), "1")
	if diff := cmp.Diff(map[string]int{"200": 1, "404": 1}, seen); diff != "" {
		t.Errorf("observed (-want +got):\n%s", diff)
	}
}

// One host that hangs has so many requests at a time, whoever asks for them.
func TestLookasideIsShared(t *testing.T) {
	t.Parallel()
	r, image, l := beside(t, 1)
	release := make(chan struct{})
	var once sync.Once
	free := func() { once.Do(func() { close(release) }) }
	t.Cleanup(free)
	l.Fault(registrytest.Any(), registrytest.Hold(release))
	client, it, base := newClient(t, r), askedImage(t, image), lookasideAt(t, l)
	wantTexts(t, client, it, nil) // so that all of them are logged in
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() { wantTexts(t, client, it, base, "1") })
	}
	for end := time.Now().Add(soon); len(l.Requests()) < 16; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d requests, want 16", len(l.Requests()))
		}
	}
	if n := len(l.Requests()); n != 16 {
		t.Errorf("%d requests at a time, want 16", n)
	}
	free()
	wg.Wait()
	if n := len(l.Requests()); n != 80 {
		t.Errorf("%d requests, want 80", n)
	}
}

func TestLookasideAddressesThatAreNone(t *testing.T) {
	t.Parallel()
	r, image, _ := beside(t, 0)
	client := newClientWith(t, registry.Options{AllowCIDRs: []netip.Prefix{loopback}, Insecure: []string{r.Host()}, LocalLookaside: true})
	for name, base := range map[string]*url.URL{
		"no scheme":       {Host: canary, Path: "/"},
		"another scheme":  {Scheme: "ftp", Host: canary},
		"no host":         {Scheme: "https", Path: "/" + canary},
		"a port alone":    {Scheme: "https", Host: ":443", Path: "/" + canary},
		"opaque":          {Scheme: "https", Opaque: canary},
		"an opaque file":  {Scheme: "file", Opaque: "x"},
		"another's file":  {Scheme: "file", Host: canary, Path: "/x"},
		"a relative path": {Scheme: "file", Path: "x"},
		"nothing":         {},
	} {
		got, err := gather(client.SimpleSignatures(t.Context(), askedImage(t, image), base))
		if len(got) != 0 {
			t.Errorf("%s: %d signatures", name, len(got))
		}
		wantError(t, err, policy.ReasonNotReady, "lookaside")
	}
}

// A reference names the repository that is looked for, whatever else it says.
func TestLookasideRepositories(t *testing.T) {
	t.Parallel()
	const digest = "sha256:abababababababababababababababababababababababababababababababab"
	l := registrytest.NewLookaside(t)
	r := registrytest.New(t)
	client := newClient(t, r)
	paths := map[string]string{
		"/app:v1": "/app", "/a/b/c/app@" + digest: "/a/b/c/app", "/a.b/c-d__e/app:v1@" + digest: "/a.b/c-d__e/app",
	}
	for written, want := range paths {
		l.Reset()
		wantTexts(t, client, asked(t, r.Host()+written, digest), lookasideAt(t, l))
		if got := l.Requests(); len(got) != 1 || got[0].Path != "/sigstore"+want+"@sha256="+digest[7:]+"/signature-1" {
			t.Errorf("%s: asked for %v", written, lines(got))
		}
	}
}
