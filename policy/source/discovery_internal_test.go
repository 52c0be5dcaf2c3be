// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
)

// kubernetes serves lists of a few resources, as an API server does.
type kubernetes struct {
	*httptest.Server

	mu       sync.Mutex
	served   map[string][]metav1.APIResource // by group and version
	objects  map[string][]any                // by the path of the list
	refuse   map[string]int                  // a code, by path
	asked    map[string]int                  // how often, by path
	changed  chan struct{}                   // closed on each change
	revision int
}

const (
	configsPath   = "/apis/pkg.crossplane.io/v1beta1/imageconfigs"
	secretsPath   = "/api/v1/namespaces/crossplane-system/secrets"
	groupPath     = "/apis/pkg.crossplane.io/v1beta1"
	unimportant   = "functions"
	discoveredVia = "pkg.crossplane.io/v1beta1"
)

func newKubernetes(t *testing.T) *kubernetes {
	t.Helper()
	k := &kubernetes{
		served: map[string][]metav1.APIResource{}, objects: map[string][]any{}, refuse: map[string]int{}, asked: map[string]int{},
		changed: make(chan struct{}), revision: 1,
	}
	k.Server = httptest.NewServer(k)
	t.Cleanup(k.Close)
	t.Cleanup(k.CloseClientConnections)
	return k
}

func (k *kubernetes) set(change func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	change()
	k.revision++
	close(k.changed)
	k.changed = make(chan struct{})
}

func (k *kubernetes) serves(version string, kinds ...string) {
	k.set(func() {
		resources := []metav1.APIResource{{Name: unimportant, Kind: "Function"}, {Name: "imageconfigs/status", Kind: "ImageConfig"}}
		for _, kind := range kinds {
			resources = append(resources, metav1.APIResource{Name: strings.ToLower(kind) + "s", Kind: kind})
		}
		k.served[version] = resources
	})
}

func (k *kubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	path := r.URL.Path
	watch := r.URL.Query().Get("watch") != ""
	if !watch {
		k.asked[path]++
	}
	w.Header().Set("Content-Type", "application/json")
	write := func(code int, object any) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(object)
	}
	status := func(code int, reason metav1.StatusReason) {
		write(code, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: reason, Code: int32(code), Message: "no: " + path})
	}
	resources, discovers := k.served[strings.TrimPrefix(path, "/apis/")]
	switch objects, found := k.objects[path]; {
	case k.refuse[path] == http.StatusForbidden:
		status(http.StatusForbidden, metav1.StatusReasonForbidden)
	case k.refuse[path] != 0:
		status(k.refuse[path], metav1.StatusReasonInternalError)
	case discovers:
		write(http.StatusOK, metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: path, APIResources: resources})
	case !found:
		status(http.StatusNotFound, metav1.StatusReasonNotFound)
	case watch && r.URL.Query().Get("sendInitialEvents") != "":
		status(http.StatusBadRequest, metav1.StatusReasonInvalid) // an older one
	case watch:
		k.watch(w, r)
	default:
		kind := "List"
		switch {
		case strings.HasSuffix(path, "/secrets"):
			kind = "SecretList"
		case strings.HasSuffix(path, "/configmaps"):
			kind = "ConfigMapList"
		}
		write(http.StatusOK, map[string]any{
			"apiVersion": "v1", "kind": kind, "items": objects, "metadata": map[string]any{"resourceVersion": fmt.Sprint(k.revision)},
		})
	}
}

// watch ends at the next change: whoever watches lists again.
func (k *kubernetes) watch(w http.ResponseWriter, r *http.Request) {
	revision := r.URL.Query().Get("resourceVersion")
	if revision == fmt.Sprint(k.revision) {
		changed := k.changed
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		k.mu.Unlock()
		select {
		case <-changed:
		case <-r.Context().Done():
		}
		k.mu.Lock()
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Code: http.StatusGone, Reason: metav1.StatusReasonExpired,
	}})
}

func (k *kubernetes) count(path string) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.asked[path]
}

func foreignConfig(version, name string) map[string]any {
	return map[string]any{
		"apiVersion": "pkg.crossplane.io/" + version, "kind": "ImageConfig", "metadata": map[string]any{"name": name, "uid": name, "generation": 1},
		"spec": map[string]any{"matchImages": []any{map[string]any{"prefix": "a.io/"}}},
	}
}

func foreignSecret(name string) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": name, "namespace": "crossplane-system", "resourceVersion": "1"}}
}

// follow makes a follower, which has not looked yet.
func follow(t *testing.T, k *kubernetes, group otherGroup) (*follower, chan struct{}) {
	t.Helper()
	api, err := newAPIAccess(&rest.Config{Host: k.URL}, k.Client(), nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := make(chan struct{}, 1)
	f := newFollower(group, api, func() { signal(changed) })
	t.Cleanup(f.running.Wait)
	t.Cleanup(f.stop)
	return f, changed
}

// eventually waits for what the API server makes happen.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func (f *follower) names(t *testing.T, kind string) []string {
	t.Helper()
	list, err := f.list(t.Context(), kind)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, object := range list {
		names = append(names, object.GetName())
	}
	slices.Sort(names)
	return names
}

func (f *follower) isRead() bool {
	select {
	case <-f.read:
		return true
	default:
		return false
	}
}

func look(t *testing.T, f *follower) {
	t.Helper()
	if err := f.look(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// A kind appears, changes and disappears while it is followed.
func TestFollower(t *testing.T) {
	t.Parallel()
	k := newKubernetes(t)
	f, changed := follow(t, k, crossplaneGroup("crossplane-system"))
	if f.isRead() || f.problem() == nil {
		t.Error("read before it was asked")
	}
	look(t, f)
	if !f.isRead() || f.problem() != nil || f.names(t, "ImageConfig") != nil || k.count(configsPath)+k.count(secretsPath) > 0 {
		t.Errorf("not served: %v, asked %v", f.problem(), k.asked)
	}

	k.serves(discoveredVia) // other kinds of the group
	look(t, f)
	if k.count(configsPath) > 0 {
		t.Error("read although it is not served")
	}

	k.set(func() {
		k.objects[configsPath] = []any{foreignConfig("v1beta1", "one")}
		k.objects[secretsPath] = []any{foreignSecret("s")}
	})
	k.serves(discoveredVia, "ImageConfig")
	look(t, f)
	eventually(t, "it is read", func() bool { return f.problem() == nil })
	<-changed
	if diff := cmp.Diff([]string{"one"}, f.names(t, "ImageConfig")); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]bool{"s": true, "t": false} {
		if secret, err := f.secret(t.Context(), name); err != nil || (secret != nil) != want {
			t.Errorf("secret %s: %v, %v", name, secret, err)
		}
	}

	k.set(func() { k.objects[configsPath] = append(k.objects[configsPath], foreignConfig("v1beta1", "two")) })
	eventually(t, "the other is read", func() bool { return len(f.names(t, "ImageConfig")) == 2 })
	<-changed

	// What fails changes nothing.
	k.set(func() { k.refuse[groupPath] = http.StatusInternalServerError })
	for range 3 {
		if err := f.look(t.Context()); err == nil {
			t.Error("no error")
		}
	}
	if n := len(f.names(t, "ImageConfig")); n != 2 || f.problem() != nil {
		t.Errorf("after a failure %d, %v", n, f.problem())
	}

	// It has to be gone twice.
	k.set(func() { delete(k.refuse, groupPath); delete(k.served, discoveredVia) })
	look(t, f)
	if n := len(f.names(t, "ImageConfig")); n != 2 || f.wait() != missing {
		t.Errorf("gone once: %d, looks again in %v", n, f.wait())
	}
	k.serves(discoveredVia, "ImageConfig")
	look(t, f)
	k.serves(discoveredVia)
	look(t, f)
	if n := len(f.names(t, "ImageConfig")); n != 2 {
		t.Errorf("gone once, and again: %d", n)
	}
	look(t, f)
	if n := f.names(t, "ImageConfig"); n != nil || f.wait() != lookFor || f.problem() != nil {
		t.Errorf("gone: %q, %v", n, f.problem())
	}
	<-changed
	if _, err := f.secret(t.Context(), "s"); err == nil {
		t.Error("its Secrets are still read")
	}
	f.running.Wait() // nothing is watched any more

	k.serves(discoveredVia, "ImageConfig")
	look(t, f)
	eventually(t, "it is read once more", func() bool { return len(f.names(t, "ImageConfig")) == 2 })
}

// Of what is served and may not be read it is not known that there is none.
func TestFollowerRefused(t *testing.T) {
	t.Parallel()
	k := newKubernetes(t)
	k.set(func() {
		k.objects[configsPath], k.objects[secretsPath] = []any{foreignConfig("v1beta1", "one")}, []any{}
		k.refuse[configsPath], k.refuse[secretsPath] = http.StatusForbidden, http.StatusForbidden
	})
	k.serves(discoveredVia, "ImageConfig")
	f, _ := follow(t, k, crossplaneGroup("crossplane-system"))
	look(t, f)
	eventually(t, "it says why", func() bool {
		return strings.Contains(fmt.Sprint(f.problem()), "ImageConfig.pkg.crossplane.io is served and not read: ") &&
			strings.Contains(fmt.Sprint(f.problem()), "no: "+configsPath)
	})
	eventually(t, "its Secrets are refused", func() bool {
		_, err := f.secret(t.Context(), "s")
		return err != nil && strings.Contains(err.Error(), "no: "+secretsPath)
	})
	if f.isRead() {
		t.Error("it counts as read")
	}
	k.set(func() { delete(k.refuse, configsPath) })
	eventually(t, "it is read", f.isRead)
	if err := f.problem(); err != nil {
		t.Error(err)
	}
	if _, err := f.secret(t.Context(), "s"); err == nil {
		t.Error("a Secret that may not be read does not exist")
	}
	k.set(func() { delete(k.refuse, secretsPath) })
	eventually(t, "its Secrets are read", func() bool { _, err := f.secret(t.Context(), "s"); return err == nil })
}

// Another version takes the place of the one that was read once it is read.
func TestFollowerVersions(t *testing.T) {
	t.Parallel()
	const older, newer = "/apis/pkg.crossplane.io/v1alpha1", "/apis/pkg.crossplane.io/v1beta1"
	k := newKubernetes(t)
	k.set(func() {
		k.objects[secretsPath] = []any{}
		k.objects[older+"/imageconfigs"] = []any{foreignConfig("v1alpha1", "older")}
		k.objects[older+"/others"] = []any{}
		k.objects[newer+"/imageconfigs"] = []any{foreignConfig("v1beta1", "newer")}
		k.refuse[newer+"/imageconfigs"] = http.StatusForbidden
	})
	k.serves("pkg.crossplane.io/v1alpha1", "ImageConfig", "Other")
	f, _ := follow(t, k, otherGroup{
		group: "pkg.crossplane.io", versions: []string{"v1beta1", "v1alpha1"}, namespace: "crossplane-system",
		kinds: map[string]string{"ImageConfig": "imageconfigs", "Other": "others"},
	})
	look(t, f)
	eventually(t, "the older is read", f.isRead)
	k.serves("pkg.crossplane.io/v1beta1", "ImageConfig")
	look(t, f)
	if diff := cmp.Diff([]string{"older"}, f.names(t, "ImageConfig")); diff != "" {
		t.Error(diff)
	}
	k.set(func() { delete(k.refuse, newer+"/imageconfigs") })
	eventually(t, "the newer is read", func() bool { return slices.Equal(f.names(t, "ImageConfig"), []string{"newer"}) })
	look(t, f)
	if n := k.count(newer + "/others"); n > 0 || f.problem() != nil {
		t.Errorf("asked %d times for what is served in the older only: %v", n, f.problem())
	}
}

// The rules of both kinds are in force, and only ours have a status.
func TestClusterCrossplane(t *testing.T) {
	t.Parallel()
	k := newKubernetes(t)
	k.set(func() {
		k.objects[configsPath], k.objects[secretsPath] = []any{foreignConfig("v1beta1", "acme")}, []any{}
		k.refuse[groupPath] = http.StatusServiceUnavailable
	})
	k.serves(discoveredVia, "ImageConfig")
	c := newTestCluster(t, &apiServer{configs: []unstructured.Unstructured{configObject("acme")}})
	c.crossplane, c.changed = follow(t, k, crossplaneGroup("crossplane-system"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	eventually(t, "it says that it is not known what is served", func() bool {
		return strings.Contains(fmt.Sprint(c.Ready()), "asking what is served in pkg.crossplane.io/v1beta1")
	})
	k.set(func() { delete(k.refuse, groupPath) })
	kinds := func() (kinds []string) {
		if c.Set() != nil {
			for _, rule := range c.Set().Rules() {
				kinds = append(kinds, rule.Kind+" "+rule.Name)
			}
		}
		return kinds
	}
	eventually(t, "both are in force", func() bool {
		return slices.Equal(kinds(), []string{"ImageConfig acme", "ImageConfig.pkg.crossplane.io acme"}) && c.Ready() == nil
	})
	for _, one := range *c.statuses.compiled.Load() {
		if one.Rule.Kind != "ImageConfig" {
			t.Errorf("a status is written of %s", one.Rule.Kind)
		}
	}
	k.set(func() { delete(k.served, discoveredVia) })
	eventually(t, "ours alone is in force", func() bool { return slices.Equal(kinds(), []string{"ImageConfig acme"}) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
