// Copyright The Pratique Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/maypok86/otter/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/pratique-dev/pratique/api/v1alpha1"
	"github.com/pratique-dev/pratique/registry/credential"
)

// apiServer has ImageConfigs, Secrets and ServiceAccounts, and counts how often it is asked.
type apiServer struct {
	cache.Cache // for the methods that nobody calls

	mutex       sync.Mutex // for what changes while it is asked
	configs     []unstructured.Unstructured
	secrets     map[client.ObjectKey]*corev1.Secret
	configMaps  map[client.ObjectKey]*corev1.ConfigMap
	accounts    map[client.ObjectKey]*corev1.ServiceAccount
	away        atomic.Bool // does not answer
	awayGets    atomic.Bool // does not answer about one object
	lists, gets atomic.Int32
}

// change changes what it has.
func (a *apiServer) change(how func()) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	how()
}

var errAway = errors.New("away")

func (a *apiServer) WaitForCacheSync(context.Context) bool { return true }

func (a *apiServer) List(_ context.Context, into client.ObjectList, _ ...client.ListOption) error {
	a.lists.Add(1)
	if a.away.Load() {
		return errAway
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	into.(*unstructured.UnstructuredList).Items = a.configs
	return nil
}

func (a *apiServer) Get(_ context.Context, key client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	a.gets.Add(1)
	if a.away.Load() || a.awayGets.Load() {
		return errAway
	}
	a.mutex.Lock()
	defer a.mutex.Unlock()
	switch into := into.(type) {
	case *corev1.Secret:
		if secret, ok := a.secrets[key]; ok {
			secret.DeepCopyInto(into)
			return nil
		}
	case *corev1.ConfigMap:
		if object, ok := a.configMaps[key]; ok {
			object.DeepCopyInto(into)
			return nil
		}
	case *corev1.ServiceAccount:
		if account, ok := a.accounts[key]; ok {
			account.DeepCopyInto(into)
			return nil
		}
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: "whatever"}, key.Name)
}

// forever is a cache without a clock, which a bubble of time could not end.
func forever[V any](t *testing.T) *otter.Cache[objectKey, V] {
	t.Helper()
	made, err := otter.New(&otter.Options[objectKey, V]{MaximumSize: maxKept})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func newTestCluster(t *testing.T, server *apiServer) *Cluster {
	t.Helper()
	return &Cluster{
		compiler:  Compiler{cluster: true, namespace: "pratique-system"},
		namespace: "pratique-system", cache: server, direct: server, secrets: forever[pullSecret](t), accounts: forever[account](t),
		changed:  make(chan struct{}, 1),
		told:     make(chan struct{}, 1),
		statuses: &statuses{leads: func() bool { return false }},
	}
}

// configObject is an ImageConfig whose Secret is missing.
func configObject(name string) unstructured.Unstructured {
	object := imageConfig()
	object.SetName(name)
	object.Object["spec"] = map[string]any{
		"matchImages": []any{map[string]any{"prefix": "registry1.com/"}},
		"verification": map[string]any{"provider": "Cosign", "cosign": map[string]any{"authorities": []any{
			map[string]any{"name": "a", "key": map[string]any{"secretRef": map[string]any{"name": "absent", "key": "k"}}},
		}}},
	}
	return *object
}

// Only what could compile to something else is compiled again.
func TestClusterHandler(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, &apiServer{})
	object := func(uid types.UID, generation int64, version string) *unstructured.Unstructured {
		o := imageConfig()
		o.SetUID(uid)
		o.SetGeneration(generation)
		o.SetResourceVersion(version)
		return o
	}
	configs, secrets := handler(respecified, c.again), handler(rewritten, c.again)
	before := object("a", 1, "1")
	for name, test := range map[string]struct {
		event func()
		asks  bool
	}{
		"config, new":                   {func() { configs.OnAdd(before, true) }, true},
		"config, gone":                  {func() { configs.OnDelete(before) }, true},
		"config, gone unseen":           {func() { configs.OnDelete(toolscache.DeletedFinalStateUnknown{}) }, true},
		"config, spec":                  {func() { configs.OnUpdate(before, object("a", 2, "2")) }, true},
		"config, status":                {func() { configs.OnUpdate(before, object("a", 1, "2")) }, false},
		"config, nothing":               {func() { configs.OnUpdate(before, object("a", 1, "1")) }, false},
		"config, another of its name":   {func() { configs.OnUpdate(before, object("b", 1, "2")) }, true},
		"config, something else at all": {func() { configs.OnUpdate(before, 1) }, true},
		"secret, new":                   {func() { secrets.OnAdd(before, false) }, true},
		"secret, gone":                  {func() { secrets.OnDelete(before) }, true},
		"secret, written":               {func() { secrets.OnUpdate(before, object("a", 1, "2")) }, true},
		"secret, nothing":               {func() { secrets.OnUpdate(before, object("a", 1, "1")) }, false},
	} {
		test.event()
		select {
		case <-c.changed:
			if !test.asks {
				t.Errorf("%s: a compilation was asked for", name)
			}
		default:
			if test.asks {
				t.Errorf("%s: no compilation was asked for", name)
			}
		}
	}
}

// start runs a Cluster and returns what stops it.
func start(t *testing.T, c *Cluster) (cancel func(), ended chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended = make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	synctest.Wait()
	return cancel, ended
}

// A burst of changes is compiled once, and what fails is tried again.
func TestClusterStart(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{configs: []unstructured.Unstructured{configObject("acme")}}
		c := newTestCluster(t, server)
		cancel, ended := start(t, c)
		if n := server.lists.Load(); n != 1 || len(*c.compiled.Load()) != 1 || c.Ready() != nil {
			t.Fatalf("compiled %d times at the start", n)
		}
		for range 5 {
			c.again()
			time.Sleep(collect / 10)
		}
		time.Sleep(time.Minute)
		if n := server.lists.Load(); n != 2 {
			t.Errorf("a burst was compiled %d times", n-1)
		}
		last := c.Set()
		server.away.Store(true)
		c.again()
		time.Sleep(2 * collect)
		server.away.Store(false)
		if c.Set() != last {
			t.Error("the last good rules are not in force")
		}
		time.Sleep(retryAfter + collect)
		if c.Set() == last {
			t.Error("what failed was not tried again")
		}
		c.again()
		synctest.Wait()
		began := time.Now()
		cancel()
		if err := <-ended; err != nil || time.Since(began) > 0 {
			t.Errorf("Start ended after %v: %v", time.Since(began), err)
		}
	})
}

// A Secret that could not be read is read again, although nothing changed.
func TestClusterReadsAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		server := &apiServer{configs: []unstructured.Unstructured{configObject("acme")}}
		server.awayGets.Store(true)
		c := newTestCluster(t, server)
		cancel, ended := start(t, c)
		if reason := (*c.compiled.Load())[0].Reason; reason != v1alpha1.ReasonReadFailed {
			t.Errorf("reason %q", reason)
		}
		server.awayGets.Store(false)
		time.Sleep(time.Minute)
		if reason := (*c.compiled.Load())[0].Reason; reason != v1alpha1.ReasonSecretNotFound {
			t.Errorf("later, reason %q", reason)
		}
		if n := server.lists.Load(); n != 2 {
			t.Errorf("compiled %d times", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// No status is written once Start has ended.
func TestClusterStartWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := newTestCluster(t, &apiServer{})
		writing := make(chan struct{})
		c.statuses.leads = func() bool { <-writing; return false }
		cancel, ended := start(t, c)
		time.Sleep(2 * lookAgain)
		cancel()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Errorf("Start ended while statuses were written: %v", err)
		default:
		}
		close(writing)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// In a cluster the message says where to read more, and which namespace the
// Secret is missed in.
func TestClusterMessage(t *testing.T) {
	t.Parallel()
	c := newTestCluster(t, &apiServer{configs: []unstructured.Unstructured{configObject("acme")}})
	if err := c.compile(t.Context()); err != nil {
		t.Fatal(err)
	}
	message := c.Set().Rules()[0].Verification.Fixed.Message
	for _, want := range []string{
		`secret "absent" does not exist in Pratique's namespace "pratique-system" (set by --namespace)`,
		"; see: kubectl describe imageconfigs.pratique.dev acme",
	} {
		if !strings.Contains(message, want) {
			t.Errorf("%q is not in %q", want, message)
		}
	}
}

// Of a Pod's Secret its credentials are kept, or what is wrong with it.
func TestClusterPodSecret(t *testing.T) {
	t.Parallel()
	secret := func(kind corev1.SecretType, content string) *corev1.Secret {
		return &corev1.Secret{Type: kind, Data: map[string][]byte{credential.KeyDockerConfigJSON: []byte(content), "other": []byte("private")}}
	}
	server := &apiServer{secrets: map[client.ObjectKey]*corev1.Secret{
		{Namespace: "shop", Name: "good"}:      secret(credential.TypeDockerConfigJSON, `{"auths":{"a.io":{"username":"u","password":"p"}}}`),
		{Namespace: "shop", Name: "opaque"}:    secret("Opaque", `{"auths":{"a.io":{"username":"u","password":"p"}}}`),
		{Namespace: "shop", Name: "endless"}:   secret(corev1.SecretType(strings.Repeat("x", 1<<20)), "{}"),
		{Namespace: "shop", Name: "malformed"}: secret(credential.TypeDockerConfigJSON, "hunter2"),
	}}
	c := newTestCluster(t, server)
	read := func(name string) (users []string, warnings, problem string) {
		found := c.Credentials(credential.Names{Namespace: "shop", PullSecrets: []string{name}})
		ring, err := found.Ring(t.Context())
		for _, auth := range ring.For(t.Context(), "a.io/x") {
			users = append(users, auth.Username)
		}
		if err != nil {
			problem = err.Error()
		}
		return users, strings.Join(found.Warnings(), "\n"), problem
	}
	for name, want := range map[string]struct {
		users             []string
		warnings, problem string
	}{
		"good":      {users: []string{"u"}},
		"opaque":    {warnings: `pull secret "opaque" does not exist, or is not of the type kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg`},
		"endless":   {warnings: `pull secret "endless" does not exist, or`},
		"malformed": {problem: `reading pull secret "malformed": not a Docker configuration`},
		"absent":    {warnings: `pull secret "absent" does not exist`},
	} {
		server.gets.Store(0)
		for range 3 {
			users, warnings, problem := read(name)
			if diff := cmp.Diff(want.users, users); diff != "" || !strings.Contains(warnings, want.warnings) ||
				!strings.Contains(problem, want.problem) || len(warnings) > 500 || strings.Contains(problem, "hunter2") {
				t.Errorf("%s: credentials of %q, warnings %q, problem %q", name, users, warnings, problem)
			}
		}
		if n := server.gets.Load(); n != 1 {
			t.Errorf("%s: the API server was asked %d times", name, n)
		}
	}
	// What it does not answer is not kept.
	server.away.Store(true)
	if _, _, problem := read("later"); !strings.Contains(problem, "asking the API server: away") {
		t.Errorf("problem %q", problem)
	}
	server.away.Store(false)
	if _, warnings, problem := read("later"); problem != "" || !strings.Contains(warnings, "does not exist") {
		t.Errorf("warnings %q, problem %q", warnings, problem)
	}
}

// A ServiceAccount is asked for when credentials are needed, and then kept as
// Secrets are.
func TestClusterServiceAccount(t *testing.T) {
	t.Parallel()
	server := &apiServer{
		secrets: map[client.ObjectKey]*corev1.Secret{
			{Namespace: "shop", Name: "pull"}: {Type: credential.TypeDockercfg, Data: map[string][]byte{
				credential.KeyDockercfg: []byte(`{"a.io":{"username":"u","password":"p"}}`),
			}},
		},
		accounts: map[client.ObjectKey]*corev1.ServiceAccount{
			{Namespace: "shop", Name: "robot"}:  {ImagePullSecrets: []corev1.LocalObjectReference{{Name: "pull"}, {}, {Name: "absent"}}},
			{Namespace: "other", Name: "robot"}: {ImagePullSecrets: []corev1.LocalObjectReference{{Name: "theirs"}}},
		},
	}
	c := newTestCluster(t, server)
	for range 3 {
		source := c.Credentials(credential.Names{Namespace: "shop", ServiceAccount: "robot"})
		if before := server.gets.Load(); before != 0 && before != 3 {
			t.Errorf("asked %d times before credentials were needed", before)
		}
		ring, err := source.Ring(t.Context())
		if err != nil || len(ring.For(t.Context(), "a.io/x")) != 1 || ring.For(t.Context(), "a.io/x")[0].Username != "u" {
			t.Errorf("credentials %v, %v", ring, err)
		}
		if warned := strings.Join(source.Warnings(), "\n"); !strings.Contains(warned, `pull secret "absent" does not exist`) || strings.Contains(warned, "robot") {
			t.Errorf("warnings %q", warned)
		}
	}
	if n := server.gets.Load(); n != 3 {
		t.Errorf("the API server was asked %d times, want one ServiceAccount and two Secrets", n)
	}
	missing := c.Credentials(credential.Names{Namespace: "shop", ServiceAccount: "default"})
	if _, err := missing.Ring(t.Context()); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{`ServiceAccount "default" does not exist`}, missing.Warnings()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	// What it does not answer is unknown, and not kept.
	server.away.Store(true)
	names := credential.Names{Namespace: "other", ServiceAccount: "robot"}
	if _, err := c.Credentials(names).Ring(t.Context()); err == nil || !strings.Contains(err.Error(), `reading ServiceAccount "robot": asking the API server: away`) {
		t.Errorf("error %v", err)
	}
	server.away.Store(false)
	if _, err := c.Credentials(names).Ring(t.Context()); err != nil {
		t.Error(err)
	}
}

// What is kept of other people's objects is forgotten in time for a change to be
// in force within 5 s.
func TestClusterKeeps(t *testing.T) {
	t.Parallel()
	server := &apiServer{accounts: map[client.ObjectKey]*corev1.ServiceAccount{}}
	c := newTestCluster(t, server)
	var err error
	if c.accounts, err = newKept[account](); err != nil {
		t.Fatal(err)
	}
	if got, err := c.account(t.Context(), "shop", "robot"); err != nil || !got.missing {
		t.Fatalf("got %v, %v", got, err)
	}
	if entry, ok := c.accounts.GetEntry(objectKey{"shop", "robot"}); !ok || entry.ExpiresAfter() >= 5*time.Second {
		t.Errorf("kept %t for %s", ok, entry.ExpiresAfter())
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for most := 3; most < 12; most++ {
		got := clip("äöü€äöü", most)
		if len(got) > most || !utf8.ValidString(got) || !strings.HasSuffix(got, "…") {
			t.Errorf("clip to %d: %q", most, got)
		}
	}
	if got := clip("äöü", 6); got != "äöü" {
		t.Errorf("got %q", got)
	}
}
