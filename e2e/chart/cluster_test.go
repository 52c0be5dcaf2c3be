// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"

	"github.com/pratique-dev/pratique/e2e/cluster"
)

// podsWithin bounds what the controllers of Deployments and ReplicaSets take.
const podsWithin = 30 * time.Second

// elsewhere are groups of APIs that this control plane does not serve: what the
// chart makes of them is rendered, and no API server looks at it here.
var elsewhere = []string{"cert-manager.io", "monitoring.coreos.com"}

type installed struct {
	*cluster.Cluster

	client *kubernetes.Clientset
}

func start(t *testing.T) *installed {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := kubernetes.NewForConfig(c.Config())
	if err != nil {
		t.Fatal(err)
	}
	return &installed{c, client}
}

// kubectl fails the test if kubectl fails.
func (i *installed) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	stdout, stderr, exit := i.Kubectl(t.Context(), args...)
	if exit != 0 {
		t.Fatalf("kubectl %s: exit code %d: %s%s", strings.Join(args, " "), exit, stdout, stderr)
	}
	return stdout
}

// TestRelease is the life of a release, as Helm leads it. There is no node:
// Pods are made and stay Pending.
func TestRelease(t *testing.T) {
	t.Parallel()
	i := start(t)
	chart := path(t, "charts", "pratique")
	i.kubectl(t, "create", "namespace", namespace)
	i.kubectl(t, "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")

	run(t, i.Kubeconfig, "install", release, chart, "--namespace", namespace)
	i.replicas(t, 3)
	i.steady(t)
	// The same again changes nothing; another mode, and back, does.
	before := i.template(t)
	run(t, i.Kubeconfig, "upgrade", release, chart, "--namespace", namespace)
	if after := i.template(t); after != before {
		t.Errorf("an upgrade to the same: %s, then %s", before, after)
	}
	run(t, i.Kubeconfig, "upgrade", release, chart, "--namespace", namespace, "--set", "mode=Audit")
	if i.template(t) == before {
		t.Error("an upgrade to another configuration makes no new replicas")
	}
	run(t, i.Kubeconfig, "rollback", release, "1", "--namespace", namespace)
	if after := i.template(t); after != before {
		t.Errorf("a rollback: %s, then %s", before, after)
	}
	i.steady(t)

	// Without its hook, which would need a node.
	run(t, i.Kubeconfig, "uninstall", release, "--namespace", namespace, "--no-hooks")
	i.kubectl(t, "get", "crd", "imageconfigs.pratique.dev")
	left := i.kubectl(t, "get", "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingwebhookconfigurations", "-o", "name")
	left += i.kubectl(t, "get", "deployments,services,serviceaccounts,roles,rolebindings,poddisruptionbudgets", "-o", "name", "-n", namespace)
	if strings.Contains(left, "/pratique") {
		t.Errorf("left behind: %s", left)
	}
	// The CRD that stayed is taken up again.
	run(t, i.Kubeconfig, "install", release, chart, "--namespace", namespace)
}

// replicas waits for Pods, which the API server refuses if they are not as Pod
// Security wants them.
func (i *installed) replicas(t *testing.T, want int) {
	t.Helper()
	got := 0
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, podsWithin, true, func(ctx context.Context) (bool, error) {
		pods, err := i.client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=pratique"})
		if err != nil {
			return false, err
		}
		got = len(pods.Items)
		return got == want, nil
	})
	if err != nil {
		events := i.kubectl(t, "get", "events", "-n", namespace)
		t.Fatalf("%d Pods, want %d: %v\n%s", got, want, err, events)
	}
}

// steady fails if what is in the cluster is not what the chart says: GitOps
// would call it drift.
func (i *installed) steady(t *testing.T) {
	t.Helper()
	if drift := i.Drift(t.Context(), rendered(t, "--no-hooks")); drift != "" {
		t.Errorf("drift: %s", drift)
	}
}

func (i *installed) template(t *testing.T) string {
	t.Helper()
	return i.kubectl(t, "get", "deployment", release, "-n", namespace, "-o", "jsonpath={.spec.template}")
}

// TestHooks: what the hooks' containers run, with the rights that the hooks grant
// and no others, works. There is no node to run them on, so they are run here.
func TestHooks(t *testing.T) {
	t.Parallel()
	i := start(t)
	i.kubectl(t, "create", "namespace", namespace)
	i.kubectl(t, "create", "namespace", "team")
	values := []string{"--set", "tests.namespace=team,tests.admitted=registry.example/good:v1"}
	// A CRD that somebody applied by hand becomes Helm's, as docs/operations.md says.
	i.kubectl(t, "apply", "--filename", path(t, "deploy", "crds"))
	run(t, i.Kubeconfig, append([]string{"install", release, path(t, "charts", "pratique"), "--namespace", namespace, "--take-ownership"}, values...)...)
	for _, object := range objects(t, rendered(t, values...)) {
		if kind := object.GetKind(); object.GetAnnotations()["helm.sh/hook"] == "" || kind == "Pod" || kind == "Job" {
			continue
		}
		raw, err := object.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		if _, stderr, exit := i.Apply(t.Context(), string(raw)); exit != 0 {
			t.Fatal(stderr)
		}
	}
	ran := map[string]string{}
	for _, object := range objects(t, rendered(t, values...)) {
		spec, found, _ := unstructured.NestedMap(object.Object, "spec", "template", "spec")
		if object.GetKind() == "Pod" {
			spec, found, _ = unstructured.NestedMap(object.Object, "spec")
		}
		if object.GetAnnotations()["helm.sh/hook"] == "" || !found {
			continue
		}
		ran[object.GetName()] = i.runAs(t, spec)
	}
	want := map[string]string{"pratique-disarm": "disarmed\n", "pratique-test-admitted": "Admitted  registry.example/good:v1\n"}
	if diff := cmp.Diff(want, ran); diff != "" {
		t.Error(diff)
	}
	if owner := i.kubectl(t, "get", "configmap", "pratique-disarmed", "-n", namespace, "-o", "jsonpath={.metadata.ownerReferences[0].kind}"); owner != "Deployment" {
		t.Errorf("the ConfigMap ends with %q", owner)
	}
}

// runAs runs what a Pod's container would, as its ServiceAccount, and returns what
// it printed.
func (i *installed) runAs(t *testing.T, spec map[string]any) string {
	t.Helper()
	containers, _, _ := unstructured.NestedSlice(spec, "containers")
	container, _ := containers[0].(map[string]any)
	args, _, _ := unstructured.NestedStringSlice(container, "args")
	token := strings.TrimSpace(i.kubectl(t, "create", "token", fmt.Sprint(spec["serviceAccountName"]), "-n", namespace))
	admins, err := os.ReadFile(i.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(own, admins, 0o600); err != nil {
		t.Fatal(err)
	}
	i.kubectl(t, "--kubeconfig", own, "config", "set-credentials", "hook", "--token="+token)
	i.kubectl(t, "--kubeconfig", own, "config", "set-context", "--current", "--user=hook")
	command := exec.CommandContext(t.Context(), path(t, "bin", "pratique"), args...)
	command.Env = append(os.Environ(), "KUBECONFIG="+own)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Errorf("pratique %s: %v", strings.Join(args, " "), err)
	}
	return string(output)
}

// TestAPIServerTakesAll: every object that the chart can make is one that the API
// server takes, and knows every field of.
func TestAPIServerTakesAll(t *testing.T) {
	t.Parallel()
	i := start(t)
	for _, name := range []string{namespace, "crossplane-system", "cosign-system"} {
		i.kubectl(t, "create", "namespace", name)
	}
	// A Pod of helm test is asked about too, and names it.
	i.kubectl(t, "create", "serviceaccount", release+"-test", "--namespace", namespace)
	schemas := i.schemas(t)
	for name, manifest := range map[string]string{
		"defaults": rendered(t), "everything": rendered(t, full(t)...), "install.yaml": read(t, "deploy", "install.yaml"),
	} {
		if name == "install.yaml" {
			// Its namespace is there already.
			if _, stderr, exit := i.Apply(t.Context(), manifest, "--server-side", "--force-conflicts", "--dry-run=server"); exit != 0 {
				t.Errorf("%s: %s", name, stderr)
			}
		}
		var known strings.Builder
		count := 0
		for _, object := range objects(t, manifest) {
			if group := object.GroupVersionKind().Group; group == elsewhere[0] || group == elsewhere[1] {
				continue
			}
			raw, err := json.Marshal(object)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&known, "---\n%s\n", raw)
			count++
		}
		if _, stderr, exit := i.Apply(t.Context(), known.String(), "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"); exit != 0 || strings.Contains(stderr, "Warning") {
			t.Errorf("%s: %s", name, stderr)
		}
		i.conform(t, conformed{name, known.String(), schemas, count})
	}
}

// conformed is what kubeconform is asked about.
type conformed struct {
	name, manifest, schemas string
	count                   int
}

// conform has kubeconform say that every object is as its kind's schema wants.
func (i *installed) conform(t *testing.T, c conformed) {
	t.Helper()
	command := exec.CommandContext(t.Context(), path(t, "bin", "kubeconform"), "-strict", "-summary", "-output=json",
		"-schema-location", filepath.Join(c.schemas, "{{.ResourceKind}}{{.KindSuffix}}.json"), "-")
	command.Stdin = strings.NewReader(c.manifest)
	output, err := command.CombinedOutput()
	var said struct {
		Summary struct{ Valid, Invalid, Errors, Skipped int }
	}
	if jsonErr := json.Unmarshal(output, &said); err != nil || jsonErr != nil || said.Summary.Valid != c.count {
		t.Errorf("%s: %d objects, kubeconform: %v: %s", c.name, c.count, err, output)
	}
}

// schemas writes a JSON schema for each kind that the API server serves, and
// returns the folder: what it publishes, closed to unknown names.
func (i *installed) schemas(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	paths, err := i.client.Discovery().OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for at, group := range paths {
		if !strings.HasPrefix(at, "api") {
			continue
		}
		raw, err := group.Schema("application/json")
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		var document struct {
			Components struct {
				Schemas map[string]map[string]any `json:"schemas"`
			} `json:"components"`
		}
		if err := json.Unmarshal(raw, &document); err != nil {
			t.Fatal(err)
		}
		for _, s := range document.Components.Schemas {
			if s["properties"] != nil && s["additionalProperties"] == nil {
				s["additionalProperties"] = false
			}
		}
		for name, s := range document.Components.Schemas {
			for _, kind := range kinds(s) {
				writeSchema(t, filepath.Join(dir, kind+".json"), name, document.Components.Schemas)
			}
		}
	}
	return dir
}

// kinds are those that a schema is of, as kubeconform looks for them.
func kinds(s map[string]any) []string {
	list, _ := s["x-kubernetes-group-version-kind"].([]any)
	var names []string
	for _, item := range list {
		gvk, _ := item.(map[string]any)
		parts := []any{gvk["kind"], gvk["version"]}
		if group, _, _ := strings.Cut(fmt.Sprint(gvk["group"]), "."); group != "" {
			parts = []any{gvk["kind"], group, gvk["version"]}
		}
		names = append(names, strings.ToLower(strings.Trim(strings.ReplaceAll(fmt.Sprint(parts), " ", "-"), "[]")))
	}
	return names
}

func writeSchema(t *testing.T, file, name string, all map[string]map[string]any) {
	t.Helper()
	raw, err := json.Marshal(map[string]any{"$ref": "#/components/schemas/" + name, "components": map[string]any{"schemas": all}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}
