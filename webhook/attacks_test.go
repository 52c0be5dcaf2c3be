// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/policy/cache"
	"github.com/pratique-dev/pratique/policy/cosign"
	"github.com/pratique-dev/pratique/policy/source"
	"github.com/pratique-dev/pratique/registry/registrytest"
	"github.com/pratique-dev/pratique/webhook"
)

// TestSecretsOfTheRequestsNamespace: whatever an object says of its namespace, a
// secret of another one is not shown to the registry for it.
func TestSecretsOfTheRequestsNamespace(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{
		secure: true, registry: []registrytest.Option{registrytest.WithBasicAuth("theirs", "s3cret")},
		policies: func(host string) string {
			return pullSecret("theirs", "pull", host, "theirs", "s3cret") + serviceAccount("theirs", "robot", "pull") + serviceAccount("ours", "reaches", "theirs/pull")
		},
	})
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	spec := func(fields string) string {
		return fmt.Sprintf(`"spec":{"containers":[{"name":"c","image":%q}],%s}`, image.ByTag(), fields)
	}
	secrets := `"imagePullSecrets":[{"name":"pull"},{"name":"theirs/pull"},{"name":"../theirs/pull"}]`
	for name, review := range map[string]ask{
		"Pod":                {object: `{"metadata":{"namespace":"theirs"},` + spec(secrets) + `}`},
		"its ServiceAccount": {object: `{"metadata":{"namespace":"theirs"},` + spec(`"serviceAccountName":"robot"`) + `}`},
		"another's path":     {object: `{"metadata":{"namespace":"theirs"},` + spec(`"serviceAccountName":"../theirs/robot"`) + `}`},
		"an account that reaches out": {object: `{"metadata":{"namespace":"theirs"},` +
			spec(`"serviceAccountName":"reaches"`) + `}`},
		"template": {group: "apps", version: "v1", kind: "Deployment", object: `{"metadata":{"namespace":"theirs"},"spec":{"template":{"metadata":{"namespace":"theirs"},` +
			spec(secrets) + `}}}`},
		"update": {old: `{"metadata":{"namespace":"theirs"},"spec":{"containers":[{"name":"c","image":"a.io/x"}]}}`, object: `{"metadata":{"namespace":"theirs"},` + spec(secrets) + `}`},
	} {
		s.host.Reset()
		review.namespace = "ours"
		stored, got := s.admit(t, review)
		if strings.Contains(stored, image.Digest) {
			t.Errorf("%s: learned the digest: %s", name, stored)
		}
		if got.Allowed != (review.kind == "Deployment") { // which is only warned of: its Pods are denied
			t.Errorf("%s: %s", name, message(got))
		}
		if shown := s.shown(); len(shown) != 0 {
			t.Errorf("%s: the registry was shown %v", name, shown)
		}
		if len(s.host.Requests()) == 0 {
			t.Errorf("%s: the registry was not asked", name)
		}
		if text := message(got) + strings.Join(got.Warnings, "\n"); strings.Contains(text, "s3cret") {
			t.Errorf("%s: is told the password: %s", name, text)
		}
	}
	s.host.Reset()
	if _, got := s.admit(t, ask{namespace: "theirs", object: "{" + spec(secrets) + "}"}); !got.Allowed || !s.shown()[basic("theirs", "s3cret")] {
		t.Errorf("whose secret it is: %s, shown %v", message(got), s.shown())
	}
}

// TestOddReferencesAskNobody: what no parser should read reaches no registry,
// and does not keep what stands beside it from being pinned.
func TestOddReferencesAskNobody(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	good := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, good, s.key)
	hex := strings.TrimPrefix(good.Digest, "sha256:")
	host, _, _ := strings.Cut(s.host.Host(), ":")
	for _, written := range []string{
		good.Registry + "/acme/../acme/app:v1", good.Registry + "//acme/app:v1", good.Registry + "/acme/./app:v1", good.Registry + "./acme/app:v1",
		"http://" + good.ByTag(), "https://" + good.ByTag(), "oci://" + good.ByTag(), "user:pw@" + good.ByTag(), " " + good.ByTag(), good.ByTag() + "\n", good.ByTag() + " ",
		good.Name() + "@SHA256:" + hex, good.Name() + "@sha256:" + strings.ToUpper(hex), good.ByBoth() + "@" + good.Digest, good.Name() + "@sha256:" + hex[1:],
		hex, good.Digest, good.Registry + "/acme/äpp:v1", good.Registry + "/Acme/app:v1", good.ByTag() + "?x", good.ByTag() + "#x", good.ByTag() + "\x00", good.Name() + ":",
		good.Name() + "@", host + ":/acme/app:v1", good.Name() + ":" + strings.Repeat("v", 129), good.Registry + "/" + strings.Repeat("a", 10_000),
	} {
		s.host.Reset()
		object := fmt.Sprintf(`{"spec":{"containers":[{"name":"c0","image":%q},{"name":"c1","image":%s}]}}`, good.ByTag(), quoted(t, written))
		stored, got := s.admit(t, ask{object: object})
		if got.Allowed || got.Result.Code != 403 || !strings.Contains(message(got), "spec.containers[1].image: Rejected: invalid image reference ") {
			t.Errorf("%.60q: %.200s", written, message(got))
		}
		if !strings.Contains(stored, good.ByBoth()) || !strings.Contains(stored, quoted(t, written)) {
			t.Errorf("%.60q: stored %.300s", written, stored)
		}
		for _, request := range s.host.Requests() {
			if path := request.Path; path != "/v2/" && !strings.HasPrefix(path, "/v2/acme/app/") {
				t.Errorf("%.60q: asked for %s", written, path)
			}
		}
	}
}

// TestOddReferencesAreExamined: what is unusual and right is admitted by its
// signature, and by nothing else.
func TestOddReferencesAreExamined(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: func(host string) string {
		return imageConfig("all", host+"/", "Enforce", registrytest.NewKey(t, registrytest.ECDSAP256))
	}})
	for _, written := range []string{
		"acme/a:v1", "acme/a__b:v1", "acme/a.b-c_d/e---f:v1", "acme/app:" + strings.Repeat("t", 128), "acme/app:_", "acme/" + strings.Repeat("a", 200) + ":v1", "acme/app",
	} {
		good := s.host.PushImage(t, written)
		s.host.SignBundle(t, good, s.key)
		if stored, got := s.admit(t, ask{object: pod(good.ByTag())}); !got.Allowed || stored != pod(good.ByBoth()) {
			t.Errorf("%s: stored %s, %s", written, stored, message(got))
		}
		bad := s.host.PushImage(t, written)
		if stored, got := s.admit(t, ask{object: pod(bad.ByBoth())}); got.Allowed || stored != pod(bad.ByBoth()) {
			t.Errorf("%s, unsigned: stored %s, %s", written, stored, message(got))
		}
		// The tag names the unsigned one now, and does not count beside a digest.
		s.host.Reset()
		if stored, got := s.admit(t, ask{object: pod(good.ByBoth())}); !got.Allowed || stored != pod(good.ByBoth()) {
			t.Errorf("%s, by both: stored %s, %s", written, stored, message(got))
		}
	}
}

// lies are what a registry may do with any answer.
func lies(elsewhere string) map[string]registrytest.Behaviour {
	return map[string]registrytest.Behaviour{
		"another digest":       registrytest.WrongDigest("sha256:" + strings.Repeat("ab", 32)),
		"content types":        registrytest.ContentTypes("text/html", "application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
		"a byte a second":      registrytest.SlowDrip(time.Second),
		"without end":          registrytest.Endless(),
		"4 GiB promised":       registrytest.HugeLength(4 << 30),
		"64 MiB packed":        registrytest.Bomb(64 << 20),
		"another realm":        registrytest.Challenge(`Bearer realm="http://` + elsewhere + `/token",service="x"`),
		"a realm inside":       registrytest.Challenge(`Bearer realm="http://169.254.169.254/token",service="x"`),
		"redirects":            registrytest.Redirect("http://" + elsewhere),
		"redirects inside":     registrytest.Redirect("http://169.254.169.254"),
		"too many requests":    registrytest.RetryAfter(429, "1"),
		"resets":               registrytest.ResetMidBody(),
		"pages in a circle":    registrytest.SelfLink(),
		"1,000 signatures":     registrytest.Crowd(1_000),
		"digests that are not": registrytest.HostileDigests("", "../../x", "sha256:", "http://169.254.169.254/x", strings.Repeat("a", 1<<16)),
		"garbage":              registrytest.Garbage(),
		"nothing":              registrytest.Hang(),
	}
}

// TestHostileRegistry: each lie at each place of an admission. A signed image
// comes in or does not; an unsigned one never does; nobody waits longer than
// asked, and nothing that was not asked for is visited.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	for place, match := range map[string]func(registrytest.Image) registrytest.Match{
		"the login":     func(registrytest.Image) registrytest.Match { return registrytest.Ping() },
		"the tag":       func(i registrytest.Image) registrytest.Match { return registrytest.Manifest(i.ByTag()) },
		"the image":     func(i registrytest.Image) registrytest.Match { return registrytest.Manifest(i.ByDigest()) },
		"the .sig tag":  registrytest.Signature,
		"the referrers": registrytest.Referrers,
		"the payloads":  func(i registrytest.Image) registrytest.Match { return registrytest.Blob(i.Repository) },
		"everything":    func(registrytest.Image) registrytest.Match { return registrytest.Any() },
	} {
		t.Run(place, func(t *testing.T) {
			t.Parallel()
			trap := registrytest.New(t, registrytest.WithAddress("127.0.0.2:0")) // plain HTTP, and not said to be
			for lie, behaviour := range lies(trap.Host()) {
				t.Run(lie, func(t *testing.T) {
					t.Parallel()
					s := newStack(t, setting{})
					good, bad := s.host.PushImage(t, "acme/good:v1"), s.host.PushImage(t, "acme/bad:v1")
					s.host.SignLegacy(t, good, s.key)
					s.host.SignBundle(t, good, s.key)
					s.host.SignLegacy(t, bad, s.other)
					s.host.SignBundle(t, bad, s.other)
					s.host.Fault(match(good).Or(match(bad)), behaviour)
					validate := func(object string) {
						if got := s.send(t, "/validate?timeout=400ms", ask{object: object}); got.Allowed && object != pod(good.ByBoth()) {
							t.Errorf("let in: %s", object)
						}
					}
					var group sync.WaitGroup
					for _, image := range []registrytest.Image{good, bad} {
						group.Go(func() { validate(pod(image.ByBoth())) })
						group.Go(func() {
							object := pod(image.ByTag())
							validate(apply(t, object, s.send(t, "/mutate?timeout=400ms", ask{object: object})))
						})
					}
					group.Wait()
				})
			}
			t.Cleanup(func() {
				if requests := trap.Requests(); len(requests) != 0 {
					t.Errorf("was led to another registry: %v", requests)
				}
			})
		})
	}
}

// TestDeepSignatures: what is nested a hundred thousand deep is no signature,
// also if the right key signed it, and hides none beside it.
func TestDeepSignatures(t *testing.T) {
	t.Parallel()
	const depth = 100_000
	for name, attach := range map[string]func(*stack, registrytest.Image){
		"a payload":              func(s *stack, i registrytest.Image) { s.host.DeepLegacy(t, i, s.key, depth) },
		"a bundle":               func(s *stack, i registrytest.Image) { s.host.DeepBundle(t, i, s.key, depth) },
		"a manifest":             deepAt(registrytest.Signature, `{"layers":`, depth),
		"a layer":                deepAt(registrytest.Signature, `{"layers":[{"annotations":{"a":`, depth),
		"a list of referrers":    deepAt(registrytest.Referrers, `{"manifests":`, depth),
		"an entry of it":         deepAt(registrytest.Referrers, `{"manifests":[{"annotations":{"a":`, depth),
		"what nobody reads":      deepAt(registrytest.Referrers, `{"x":`, depth),
		"and in the other form":  deepAt(registrytest.Signature, `{"x":`, depth),
		"instead of all answers": deepAt(func(registrytest.Image) registrytest.Match { return registrytest.Ping().Not() }, "", depth),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, setting{})
			image := s.host.PushImage(t, "acme/app:v1")
			attach(s, image)
			if got := s.send(t, "/validate", ask{object: pod(image.ByBoth())}); got.Allowed {
				t.Error("let in")
			}
			beside := s.host.PushImage(t, "acme/other:v1")
			s.host.SignLegacy(t, beside, s.key)
			s.host.SignBundle(t, beside, s.key)
			if name != "instead of all answers" {
				attach(s, beside)
				if got := s.send(t, "/validate", ask{object: pod(beside.ByBoth())}); !got.Allowed {
					t.Errorf("a good signature in the other form: %s", message(got))
				}
			}
		})
	}
}

// deepAt answers with JSON that does not end at all.
func deepAt(match func(registrytest.Image) registrytest.Match, head string, depth int) func(*stack, registrytest.Image) {
	return func(s *stack, image registrytest.Image) {
		s.host.Fault(match(image), registrytest.Body("application/vnd.oci.image.manifest.v1+json", head+strings.Repeat("[", depth)))
	}
}

// TestLeaderLeaves: a client that goes away fails nobody but itself, and is the
// only one for whom the registry was asked.
func TestLeaderLeaves(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	release := make(chan struct{})
	s.host.Fault(registrytest.Signature(image).Or(registrytest.Referrers(image)), registrytest.Hold(release))
	body := ask{object: pod(image.ByBoth())}.body()
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/validate", bytes.NewReader(body))
		if err == nil {
			request.Header.Set("Content-Type", "application/json")
			_, err = http.DefaultClient.Do(request) //nolint:bodyclose // there is none
		}
		left <- err
	}()
	for end := time.Now().Add(10 * time.Second); len(s.host.Counted()) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the registry was asked %v", s.host.Counted())
		}
	}
	var followers sync.WaitGroup
	for range 20 {
		followers.Go(func() {
			if got := s.send(t, "/validate", ask{object: pod(image.ByBoth())}); !got.Allowed {
				t.Errorf("a follower: %s", message(got))
			}
		})
	}
	leave()
	if err := <-left; err == nil {
		t.Error("the leader was answered")
	}
	close(release)
	followers.Wait()
	for what, times := range s.asked() {
		if times > 1 {
			t.Errorf("%s: %d times", what, times)
		}
	}
}

// TestOutages: while a registry is away, in whatever way, what is cached comes
// in and what is not is Inconclusive, without asking often; when it is back all
// comes in, without a restart.
func TestOutages(t *testing.T) {
	t.Parallel()
	answers := make(chan struct{})
	for name, c := range map[string]struct {
		outage   registrytest.Behaviour // of all requests; nil means that nobody listens
		requests int                    // at most, for one question
	}{
		"429":                {registrytest.Status(429), 1},
		"429, come back":     {registrytest.RetryAfter(429, "0"), 4},
		"429, an hour later": {registrytest.RetryAfter(429, "3600"), 1},
		"500":                {registrytest.Status(500), 1},
		"503, come back":     {registrytest.RetryAfter(503, "0"), 4},
		"reset":              {registrytest.ResetMidBody(), 4},
		"silence":            {registrytest.Hold(answers), 1},
		"nobody listens":     {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := &clock{now: time.Now()}
			s := newStack(t, setting{cache: cache.Options{Now: now.Now}})
			known, unknown := s.host.PushImage(t, "acme/known:v1"), s.host.PushImage(t, "acme/unknown:v1")
			s.host.SignLegacy(t, known, s.key)
			s.host.SignLegacy(t, unknown, s.key)
			if _, got := s.admit(t, ask{object: pod(known.ByTag())}); !got.Allowed {
				t.Fatalf("before: %s", message(got))
			}
			s.host.Reset()
			back := func() {
				// The same calls make the same images, at the same address.
				s.host = registrytest.New(t, registrytest.WithAddress(known.Registry))
				for _, image := range []registrytest.Image{known, unknown} {
					s.host.SignLegacy(t, s.host.PushImage(t, image.Repository+":v1"), s.key)
				}
			}
			if c.outage == nil {
				s.host.Close()
			} else {
				back = s.host.Fault(registrytest.Any(), c.outage)
			}
			if got := s.send(t, "/validate?timeout=2s", ask{object: pod(known.ByBoth())}); !got.Allowed || len(s.host.Requests()) != 0 {
				t.Errorf("cached: %s, asked %v", message(got), s.host.Requests())
			}
			stored, got := s.admitWithin(t, "1s", pod(unknown.ByTag()))
			if got.Allowed || got.Result.Code != 503 || stored != pod(unknown.ByTag()) && stored != pod(unknown.ByBoth()) {
				t.Errorf("not cached: stored %s, %s", stored, message(got))
			}
			for what, times := range s.asked() {
				if times > 2*c.requests { // the two passes
					t.Errorf("%s: asked %d times, want at most %d for each pass", what, times, c.requests)
				}
			}
			byDigest := ask{object: pod(unknown.ByBoth())}
			if got := s.send(t, "/validate?timeout=1s", byDigest); got.Allowed || got.Result.Code != 503 {
				t.Errorf("not cached, by digest: %s", message(got))
			}
			back()
			if name == "silence" { // what it was asked meanwhile it answers now
				close(answers)
			}
			now.add(3 * time.Second) // Inconclusive is remembered for two
			if got := s.send(t, "/validate", byDigest); !got.Allowed {
				t.Errorf("it is back: %s", message(got))
			}
			if stored, got := s.admit(t, ask{object: pod(unknown.ByTag())}); !got.Allowed || stored != pod(unknown.ByBoth()) {
				t.Errorf("it is back: stored %s, %s", stored, message(got))
			}
		})
	}
}

// admitWithin is admit with a time for each pass.
func (s *stack) admitWithin(t *testing.T, timeout, object string) (stored string, validated *admissionv1.AdmissionResponse) {
	t.Helper()
	stored = apply(t, object, s.send(t, "/mutate?timeout="+timeout, ask{object: object}))
	return stored, s.send(t, "/validate?timeout="+timeout, ask{object: stored})
}

// asked counts what the registry was asked for.
func (s *stack) asked() map[string]int {
	seen := map[string]int{}
	for _, request := range s.host.Requests() {
		seen[request.Method+" "+request.Path]++
	}
	return seen
}

// ruled lets a test choose the rules in force.
type ruled struct {
	webhook.Surroundings
	now *atomic.Pointer[policy.Set]
}

func (r ruled) Set() *policy.Set { return r.now.Load() }

// TestRuleChanges: who changes a rule is asked by the next request, whatever the
// old one accepted; and who changes it back finds that again.
func TestRuleChanges(t *testing.T) {
	t.Parallel()
	var now atomic.Pointer[policy.Set]
	s := newStack(t, setting{surrounds: func(real webhook.Surroundings) webhook.Surroundings {
		now.Store(real.Set())
		return ruled{real, &now}
	}})
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	before := now.Load()
	after := s.rulesOf(t, imageConfig("acme", s.host.Host()+"/acme/", "Enforce", s.other))
	validate := func(want bool) {
		t.Helper()
		if got := s.send(t, "/validate", ask{object: pod(image.ByBoth())}); got.Allowed != want {
			t.Errorf("allowed %t: %s", got.Allowed, message(got))
		}
	}
	validate(true)
	now.Store(after) // the key is revoked
	validate(false)
	now.Store(before)
	s.host.Reset()
	validate(true)
	if requests := s.host.Requests(); len(requests) != 0 {
		t.Errorf("asked again: %v", requests)
	}
	// To and fro, while many ask: each is answered by one rule or the other.
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				if got := s.send(t, "/validate", ask{object: pod(image.ByBoth())}); !got.Allowed && got.Result.Code != 403 {
					t.Errorf("in between: %s", message(got))
				}
			}
		})
	}
	for i := range 200 {
		now.Store([]*policy.Set{before, after}[i%2])
	}
	group.Wait()
	now.Store(after)
	validate(false)
}

// rulesOf are the rules that a file holds.
func (s *stack) rulesOf(t *testing.T, policies string) *policy.Set {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/policies.yaml", []byte(policies), 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := source.NewFiles(source.Compiler{Cosign: cosign.Options{Source: s.client}}, "pratique-system", dir)
	if err != nil {
		t.Fatal(err)
	}
	return files.Set()
}
