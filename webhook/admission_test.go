// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// TestSigned: an image signed either way is pinned and let in; the Pod as
// stored gets no patch, the Pod as sent the same one.
func TestSigned(t *testing.T) {
	t.Parallel()
	for _, option := range []struct {
		name string
		with []registrytest.Option
	}{{"referrers API", nil}, {"referrers tag", []registrytest.Option{registrytest.WithoutReferrers()}}} {
		s := newStack(t, setting{registry: option.with})
		legacy := s.host.PushImage(t, "acme/legacy:v1")
		s.host.SignLegacy(t, legacy, s.key)
		bundle := s.host.PushImage(t, "acme/bundle:v1")
		s.host.SignBundle(t, bundle, s.key)
		index := s.host.PushIndex(t, "acme/index:v1")
		s.host.SignBundle(t, index.Image, s.key)
		latest := s.host.PushImage(t, "acme/latest")
		s.host.SignLegacy(t, latest, s.key)
		audited := s.host.PushImage(t, "audit/app:v1")
		for name, c := range map[string]struct{ written, want string }{
			".sig":          {legacy.ByTag(), legacy.ByBoth()},
			"bundle":        {bundle.ByTag(), bundle.ByBoth()},
			"index":         {index.ByTag(), index.ByBoth()},
			"no tag":        {latest.Name(), latest.ByBoth()},
			"digest":        {legacy.ByDigest(), legacy.ByDigest()},
			"both":          {bundle.ByBoth(), bundle.ByBoth()},
			"in capitals":   {strings.ToUpper(s.host.Host()) + "/acme/legacy:v1", legacy.ByBoth()},
			"static":        {s.host.Host() + "/static/absent", s.host.Host() + "/static/absent"},
			"uncovered":     {"registry.invalid/x", "registry.invalid/x"},
			"audited":       {audited.ByTag(), audited.ByTag()},
			"like a host":   {"127.0.0.1.evil.invalid/acme/app:v1", "127.0.0.1.evil.invalid/acme/app:v1"},
			"like the path": {s.host.Host() + "/acme-evil/app:v1", s.host.Host() + "/acme-evil/app:v1"},
		} {
			t.Run(option.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				sent := ask{object: pod(c.written)}
				first, second := s.send(t, "/mutate", sent), s.send(t, "/mutate", sent)
				if diff := cmp.Diff(string(first.Patch), string(second.Patch)); diff != "" {
					t.Errorf("the same Pod gets two patches:\n%s", diff)
				}
				stored := apply(t, sent.object, first)
				if stored != pod(c.want) {
					t.Errorf("stored %s, want %s", stored, pod(c.want))
				}
				if again := s.send(t, "/mutate", ask{object: stored}); again.Patch != nil {
					t.Errorf("the patched Pod gets the patch %s", again.Patch)
				}
				if got := s.send(t, "/validate", ask{object: stored}); !got.Allowed {
					t.Errorf("denied: %s", message(got))
				}
			})
		}
	}
}

// TestRefused is the text of spec section 4, letter by letter.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: func(host string) string {
		return strings.Replace(imageConfig("broken", host+"/broken/", "Enforce", registrytest.NewKey(t, registrytest.ECDSAP256)), "cosign:", "cosing:", 1)
	}})
	push := func(name string, sign ...*registrytest.Key) registrytest.Image {
		image := s.host.PushImage(t, name)
		for _, key := range sign {
			s.host.SignLegacy(t, image, key)
		}
		return image
	}
	unsigned := push("acme/unsigned:v1")
	wrong := push("acme/wrong:v1", s.other, registrytest.NewKey(t, registrytest.ECDSAP256))
	tampered := push("acme/tampered:v1", s.key)
	s.host.TamperLegacy(t, tampered)
	attested := push("acme/attested:v1")
	s.host.AttestBundle(t, attested, s.key, registrytest.Attestation{PredicateType: "https://spdx.dev/Document"})
	copied := push("acme/copied:v1")
	s.host.CopyLegacy(t, push("acme/source:v1", s.key), copied)
	down := push("acme/down:v1", s.key)
	s.host.Fault(registrytest.Manifest(down.ByDigest()).Or(registrytest.Signature(down)).Or(registrytest.Referrers(down)), registrytest.Status(500))
	gone := push("acme/gone:v1")
	s.host.Delete(t, gone)
	host := s.host.Host()
	twice := "spec.containers[0].image: %[1]s Rejected by ImageConfig \"acme\": %[3]s; hint: pratique verify %[2]s"
	for name, c := range map[string]struct {
		image  registrytest.Image
		format string
		why    string
		code   int
	}{
		"unsigned":    {unsigned, twice, "no signature", 403},
		"wrong key":   {wrong, twice, `authority "release": no signature matches its key (2 found)`, 403},
		"tampered":    {tampered, twice, `authority "release": no signature matches its key (1 found)`, 403},
		"attestation": {attested, twice, "no signature (1 attestations or unreadable bundles are no signatures)", 403},
		"copied":      {copied, twice, `authority "release": its key signed something else than this image`, 403},
		"down":        {down, strings.Replace(twice, "Rejected", "Inconclusive", 1), host + " answered 500 to the request for the signature manifest", 503},
		"gone":        {gone, strings.Replace(twice, "Rejected", "Inconclusive", 1), host + " answered 404 to the request for the image: not there, or hidden without credentials", 503},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			object := pod(c.image.ByBoth())
			if name != "gone" {
				object = apply(t, pod(c.image.ByTag()), s.send(t, "/mutate", ask{object: pod(c.image.ByTag())}))
			}
			got := s.send(t, "/validate", ask{object: object})
			want := fmt.Sprintf("%d ", c.code) + fmt.Sprintf(c.format, c.image.ByBoth(), c.image.ByTag(), c.why)
			// Which of the two forms of signature is asked for first is chance.
			text := strings.Replace(message(got), "list of referrers", "signature manifest", 1)
			if diff := cmp.Diff(want, text); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			_, line, _ := strings.Cut(message(got), " ")
			if got.AuditAnnotations["images"] != line || got.AuditAnnotations["verdict"] != strings.Fields(want)[3] {
				t.Errorf("audit annotations %q", got.AuditAnnotations)
			}
			if len(got.Warnings) > 0 {
				t.Errorf("warned of what is denied: %q", got.Warnings)
			}
		})
	}

	t.Run("all of them, sorted", func(t *testing.T) {
		t.Parallel()
		object := pod(wrong.ByDigest(), "BAD", host+"/static/x", unsigned.ByTag(), host+"/broken/x:1", down.ByBoth())
		for range 3 {
			got := s.send(t, "/validate", ask{object: object})
			lines := strings.Split(message(got), "\n")
			want := []string{
				"403 ",
				"spec.containers[0].image: " + wrong.ByDigest() + " Rejected by ImageConfig \"acme\": authority \"release\": no signature matches its key (2 found); hint: pratique verify " + wrong.ByDigest(),
				"spec.containers[1].image: Rejected: invalid image reference \"BAD\": ",
				"spec.containers[3].image: " + unsigned.ByBoth() + " Rejected by ImageConfig \"acme\": not pinned: the mutating webhook did not run or found no digest, or another one came after it; hint: check the MutatingWebhookConfiguration",
				"spec.containers[4].image: " + host + "/broken/x:1 Inconclusive by ImageConfig \"broken\": it is not ready: decoding ImageConfig \"broken\": ",
				"spec.containers[5].image: " + down.ByBoth() + " Inconclusive by ImageConfig \"acme\": " + host + " answered 500 ",
			}
			if len(lines) != len(want) {
				t.Fatalf("%d lines:\n%s", len(lines), message(got))
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, want[i]) {
					t.Errorf("line %d:\n%s\nwant\n%s…", i, line, want[i])
				}
			}
		}
	})
}

// Without a digest the cause is found by resolving, if there is one.
func TestNotPinned(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	if got := s.send(t, "/validate", ask{object: pod(image.ByTag())}); got.Allowed || got.Result.Code != 403 ||
		!strings.Contains(got.Result.Message, "not pinned: the mutating webhook did not run or found no digest, or another one came after it") {
		t.Errorf("got %s", message(got))
	}
	for status, says := range map[int]string{404: "not there", 401: "no credentials for this host", 429: "too many requests", 503: "answered 503"} {
		name := fmt.Sprintf("acme/s%d:v1", status)
		s.host.PushImage(t, name)
		s.host.Fault(registrytest.Manifest(name), registrytest.Status(status))
		stored, got := s.admit(t, ask{object: pod(s.host.Host() + "/" + name)})
		if stored != pod(s.host.Host()+"/"+name) || got.Allowed || got.Result.Code != 503 || !strings.Contains(got.Result.Message, says) {
			t.Errorf("%d: stored %s, got %s", status, stored, message(got))
		}
	}
	never := newStack(t, setting{server: policy.Server{Pin: policy.PinNever}})
	image = never.host.PushImage(t, "acme/app:v1")
	never.host.SignLegacy(t, image, never.key)
	stored, got := never.admit(t, ask{object: pod(image.ByTag())})
	if stored != pod(image.ByTag()) || got.Allowed || !strings.Contains(got.Result.Message, "--pin=Never") {
		t.Errorf("stored %s, got %s", stored, message(got))
	}
	if got := never.send(t, "/validate", ask{object: pod(image.ByBoth())}); !got.Allowed {
		t.Errorf("pinned by another: %s", message(got))
	}
}

// In Audit the same verdicts are warnings, and nothing is changed.
func TestAudit(t *testing.T) {
	t.Parallel()
	rule := newStack(t, setting{})
	server := newStack(t, setting{server: policy.Server{Mode: policy.Audit, Unmatched: policy.UnmatchedDeny}})
	for name, c := range map[string]struct {
		s      *stack
		prefix string
	}{"rule": {rule, "audit/"}, "server": {server, "acme/"}} {
		unsigned := c.s.host.PushImage(t, c.prefix+"unsigned:v1")
		signed := c.s.host.PushImage(t, c.prefix+"signed:v1")
		c.s.host.SignLegacy(t, signed, c.s.key)
		object := pod(unsigned.ByTag(), signed.ByTag(), c.s.host.Host()+"/"+c.prefix+"absent:v1")
		stored, got := c.s.admit(t, ask{object: object})
		if stored != object || !got.Allowed {
			t.Errorf("%s: stored %s, %s", name, stored, message(got))
		}
		config := map[string]string{"rule": "audit", "server": "acme"}[name]
		want := []string{
			fmt.Sprintf("spec.containers[0].image: %s@%s… Rejected by ImageConfig %q: no signature", unsigned.ByTag(), unsigned.Digest[:19], config),
			fmt.Sprintf("spec.containers[2].image: %s/%sabsent:v1 Inconclusive by ImageConfig %q: %s answered 404 to the request for the tag \"v1\": not there, or hidden without credentials",
				c.s.host.Host(), c.prefix, config, c.s.host.Host()),
		}
		if diff := cmp.Diff(want, got.Warnings); diff != "" {
			t.Errorf("%s: warnings (-want +got):\n%s", name, diff)
		}
		if got.AuditAnnotations["verdict"] != "Rejected" || strings.Count(got.AuditAnnotations["images"], "\n") != 2 ||
			!strings.Contains(got.AuditAnnotations["images"], unsigned.Digest) {
			t.Errorf("%s: audit annotations %q", name, got.AuditAnnotations)
		}
	}
	if got := server.send(t, "/validate", ask{object: pod("BAD", "uncovered.invalid/x")}); !got.Allowed || len(got.Warnings) != 2 {
		t.Errorf("got %s, warnings %q", message(got), got.Warnings)
	}
}

// TestKinds: templates wait for what comes of them, packages do not.
func TestKinds(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{})
	signed := s.host.PushImage(t, "acme/signed:v1")
	s.host.SignLegacy(t, signed, s.key)
	unsigned := s.host.PushImage(t, "acme/unsigned:v1")
	absent := s.host.Host() + "/acme/absent:v1"
	template := func(group, kind, format string) func(string) ask {
		return func(image string) ask {
			return ask{group: group, version: "v1", kind: kind, object: fmt.Sprintf(format, pod(image))}
		}
	}
	crossplane := func(kind, field string) func(string) ask {
		return func(image string) ask {
			return ask{group: "pkg.crossplane.io", version: "v1", kind: kind, namespace: "-", object: fmt.Sprintf(`{"spec":{%q:%q}}`, field, image)}
		}
	}
	for name, c := range map[string]struct {
		ask   func(image string) ask
		here  bool
		float bool
	}{
		"Deployment":            {template("apps", "Deployment", `{"spec":{"template":%s}}`), false, false},
		"StatefulSet":           {template("apps", "StatefulSet", `{"spec":{"template":%s}}`), false, false},
		"DaemonSet":             {template("apps", "DaemonSet", `{"spec":{"template":%s}}`), false, false},
		"ReplicaSet":            {template("apps", "ReplicaSet", `{"spec":{"template":%s}}`), false, false},
		"Job":                   {template("batch", "Job", `{"spec":{"template":%s}}`), false, false},
		"CronJob":               {template("batch", "CronJob", `{"spec":{"jobTemplate":{"spec":{"template":%s}}}}`), false, false},
		"ReplicationController": {template("", "ReplicationController", `{"spec":{"template":%s}}`), false, false},
		"PodTemplate":           {template("", "PodTemplate", `{"template":%s}`), false, false},
		"Provider":              {crossplane("Provider", "package"), false, false},
		"Configuration":         {crossplane("Configuration", "package"), false, false},
		"Function":              {crossplane("Function", "package"), false, false},
		"ProviderRevision":      {crossplane("ProviderRevision", "image"), true, true},
		"ConfigurationRevision": {crossplane("ConfigurationRevision", "image"), true, true},
		"FunctionRevision":      {crossplane("FunctionRevision", "image"), true, true},
		"DeploymentRuntimeConfig": {func(image string) ask {
			return ask{group: "pkg.crossplane.io", version: "v1beta1", kind: "DeploymentRuntimeConfig", namespace: "-",
				object: fmt.Sprintf(`{"spec":{"deploymentTemplate":{"spec":{"template":%s}}}}`, pod(image))}
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, image := range []string{signed.ByTag(), signed.ByBoth()} {
				stored, got := s.admit(t, c.ask(image))
				if stored != c.ask(image).object || !got.Allowed {
					t.Errorf("%s: stored %s, %s", image, stored, message(got))
				}
				floats := len(got.Warnings) == 1 && strings.HasSuffix(got.Warnings[0], image+" its tag can move after this: name the digest too")
				if want := c.float && image == signed.ByTag(); floats != want || !want && len(got.Warnings) > 0 {
					t.Errorf("%s: warnings %q", image, got.Warnings)
				}
			}
			if _, got := s.admit(t, c.ask(unsigned.ByTag())); got.Allowed || got.Result.Code != 403 || !strings.Contains(got.Result.Message, "no signature") {
				t.Errorf("unsigned: %s", message(got))
			}
			_, got := s.admit(t, c.ask(absent))
			if got.Allowed == c.here {
				t.Errorf("absent: %s", message(got))
			}
			if !c.here && (len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "Inconclusive")) {
				t.Errorf("absent: warnings %q", got.Warnings)
			}
			if _, got := s.admit(t, c.ask("BAD")); got.Allowed || got.Result.Code != 403 {
				t.Errorf("no reference: %s", message(got))
			}
		})
	}
}

// floating: Deny denies a tag whose object nobody pins, also where another
// rule only audits it.
func TestFloatingDeny(t *testing.T) {
	t.Parallel()
	var other *registrytest.Key
	s := newStack(t, setting{
		catalog: []string{"rows:\n- group: pkg.crossplane.io\n  versions: [v1]\n  kinds: [{kind: ProviderRevision, resource: providerrevisions}]\n  floating: Deny\n"},
		policies: func(host string) string {
			other = registrytest.NewKey(t, registrytest.ECDSAP256)
			return imageConfig("acme-too", host+"/acme/", "Audit", other)
		},
	})
	image := s.host.PushImage(t, "acme/provider:v1")
	s.host.SignLegacy(t, image, s.key)
	revision := func(image string) ask {
		return ask{group: "pkg.crossplane.io", version: "v1", kind: "ProviderRevision", namespace: "-", object: fmt.Sprintf(`{"spec":{"image":%q}}`, image)}
	}
	if got := s.send(t, "/validate", revision(image.ByTag())); got.Allowed || got.Result.Code != 403 || !strings.Contains(got.Result.Message, "its tag can move") {
		t.Errorf("a tag: %s", message(got))
	}
	if got := s.send(t, "/validate", revision(image.ByBoth())); !got.Allowed {
		t.Errorf("a digest: %s", message(got))
	}
	audited := s.host.PushImage(t, "audit/provider:v1")
	s.host.SignLegacy(t, audited, s.key)
	if got := s.send(t, "/validate", revision(audited.ByTag())); !got.Allowed || len(got.Warnings) != 1 || !strings.Contains(got.Warnings[0], "its tag can move") {
		t.Errorf("a tag under a rule that audits: %s, %q", message(got), got.Warnings)
	}
}

// TestPrivate: a Pod's own pull secret, and the rule's, open the registry;
// another namespace's does not.
func TestPrivate(t *testing.T) {
	t.Parallel()
	login := func(host string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("user:password")))
	}
	secret := func(namespace, name, content string) string {
		return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: %q}\n",
			name, namespace, content)
	}
	s := newStack(t, setting{
		registry: []registrytest.Option{registrytest.WithBasicAuth("user", "password")},
		policies: func(host string) string {
			withSecret := strings.Replace(imageConfig("theirs", host+"/theirs/", "Enforce", registrytest.NewKey(t, registrytest.ECDSAP256)),
				"registry: {", "registry: {authentication: {pullSecretRef: {name: ours}}, ", 1)
			return withSecret + secret("shop", "mine", login(host)) + secret("victim", "hers", login(host)) + secret("pratique-system", "ours", login(host)) +
				secret("shop", "malformed", "{") + secret("shop", "elsewhere", login("registry.invalid"))
		},
	})
	image := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, image, s.key)
	theirs := s.host.PushImage(t, "theirs/app:v1")
	with := func(image string, secrets ...string) ask {
		var list []string
		for _, name := range secrets {
			list = append(list, fmt.Sprintf(`{"name":%q}`, name))
		}
		return ask{namespace: "shop", object: fmt.Sprintf(`{"metadata":{"namespace":"victim"},"spec":{"containers":[{"image":%q}],"imagePullSecrets":[%s]}}`,
			image, strings.Join(list, ","))}
	}
	for name, c := range map[string]struct {
		ask  ask
		code string
		says string
	}{
		"none":                {with(image.ByTag()), "503", "no credentials for this host were found"},
		"of another registry": {with(image.ByTag(), "elsewhere"), "503", "no credentials for this host were found"},
		"another namespace's": {with(image.ByTag(), "hers"), "503", "no credentials for this host were found"},
		"Pratique's own":      {with(image.ByTag(), "ours"), "503", "no credentials for this host were found"},
		"malformed":           {with(image.ByTag(), "mine", "malformed"), "503", `reading pull secret "malformed"`},
		"seventeen":           {with(image.ByTag(), slices.Repeat([]string{"mine"}, 17)...), "503", "17 pull secrets"},
		"the rule's":          {with(theirs.ByTag()), "403", "no signature"},
	} {
		t.Run(name, func(t *testing.T) {
			_, got := s.admit(t, c.ask)
			if !strings.HasPrefix(message(got), c.code+" ") || !strings.Contains(message(got), c.says) || strings.Contains(message(got), "password") {
				t.Errorf("got %s, want %s %q", message(got), c.code, c.says)
			}
		})
	}
	// Not in parallel, and last: an Accepted would answer all of them.
	if _, got := s.admit(t, with(image.ByTag(), "absent", "mine")); !got.Allowed ||
		!slices.ContainsFunc(got.Warnings, func(w string) bool { return strings.Contains(w, `pull secret "absent" does not exist`) }) {
		t.Errorf("the right one: %s, warnings %q", message(got), got.Warnings)
	}
}
