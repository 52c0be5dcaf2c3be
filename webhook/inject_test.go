// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/registry/registrytest"
)

// pulling gives Pods in namespaces of an environment a pull secret.
func pulling(name, prefix, secret, env string) string {
	return fmt.Sprintf(`---
apiVersion: pratique.dev/v1alpha1
kind: ImageConfig
metadata: {name: %s}
spec:
  matchImages: [{prefix: %q}]
  registry: {authentication: {pullSecretRef: {name: %s}, inject: {namespaceSelector: {matchLabels: {env: %s}}}}}
`, name, prefix, secret, env)
}

// namespaces are shop, other and Pratique's own, in prod, and lab, in test.
const namespaces = `---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {env: prod}}
---
apiVersion: v1
kind: Namespace
metadata: {name: lab, labels: {env: test}}
---
apiVersion: v1
kind: Namespace
metadata: {name: pratique-system, labels: {env: prod}}
`

// ownSecret is a pull secret in Pratique's own namespace.
func ownSecret(name string) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Secret\nmetadata: {name: %s}\ntype: kubernetes.io/dockerconfigjson\n"+
		"stringData: {.dockerconfigjson: '{\"auths\":{}}'}\n", name)
}

func injecting(host string) string {
	return namespaces + ownSecret("pull-b") + ownSecret("pull-a") + ownSecret("pull-c") +
		pulling("b", host+"/acme/", "pull-b", "prod") + pulling("a", "a.invalid", "pull-a", "prod") +
		strings.Replace(strings.Replace(pulling("governed", "governed.invalid", "pull-a", "prod"), "{matchLabels: {env: prod}}", "{}", 1),
			"spec:\n", "spec:\n  namespaceSelector: {matchLabels: {env: prod}}\n", 1) +
		pulling("c", "c.invalid", "pull-c", "prod") + pulling("also-a", "also-a.invalid", "pull-a", "prod")
}

// withPullSecrets puts a list of pull secrets, in JSON, into a Pod.
func withPullSecrets(object, list string) string {
	return strings.Replace(object, `"spec":{`, `"spec":{"imagePullSecrets":`+list+`,`, 1)
}

func TestInject(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: injecting, inject: []string{"shop", "lab"}})
	signed := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, signed, s.key)
	plain := "a.invalid/x:1"
	crowd := make([]string, 16)
	for i := range crowd {
		crowd[i] = fmt.Sprintf(`{"name":"own-%d"}`, i)
	}
	for name, test := range map[string]struct {
		ask    ask
		object string
		want   []string // the names in order, "" where one has none
		warned string
	}{
		"no list":            {ask{}, pod(plain), []string{"pull-a"}, ""},
		"null":               {ask{}, withPullSecrets(pod(plain), "null"), []string{"pull-a"}, ""},
		"an empty list":      {ask{}, withPullSecrets(pod(plain), "[]"), []string{"pull-a"}, ""},
		"its own stay first": {ask{}, withPullSecrets(pod(plain), `[{"name":"z"},{"name":"b"}]`), []string{"z", "b", "pull-a"}, ""},
		"one without a name": {ask{}, withPullSecrets(pod(plain), `[{}]`), []string{"", "pull-a"}, ""},
		"one that is null":   {ask{}, withPullSecrets(pod(plain), `[null,{"name":""}]`), []string{"", "", "pull-a"}, ""},
		"it is there":        {ask{}, withPullSecrets(pod(plain), `[{"name":"pull-a"},{"name":"z"}]`), []string{"pull-a", "z"}, ""},
		"each once, sorted": {
			ask{}, pod("c.invalid/x", plain, signed.ByTag(), "a.invalid/y", "also-a.invalid/x"), []string{"pull-a", "pull-b", "pull-c"}, "",
		},
		"an init container's":   {ask{}, strings.Replace(pod("z.invalid/x"), `"spec":{`, `"spec":{"initContainers":[{"name":"i","image":"a.invalid/x"}],`, 1), []string{"pull-a"}, ""},
		"of no rule":            {ask{}, pod("z.invalid/x"), nil, ""},
		"not selected":          {ask{namespace: "lab"}, pod(plain), nil, ""},
		"selected, not allowed": {ask{namespace: "other"}, pod(plain), nil, ""},
		"labels unknown":        {ask{namespace: "unknown"}, pod(plain), nil, ""},
		"the namespace that the object claims": {
			ask{namespace: "lab"}, strings.Replace(pod(plain), `"name":"x"`, `"name":"x","namespace":"shop"`, 1), nil, "",
		},
		"outside of what the rule governs": {ask{namespace: "lab"}, pod("governed.invalid/x"), nil, ""},
		"inside of it":                     {ask{}, pod("governed.invalid/x"), []string{"pull-a"}, ""},
		"an update":                        {ask{old: pod("z.invalid/x")}, pod(plain), nil, ""},
		"an ephemeral container":           {ask{subresource: "ephemeralcontainers", old: pod()}, pod(plain), nil, ""},
		"a static Pod's mirror": {
			ask{groups: []string{"system:nodes"}}, strings.Replace(pod(plain), `"name":"x"`, `"name":"x","annotations":{"kubernetes.io/config.mirror":"y"}`, 1), nil, "",
		},
		"too many": {ask{}, withPullSecrets(pod(plain), "["+strings.Join(crowd, ",")+"]"), nil, `spec.imagePullSecrets: not given ["pull-a"]: there would be more than 16`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.ask.object = test.object
			got := s.send(t, "/mutate", test.ask)
			stored := apply(t, test.object, got)
			if names := secretNames(t, stored); test.want == nil && got.Patch != nil || test.want != nil && !slices.Equal(names, test.want) {
				t.Errorf("pull secrets %q, want %q; patch %s", names, test.want, got.Patch)
			}
			if warned := strings.Join(got.Warnings, " "); warned != test.warned {
				t.Errorf("warned %q, want %q", warned, test.warned)
			}
			test.ask.object = stored
			if again := s.send(t, "/mutate", test.ask); again.Patch != nil {
				t.Errorf("what is stored gets the patch %s", again.Patch)
			}
		})
	}
}

func secretNames(t *testing.T, object string) (names []string) {
	t.Helper()
	var p corev1.Pod
	if err := json.Unmarshal([]byte(object), &p); err != nil {
		t.Fatal(err)
	}
	for _, reference := range p.Spec.ImagePullSecrets {
		names = append(names, reference.Name)
	}
	return names
}

// The images are patched first; the label of an older Pod may still be changed.
func TestInjectBesidePins(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: injecting, inject: []string{"*"}})
	signed := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, signed, s.key)
	got := s.send(t, "/mutate", ask{object: pod(signed.ByTag())})
	want := `[{"op":"replace","path":"/spec/containers/0/image","value":"` + signed.ByBoth() + `"},` +
		`{"op":"add","path":"/spec/imagePullSecrets","value":[{"name":"pull-b"}]}]`
	if diff := cmp.Diff(want, string(got.Patch)); diff != "" {
		t.Errorf("patch (-want +got):\n%s", diff)
	}
	old := pod(signed.ByTag())
	labelled := strings.Replace(old, `"name":"x"`, `"name":"x","labels":{"a":"b"}`, 1)
	for _, path := range []string{"/mutate", "/validate"} {
		if got := s.send(t, path, ask{object: labelled, old: old}); !got.Allowed || got.Patch != nil || len(got.Warnings) > 0 {
			t.Errorf("%s of an older Pod: %s, patch %s, warnings %q", path, message(got), got.Patch, got.Warnings)
		}
	}
}

// The copy of a secret that was just given may be a moment away. That of one
// that nobody gives is missing.
func TestInjectedIsExpected(t *testing.T) {
	t.Parallel()
	for namespace, test := range map[string]struct{ list, warned string }{
		"shop":  {`[{"name":"pull-b"}]`, ""},
		"lab":   {`[{"name":"pull-b"}]`, `pull secret "pull-b" does not exist`},
		"other": {`[{"name":"mistyped"}]`, `pull secret "mistyped" does not exist`},
	} {
		s := newStack(t, setting{policies: injecting, inject: []string{"shop"}})
		signed := s.host.PushImage(t, "acme/app:v1")
		s.host.SignLegacy(t, signed, s.key)
		got := s.send(t, "/validate", ask{namespace: namespace, object: withPullSecrets(pod(signed.ByBoth()), test.list)})
		if warned := strings.Join(got.Warnings, " "); !got.Allowed || !strings.Contains(warned, test.warned) || test.warned == "" && warned != "" {
			t.Errorf("%s: %s, warned %q, want %q", namespace, message(got), warned, test.warned)
		}
	}
}

// A Pod that was given a secret is not refused for having too many.
func TestInjectedIsNotOneTooMany(t *testing.T) {
	t.Parallel()
	s := newStack(t, setting{policies: func(host string) string {
		own := injecting(host)
		for i := range 15 {
			own += strings.Replace(ownSecret(fmt.Sprintf("own-%d", i)), "{name:", "{namespace: shop, name:", 1)
		}
		return own + strings.Replace(ownSecret("pull-b"), "{name:", "{namespace: shop, name:", 1)
	}, inject: []string{"shop"}})
	signed := s.host.PushImage(t, "acme/app:v1")
	s.host.SignLegacy(t, signed, s.key)
	var own []string
	for i := range 15 {
		own = append(own, fmt.Sprintf(`{"name":"own-%d"}`, i))
	}
	stored, got := s.admit(t, ask{object: withPullSecrets(pod(signed.ByTag()), "["+strings.Join(own, ",")+"]")})
	if names := secretNames(t, stored); len(names) != 16 || !got.Allowed {
		t.Errorf("%d pull secrets, %s", len(names), message(got))
	}
}

// What cannot be read as it is meant gives nobody a secret, and shows none.
func TestMistakesShowNothing(t *testing.T) {
	t.Parallel()
	for name, mistake := range map[string]func(string) string{
		"a selector for Pods": func(s string) string {
			return strings.ReplaceAll(s, "{matchLabels: {env: prod}}}}}", "{matchLabel: {env: prod}}}}}")
		},
		"its own selector": func(s string) string {
			return strings.ReplaceAll(s, "  registry: {authentication:", "  namespaceSelecter: {matchLabels: {env: test}}\n  registry: {insecurePlainHTTP: true, authentication:")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStack(t, setting{registry: []registrytest.Option{registrytest.WithBasicAuth("user", "s3cret")}, inject: []string{"*"}, policies: func(host string) string {
				config := fmt.Sprintf(`{"auths":{%q:{"username":"user","password":"s3cret"}}}`, host)
				return namespaces + strings.Replace(ownSecret("pull-x"), `{"auths":{}}`, config, 1) +
					mistake(pulling("broken-x", host+"/x/", "pull-x", "prod"))
			}})
			image := s.host.PushImage(t, "x/app:v1")
			stored, got := s.admit(t, ask{object: pod(image.ByTag())})
			if stored != pod(image.ByTag()) || got.Allowed || got.Result.Code != 503 {
				t.Errorf("stored %s, %s", stored, message(got))
			}
			for _, request := range s.host.Requests() {
				if request.Authorization != "" {
					t.Errorf("shown: %s", request)
				}
			}
		})
	}
}

// A server that audits gives nothing; one that may not either.
func TestInjectSuspended(t *testing.T) {
	t.Parallel()
	for name, given := range map[string]setting{
		"audit":       {inject: []string{"*"}, server: policy.Server{Mode: policy.Audit}},
		"not allowed": {},
		"its own":     {inject: []string{"*"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			given.policies = func(string) string {
				return namespaces + ownSecret("pull-a") + pulling("broken-a", "a.invalid", "pull-a", "prod")
			}
			where := ask{object: pod("a.invalid/x:1")}
			if name == "its own" {
				where.namespace = "pratique-system"
			}
			if got := newStack(t, given).send(t, "/mutate", where); got.Patch != nil || len(got.Warnings) > 0 {
				t.Errorf("patch %s, warnings %q", got.Patch, got.Warnings)
			}
		})
	}
}
