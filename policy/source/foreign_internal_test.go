// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/policy/language"
)

// keyObject is an ImageConfig whose key is in the Secret that kms names.
func keyObject(name, kms string) unstructured.Unstructured {
	object := configObject(name)
	object.Object["spec"].(map[string]any)["verification"] = map[string]any{
		"provider": "Cosign", "cosign": map[string]any{"authorities": []any{
			map[string]any{"name": "a", "key": map[string]any{"kms": kms}},
		}},
	}
	return object
}

func keySecret(t *testing.T, quoted string) *corev1.Secret {
	t.Helper()
	return &corev1.Secret{Data: map[string][]byte{
		"cosign.pub": []byte(unquoted(t, quoted)), "cosign.key": []byte("hunter2"), "cosign.password": []byte("hunter2"),
	}}
}

// A key in a Secret of another namespace is asked for by name; a change is in
// force within a minute, and an API server that is away takes nothing away.
func TestClusterForeignKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		at := client.ObjectKey{Namespace: "acme-keys", Name: "release"}
		server := &apiServer{
			configs: []unstructured.Unstructured{keyObject("one", "k8s://acme-keys/release"), keyObject("two", "k8s://acme-keys/release")},
			secrets: map[client.ObjectKey]*corev1.Secret{at: keySecret(t, keyOne)},
		}
		c := newTestCluster(t, server)
		cancel, ended := start(t, c)
		state := func() string {
			one := (*c.compiled.Load())[0]
			return one.Reason + string(one.Rule.Verification.Hash[:])
		}
		before := state()
		if !strings.HasPrefix(before, v1alpha1.ReasonCompiled) || server.gets.Load() != 1 {
			t.Fatalf("%q, after %d questions", before, server.gets.Load())
		}
		synctest.Wait()
		for key, kept := range c.foreign.kept {
			if len(kept.secret.Data) != 1 || kept.secret.Data["cosign.pub"] == nil {
				t.Errorf("of %v more is kept than the public key", key)
			}
		}
		// Other changes do not ask again each time, nor put it off.
		for range 10 {
			time.Sleep(time.Second)
			c.again()
		}
		if n := server.gets.Load(); n != 1 {
			t.Errorf("asked %d times in 10 s", n)
		}
		server.change(func() { server.secrets[at] = keySecret(t, keyTwo) })
		time.Sleep(time.Minute)
		if state() == before {
			t.Error("after a minute the old key is still in force")
		}
		before = state()
		server.awayGets.Store(true)
		time.Sleep(keptWithout / 2)
		if state() != before {
			t.Errorf("the API server is away for a while: %s", (*c.compiled.Load())[0].Message)
		}
		time.Sleep(keptWithout)
		if reason := (*c.compiled.Load())[0].Reason; reason != v1alpha1.ReasonReadFailed {
			t.Errorf("the API server is away for long: %s", reason)
		}
		server.awayGets.Store(false)
		time.Sleep(time.Minute)
		if state() != before {
			t.Errorf("the API server is back: %s", (*c.compiled.Load())[0].Message)
		}
		server.change(func() { delete(server.secrets, at) })
		time.Sleep(time.Minute)
		if reason := (*c.compiled.Load())[0].Reason; reason != v1alpha1.ReasonSecretNotFound {
			t.Errorf("the Secret is gone: %s", reason)
		}
		// Nobody needs it any more.
		server.change(func() { server.configs = nil })
		c.again()
		time.Sleep(time.Minute)
		asked, compiled := server.gets.Load(), server.lists.Load()
		time.Sleep(time.Hour)
		synctest.Wait()
		if server.gets.Load() != asked || server.lists.Load() != compiled || len(c.foreign.kept) != 0 {
			t.Error("what no rule names is asked for")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A key in Pratique's own namespace is watched like its other Secrets.
func TestClusterOwnKey(t *testing.T) {
	t.Parallel()
	at := client.ObjectKey{Namespace: "pratique-system", Name: "release"}
	c := newTestCluster(t, &apiServer{
		configs: []unstructured.Unstructured{keyObject("one", "k8s://pratique-system/release")},
		secrets: map[client.ObjectKey]*corev1.Secret{at: keySecret(t, keyOne)},
	})
	c.direct = nil // is not asked
	if err := c.compile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if one := (*c.compiled.Load())[0]; !one.Ready || len(c.foreign.kept) != 0 {
		t.Errorf("compiled %+v", one)
	}
}

// ConfigMaps are those of Pratique's own namespace, read from the cache.
func TestClusterConfigMap(t *testing.T) {
	t.Parallel()
	object := configObject("acme")
	object.Object["spec"].(map[string]any)["verification"] = map[string]any{
		"provider": "Cosign", "cosign": map[string]any{"authorities": []any{map[string]any{
			"name": "a", "key": map[string]any{"data": unquoted(t, keyOne)},
			"attestations": []any{map[string]any{"name": "x", "predicateType": "custom", "policy": map[string]any{
				"type": "cel", "configMapRef": map[string]any{"name": "policies", "key": "k"},
			}}},
		}}},
	}
	elsewhere := client.ObjectKey{Namespace: "shop", Name: "policies"}
	policies := &corev1.ConfigMap{Data: map[string]string{"k": "true"}}
	server := &apiServer{
		configs:    []unstructured.Unstructured{object},
		configMaps: map[client.ObjectKey]*corev1.ConfigMap{elsewhere: policies},
	}
	c := newTestCluster(t, server)
	c.direct = nil // is not asked
	c.compiler.Check = func(language.Policy) error { return nil }
	c.compiler.Cosign.Evaluator = unasked{}
	reason := func() string {
		t.Helper()
		if err := c.compile(t.Context()); err != nil {
			t.Fatal(err)
		}
		return (*c.compiled.Load())[0].Reason
	}
	if got := reason(); got != v1alpha1.ReasonConfigMapNotFound {
		t.Errorf("another namespace's: %s", got)
	}
	server.configMaps[client.ObjectKey{Namespace: "pratique-system", Name: "policies"}] = policies
	if got := reason(); got != v1alpha1.ReasonCompiled {
		t.Errorf("our own: %s", (*c.compiled.Load())[0].Message)
	}
	server.awayGets.Store(true)
	if got := reason(); got != v1alpha1.ReasonReadFailed {
		t.Errorf("the cache fails: %s", got)
	}
}
