// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pratique-dev/pratique/policy"
	"github.com/pratique-dev/pratique/webhook"
)

func configured() webhook.ConfigurationOptions {
	return webhook.ConfigurationOptions{Name: "pratique", Namespace: "pratique-system", Service: "pratique"}
}

func configurations(t *testing.T, o webhook.ConfigurationOptions, extra ...string) (
	*admissionregistrationv1.MutatingWebhookConfiguration, *admissionregistrationv1.ValidatingWebhookConfiguration,
) {
	t.Helper()
	mutating, validating, err := load(t, extra...).Configurations(o)
	if err != nil {
		t.Fatal(err)
	}
	return mutating, validating
}

// entry is what both kinds of webhooks have, and what differs by options.
type entry struct {
	Name, Path string
	Failure    admissionregistrationv1.FailurePolicyType
	Seconds    int32
	Exempt     []string
	Resources  []string
	Conditions int
}

func entries(m *admissionregistrationv1.MutatingWebhookConfiguration, v *admissionregistrationv1.ValidatingWebhookConfiguration) (mutating, validating []entry) {
	one := func(h admissionregistrationv1.ValidatingWebhook) entry {
		e := entry{Name: h.Name, Failure: *h.FailurePolicy, Seconds: *h.TimeoutSeconds, Conditions: len(h.MatchConditions)}
		if h.ClientConfig.URL != nil {
			e.Path = *h.ClientConfig.URL
		} else {
			e.Path = *h.ClientConfig.Service.Path
		}
		if h.NamespaceSelector != nil {
			e.Exempt = h.NamespaceSelector.MatchExpressions[0].Values
		}
		for _, rule := range h.Rules {
			e.Resources = append(e.Resources, rule.Resources...)
		}
		return e
	}
	for _, h := range m.Webhooks {
		mutating = append(mutating, one(admissionregistrationv1.ValidatingWebhook{
			Name: h.Name, ClientConfig: h.ClientConfig, Rules: h.Rules, FailurePolicy: h.FailurePolicy,
			NamespaceSelector: h.NamespaceSelector, TimeoutSeconds: h.TimeoutSeconds, MatchConditions: h.MatchConditions,
		}))
	}
	for _, h := range v.Webhooks {
		validating = append(validating, one(h))
	}
	return mutating, validating
}

func TestConfigurations(t *testing.T) {
	t.Parallel()
	workloads := []string{
		"podtemplates", "replicationcontrollers", "daemonsets", "deployments", "replicasets", "statefulsets", "cronjobs", "jobs",
	}
	sorted := func(e []entry) []entry {
		for i := range e {
			slices.Sort(e[i].Resources)
		}
		return e
	}
	slices.Sort(workloads)
	pods := []string{"pods", "pods/ephemeralcontainers"}
	exempt := []string{"kube-node-lease", "kube-system", "pratique-system"}
	crossplane := []string{
		"configurationrevisions", "configurations", "deploymentruntimeconfigs", "functionrevisions", "functions", "providerrevisions", "providers",
	}
	const fail, ignore = admissionregistrationv1.Fail, admissionregistrationv1.Ignore
	for name, c := range map[string]struct {
		change               func(*webhook.ConfigurationOptions)
		mutating, validating []entry
	}{
		"defaults": {
			func(*webhook.ConfigurationOptions) {},
			[]entry{{"pods.mutate.pratique.dev", "/mutate", ignore, 10, exempt, pods, 0}},
			[]entry{
				{"pods.pratique.dev", "/validate", fail, 10, exempt, pods, 0},
				{"workloads.pratique.dev", "/validate", fail, 10, exempt, workloads, 0},
				{"others.pratique.dev", "/validate", fail, 10, exempt, crossplane, 0},
				{"imageconfigs.pratique.dev", "/validate-imageconfig", ignore, 5, nil, []string{"imageconfigs"}, 0},
			},
		},
		"all else": {
			func(o *webhook.ConfigurationOptions) {
				o.Service, o.URL, o.FailurePolicy, o.Timeout, o.Spare = "", "https://p.example.com:9443/", ignore, 3*time.Second, true
				o.ExemptNamespaces = []string{"cni", "pratique-system"}
			},
			[]entry{{"pods.mutate.pratique.dev", "https://p.example.com:9443/mutate", ignore, 3, []string{"cni", "pratique-system"}, pods, 1}},
			[]entry{
				{"pods.pratique.dev", "https://p.example.com:9443/validate", ignore, 3, []string{"cni", "pratique-system"}, pods, 1},
				{"workloads.pratique.dev", "https://p.example.com:9443/validate", ignore, 3, []string{"cni", "pratique-system"}, workloads, 1},
				{"others.pratique.dev", "https://p.example.com:9443/validate", ignore, 3, []string{"cni", "pratique-system"}, crossplane, 0},
				{"imageconfigs.pratique.dev", "https://p.example.com:9443/validate-imageconfig", ignore, 5, nil, []string{"imageconfigs"}, 0},
			},
		},
		"Audit": {
			func(o *webhook.ConfigurationOptions) {
				o.Mode, o.FailurePolicy, o.Timeout, o.ExemptNamespaces = policy.Audit, fail, 20*time.Second, []string{}
			},
			[]entry{{"pods.mutate.pratique.dev", "/mutate", ignore, 5, []string{"pratique-system"}, pods, 0}},
			[]entry{
				{"pods.pratique.dev", "/validate", ignore, 5, []string{"pratique-system"}, pods, 0},
				{"workloads.pratique.dev", "/validate", ignore, 5, []string{"pratique-system"}, workloads, 0},
				{"others.pratique.dev", "/validate", ignore, 5, []string{"pratique-system"}, crossplane, 0},
				{"imageconfigs.pratique.dev", "/validate-imageconfig", ignore, 5, nil, []string{"imageconfigs"}, 0},
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := configured()
			c.change(&o)
			mutating, validating := entries(configurations(t, o))
			if diff := cmp.Diff(c.mutating, sorted(mutating)); diff != "" {
				t.Errorf("mutating (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.validating, sorted(validating)); diff != "" {
				t.Errorf("validating (-want +got):\n%s", diff)
			}
		})
	}
}

// What does not depend on options, in every entry; and every rule of the catalog
// is in one of them, and only one.
func TestConfigurationsAreComplete(t *testing.T) {
	t.Parallel()
	mutating, validating := configurations(t, configured())
	if mutating.Kind != "MutatingWebhookConfiguration" || validating.Kind != "ValidatingWebhookConfiguration" ||
		mutating.APIVersion != "admissionregistration.k8s.io/v1" || validating.APIVersion != mutating.APIVersion {
		t.Errorf("types %v, %v", mutating.TypeMeta, validating.TypeMeta)
	}
	names, rules := map[string]bool{}, map[string]int{}
	count := func(all []admissionregistrationv1.RuleWithOperations, by int) {
		for _, rule := range all {
			if diff := cmp.Diff([]admissionregistrationv1.OperationType{"CREATE", "UPDATE"}, rule.Operations); diff != "" {
				t.Error(diff)
			}
			for _, resource := range rule.Resources {
				rules[resource+"."+rule.APIGroups[0]+"/"+strings.Join(rule.APIVersions, ",")] += by
			}
		}
	}
	for _, h := range validating.Webhooks {
		names[h.Name] = true
		if *h.MatchPolicy != "Equivalent" || *h.SideEffects != "None" || !slices.Equal(h.AdmissionReviewVersions, []string{"v1"}) {
			t.Errorf("%s: %v, %v, %v", h.Name, *h.MatchPolicy, *h.SideEffects, h.AdmissionReviewVersions)
		}
		if s := h.ClientConfig.Service; s.Name != "pratique" || s.Namespace != "pratique-system" || *s.Port != 443 {
			t.Errorf("%s: %v", h.Name, s)
		}
		if h.Name != "imageconfigs.pratique.dev" {
			count(h.Rules, 1)
		}
	}
	for _, h := range mutating.Webhooks {
		if names[h.Name] {
			t.Errorf("%s: two webhooks of one name overwrite each other's audit annotations", h.Name)
		}
		if *h.ReinvocationPolicy != "IfNeeded" || *h.MatchPolicy != "Equivalent" || *h.SideEffects != "None" || !slices.Equal(h.AdmissionReviewVersions, []string{"v1"}) {
			t.Errorf("%s: %v, %v, %v", h.Name, *h.ReinvocationPolicy, *h.MatchPolicy, *h.SideEffects)
		}
	}
	count(load(t).Rules(), -1)
	for rule, left := range rules {
		if left != 0 {
			t.Errorf("%s: %d too many", rule, left)
		}
	}
	var pinned []admissionregistrationv1.RuleWithOperations
	for _, h := range mutating.Webhooks {
		pinned = append(pinned, h.Rules...)
	}
	if diff := cmp.Diff(load(t).MutatingRules(), pinned); diff != "" {
		t.Errorf("mutating rules (-want +got):\n%s", diff)
	}
}

// A catalog row of the admin's is asked about too, and changes no name.
func TestConfigurationsOfAdminsRows(t *testing.T) {
	t.Parallel()
	_, validating := configurations(t, configured(), plainRow)
	var names []string
	for _, h := range validating.Webhooks {
		names = append(names, h.Name)
		has := slices.ContainsFunc(h.Rules, func(r admissionregistrationv1.RuleWithOperations) bool { return r.APIGroups[0] == "acme.example" })
		if has != (h.Name == "others.pratique.dev") {
			t.Errorf("%s: has the row: %t", h.Name, has)
		}
	}
	if want := []string{"pods.pratique.dev", "workloads.pratique.dev", "others.pratique.dev", "imageconfigs.pratique.dev"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
}

// What is not ours to say is not said: a server-side apply owns what it mentions.
func TestConfigurationsForApply(t *testing.T) {
	t.Parallel()
	o := configured()
	mutating, validating := configurations(t, o)
	for _, object := range []any{mutating, validating} {
		raw, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"caBundle", "creationTimestamp", "status", "ownerReferences", "annotations", "labels", "matchConditions", "null"} {
			if strings.Contains(string(raw), name) {
				t.Errorf("%s is in %s", name, raw)
			}
		}
	}
	o.CABundle = []byte("pem")
	o.Annotations, o.Labels = map[string]string{"a": "1"}, map[string]string{"l": "1"}
	o.Owner = metav1.OwnerReference{APIVersion: "rbac.authorization.k8s.io/v1", Kind: "ClusterRole", Name: "pratique", UID: "u"}
	mutating, validating = configurations(t, o)
	want := metav1.ObjectMeta{Name: "pratique", Annotations: o.Annotations, Labels: o.Labels, OwnerReferences: []metav1.OwnerReference{o.Owner}}
	if diff := cmp.Diff([]metav1.ObjectMeta{want, want}, []metav1.ObjectMeta{mutating.ObjectMeta, validating.ObjectMeta}); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, h := range validating.Webhooks {
		if string(h.ClientConfig.CABundle) != "pem" {
			t.Errorf("%s has no CA bundle", h.Name)
		}
	}
	again, _ := configurations(t, o)
	if diff := cmp.Diff(mutating, again); diff != "" {
		t.Errorf("not the same the second time:\n%s", diff)
	}
}

func TestConfigurationsRefused(t *testing.T) {
	t.Parallel()
	for says, change := range map[string]func(*webhook.ConfigurationOptions){
		"a name and a namespace":  func(o *webhook.ConfigurationOptions) { o.Name = "" },
		"a name and a namespace ": func(o *webhook.ConfigurationOptions) { o.Namespace = "" },
		"either a Service":        func(o *webhook.ConfigurationOptions) { o.Service = "" },
		"either a Service ":       func(o *webhook.ConfigurationOptions) { o.URL = "https://a.example" },
		"the URL is not":          func(o *webhook.ConfigurationOptions) { o.Service, o.URL = "", "http://a.example" },
		"the URL is not ":         func(o *webhook.ConfigurationOptions) { o.Service, o.URL = "", "https://" },
		"the URL is not  ":        func(o *webhook.ConfigurationOptions) { o.Service, o.URL = "", "https://:9443" },
		"the URL is not one":      func(o *webhook.ConfigurationOptions) { o.Service, o.URL = "", "https://a.example/x" },
		"the URL is not one ":     func(o *webhook.ConfigurationOptions) { o.Service, o.URL = "", "https://a.example?x" },
		"the URL is not one such": func(o *webhook.ConfigurationOptions) { o.Service, o.URL = "", "https://u:p@a.example" },
		`mode "Observe"`:          func(o *webhook.ConfigurationOptions) { o.Mode = "Observe" },
		`failure policy "fail"`:   func(o *webhook.ConfigurationOptions) { o.FailurePolicy = "fail" },
		"timeout 31s":             func(o *webhook.ConfigurationOptions) { o.Timeout = 31 * time.Second },
		"timeout 500ms":           func(o *webhook.ConfigurationOptions) { o.Timeout = 500 * time.Millisecond },
		"timeout 1.5s":            func(o *webhook.ConfigurationOptions) { o.Timeout = 1500 * time.Millisecond },
	} {
		o := configured()
		change(&o)
		mutating, validating, err := load(t).Configurations(o)
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(says)) || mutating != nil || validating != nil {
			t.Errorf("got %v, want %q", err, says)
		}
	}
}
