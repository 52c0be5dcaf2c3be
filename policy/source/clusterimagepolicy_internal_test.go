// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pc "github.com/sigstore/policy-controller/pkg/apis/policy/v1alpha1"
	"github.com/sigstore/policy-controller/pkg/apis/policy/v1beta1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/testing/ca"
	"github.com/sigstore/sigstore/pkg/cryptoutils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// fields are the names that a type has in JSON, with all that is below them.
func fields(of reflect.Type, path string, into map[string]bool) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice {
		of = of.Elem()
	}
	if of.Kind() != reflect.Struct || !strings.Contains(of.PkgPath(), "policy-controller") {
		into[path+" "+of.String()] = true
		return
	}
	for field := range of.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		fields(field.Type, path+"."+name, into)
	}
}

// TestVersionsOfClusterImagePolicies: both are read into the types of one.
func TestVersionsOfClusterImagePolicies(t *testing.T) {
	t.Parallel()
	one, other := map[string]bool{}, map[string]bool{}
	fields(reflect.TypeFor[pc.ClusterImagePolicySpec](), "spec", one)
	fields(reflect.TypeFor[v1beta1.ClusterImagePolicySpec](), "spec", other)
	if len(one) < 40 || !maps.Equal(one, other) {
		t.Errorf("%q\n%q", slices.Sorted(maps.Keys(one)), slices.Sorted(maps.Keys(other)))
	}
}

const (
	policiesPath   = "/apis/policy.sigstore.dev/v1alpha1/clusterimagepolicies"
	newPolicies    = "/apis/policy.sigstore.dev/v1beta1/clusterimagepolicies"
	rootsPath      = "/apis/policy.sigstore.dev/v1alpha1/trustroots"
	cosignSecrets  = "/api/v1/namespaces/cosign-system/secrets"
	cosignTexts    = "/api/v1/namespaces/cosign-system/configmaps"
	policiesServed = "policy.sigstore.dev/v1alpha1"
)

func clusterPolicy(name string) map[string]any {
	return map[string]any{
		"apiVersion": "policy.sigstore.dev/v1alpha1", "kind": "ClusterImagePolicy", "metadata": map[string]any{"name": name, "uid": name, "generation": 1},
		"spec": map[string]any{
			"images":      []any{map[string]any{"glob": "**"}},
			"authorities": []any{map[string]any{"key": map[string]any{"secretRef": map[string]any{"name": "keys"}}}},
		},
	}
}

func (k *kubernetes) servesPolicies() {
	resources := []metav1.APIResource{{Name: "clusterimagepolicies", Kind: "ClusterImagePolicy"}, {Name: "trustroots", Kind: "TrustRoot"}}
	k.set(func() {
		k.served[policiesServed] = resources
		k.served["policy.sigstore.dev/v1beta1"] = resources[:1]
	})
}

// TestClusterPolicies: policy-controller's kinds appear and disappear while the
// server runs, and their settings and keys change.
func TestClusterPolicies(t *testing.T) {
	t.Parallel()
	k := newKubernetes(t)
	text := func(value string) []any {
		return []any{map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": policyControllerConfig, "namespace": "cosign-system", "resourceVersion": value},
			"data": map[string]any{noMatchPolicy: value},
		}}
	}
	k.set(func() {
		k.objects[policiesPath], k.objects[rootsPath] = []any{clusterPolicy("a")}, []any{}
		k.objects[cosignSecrets], k.objects[cosignTexts] = []any{}, text("allow")
		// What is stored in another version needs a webhook that is gone.
		k.refuse[newPolicies] = http.StatusInternalServerError
	})
	c := newTestCluster(t, &apiServer{configs: []unstructured.Unstructured{}})
	c.compiler.PolicyController.Namespace = "cosign-system"
	c.policyController, c.changed = follow(t, k, policyControllerKinds("cosign-system"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	rules := func() (all []string) {
		if c.compiled.Load() != nil {
			for _, one := range *c.compiled.Load() {
				all = append(all, fmt.Sprintf("%s %s %t", one.Rule.Kind, one.Rule.Mode, one.Ready))
			}
		}
		return all
	}
	eventually(t, "nothing is in force, as nothing is served", func() bool { return c.Set() != nil && len(rules()) == 0 && c.Ready() == nil })
	k.servesPolicies()
	eventually(t, "the policy is held for want of its key", func() bool { return slices.Equal(rules(), []string{"ClusterImagePolicy Enforce false"}) })
	k.set(func() {
		k.objects[cosignSecrets] = []any{map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "keys", "namespace": "cosign-system", "resourceVersion": "1"},
			"data": map[string]any{"cosign.pub": []byte(strings.ReplaceAll(keyOne, `\n`, "\n"))},
		}}
	})
	eventually(t, "it is in force", func() bool { return slices.Equal(rules(), []string{"ClusterImagePolicy Enforce true"}) })
	k.set(func() { k.objects[cosignTexts] = text("warn") })
	eventually(t, "what none matches is warned of", func() bool {
		return slices.Equal(rules(), []string{"ClusterImagePolicy Enforce true", "ConfigMap Audit true"})
	})
	k.set(func() { k.objects[cosignTexts] = []any{} })
	eventually(t, "what none matches is refused", func() bool {
		return slices.Equal(rules(), []string{"ClusterImagePolicy Enforce true", "ConfigMap Enforce true"})
	})
	if len(*c.statuses.compiled.Load()) != 0 {
		t.Error("statuses are written of what is not ours")
	}
	k.set(func() { clear(k.served) })
	eventually(t, "nothing is in force any more", func() bool { return len(rules()) == 0 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if k.count(newPolicies) != 0 {
		t.Error("the version that is not stored was asked for")
	}
}

// TestLogsOfTrustRoots: sigstore-go counts no entry of a log whose key is not said
// to be good from some time on, and a TrustRoot says nothing of that.
func TestLogsOfTrustRoots(t *testing.T) {
	t.Parallel()
	sigstore, err := ca.NewVirtualSigstore()
	if err != nil {
		t.Fatal(err)
	}
	var list []pc.TransparencyLogInstance
	for _, log := range sigstore.RekorLogs() {
		text, err := cryptoutils.MarshalPublicKeyToPEM(log.PublicKey)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, pc.TransparencyLogInstance{HashAlgorithm: "sha-256", PublicKey: text})
	}
	made, err := sigstoreKeys(&pc.SigstoreKeys{TLogs: list, CTLogs: list})
	if err != nil {
		t.Fatal(err)
	}
	for what, logs := range map[string]map[string]*root.TransparencyLog{"tLogs": made.Material.RekorLogs(), "ctLogs": made.Material.CTLogs()} {
		if len(logs) != 1 {
			t.Errorf("%s: %d logs", what, len(logs))
		}
		for _, log := range logs {
			if start := log.ValidityPeriodStart; start.IsZero() || start.After(time.Unix(0, 0)) {
				t.Errorf("%s: good from %s", what, start)
			}
		}
	}
}
