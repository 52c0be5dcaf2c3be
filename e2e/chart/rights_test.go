// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package chart_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// rights are those of the roles among the objects: where, and one verb on one
// resource, each on its own.
func rights(t *testing.T, all []*unstructured.Unstructured, skip func(*unstructured.Unstructured) bool) []string {
	t.Helper()
	var lines []string
	for _, object := range all {
		if kind := object.GetKind(); kind != "Role" && kind != "ClusterRole" || skip(object) {
			continue
		}
		var role rbacv1.ClusterRole // a Role has the same fields
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &role); err != nil {
			t.Fatal(err)
		}
		for _, rule := range role.Rules {
			lines = append(lines, lineByLine(role.Name+" in "+role.Namespace, rule)...)
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func lineByLine(where string, rule rbacv1.PolicyRule) []string {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{"*"}
	}
	var lines []string
	for _, group := range rule.APIGroups {
		for _, resource := range rule.Resources {
			for _, name := range names {
				for _, verb := range rule.Verbs {
					lines = append(lines, strings.Join([]string{where, verb, resource + "." + group, name}, " "))
				}
			}
		}
	}
	return lines
}

// TestRights: the chart grants what deploy/rbac does, for which a test compares
// it with what the API server was asked for, under the same names.
func TestRights(t *testing.T) {
	t.Parallel()
	var wanted []*unstructured.Unstructured
	for _, file := range []string{"role.yaml", "webhooks-role.yaml", "crossplane.yaml", "policy-controller.yaml", "inject.yaml"} {
		wanted = append(wanted, objects(t, read(t, "deploy", "rbac", file))...)
	}
	hook := func(o *unstructured.Unstructured) bool { return o.GetAnnotations()["helm.sh/hook"] != "" }
	got := objects(t, rendered(t, "--set", "crossplane.readSecrets=true,policyController.readObjects=true,inject.everywhere=true"))
	none := func(*unstructured.Unstructured) bool { return false }
	if diff := cmp.Diff(rights(t, wanted, none), rights(t, got, hook)); diff != "" {
		t.Errorf("deploy/rbac and the chart: %s", diff)
	}
	// Uninstalling never arms again.
	want := slices.DeleteFunc(rights(t, objects(t, read(t, "deploy", "rbac", "disarm.yaml")), none), func(line string) bool {
		return strings.Contains(line, " delete configmaps.")
	})
	if diff := cmp.Diff(want, rights(t, got, func(o *unstructured.Unstructured) bool { return !hook(o) })); diff != "" {
		t.Errorf("disarm.yaml of both: %s", diff)
	}
}
