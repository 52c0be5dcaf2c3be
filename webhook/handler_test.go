// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
	"github.com/pratique-dev/pratique/webhook"
)

// TestNoReview: what is no AdmissionReview has no answer in one, and does not
// disturb those that are.
func TestNoReview(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	fine := string(ask{object: pod(s.host.Host() + "/static/x")}.body())
	swap := func(old, now string) string {
		changed := strings.Replace(fine, old, now, 1)
		if changed == fine {
			t.Fatalf("%s: nothing to change", old)
		}
		return changed
	}
	for name, c := range map[string]struct {
		method, media, body string
		status              int
		says                string
	}{
		"fine":                 {body: fine, status: 200},
		"fine, charset":        {media: "application/json; charset=utf-8", body: fine, status: 200},
		"fine, with spaces":    {body: " \n" + fine + "\n\t", status: 200},
		"fine, largest":        {body: fine + strings.Repeat(" ", 7<<20-len(fine)), status: 200},
		"GET":                  {method: http.MethodGet, status: 405, says: "POST"},
		"PUT":                  {method: http.MethodPut, body: fine, status: 405, says: "POST"},
		"no content type":      {media: "-", body: fine, status: 415, says: "application/json"},
		"wrong content type":   {media: "text/plain", body: fine, status: 415, says: "application/json"},
		"YAML":                 {media: "application/yaml", body: fine, status: 415, says: "application/json"},
		"broken content type":  {media: "application/json;;;", body: fine, status: 415, says: "application/json"},
		"empty":                {status: 400, says: "malformed JSON"},
		"cut short":            {body: fine[:len(fine)/2], status: 400, says: "malformed JSON at byte"},
		"two of them":          {body: fine + fine, status: 400, says: "malformed JSON"},
		"trailing garbage":     {body: fine + "x", status: 400, says: "malformed JSON"},
		"a name twice":         {body: swap(`"kind":"AdmissionReview"`, `"kind":"AdmissionReview","kind":"AdmissionReview"`), status: 400},
		"object twice":         {body: swap(`"object":`, `"object":{},"object":`), status: 400},
		"image twice":          {body: swap(`"image":`, `"image":"signed","image":`), status: 400, says: "a name comes twice"},
		"invalid UTF-8":        {body: swap(`/static/x`, "/static/\xff"), status: 400},
		"half a surrogate":     {body: swap(`/static/x`, `/static/\ud800`), status: 400},
		"too deep":             {body: swap(`"spec":`, `"deep":`+strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)+`,"spec":`), status: 400},
		"huge":                 {body: fine + strings.Repeat(" ", 7<<20), status: 413, says: "larger than 7340032 bytes"},
		"v1beta1":              {body: swap("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), status: 400, says: `only AdmissionReview of "admission.k8s.io/v1"`},
		"another kind":         {body: swap("AdmissionReview", "ConversionReview"), status: 400, says: "ConversionReview"},
		"kind in another case": {body: swap(`"kind":"AdmissionReview"`, `"Kind":"AdmissionReview"`), status: 400},
		"null":                 {body: "null", status: 400},
		"a list":               {body: "[]", status: 400, says: "unexpected JSON"},
		"no request":           {body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, status: 400, says: "no request with a uid"},
		"null request":         {body: `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":null}`, status: 400, says: "no request with a uid"},
		"no uid":               {body: swap(`"uid":"705ab4f5-6393-11e8-b7cc-42010a800002"`, `"uid":""`), status: 400, says: "no request with a uid"},
		"unknown operation":    {body: swap(`"operation":"CREATE"`, `"operation":"PATCH"`), status: 400, says: "no operation that is known"},
		"lower case":           {body: swap(`"operation":"CREATE"`, `"operation":"create"`), status: 400, says: "no operation that is known"},
		"no operation":         {body: swap(`"operation":"CREATE"`, `"operation":""`), status: 400, says: "no operation that is known"},
		"long uid":             {body: swap(`"uid":"`, `"uid":"`+strings.Repeat("u", 128)), status: 400, says: "uid is longer than 128 bytes"},
		"long kind":            {body: swap(`"kind":"Pod"`, `"kind":"`+strings.Repeat("k", 64)+`"`), status: 400, says: "kind is longer than 63 bytes"},
		"long subresource":     {body: swap(`"subResource":"`, `"subResource":"`+strings.Repeat("s", 64)), status: 400, says: "subResource is longer than 63 bytes"},
		"long namespace":       {body: swap(`"namespace":"shop"`, `"namespace":"`+strings.Repeat("n", 64)+`"`), status: 400, says: "namespace is longer than 63 bytes"},
		"long name":            {body: swap(`"name":"x"`, `"name":"`+strings.Repeat("n", 254)+`"`), status: 400, says: "name is longer than 253 bytes"},
		"longest name":         {body: swap(`"name":"x"`, `"name":"`+strings.Repeat("n", 253)+`"`), status: 200},
		"uid of a number":      {body: swap(`"uid":"705ab4f5-6393-11e8-b7cc-42010a800002"`, `"uid":5`), status: 400, says: `unexpected JSON at "/request/uid"`},
	} {
		for _, path := range []string{"/mutate", "/validate"} {
			t.Run(name+path, func(t *testing.T) {
				t.Parallel()
				status, body := exchange(t, c.method, s.url+path, c.media, c.body)
				if status != c.status || path == "/validate" && !strings.Contains(body, c.says) || status != 200 && strings.HasPrefix(body, "{") {
					t.Errorf("status %d, %.300q; want %d, %q", status, body, c.status, c.says)
				}
				if status != 200 && strings.Contains(body, "/static/") {
					t.Errorf("the answer repeats the request: %.300q", body)
				}
			})
		}
	}
}

func exchange(t *testing.T, method, url, media, body string) (int, string) {
	t.Helper()
	if method == "" {
		method = http.MethodPost
	}
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	switch media {
	case "":
		request.Header.Set("Content-Type", "application/json")
	case "-":
	default:
		request.Header.Set("Content-Type", media)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var b strings.Builder
	buffer := make([]byte, 64<<10)
	for {
		n, err := response.Body.Read(buffer)
		b.Write(buffer[:n])
		if err != nil {
			return response.StatusCode, b.String()
		}
	}
}

// TestUnexamined: a review whose images cannot be found is denied with 503,
// and left alone by the mutating pass.
func TestUnexamined(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	audit := newStack(t, setting{server: policy.Server{Mode: policy.Audit}})
	one := pod(s.host.Host() + "/static/x")
	for name, c := range map[string]struct {
		ask  ask
		says string
	}{
		"no object":            {ask{}, "the review has no object"},
		"null object":          {ask{object: "null"}, "the review has no object"},
		"no object, update":    {ask{operation: "UPDATE", old: one}, "the review has no object"},
		"unknown kind":         {ask{group: "example.com", version: "v1", kind: "Widget", object: one}, "the catalog does not know this kind"},
		"unknown version":      {ask{version: "v2", kind: "Pod", object: one}, "the catalog does not know this kind"},
		"kind in other group":  {ask{group: "example.com", version: "v1", kind: "Pod", object: one}, "the catalog does not know this kind"},
		"unknown subresource":  {ask{subresource: "surprise", object: one}, "the catalog does not know this kind"},
		"a list":               {ask{object: `[]`}, "expected an object"},
		"a text":               {ask{object: `"x"`}, "expected an object"},
		"spec of another type": {ask{object: `{"spec":[]}`}, "spec: expected an object"},
		"containers as object": {ask{object: `{"spec":{"containers":{"a":{"image":"x"}}}}`}, "expected a list"},
		"image as number":      {ask{object: `{"spec":{"containers":[{"image":5}]}}`}, "spec.containers[0].image: expected a string"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := s.send(t, "/validate", c.ask)
			if got.Allowed || got.Result.Code != 503 || !strings.HasPrefix(got.Result.Message, "object: Inconclusive: ") ||
				!strings.Contains(got.Result.Message, c.says) {
				t.Errorf("got %s, want 503 %q", message(got), c.says)
			}
			if got.Result.Details != nil {
				t.Errorf("the client is told to come again: %+v", got.Result.Details)
			}
			for where, got := range map[string]interface{ String() string }{
				"mutate": s.send(t, "/mutate", c.ask), "audit": audit.send(t, "/validate", c.ask),
			} {
				if text := got.String(); !strings.Contains(text, "Allowed:true") || !strings.Contains(text, "object: Inconclusive: ") {
					t.Errorf("%s: %s", where, text)
				}
			}
		})
	}
}

// DELETE and CONNECT are never held up.
func TestNotIntercepted(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	for _, operation := range []string{"DELETE", "CONNECT"} {
		for _, path := range []string{"/mutate", "/validate"} {
			if got := s.send(t, path, ask{operation: operation, old: pod("BAD")}); !got.Allowed || len(got.Warnings) > 0 {
				t.Errorf("%s %s: %s", operation, path, message(got))
			}
		}
	}
}

// canned answers every question alike.
type canned struct {
	decide func(q policy.Question) []policy.Decision
}

func (c canned) Decide(_ context.Context, q policy.Question) []policy.Decision { return c.decide(q) }
func (c canned) Pin(_ context.Context, q policy.Question) []policy.Decision    { return c.decide(q) }

func TestPanicInDecider(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{decider: canned{func(policy.Question) []policy.Decision { panic("boom\nboom") }}})
	for range 3 {
		if got := s.send(t, "/mutate", ask{object: pod("a.io/x")}); got.Patch != nil {
			t.Errorf("patched: %s", got.Patch)
		}
		got := s.send(t, "/validate", ask{object: pod("a.io/x")})
		if got.Allowed || got.Result.Code != 503 || !strings.Contains(got.Result.Message, `examining it failed unexpectedly`) || strings.Contains(got.Result.Message, "boom") {
			t.Errorf("got %s", message(got))
		}
	}
}

// lost is surroundings that break.
type lost struct {
	webhook.Surroundings
	set func() *policy.Set
}

func (l lost) Set() *policy.Set { return l.set() }

// Before the first rules are read nothing is known to be uncovered.
func TestNoRulesYet(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{surrounds: func(real webhook.Surroundings) webhook.Surroundings {
		return lost{real, func() *policy.Set { return nil }}
	}})
	got := s.send(t, "/validate", ask{object: pod("a.io/x")})
	if want := "503 object: Inconclusive: the ImageConfigs are not read yet: the server has just started"; message(got) != want {
		t.Errorf("got %q, want %q", message(got), want)
	}
	if got := s.send(t, "/mutate", ask{object: pod("a.io/x")}); !got.Allowed || got.Patch != nil {
		t.Errorf("got %+v", got)
	}
}

// Who sends half a review is not waited for.
func TestSlowReview(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	connection, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = connection.Close() }()
	if _, err := fmt.Fprint(connection, "POST /validate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	// The server's own bound is 5 s.
	if err := connection.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	status, err := bufio.NewReader(connection).ReadString('\n')
	if err != nil || !strings.Contains(status, " 400 ") {
		t.Errorf("got %q, %v", status, err)
	}
}

func TestPanicInSurroundings(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{surrounds: func(real webhook.Surroundings) webhook.Surroundings {
		return lost{real, func() *policy.Set { panic("boom") }}
	}})
	if got := s.send(t, "/validate", ask{object: pod("a.io/x")}); got.Allowed {
		t.Error("let in")
	}
}

// A request takes one Set and one namespace, and looks for secrets in its own
// namespace only, whatever the object says.
type watched struct {
	webhook.Surroundings
	mu   sync.Mutex
	seen []string
}

func (w *watched) notef(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, fmt.Sprintf(format, args...))
}

func (w *watched) Set() *policy.Set {
	w.notef("set")
	return w.Surroundings.Set()
}

func (w *watched) Namespace(ctx context.Context, name string) policy.Namespace {
	w.notef("namespace %s", name)
	return w.Surroundings.Namespace(ctx, name)
}

func (w *watched) Credentials(names credential.Names) *credential.Source {
	w.notef("secrets %s %s %s", names.Namespace, names.PullSecrets, names.ServiceAccount)
	return w.Surroundings.Credentials(names)
}

// plainRow is a kind without a Pod spec: what it calls a ServiceAccount is none.
const plainRow = `rows:
- group: acme.example
  versions: [v1]
  kinds: [{kind: Plain, resource: plains}]
  images: [spec.image]
  written: Plain
  decides: Here
`

func TestSurroundings(t *testing.T) {
	t.Parallel()
	spec := `"spec":{"containers":[{"image":"a.io/x"}],"imagePullSecrets":[{"name":"one"},{"name":"two"}]}`
	for name, c := range map[string]struct {
		ask  ask
		want string
	}{
		"Pod": {
			ask{namespace: "shop", object: `{"metadata":{"namespace":"victim"},` + spec + `}`}, "set; namespace shop; secrets shop [one two] default",
		},
		"Pod with a ServiceAccount": {
			ask{namespace: "shop", object: `{"spec":{"serviceAccountName":"robot","containers":[{"image":"a.io/x"}]}}`}, "set; namespace shop; secrets shop [] robot",
		},
		"template": {
			ask{group: "apps", version: "v1", kind: "Deployment", namespace: "shop", object: `{"metadata":{"namespace":"victim"},"spec":{"template":{` + spec + `}}}`},
			"set; namespace shop; secrets shop [one two] default",
		},
		"template with a ServiceAccount": {
			ask{group: "batch", version: "v1", kind: "Job", namespace: "shop", object: `{"spec":{"serviceAccountName":"not-here","template":{"spec":{"serviceAccountName":"robot","containers":[{"image":"a.io/x"}]}}}}`},
			"set; namespace shop; secrets shop [] robot",
		},
		"no Pod spec": {
			ask{group: "acme.example", version: "v1", kind: "Plain", namespace: "shop", object: `{"spec":{"image":"a.io/x","serviceAccountName":"robot"}}`},
			"set; namespace shop; secrets shop [] ",
		},
		"cluster-scoped with a Pod spec": {
			ask{group: "pkg.crossplane.io", version: "v1beta1", kind: "DeploymentRuntimeConfig", namespace: "-", object: `{"spec":{"deploymentTemplate":{"spec":{"template":{"spec":{"serviceAccountName":"robot","containers":[{"name":"package-runtime","image":"a.io/x"}]}}}}}}`},
			"set; secrets crossplane-system [] ",
		},
		"cluster-scoped": {
			ask{group: "pkg.crossplane.io", version: "v1", kind: "Provider", namespace: "-", object: `{"metadata":{"namespace":"victim"},"spec":{"package":"a.io/x","packagePullSecrets":[{"name":"p"}]}}`},
			"set; secrets crossplane-system [p] ",
		},
		// Nothing of its own, in no namespace: what is left is for everybody.
		"cluster-scoped without Secrets": {
			ask{group: "acme.example", version: "v1", kind: "Plain", namespace: "-", object: `{"metadata":{"namespace":"victim"},"spec":{"image":"a.io/x","imagePullSecrets":[{"name":"p"}]}}`},
			"set; secrets  [] ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &watched{}
			s := newStack(t, setting{catalog: []string{plainRow}, surrounds: func(real webhook.Surroundings) webhook.Surroundings {
				w.Surroundings = real
				return w
			}})
			s.send(t, "/validate", c.ask)
			if got := strings.Join(w.seen, "; "); got != c.want {
				t.Errorf("asked for %q, want %q", got, c.want)
			}
		})
	}
}

// TestDeadline: a registry that says nothing is named in time, and slows
// nobody else.
func TestDeadline(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	image := s.host.PushImage(t, "acme/hangs:v1")
	quick := s.host.PushImage(t, "acme/quick:v1")
	s.host.SignLegacy(t, quick, s.key)
	s.host.Fault(registrytest.Manifest("acme/hangs"), registrytest.Hang())
	for name, c := range map[string]struct {
		path, image string
		query       string
	}{
		"mutate":             {"/mutate", image.ByTag(), "1s"},
		"validate by tag":    {"/validate", image.ByTag(), "1s"},
		"validate by digest": {"/validate", image.ByBoth(), "2s"},
		"very short":         {"/validate", image.ByBoth(), "100ms"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			began := time.Now()
			got := s.send(t, c.path+"?timeout="+c.query, ask{object: pod(c.image, quick.ByBoth())})
			// What is left for a busy machine is less than what any other bound
			// than the request's own would take.
			if elapsed := time.Since(began); elapsed > 5*time.Second {
				t.Errorf("answered after %v", elapsed)
			}
			if c.path == "/mutate" {
				if got.Patch != nil {
					t.Errorf("patched: %s", got.Patch)
				}
				return
			}
			if got.Allowed || got.Result.Code != 503 || !strings.Contains(got.Result.Message, "spec.containers[0].image: ") ||
				!strings.Contains(got.Result.Message, "time") {
				t.Errorf("got %s", message(got))
			}
			if c.query != "100ms" && strings.Contains(got.Result.Message, "containers[1]") {
				t.Errorf("the other image is held up too: %s", message(got))
			}
		})
	}
}

// What cannot be tried again in the time there is is told at once, with its
// cause, although the question itself would go on longer.
func TestBusyRegistry(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	image := s.host.PushImage(t, "acme/busy:v1")
	s.host.Fault(registrytest.Manifest("acme/busy"), registrytest.RetryAfter(429, "8"))
	got := s.send(t, "/validate?timeout=5s", ask{object: pod(image.ByTag())})
	if got.Allowed || got.Result.Code != 503 || !strings.Contains(got.Result.Message, "answered 429") {
		t.Errorf("got %s", message(got))
	}
}

// The time that the API server gives is read with care.
func TestTimeoutQuery(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var left time.Duration
	s := newStack(t, setting{surrounds: func(real webhook.Surroundings) webhook.Surroundings {
		return timed{real, func(ctx context.Context) {
			mu.Lock()
			defer mu.Unlock()
			deadline, ok := ctx.Deadline()
			if left = time.Until(deadline); !ok {
				left = -1
			}
		}}
	}})
	for query, want := range map[string]time.Duration{
		"":                       9500 * time.Millisecond,
		"?timeout=10s":           9500 * time.Millisecond,
		"?timeout=1s":            750 * time.Millisecond,
		"?timeout=3s":            2500 * time.Millisecond,
		"?timeout=30s":           29500 * time.Millisecond,
		"?timeout=1h":            29500 * time.Millisecond,
		"?timeout=0s":            9500 * time.Millisecond,
		"?timeout=-5s":           9500 * time.Millisecond,
		"?timeout=nonsense":      9500 * time.Millisecond,
		"?timeout=1s&timeout=9s": 750 * time.Millisecond,
	} {
		s.send(t, "/validate"+query, ask{object: pod("a.io/x")})
		mu.Lock()
		if left > want || left < want-700*time.Millisecond {
			t.Errorf("%q leaves %v, want %v", query, left, want)
		}
		mu.Unlock()
	}
}

type timed struct {
	webhook.Surroundings
	see func(context.Context)
}

func (s timed) Namespace(ctx context.Context, name string) policy.Namespace {
	s.see(ctx)
	return s.Surroundings.Namespace(ctx, name)
}

// The zero value of a server's settings enforces.
func TestZeroServerEnforces(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	for _, object := range []string{pod("BAD"), `[]`} {
		if got := s.send(t, "/validate", ask{object: object}); got.Allowed {
			t.Errorf("%s was let in", object)
		}
	}
}

// TestRefusedAreCounted: also what gets no answer is seen.
func TestRefusedAreCounted(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	exchange(t, http.MethodGet, s.url+"/mutate", "", "")
	exchange(t, http.MethodPost, s.url+"/validate", "", "[")
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	if got := fmt.Sprint(s.rec.refused, s.rec.reviewed); got != "[mutate 405 validate 400] []" {
		t.Errorf("counted %s", got)
	}
}
