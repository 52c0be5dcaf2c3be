// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/pratique-dev/pratique/registry/credential"
	"github.com/pratique-dev/pratique/registry/registrytest"
	"github.com/pratique-dev/pratique/webhook"
)

// basic is the Authorization header of a user.
func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// pullSecret is a Secret with one credential.
func pullSecret(namespace, name, host, user, password string) string {
	config := fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":%q}}}`, host, user, password)
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: %q}\n",
		name, namespace, config)
}

func serviceAccount(namespace, name, secret string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: %s, namespace: %s}\nimagePullSecrets: [{name: %s}]\n", name, namespace, secret)
}

// newTenants is a stack with a private registry, and namespaces whose default
// ServiceAccount has a credential: those of two users, one of them twice, a wrong
// one, and a namespace without any.
func newTenants(t *testing.T) *stack {
	t.Helper()
	return newStack(t, setting{
		registry: []registrytest.Option{registrytest.WithBasicAuth("ann", "a-password"), registrytest.WithBasicAuth("bob", "b-password")},
		policies: func(host string) string {
			var all strings.Builder
			for namespace, login := range map[string][2]string{
				"ann": {"ann", "a-password"}, "ann-too": {"ann", "a-password"}, "bob": {"bob", "b-password"}, "wrong": {"ann", "guess"},
			} {
				all.WriteString(pullSecret(namespace, "pull-"+namespace, host, login[0], login[1]) +
					serviceAccount(namespace, "default", "pull-"+namespace))
			}
			return all.String()
		},
	})
}

// shown lists the credentials that the registry was shown, without repetition.
func (s *stack) shown() map[string]bool {
	seen := map[string]bool{}
	for _, request := range s.host.Requests() {
		if request.Authorization != "" {
			seen[request.Authorization] = true
		}
	}
	return seen
}

// pinnedTo is the image that the mutating pass leaves in a Pod of one image.
func (s *stack) pinnedTo(t *testing.T, namespace, image string) string {
	t.Helper()
	object := apply(t, pod(image), s.send(t, "/mutate", ask{namespace: namespace, object: pod(image)}))
	_, rest, _ := strings.Cut(object, `"image":"`)
	image, _, _ = strings.Cut(rest, `"`)
	return image
}

// TestTenantsInterleaved: who is refused neither fails another's admission nor
// gets anything by it, in whatever order and however often they ask.
func TestTenantsInterleaved(t *testing.T) {
	t.Parallel()
	s := newTenants(t)
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	let := map[string]bool{"ann": true, "ann-too": true, "bob": true, "wrong": false, "nobody": false}
	var group sync.WaitGroup
	for range 8 {
		for namespace, admitted := range let {
			group.Go(func() {
				stored, got := s.admit(t, ask{namespace: namespace, object: pod(image.ByTag())})
				switch {
				case admitted && (!got.Allowed || !strings.Contains(stored, image.Digest)):
					t.Errorf("%s: %s, stored %s", namespace, message(got), stored)
				case !admitted && (!strings.HasPrefix(message(got), "503 ") || !strings.Contains(message(got), "answered 401")):
					t.Errorf("%s: %s", namespace, message(got))
				case !admitted && strings.Contains(stored, "sha256:"):
					t.Errorf("%s: learned the digest: %s", namespace, stored)
				}
				for _, secret := range []string{"a-password", "b-password", "guess"} {
					if strings.Contains(message(got)+strings.Join(got.Warnings, "\n"), secret) {
						t.Errorf("%s: is told a password", namespace)
					}
				}
			})
		}
	}
	group.Wait()
	for header := range s.shown() {
		if header != basic("ann", "a-password") && header != basic("bob", "b-password") && header != basic("ann", "guess") {
			t.Errorf("shown to the registry: %q", header)
		}
	}
	// What counts is the digest: once it was accepted it is so for everybody, and
	// nobody is asked, with whatever credentials.
	s.host.Reset()
	for namespace := range let {
		if _, got := s.admit(t, ask{namespace: namespace, object: pod(image.ByBoth())}); !got.Allowed {
			t.Errorf("%s, by digest: %s", namespace, message(got))
		}
	}
	if requests := s.host.Requests(); len(requests) > 0 {
		t.Errorf("the registry was asked: %v", requests)
	}
}

// TestTenantsTags: what one's credential found out about a tag serves those who
// have the same credential, and nobody else.
func TestTenantsTags(t *testing.T) {
	t.Parallel()
	s := newTenants(t)
	before := s.host.PushImage(t, "acme/app:v1")
	if got := s.pinnedTo(t, "ann", before.ByTag()); got != before.ByBoth() {
		t.Fatalf("pinned to %s", got)
	}
	after := s.host.PushImage(t, "acme/app:v1")
	if before.Digest == after.Digest {
		t.Fatal("the tag did not move")
	}
	for _, c := range []struct {
		namespace, want string
		header          string // what the registry is shown, if it is asked
		asked           bool
	}{
		{"ann", before.ByBoth(), "", false},
		{"ann-too", before.ByBoth(), "", false}, // another namespace, another Secret, the same credential
		{"bob", after.ByBoth(), basic("bob", "b-password"), true},
		{"wrong", after.ByTag(), basic("ann", "guess"), true},
		{"nobody", after.ByTag(), "", true},
		{"ann", before.ByBoth(), "", false}, // and the refusals change nothing
		{"bob", after.ByBoth(), "", false},
	} {
		s.host.Reset()
		if got := s.pinnedTo(t, c.namespace, after.ByTag()); got != c.want {
			t.Errorf("%s: pinned to %s, want %s", c.namespace, got, c.want)
		}
		if asked := len(s.host.Requests()) > 0; asked != c.asked {
			t.Errorf("%s: the registry was asked: %v", c.namespace, s.host.Requests())
		}
		for header := range s.shown() {
			if header != c.header {
				t.Errorf("%s: the registry was shown %q", c.namespace, header)
			}
		}
	}
}

// TestTenantsDoNotWait: while the registry keeps one tenant waiting, the same
// image is admitted for another.
func TestTenantsDoNotWait(t *testing.T) {
	t.Parallel()
	s := newTenants(t)
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	slow := func(r *http.Request) bool { return r.Header.Get("Authorization") == basic("ann", "guess") }
	s.host.Fault(slow, registrytest.Hang())
	answered := make(chan *admissionv1.AdmissionResponse, 1)
	go func() {
		_, got := s.admit(t, ask{namespace: "wrong", object: pod(image.ByTag())})
		answered <- got
	}()
	for end := time.Now().Add(10 * time.Second); !s.shown()[basic("ann", "guess")]; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the slow tenant never asked")
		}
	}
	for _, namespace := range []string{"bob", "ann"} {
		if _, got := s.admit(t, ask{namespace: namespace, object: pod(image.ByTag())}); !got.Allowed {
			t.Errorf("%s: %s", namespace, message(got))
		}
	}
	select {
	case got := <-answered:
		t.Errorf("the slow tenant was answered before: %s", message(got))
	default:
	}
	s.host.Close() // nobody need wait for the deadline
	if got := <-answered; !strings.HasPrefix(message(got), "503 ") {
		t.Errorf("the slow tenant: %s", message(got))
	}
}

// TestCredentialSources: the registry is opened by the object's own secret, by
// the ImageConfig's and by the ServiceAccount's, tried in this order.
func TestCredentialSources(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{
		registry: []registrytest.Option{registrytest.WithBasicAuth("ann", "a-password")},
		policies: func(host string) string {
			rule := strings.Replace(imageConfig("ruled", host+"/ruled/", "Enforce", registrytest.NewKey(t, registrytest.ECDSAP256)),
				"registry: {", "registry: {authentication: {pullSecretRef: {name: rule}}, ", 1)
			return rule + pullSecret("pratique-system", "rule", host, "rule", "no") +
				pullSecret("shop", "pod", host, "pod", "no") + pullSecret("shop", "account", host, "account", "no") +
				serviceAccount("shop", "default", "account") + pullSecret("shop", "right", host, "ann", "a-password") + serviceAccount("shop", "right", "right") +
				serviceAccount("shop", "missing", "absent")
		},
	})
	image := s.host.PushImage(t, "ruled/app:v1")
	review := func(account, secret string) ask {
		return ask{object: fmt.Sprintf(`{"spec":{"containers":[{"name":"c","image":%q}],"serviceAccountName":%q,"imagePullSecrets":[{"name":%q}]}}`,
			image.ByTag(), account, secret)}
	}
	order := func() string {
		var users []string
		for _, request := range s.host.Requests() {
			header, ok := strings.CutPrefix(request.Authorization, "Basic ")
			decoded, err := base64.StdEncoding.DecodeString(header)
			if user, _, _ := strings.Cut(string(decoded), ":"); ok && err == nil && (len(users) == 0 || users[len(users)-1] != user) {
				users = append(users, user)
			}
		}
		return strings.Join(users, " ")
	}
	s.send(t, "/mutate", review("", "pod"))
	if got := order(); got != "pod rule account" {
		t.Errorf("tried %q", got)
	}
	if got := s.send(t, "/mutate", review("right", "pod")); got.Patch == nil {
		t.Error("the ServiceAccount's secret opened nothing")
	}
	got := s.send(t, "/validate", review("missing", "right"))
	if text := strings.Join(got.Warnings, "\n") + message(got); !strings.Contains(text, `pull secret "absent" does not exist`) {
		t.Errorf("a missing secret of the ServiceAccount is not told of: %s", text)
	}
	got = s.send(t, "/validate", review("gone", "right"))
	if text := strings.Join(got.Warnings, "\n") + message(got); !strings.Contains(text, `ServiceAccount "gone" does not exist`) {
		t.Errorf("a missing ServiceAccount is not told of: %s", text)
	}
}

// counting counts how often credentials are looked up.
type counting struct {
	webhook.Surroundings
	loads atomic.Int32
}

func (c *counting) Credentials(names credential.Names) *credential.Source {
	return credential.NewSource(func(context.Context) (credential.Found, error) {
		c.loads.Add(1)
		return credential.Found{}, nil
	})
}

// TestWarmAsksForNoCredentials: what is decided from the cache reads neither
// Secrets nor ServiceAccounts.
func TestWarmAsksForNoCredentials(t *testing.T) {
	t.Parallel()
	c := &counting{}
	s := newStack(t, setting{surrounds: func(real webhook.Surroundings) webhook.Surroundings {
		c.Surroundings = real
		return c
	}})
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	object := `{"spec":{"serviceAccountName":"robot","imagePullSecrets":[{"name":"pull"}],"containers":[{"name":"c","image":"` + image.ByBoth() + `"}]}}`
	for round := range 3 {
		if _, got := s.admit(t, ask{object: object}); !got.Allowed {
			t.Fatal(message(got))
		}
		if n := c.loads.Load(); n != 1 {
			t.Errorf("round %d: credentials were looked up %d times, want once for the first", round, n)
		}
	}
}
