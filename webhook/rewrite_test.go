// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/pratique-dev/pratique/policy"
)

// mirror rewrites all images of a host that is never asked.
func mirror(name, from, to, target, mode string) string {
	return fmt.Sprintf(`---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  mode: %s
  matchImages: [{prefix: %q}]
  rewriteImage: {prefix: %q, target: %s}
`, name, mode, from, to, target)
}

func mirrors(host string) string {
	return mirror("pods", "old.invalid", host+"/acme/", "Pod", "Enforce") + mirror("lookups", "look.invalid/", host+"/acme/", "Lookup", "Enforce") +
		mirror("tried", "try.invalid", host+"/acme/", "Pod", "Audit")
}

// A Pod is rewritten once, and judged by the name that it has then.
func TestRewrite(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: mirrors})
	signed, unsigned := s.host.PushImage(t, "acme/app:v1"), s.host.PushImage(t, "acme/unsigned:v1")
	s.host.SignLegacy(t, signed, s.key)
	for name, test := range map[string]struct{ sent, stored, denied string }{
		"tag":          {"old.invalid/app:v1", signed.ByBoth(), ""},
		"digest":       {"old.invalid/app@" + signed.Digest, signed.ByDigest(), ""},
		"both":         {"OLD.invalid:443/app:v1@" + signed.Digest, signed.ByBoth(), ""},
		"unsigned":     {"old.invalid/unsigned:v1", unsigned.ByBoth(), `Rejected by ImageConfig "acme": no signature`},
		"only lookups": {"look.invalid/app:v1", "look.invalid/app:v1@" + signed.Digest, ""},
		"lookups, unsigned": {
			"look.invalid/unsigned:v1", "look.invalid/unsigned:v1@" + unsigned.Digest,
			`look.invalid/unsigned:v1@` + unsigned.Digest + ` Rejected by ImageConfig "acme": as ` + unsigned.ByBoth() + ": no signature",
		},
		"audited":      {"try.invalid/app:v1", "try.invalid/app:v1", ""},
		"another host": {"not-old.invalid/app:v1", "not-old.invalid/app:v1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stored, got := s.admit(t, ask{object: pod(test.sent)})
			if stored != pod(test.stored) {
				t.Errorf("stored %s, want %s", stored, pod(test.stored))
			}
			if got.Allowed != (test.denied == "") || !strings.Contains(message(got), test.denied) {
				t.Errorf("%s; want %q", message(got), test.denied)
			}
			if again := s.send(t, "/mutate", ask{object: stored}); again.Patch != nil {
				t.Errorf("what is stored gets the patch %s", again.Patch)
			}
		})
	}
}

// What was not rewritten, by whomever that was seen to, does not run.
func TestRewriteNotDone(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: mirrors})
	signed, unsigned := s.host.PushImage(t, "acme/app:v1"), s.host.PushImage(t, "acme/unsigned:v1")
	s.host.SignLegacy(t, signed, s.key)
	template := func(image string) string {
		return `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[{"name":"c","image":"` + image + `"}]}}}}`
	}
	deployment := ask{group: "apps", version: "v1", kind: "Deployment"}
	provider := ask{group: "pkg.crossplane.io", version: "v1", kind: "Provider", namespace: "-"}
	for name, test := range map[string]struct {
		ask    ask
		object string
		denied string
	}{
		"a Pod": {
			ask{}, pod("old.invalid/app:v1@" + signed.Digest),
			`Rejected by ImageConfig "pods": not rewritten to ` + signed.ByBoth() + ": the mutating webhook did not run or found no digest, or another one came after it; hint: check the MutatingWebhookConfiguration",
		},
		"an ephemeral container":          {ask{subresource: "ephemeralcontainers"}, pod("old.invalid/app:v1@" + signed.Digest), "not rewritten to"},
		"a template, as its Pods will be": {deployment, template("old.invalid/app:v1"), ""},
		"a template, unsigned": {
			deployment, template("old.invalid/unsigned:v1"), `Rejected by ImageConfig "acme": as ` + unsigned.ByTag() + ": no signature",
		},
		"a package is not rewritten":           {provider, `{"apiVersion":"pkg.crossplane.io/v1","kind":"Provider","spec":{"package":"old.invalid/unsigned:v1"}}`, ""},
		"a package is looked up":               {provider, `{"apiVersion":"pkg.crossplane.io/v1","kind":"Provider","spec":{"package":"look.invalid/app:v1"}}`, ""},
		"a package is looked up, and unsigned": {provider, `{"apiVersion":"pkg.crossplane.io/v1","kind":"Provider","spec":{"package":"look.invalid/unsigned:v1"}}`, "as " + unsigned.ByTag() + ": no signature"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.ask.object = test.object
			got := s.send(t, "/validate", test.ask)
			if got.Allowed != (test.denied == "") || !strings.Contains(message(got), test.denied) {
				t.Errorf("%s; want %q", message(got), test.denied)
			}
		})
	}
	// A Pod from before the rule goes on.
	old := pod("old.invalid/app:v1")
	if got := s.send(t, "/validate", ask{object: strings.Replace(old, `"x"`, `"x","labels":{"a":"b"}`, 1), old: old}); !got.Allowed {
		t.Errorf("an older Pod: %s", message(got))
	}
}

// Where it cannot be known whether a rule applies that says how a registry is
// asked, or where, it is not asked.
func TestUnknownNamespacesAskNobody(t *testing.T) {
	t.Parallel()
	selected := "spec:\n  namespaceSelector: {matchLabels: {env: test}}\n"
	for name, policies := range map[string]func(host string) string{
		"plain HTTP": func(host string) string {
			return "---\napiVersion: pratique.dev/v1alpha1\nkind: ImageConfig\nmetadata: {name: plain}\n" + selected +
				"  matchImages: [{prefix: " + host + "/acme/app}]\n  registry: {insecurePlainHTTP: true}\n"
		},
		"lookup, audited": func(host string) string {
			return strings.Replace(mirror("lookups", host+"/acme/app", host+"/elsewhere/app", "Lookup", "Audit"), "spec:\n", selected, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, setting{policies: policies})
			signed := s.host.PushImage(t, "acme/app:v1")
			s.host.SignLegacy(t, signed, s.key)
			got := s.send(t, "/validate", ask{namespace: "unknown", object: pod(signed.ByBoth())})
			if got.Allowed || got.Result.Code != 503 || !strings.Contains(message(got), "labels of namespace") {
				t.Errorf("%s", message(got))
			}
		})
	}
}

// A rule that covers an image under its old name alone covers it no more, and
// that is told.
func TestRewriteUncovers(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: func(host string) string {
		return mirror("moved", "old.invalid", host+"/nobody/", "Lookup", "Enforce") + staticConfig("old", "old.invalid/app", "fail")
	}})
	got := s.send(t, "/validate", ask{object: pod("old.invalid/app@sha256:" + strings.Repeat("a", 64))})
	if warned := strings.Join(got.Warnings, " "); !got.Allowed || !strings.Contains(warned, `ImageConfig "old" covers its name as written, which does not count`) {
		t.Errorf("%s, warned %q", message(got), warned)
	}
}

// Where the server audits, nothing is rewritten, and what runs is what is judged.
func TestRewriteAudit(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: mirrors, server: policy.Server{Mode: policy.Audit}})
	stored, got := s.admit(t, ask{object: pod("old.invalid/app:v1")})
	if stored != pod("old.invalid/app:v1") || !got.Allowed || len(got.Warnings) > 0 || len(s.host.Requests()) > 0 {
		t.Errorf("stored %s; %s, warnings %q, %d requests", stored, message(got), got.Warnings, len(s.host.Requests()))
	}
}
