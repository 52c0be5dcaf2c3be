// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package webhook_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"

	"github.com/pratique-dev/pratique/webhook"
)

func load(tb testing.TB, extra ...string) *webhook.Catalog {
	tb.Helper()
	docs := make([][]byte, len(extra))
	for i, doc := range extra {
		docs[i] = []byte(doc)
	}
	catalog, err := webhook.LoadCatalog(docs...)
	if err != nil {
		tb.Fatal(err)
	}
	return catalog
}

func lookup(tb testing.TB, catalog *webhook.Catalog, group, version, kind string) *webhook.Row {
	tb.Helper()
	row, ok := catalog.Lookup(group, version, kind, "")
	if !ok {
		tb.Fatalf("%s/%s %s is not in the catalog", group, version, kind)
	}
	return row
}

// TestEmbeddedRows holds the rows against spec section 1.
func TestEmbeddedRows(t *testing.T) {
	podSpec := func(path string) []string {
		return []string{
			path + ".containers[].image", path + ".initContainers[].image",
			path + ".ephemeralContainers[].image", path + ".volumes[].image.reference",
		}
	}
	type summary struct {
		Versions, Images, PullSecrets, Subresources []string
		Pinned                                      bool
		Decides                                     webhook.Decides
		Blank                                       webhook.Blank
		SecretNamespace                             webhook.SecretNamespace
	}
	template := func(path string) summary {
		return summary{
			Versions: []string{"v1"}, Images: podSpec(path), PullSecrets: []string{path + ".imagePullSecrets[].name"},
			Decides: webhook.DecidesLater, Blank: webhook.BlankSkip, SecretNamespace: webhook.SecretNamespaceOwn,
		}
	}
	crossplane := func(path string, decides webhook.Decides) summary {
		return summary{
			Versions: []string{"v1", "v1beta1"}, Images: []string{path},
			PullSecrets: []string{"spec.packagePullSecrets[].name"},
			Decides:     decides, Blank: webhook.BlankExamine, SecretNamespace: webhook.SecretNamespaceCrossplane,
		}
	}
	runtimeConfig := template("spec.deploymentTemplate.spec.template.spec")
	runtimeConfig.Versions = []string{"v1beta1"}
	runtimeConfig.SecretNamespace = webhook.SecretNamespaceCrossplane

	want := map[string]summary{
		"/Pod pods": {
			Versions: []string{"v1"}, Images: podSpec("spec"), PullSecrets: []string{"spec.imagePullSecrets[].name"},
			Subresources: []string{"ephemeralcontainers"}, Pinned: true, Decides: webhook.DecidesHere,
			Blank: webhook.BlankExamine, SecretNamespace: webhook.SecretNamespaceOwn,
		},
		"/ReplicationController replicationcontrollers": template("spec.template.spec"),
		"/PodTemplate podtemplates":                     template("template.spec"),
		"apps/Deployment deployments":                   template("spec.template.spec"),
		"apps/ReplicaSet replicasets":                   template("spec.template.spec"),
		"apps/StatefulSet statefulsets":                 template("spec.template.spec"),
		"apps/DaemonSet daemonsets":                     template("spec.template.spec"),
		"batch/Job jobs":                                template("spec.template.spec"),
		"batch/CronJob cronjobs":                        template("spec.jobTemplate.spec.template.spec"),

		"pkg.crossplane.io/Provider providers":                               crossplane("spec.package", webhook.DecidesLater),
		"pkg.crossplane.io/Configuration configurations":                     crossplane("spec.package", webhook.DecidesLater),
		"pkg.crossplane.io/Function functions":                               crossplane("spec.package", webhook.DecidesLater),
		"pkg.crossplane.io/ProviderRevision providerrevisions":               crossplane("spec.image", webhook.DecidesHere),
		"pkg.crossplane.io/ConfigurationRevision configurationrevisions":     crossplane("spec.image", webhook.DecidesHere),
		"pkg.crossplane.io/FunctionRevision functionrevisions":               crossplane("spec.image", webhook.DecidesHere),
		"pkg.crossplane.io/DeploymentRuntimeConfig deploymentruntimeconfigs": runtimeConfig,
	}
	got := map[string]summary{}
	for _, row := range load(t).Rows() {
		if row.Floating != webhook.FloatingWarn || row.Written != webhook.WrittenPlain || len(row.Placeholders) > 0 {
			t.Errorf("%s: floating %q, written %q, placeholders %q", row.Kind, row.Floating, row.Written, row.Placeholders)
		}
		got[row.Group+"/"+row.Kind+" "+row.Resource] = summary{
			row.Versions, row.Images, row.PullSecrets, row.Subresources, row.Pinned, row.Decides, row.Blank, row.SecretNamespace,
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestLookup(t *testing.T) {
	catalog := load(t)
	for _, test := range []struct {
		group, version, kind, subresource string
		want                              bool
	}{
		{"", "v1", "Pod", "", true},
		{"", "v1", "Pod", "ephemeralcontainers", true},
		{"", "v1", "Pod", "resize", false},
		{"", "v1", "Pod", "*", false},
		{"", "v2", "Pod", "", false},
		{"", "", "Pod", "", false},
		{"", "v1", "pod", "", false},
		{"apps", "v1", "Pod", "", false},
		{"apps", "v1", "Deployment", "", true},
		{"apps", "v1", "Deployment", "ephemeralcontainers", false},
		{"extensions", "v1", "Deployment", "", false},
		{"pkg.crossplane.io", "v1beta1", "Function", "", true},
		{"pkg.crossplane.io", "v1", "DeploymentRuntimeConfig", "", false},
		{"", "v1", "ConfigMap", "", false},
	} {
		row, ok := catalog.Lookup(test.group, test.version, test.kind, test.subresource)
		if ok != test.want || ok != (row != nil) {
			t.Errorf("Lookup(%q, %q, %q, %q) = %v, %t, want %t",
				test.group, test.version, test.kind, test.subresource, row, ok, test.want)
		}
	}
}

func TestRules(t *testing.T) {
	type rule struct{ Groups, Versions, Resources []string }
	summarise := func(rules []admissionregistrationv1.RuleWithOperations) []rule {
		var out []rule
		for _, r := range rules {
			want := []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update}
			if !slices.Equal(r.Operations, want) || *r.Scope != admissionregistrationv1.AllScopes {
				t.Errorf("operations %v, scope %v", r.Operations, *r.Scope)
			}
			out = append(out, rule{r.APIGroups, r.APIVersions, r.Resources})
		}
		return out
	}
	catalog := load(t)
	pods := []string{"pods", "pods/ephemeralcontainers"}
	want := []rule{
		{[]string{""}, []string{"v1"}, []string{pods[0], pods[1], "podtemplates", "replicationcontrollers"}},
		{[]string{"apps"}, []string{"v1"}, []string{"daemonsets", "deployments", "replicasets", "statefulsets"}},
		{[]string{"batch"}, []string{"v1"}, []string{"cronjobs", "jobs"}},
		{[]string{"pkg.crossplane.io"}, []string{"v1", "v1beta1"}, []string{
			"configurationrevisions", "configurations", "functionrevisions", "functions", "providerrevisions", "providers",
		}},
		{[]string{"pkg.crossplane.io"}, []string{"v1beta1"}, []string{"deploymentruntimeconfigs"}},
	}
	if diff := cmp.Diff(want, summarise(catalog.Rules())); diff != "" {
		t.Errorf("Rules (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]rule{{[]string{""}, []string{"v1"}, pods}}, summarise(catalog.MutatingRules())); diff != "" {
		t.Errorf("MutatingRules (-want +got):\n%s", diff)
	}
}

// validRow is a row of a kind that the catalog does not have; each case of TestBadRows breaks one thing of it.
const validRow = `rows:
- group: example.com
  versions: [v1alpha1]
  kinds:
  - {kind: Widget, resource: widgets}
  images: [spec.image, "spec.steps[].image"]
  podSpecs: [spec.template.spec]
  pullSecrets: [spec.secret.name]
  placeholders: ['\$\([a-z.]+\)']
  written: Plain
  blank: Skip
  pinned: false
  decides: Later
  floating: Deny
  secretNamespace: Own
`

func TestExtraRow(t *testing.T) {
	row := lookup(t, load(t, validRow), "example.com", "v1alpha1", "Widget")
	found, err := row.Find([]byte(`{"spec":{"image":"a","steps":[{"image":"$(params.image)"}],"secret":{"name":"s"},
		"template":{"spec":{"containers":[{"name":"c","image":"b"}],"serviceAccountName":"sa",
		"imagePullSecrets":[{"name":"p"}]}}}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"spec.template.spec.containers[0].image=b ", "spec.image=a ", "spec.steps[0].image=$(params.image) placeholder",
	}
	if diff := cmp.Diff(want, describe(found.Images)); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	if row.Floating != webhook.FloatingDeny || found.ServiceAccountName != "sa" || !slices.Equal(found.PullSecrets, []string{"p", "s"}) {
		t.Errorf("row %+v, found %+v", row, found)
	}
	if last := load(t, validRow).Rules(); !slices.Equal(last[len(last)-1].Resources, []string{"widgets"}) {
		t.Errorf("rules %+v", last)
	}
}

// describe prints images as path=written and why they are skipped.
func describe(images []webhook.Image) []string {
	var out []string
	for _, image := range images {
		out = append(out, image.Path()+"="+image.Written+" "+string(image.Skip))
	}
	return out
}

// TestPlaceholders: what could be a reference is judged, however broad an expression is.
func TestPlaceholders(t *testing.T) {
	row := lookup(t, load(t, strings.ReplaceAll(validRow, `\$\([a-z.]+\)`, `.*`)), "example.com", "v1alpha1", "Widget")
	for written, want := range map[string]webhook.Skip{
		"nginx":                webhook.SkipNone,
		"[::1]:5000/a/b:1@x:y": webhook.SkipNone,
		"{{image}}":            webhook.SkipPlaceholder,
		"a/$(tag)":             webhook.SkipPlaceholder,
		"  ":                   webhook.SkipBlank,
	} {
		found, err := row.Find([]byte(`{"spec":{"image":"` + written + `"}}`))
		if err != nil || len(found.Images) != 1 || found.Images[0].Skip != want {
			t.Errorf("%q: %+v, %v, want %q", written, found.Images, err, want)
		}
	}
}

func TestBadRows(t *testing.T) {
	type change struct{ name, old, new, want string }
	for _, test := range []change{
		{"unknown field", "pinned:", "pined:", `rows[0]: unknown field "pined"`},
		{"field in other case", "images:", "Images:", `rows[0]: unknown field "Images"`},
		{"duplicate field", "pinned: false", "pinned: false\n  pinned: true", `"pinned" already set`},
		{"unknown top-level field", "rows:", "row:", `unknown field "row"`},
		{"unknown field of a kind", "resource: widgets", "resource: widgets, plural: w", `unknown field "kinds[0].plural"`},
		{"second document", "rows:", "rows: []\n---\nrows:", "more than one YAML document"},
		{"not YAML", "rows:", "rows: [", "parsing YAML"},
		{"wrong type", "versions: [v1alpha1]", "versions: v1alpha1", "rows[0]: json: cannot unmarshal string"},
		{"no group", "group: example.com\n  versions", "versions", "group: missing"},
		{"group with wildcard", "group: example.com", "group: '*'", `kind Widget.*: group: "*" does not match`},
		{"no kinds", "- {kind: Widget, resource: widgets}", "[]", "kinds: empty"},
		{"kind in lower case", "kind: Widget", "kind: widget", `kind: "widget" does not match`},
		{"resource with subresource", "resource: widgets", "resource: widgets/status", `resource: "widgets/status" does not match`},
		{"no versions", "versions: [v1alpha1]", "versions: []", "versions: empty"},
		{"any version", "versions: [v1alpha1]", "versions: ['*']", `versions: "*" does not match`},
		{"version twice", "versions: [v1alpha1]", "versions: [v1, v1]", `versions: "v1" is listed twice`},
		{"any subresource", "placeholders:", "subresources: ['*']\n  placeholders:", `subresources: "*" does not match`},
		{"status", "placeholders:", "subresources: [status]\n  placeholders:", `subresources: "status" holds no image`},
		{"unknown way of writing", "written: Plain", "written: OCI", `written: unknown value "OCI"`},
		{"unknown blank", "blank: Skip", "blank: Allow", `blank: unknown value "Allow"`},
		{"no decides", "decides: Later\n", "\n", "decides: missing"},
		{"unknown decides", "decides: Later", "decides: later", `decides: unknown value "later"`},
		{"unknown floating", "floating: Deny", "floating: Allow", `floating: unknown value "Allow"`},
		{"unknown namespace", "secretNamespace: Own", "secretNamespace: default", `secretNamespace: unknown value "default"`},
		{"placeholders that decide here", "decides: Later", "decides: Here", "placeholders: only for kinds that decide Later"},
		{"bad expression", `\$\([a-z.]+\)`, `\$(`, "kind Widget.example.com: placeholders: error parsing regexp"},
		{"nothing to examine", "images: [spec.image, \"spec.steps[].image\"]\n  podSpecs: [spec.template.spec]\n", "\n", "images, podSpecs: both empty"},
		{"empty path", "[spec.image,", "['',", `path "": "" is not a name`},
		{"empty segment", "[spec.image,", "[spec..image,", `path "spec..image": "" is not a name`},
		{"index in path", "steps[].image", "steps[0].image", `path "spec.steps[0].image": "steps[0]" is not a name`},
		{"path of pointer", "[spec.image,", "[/spec/image,", `path "/spec/image"`},
		{"wildcard", "[spec.image,", "['spec.*',", `path "spec.*": "*" is not a name`},
		{"too many lists", "steps[].image", "steps[][][][][].image", "more than 4 lists"},
		{"path twice", "[spec.image,", "[spec.image, spec.image,", `path "spec.image": listed twice`},
		{"path through a leaf", "[spec.image,", "[spec.image, spec.image.name,", `path "spec.image.name": another path`},
		{"path ends inside", "[spec.image,", "[spec.template,", `path "spec.template": another path`},
		{"list and object", "[spec.image,", "[spec.steps.image,", `another path`},
		{"secret at image", "pullSecrets: [spec.secret.name]", "pullSecrets: [spec.image]", `path "spec.image": listed twice`},
		{"resource of another kind", "kind: Widget, resource: widgets", "kind: Widget, resource: widgets}\n  - {kind: Gadget, resource: widgets", `both name the resource "widgets"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.Count(validRow, test.old) == 0 {
				t.Fatalf("the valid row has no %q", test.old)
			}
			doc := strings.Replace(validRow, test.old, test.new, 1)
			if test.name == "no kinds" {
				doc = strings.Replace(validRow, "kinds:\n  "+test.old, "kinds: []", 1)
			}
			_, err := webhook.LoadCatalog([]byte(doc))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q", err, test.want)
			}
		})
	}
}

// TestExtendingRows: an extra row of a known kind adds to it and never takes away.
func TestExtendingRows(t *testing.T) {
	const head = "rows: [{group: '', versions: [v1], kinds: [{kind: Pod, resource: pods}]"
	const laterHead = "rows: [{group: apps, versions: [v1], kinds: [{kind: Deployment, resource: deployments}]"
	for _, test := range []struct{ name, doc, want string }{
		{"nothing", head + "}]", ""},
		{"the same settings", head + ", pinned: true, decides: Here, floating: Warn, blank: Examine, written: Plain}]", ""},
		{"a path", head + ", images: [spec.extra.image]}]", ""},
		{"a version", "rows: [{group: '', versions: [v2], kinds: [{kind: Pod, resource: pods}]}]", ""},
		{"stricter", laterHead + ", decides: Here, floating: Deny, blank: Examine}]", ""},
		{"not pinned", head + ", pinned: false}]", "pinned: is true, cannot become false"},
		{"pinned", laterHead + ", pinned: true}]", "pinned: is false, cannot become true"},
		{"later", head + ", decides: Later}]", `decides: is "Here", cannot become "Later"`},
		{"blank", head + ", blank: Skip}]", `blank: is "Examine", cannot become "Skip"`},
		{"placeholders", laterHead + ", placeholders: [x]}]", "placeholders: cannot be added"},
		{"namespace", head + ", secretNamespace: Crossplane}]", `secretNamespace: is "Own", cannot become "Crossplane"`},
		{"written", head + ", written: Other}]", `written: is "Plain", cannot become "Other"`},
		{"resource", strings.Replace(head, "resource: pods", "resource: podz", 1) + "}]", `resource: is "pods", cannot become "podz"`},
		{"a known path", head + ", images: ['spec.containers[].image']}]", "listed twice"},
		{"a path that ends at the containers", head + ", images: [spec.containers]}]", "another path"},
		{"a path that makes the list an object", head + ", images: [spec.containers.image]}]", "another path"},
		{"the name of containers", head + ", images: ['spec.containers[].name']}]", "path spec.containers[].name: is read as the name"},
		{"another kind of that resource", "rows: [{group: '', versions: [v1], kinds: [{kind: Pood, resource: pods}], images: [x], decides: Later}]", `both name the resource "pods"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			catalog, err := webhook.LoadCatalog([]byte(test.doc))
			if test.want != "" {
				if err == nil || !strings.Contains(err.Error(), test.want) {
					t.Fatalf("error %v, want %q", err, test.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, before := range load(t).Rows() {
				after := lookup(t, catalog, before.Group, before.Versions[0], before.Kind)
				for _, path := range before.Images {
					if !slices.Contains(after.Images, path) {
						t.Errorf("%s: lost path %q", before.Kind, path)
					}
				}
				if after.Pinned != before.Pinned || before.Decides == webhook.DecidesHere && after.Decides != before.Decides {
					t.Errorf("%s: %+v became %+v", before.Kind, before, after)
				}
			}
			found, err := lookup(t, catalog, "", "v1", "Pod").Find([]byte(`{"spec":{"containers":[{"image":"a"}],"extra":{"image":"b"}}}`))
			if err != nil || !slices.Contains(describe(found.Images), "spec.containers[0].image=a ") {
				t.Errorf("Pod: found %v, %v", describe(found.Images), err)
			}
			if test.name == "a path" && !slices.Contains(describe(found.Images), "spec.extra.image=b ") {
				t.Errorf("Pod: found %v", describe(found.Images))
			}
		})
	}
	// Two rows of extra documents for one kind of theirs: the second extends the first.
	if _, err := webhook.LoadCatalog([]byte(validRow), []byte(strings.Replace(validRow, "blank: Skip", "images: []", 1))); err == nil {
		t.Error("a second row of an extra kind took the place of the first")
	}
}

func TestNoExtraRows(t *testing.T) {
	if got, want := len(load(t, "", "rows: []", "{}").Rows()), len(load(t).Rows()); got != want {
		t.Errorf("%d rows, want %d", got, want)
	}
}
