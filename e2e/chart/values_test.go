// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// open are the values that are taken whatever is in them: Kubernetes, or Pratique
// itself, refuses what it does not know there. Everything else has only the
// names that the schema knows.
var open = []string{
	".affinity.nodeAffinity", ".affinity.podAffinity", ".affinity.podAntiAffinity",
	".containersPolicy.policy", ".containersPolicy.registriesD.*", ".global",
	".networkPolicy.egress[].ports[]", ".networkPolicy.egress[].to[]",
	".networkPolicy.metricsFrom[].ipBlock", ".networkPolicy.metricsFrom[].namespaceSelector", ".networkPolicy.metricsFrom[].podSelector",
}

// schema is a JSON schema, as far as it is used.
type schema struct {
	Ref         string             `json:"$ref"`
	Definitions map[string]*schema `json:"definitions"`
	Type        any                `json:"type"`
	Properties  map[string]*schema `json:"properties"`
	// Additional is false, or the schema of what else may be there.
	Additional any     `json:"additionalProperties"`
	Items      *schema `json:"items"`
}

// walk calls visit for the schema and all in it.
func (s *schema) walk(root *schema, at string, visit func(at string, s *schema)) {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		s = root.Definitions[name]
	}
	visit(at, s)
	for name, property := range s.Properties {
		property.walk(root, at+"."+name, visit)
	}
	if s.Items != nil {
		s.Items.walk(root, at+"[]", visit)
	}
	if more, ok := s.Additional.(map[string]any); ok && more["type"] == "object" {
		visit(at+".*", &schema{Type: "object", Additional: more["additionalProperties"]})
	}
}

// TestNothingUnknown: the schema closes every object, and knows what values.yaml
// has and nothing else, so that every value is documented there.
func TestNothingUnknown(t *testing.T) {
	t.Parallel()
	var root schema
	decode(t, read(t, "charts", "pratique", "values.schema.json"), &root)
	var values map[string]any
	decode(t, read(t, "charts", "pratique", "values.yaml"), &values)
	var opened []string
	root.walk(&root, "", func(at string, s *schema) {
		if s.Type == "object" && s.Additional == nil {
			opened = append(opened, at)
		}
		if strings.HasPrefix(at, ".resources.") {
			return // Kubernetes' names, of which values.yaml has some
		}
		value, ok := find(values, at)
		if object, is := value.(map[string]any); ok && is && len(object) > 0 {
			known, set := slices.Sorted(maps.Keys(s.Properties)), slices.Sorted(maps.Keys(object))
			if diff := cmp.Diff(known, set); diff != "" {
				t.Errorf("what the schema knows of %q and values.yaml has: %s", at, diff)
			}
		}
	})
	slices.Sort(opened)
	if diff := cmp.Diff(open, opened); diff != "" {
		t.Errorf("open objects: %s", diff)
	}
}

// find returns the value at a path such as .image.tag.
func find(values map[string]any, at string) (any, bool) {
	var value any = values
	for _, name := range strings.Split(at, ".")[1:] {
		object, ok := value.(map[string]any)
		if !ok {
			return nil, false
		}
		if value, ok = object[name]; !ok {
			return nil, false
		}
	}
	return value, true
}

// TestGitOpsExamples: what the examples set, the chart takes.
func TestGitOpsExamples(t *testing.T) {
	t.Parallel()
	for file, fields := range map[string][]string{
		"argocd.yaml": {"spec", "source", "helm", "valuesObject"}, "flux.yaml": {"spec", "values"},
	} {
		all := objects(t, read(t, "examples", "gitops", file))
		values, found, err := unstructured.NestedMap(all[len(all)-1].Object, fields...)
		if err != nil || !found {
			t.Fatalf("%s: no values, %v", file, err)
		}
		raw, err := json.Marshal(values)
		if err != nil {
			t.Fatal(err)
		}
		into := filepath.Join(t.TempDir(), "values.json")
		if err := os.WriteFile(into, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if mode := config(t, "--values", into)["mode"]; mode != "Audit" {
			t.Errorf("%s: the mode is %v", file, mode)
		}
	}
}

// decided are flags that no value sets: the ports and files are the chart's, the
// rules are the cluster's.
var decided = []string{"bind-address", "ca-bundle-file", "config", "health-address", "help", "metrics-address", "policies"}

// TestEveryFlag: what pratique serve can be told, the chart can tell it, and
// nothing that it cannot be told.
func TestEveryFlag(t *testing.T) {
	t.Parallel()
	help, err := exec.CommandContext(t.Context(), path(t, "bin", "pratique"), "serve", "--help").Output()
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for _, match := range regexp.MustCompile(`(?m)^ +(?:-\w, | {4})--([a-z-]+)`).FindAllStringSubmatch(string(help), -1) {
		flags = append(flags, match[1])
	}
	slices.Sort(flags)
	told := slices.Clone(decided)
	for _, args := range [][]string{nil, full(t)} {
		told = append(told, slices.Collect(maps.Keys(config(t, args...)))...)
	}
	slices.Sort(told)
	told = slices.DeleteFunc(slices.Compact(told), func(s string) bool { return s == "catalog" })
	if diff := cmp.Diff(flags, told); diff != "" {
		t.Errorf("flags and what the chart sets: %s", diff)
	}
}

// config is the configuration file that the chart makes.
func config(t *testing.T, args ...string) map[string]any {
	t.Helper()
	var flags map[string]any
	decode(t, configFile(t, args...), &flags)
	return flags
}

func configFile(t *testing.T, args ...string) string {
	t.Helper()
	for _, object := range objects(t, rendered(t, args...)) {
		if object.GetKind() == "ConfigMap" && object.GetName() == release {
			data, _ := object.Object["data"].(map[string]any)
			return fmt.Sprint(data["config.yaml"])
		}
	}
	t.Fatal("there is no ConfigMap")
	return ""
}

// TestServerTakesTheConfiguration: what pratique serve says of the files that the
// chart makes is about what is not here, a cluster or the mounted files.
func TestServerTakesTheConfiguration(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"defaults": {nil, "KUBECONFIG"},
		"all":      {full(t), "/etc/pratique/"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(file, []byte(configFile(t, test.args...)), 0o600); err != nil {
				t.Fatal(err)
			}
			command := exec.CommandContext(t.Context(), path(t, "bin", "pratique"), "serve", "--config="+file,
				"--bind-address=127.0.0.1:0", "--health-address=0", "--metrics-address=0")
			command.Env = []string{"HOME=" + t.TempDir(), "KUBECONFIG=" + filepath.Join(t.TempDir(), "KUBECONFIG")}
			output, err := command.CombinedOutput()
			if err == nil || strings.Contains(string(output), "config.yaml") || !strings.Contains(string(output), test.want) {
				t.Errorf("%v: %s", err, output)
			}
		})
	}
}
